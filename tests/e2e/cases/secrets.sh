# shellcheck shell=bash
# Whose keys open a model: the pod's own, however many other pods of the node have it.

# The model is in the cache and mounted for a pod beside them; that gives no other pod a right.
case_secrets_are_asked_for() {
	local MODEL_OF_POD=s3://private/weights pod secret
	namespace
	release
	random_model "$MODEL_OF_POD" 20
	user stranger
	user lister
	secret stranger stranger stranger-secret
	secret lister lister lister-secret
	# Who may list a model knows all that the node needs to find it in the cache; unless it has an empty file, for which the
	# listing alone asks more.
	policy private "$(allow lister s3:ListBucket)"
	S3_KEY=lister S3_SECRET=lister-secret s3 ls "$MODEL_OF_POD/model.safetensors"
	secret misspelt "$S3_KEY" misspelt
	secret half "$S3_KEY" ''
	pod owner "$(inline)"
	ready pod/owner

	pod nobody "$(inline | sed '/nodePublishSecretRef/d')"
	for pod in stranger lister misspelt half missing; do pod "$pod" "$(inline | sed "s/s3-reader/$pod/")"; done
	refused_pod nobody "code = Unauthenticated" "refuses anonymous access; give a Secret" nodePublishSecretRef
	refused_pod stranger "code = PermissionDenied" "knows these credentials and refuses; they need s3:ListBucket"
	refused_pod lister "code = PermissionDenied" "knows these credentials and refuses; they need" s3:GetObject
	refused_pod misspelt "code = Unauthenticated" "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	refused_pod half "code = Unauthenticated" "only half of an S3 key pair"
	refused_pod missing 'secrets "missing" not found' # which are kubelet's words

	# Whoever has the right by now has the volume, with no more than waiting.
	secret misspelt "$S3_KEY" "$S3_SECRET"
	policy private "$(allow stranger s3:ListBucket s3:GetObject)" "$(allow lister s3:ListBucket s3:GetObject)"
	ready pod/misspelt pod/stranger pod/lister
	for pod in owner misspelt stranger lister; do has_random_model "$pod"; done
	# No secret is told to anybody.
	for pod in nobody stranger lister misspelt; do events "$pod"; done >"$WORK/told"
	logs_of_release >>"$WORK/told"
	for secret in "$S3_SECRET" stranger-secret lister-secret; do lacks "$secret" cat "$WORK/told"; done
}

# refused_pod POD TEXT...: until one of its events has all these texts. It must not have been given anything.
refused_pod() {
	until_true 60 "an event of $1 that has: ${*:2}" told "$@" || {
		events "$1"
		return 1
	}
	[[ $(mounts_of "$1") == 0 ]]
	[[ $(kubectl --namespace "$NAMESPACE" get pod "$1" --output jsonpath='{.status.phase}') == Pending ]]
}

# secret NAME KEY SECRET: keys of S3; an empty one is left out.
secret() {
	kubectl --namespace "$NAMESPACE" create secret generic "$1" --dry-run=client --output yaml \
		--from-literal=AWS_ACCESS_KEY_ID="$2" ${3:+--from-literal=AWS_SECRET_ACCESS_KEY="$3"} |
		kubectl apply --namespace "$NAMESPACE" --filename -
}

# user NAME: somebody whom the model's server knows, and who may read nothing.
user() { s3_admin create-user --access "$1" --secret "$1-secret" --role user; }

s3_admin() { versitygw admin --access "$S3_KEY" --secret "$S3_SECRET" --endpoint-url "$S3_ENDPOINT" "$@"; }

# allow USER ACTION...: what the user may do, for `policy`.
allow() { jq --null-input --compact-output '{user: $ARGS.positional[0], actions: $ARGS.positional[1:]}' --args "$@"; }

# policy BUCKET ALLOWED...: who may do what with all that is in it, beside its owner. Each action is either on the bucket
# or on its objects.
policy() {
	local bucket=$1
	shift
	jq --null-input --arg bucket "arn:aws:s3:::$bucket" '{Version: "2012-10-17", Statement: [
		($ARGS.positional[] | fromjson) as $allowed | $allowed.actions[] |
		{Effect: "Allow", Principal: {AWS: [$allowed.user]}, Action: [.],
			Resource: [if . == "s3:ListBucket" then $bucket else "\($bucket)/*" end]}]}' --args "$@" >"$WORK/policy"
	curl --silent --show-error --fail-with-body --user "$S3_KEY:$S3_SECRET" --aws-sigv4 "aws:amz:$S3_REGION:s3" \
		--header "x-amz-content-sha256: $(sha256sum <"$WORK/policy" | cut -d ' ' -f 1)" \
		--upload-file "$WORK/policy" "$S3_ENDPOINT/$bucket?policy=" # older versions of curl sign no other form
}

# shellcheck shell=bash
# Whose keys open a model: the pod's own, however many other pods of the node have it.

# The model is in the cache and mounted for a pod beside them; that gives no other pod a right.
case_secrets_are_asked_for() {
	local MODEL_OF_POD=s3://private/tiny pod
	namespace
	release
	put_model "$MODEL_OF_POD"
	user stranger
	secret stranger stranger stranger-secret
	secret misspelt "$S3_KEY" misspelt
	secret half "$S3_KEY" ''
	pod owner "$(inline)"
	ready pod/owner

	pod nobody "$(inline | sed '/nodePublishSecretRef/d')"
	for pod in stranger misspelt half missing; do pod "$pod" "$(inline | sed "s/s3-reader/$pod/")"; done
	refused_pod nobody "code = Unauthenticated" "refuses anonymous access; give a Secret" nodePublishSecretRef
	refused_pod stranger "code = PermissionDenied" "knows these credentials and refuses; they need s3:ListBucket"
	refused_pod misspelt "code = Unauthenticated" "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
	refused_pod half "code = Unauthenticated" "only half of an S3 key pair"
	refused_pod missing 'secrets "missing" not found' # which are kubelet's words

	# Whoever has the right by now has the volume, with no more than waiting.
	secret misspelt "$S3_KEY" "$S3_SECRET"
	allow_reading stranger private
	verify owner
	ready pod/misspelt pod/stranger
	verify misspelt
	verify stranger
	# No secret is told to anybody.
	if { logs_of_release; events nobody; events stranger; events misspelt; } |
		grep -e "$S3_SECRET" -e stranger-secret; then return 1; fi
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

# allow_reading USER BUCKET: all that is in it.
allow_reading() {
	jq --null-input --arg user "$1" --arg bucket "$2" '{Version: "2012-10-17", Statement: [
		{Effect: "Allow", Principal: {AWS: [$user]}, Action: ["s3:ListBucket"], Resource: ["arn:aws:s3:::\($bucket)"]},
		{Effect: "Allow", Principal: {AWS: [$user]}, Action: ["s3:GetObject"], Resource: ["arn:aws:s3:::\($bucket)/*"]}]}' >"$WORK/policy"
	curl --silent --show-error --fail-with-body --user "$S3_KEY:$S3_SECRET" --aws-sigv4 "aws:amz:$S3_REGION:s3" \
		--header "x-amz-content-sha256: $(sha256sum <"$WORK/policy" | cut -d ' ' -f 1)" \
		--upload-file "$WORK/policy" "$S3_ENDPOINT/$2?policy=" # older versions of curl sign no other form
}

# shellcheck shell=bash
# What the external provisioner makes of claims: volumes, or events that say what is wrong.
#
# shellcheck disable=SC2016 # ${pvc.…} is for the controller, and nothing that the shell should replace

case_claim_is_pinned() {
	local uri=s3://models/pinned size
	namespace
	put_model "$uri"
	release --set-json "storageClasses=[
		$(class_with pinned ".modelUri = \"$uri\""),
		$(class_with following ".modelUri = \"$uri\" | .parameters.pinRevision = \"false\""),
		$(class_with small ".modelUri = \"$uri\" | .parameters.ignoreCapacity = \"true\"")]"
	claim_with pinned pinned
	claim_with following following
	claim_with small small '.spec.resources.requests.storage = "1Mi"'
	bound pinned following small

	resolve "$uri" >"$WORK/resolved"
	[[ $(volume_of pinned .spec.csi.volumeAttributes.pin) == "$(jq -r .id "$WORK/resolved")" ]]
	[[ $(volume_of following .spec.csi.volumeAttributes.pin) == null ]]
	[[ $(volume_of pinned .spec.capacity.storage) == 1Gi ]]
	size=$(volume_of small .spec.capacity.storage)
	[[ $size == "$(jq -r .bytes "$WORK/resolved")" ]]

	pod reader "$(claimed pinned)"
	ready pod/reader
	verify reader
	# The class's parameters that are for the controller alone are no attributes of the volume.
	[[ $(volume_of small '.spec.csi.volumeAttributes | has("ignoreCapacity")') == false ]]

	echo '{"architectures": ["Other"]}' | s3 pipe "$uri/config.json"
	pod late "$(claimed pinned)"
	pod follower "$(claimed following)"
	ready pod/follower
	[[ $(kubectl --namespace "$NAMESPACE" exec follower -- cat /model/config.json) == *Other* ]]
	until_true 60 "an event that tells of the change" told late "$uri is pinned to" "by now"
	[[ $(kubectl --namespace "$NAMESPACE" get pod late --output jsonpath='{.status.phase}') == Pending ]]
	verify reader
	# With the model back in its place the volume is what it was, if the server's versions are of the content.
	s3 cp "$MODEL/config.json" "$uri/config.json"
	ready pod/late
	verify late
}

# The caches of the nodes are not the volume's.
case_deleted_claim_leaves_the_cache() {
	local before
	no_volumes_left
	namespace
	release --set-json "storageClasses=[$(class_with kept)]"
	claim_with first kept
	pod first "$(claimed first)"
	ready pod/first
	kubectl --namespace "$NAMESPACE" delete pod first --wait
	kubectl --namespace "$NAMESPACE" delete pvc first --wait
	until_true 30 "the end of the PersistentVolume" volumes_are 0
	before=$(downloads)

	claim_with second kept
	pod second "$(claimed second)"
	ready pod/second
	verify second
	[[ -n $before && $(downloads) == "$before" ]]
}

case_annotations_name_the_model() {
	local key='.metadata.annotations["modelmount.io/model"]'
	namespace
	put_model "s3://models/$NAMESPACE/mine"
	release --set-json "storageClasses=[
		$(class_with family '.modelUri = "s3://models/${pvc.namespace}/${pvc.annotations[\u0027modelmount.io/model\u0027]}" |
			.parameters.allowedUris = "s3://models/${pvc.namespace}/mine, s3://models/${pvc.namespace}/public"'),
		$(class_with anywhere '.modelUri = "${pvc.annotations[\u0027modelmount.io/model\u0027]}" |
			.parameters.allowedUris = "s3://models/${pvc.namespace}"')]"
	claim_with right family "$key = \"mine\""
	claim_with whole anywhere "$key = \"s3://models/$NAMESPACE/mine\""
	claim_with other family "$key = \"private\""
	claim_with up family "$key = \"../tiny\""
	claim_with elsewhere anywhere "$key = \"$MODEL_URI\""
	claim_with silent family
	refused other "does not allow s3://models/$NAMESPACE/private"
	refused up modelmount.io/model '".."'
	refused elsewhere "does not allow $MODEL_URI" "s3://models/$NAMESPACE"
	refused silent 'no annotation "modelmount.io/model"'
	# Whoever writes the claim can put it right.
	kubectl --namespace "$NAMESPACE" annotate pvc silent modelmount.io/model=mine
	bound right whole silent
	[[ $(volume_of right .spec.csi.volumeAttributes.modelUri) == "s3://models/$NAMESPACE/mine" ]]
	pod reader "$(claimed right)"
	ready pod/reader
	verify reader
}

# Whatever is wrong with a class or a claim, the claim's events say what, by name.
case_wrong_claims() {
	local class
	namespace
	kubectl --namespace "$NAMESPACE" create secret generic wrong-keys \
		--from-literal=AWS_ACCESS_KEY_ID="$S3_KEY" --from-literal=AWS_SECRET_ACCESS_KEY=wrong
	release --set-json "storageClasses=[
		$(class_with right),
		$(class_with unknown '.parameters.colour = "blue"'),
		$(class_with odd-value '.parameters.pinRevision = "maybe"'),
		$(class_with odd-variable '.modelUri = "s3://models/${pvc.label}"'),
		$(class_with unbounded '.modelUri = "${pvc.annotations[\u0027a\u0027]}"'),
		$(class_with no-bucket '.modelUri = "s3://no-such-bucket/m"'),
		$(class_with no-path '.modelUri = "s3://models/no-such-path"'),
		$(class_with no-such-secret '.secret.name = "no-such-secret"'),
		$(class_with no-secret 'del(.secret)'),
		$(class_with wrong-keys '.secret.name = "wrong-keys"')]"
	for class in unknown odd-value odd-variable unbounded no-bucket no-path no-such-secret no-secret wrong-keys; do
		claim_with "$class" "$class"
	done
	claim_with too-small right '.spec.resources.requests.storage = "38Mi"'
	claim_with written right '.spec.accessModes = ["ReadWriteMany"]'
	claim_with block right '.spec.volumeMode = "Block"'
	claim_with clone right '.spec.dataSource = {kind: "PersistentVolumeClaim", name: "too-small"}'

	refused unknown colour
	refused odd-value pinRevision '"false"'
	refused odd-variable '${pvc.label}' '${pvc.namespace}'
	refused unbounded allowedUris
	refused no-bucket s3://no-such-bucket/m
	refused no-path s3://models/no-such-path
	refused no-such-secret 'secrets "no-such-secret"'
	refused no-secret "names no Secret" csi.storage.k8s.io/provisioner-secret-name
	refused wrong-keys "$MODEL_URI"
	refused too-small OutOfRange "request storage: 39Mi"
	refused written ReadOnlyMany
	refused block "volumeMode: Filesystem"
	refused clone clone
	[[ $(own_volumes) == 0 ]]
}

# How many volumes there are for claims of the case.
own_volumes() {
	kubectl get persistentvolumes --output json |
		jq --arg namespace "$NAMESPACE" '[.items[] | select(.spec.claimRef.namespace == $namespace)] | length'
}

# ------------------------------------------------------------- classes and claims

# class_with NAME [FILTER]: one of the chart's storageClasses, changed by a filter of jq. Names must not be used by another
# case: what a class once says, it can't unsay.
class_with() {
	jq --null-input --compact-output --arg name "$1" --arg namespace "$NAMESPACE" --arg uri "$MODEL_URI" --arg endpoint "$S3_ENDPOINT" \
		"{\$name, modelUri: \$uri, parameters: {\$endpoint}, secret: {name: \"s3-reader\", \$namespace}} | ${2:-.}"
}

# claims_with COUNT NAME CLASS [FILTER]: claims NAME-0, NAME-1 and so on, changed by a filter of jq.
claims_with() {
	jq --null-input --argjson count "$1" --arg name "$2" --arg class "$3" '{apiVersion: "v1", kind: "List", items: [range($count) | {
		apiVersion: "v1", kind: "PersistentVolumeClaim", metadata: {name: "\($name)-\(.)"},
		spec: {storageClassName: $class, accessModes: ["ReadOnlyMany"], resources: {requests: {storage: "1Gi"}}}} | '"${4:-.}]}" |
		kubectl --namespace "$NAMESPACE" create --validate=ignore --filename - >/dev/null
}

# claim_with NAME CLASS [FILTER]
claim_with() { claims_with 1 "$1" "$2" ".metadata.name = \"$1\" | ${3:-.}"; }

# claimed CLAIM: the volume of a pod that has it.
claimed() { echo "persistentVolumeClaim: {claimName: $1, readOnly: true}"; }

# bound CLAIM...: until all of them are.
bound() {
	kubectl --namespace "$NAMESPACE" wait --for=jsonpath='{.status.phase}'=Bound --timeout 60s "${@/#/pvc/}"
}

# volume_of CLAIM FILTER: what its PersistentVolume says.
volume_of() {
	kubectl get pv "$(kubectl --namespace "$NAMESPACE" get pvc "$1" --output jsonpath='{.spec.volumeName}')" --output json | jq -r "$2"
}

# Whoever counts volumes begins with none: those of the case before may be on their way out.
no_volumes_left() { until_true 120 "the end of the volumes of other cases" volumes_are 0; }

# volumes_are COUNT: whether there are so many. Only one is read, however many there are.
volumes_are() {
	[[ $(kubectl get --raw '/api/v1/persistentvolumes?limit=1' | jq '(.items | length) + (.metadata.remainingItemCount // 0)') == "$1" ]]
}

# refused CLAIM TEXT...: until one of its events has all these texts. It must not have got a volume.
refused() {
	until_true 60 "an event of $1 that has: ${*:2}" told "$@" || {
		events "$1"
		return 1
	}
	[[ $(kubectl --namespace "$NAMESPACE" get pvc "$1" --output jsonpath='{.status.phase}') == Pending ]]
}

# told OBJECT TEXT...: whether one of its events has all these texts.
told() {
	local lines text
	lines=$(events "$1")
	shift
	for text in "$@"; do lines=$(grep --fixed-strings -- "$text" <<<"$lines") || return 1; done
}

# resolve URI: what `modelmount resolve` says of it, as JSON.
resolve() {
	jq --null-input --arg image "$OWN_IMAGE" --arg uri "$1" --arg endpoint "$S3_ENDPOINT" '{apiVersion: "v1", kind: "Pod",
		metadata: {name: "resolve"}, spec: {restartPolicy: "Never", automountServiceAccountToken: false,
		securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: "RuntimeDefault"}},
		containers: [{name: "main", image: $image, imagePullPolicy: "Never",
			args: ["resolve", "--output=json", "--log-level=error", "--attribute=endpoint=\($endpoint)", $uri],
			envFrom: [{secretRef: {name: "s3-reader"}}],
			securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}}]}}' |
		kubectl --namespace "$NAMESPACE" apply --filename - >&2
	kubectl --namespace "$NAMESPACE" wait --for=jsonpath='{.status.phase}'=Succeeded --timeout 60s pod/resolve >&2
	kubectl --namespace "$NAMESPACE" logs resolve
}

# shellcheck shell=bash
# Each way by which a pod gets a model.

case_inline_volume() {
	namespace
	release
	reader "$(MODEL_OF_POD=$REAL_MODEL_URI inline)"
	# Read-only, also for a program that tries; and not only since the pod has asked for that.
	kubectl --namespace "$NAMESPACE" exec reader -- sh -c '! touch /model/new && ! rm /model/config.json'
	[[ $(mount_options reader) == ro,* ]]
	serves reader
}

# mount_options POD: those that the driver gave the pod's one volume.
mount_options() {
	local uid
	uid=$(kubectl --namespace "$NAMESPACE" get pod "$1" --output jsonpath='{.metadata.uid}')
	awk -v below="$KUBELET_DIR/pods/$uid/volumes/kubernetes.io~csi/" 'index($5, below) == 1 { print $6 }' /proc/self/mountinfo
}

# reader VOLUME: a pod that uses the real model, from this volume.
reader() {
	IMAGE_OF_POD=$READER_IMAGE pod reader "$1"
	ready pod/reader
	serves reader
}

case_two_pods_share_one_copy() {
	local files
	namespace
	release
	pod one "$(inline)"
	pod two "$(inline)"
	ready pod/one pod/two
	verify one
	verify two
	# The same file of the same file system, not a copy.
	files=$(for name in one two; do
		kubectl --namespace "$NAMESPACE" exec "$name" -- stat -c %d:%i /model/model.safetensors || exit 1
	done)
	[[ $(sort <<<"$files" | uniq --count) == *" 2 "* ]]
}

# Ten pods at once: the bytes of one download, ten mounts, one copy.
case_ten_replicas() {
	local uri=s3://models/replicas before pods name
	namespace
	release
	serve_slowly 9010 8m
	random_model "$uri" 40
	before=$(downloads)
	deployment servers 10 "$(MODEL_OF_POD=$uri S3_ENDPOINT=$SLOW inline)"
	kubectl --namespace "$NAMESPACE" rollout status deployment/servers --timeout 90s
	[[ $(($(downloads) - before)) == 40000000 ]]
	until_true 10 "the log of all requests" slowly_sent_is "${uri#s3:/}" 40000000 || {
		cat "$SLOW_LOG"
		return 1
	}

	mapfile -t pods < <(kubectl --namespace "$NAMESPACE" get pods --output name)
	((${#pods[@]} == 10))
	(($(mounts_of servers) == 10))
	for name in "${pods[@]}"; do
		kubectl --namespace "$NAMESPACE" exec "$name" -- sh -c 'stat -c %d:%i /model/model.safetensors; sha256sum /model/model.safetensors' || exit 1
	done | sort -u >"$WORK/replicas"
	# The same file of the same file system, not a copy; and the right one.
	[[ $(grep -c -v ' ' "$WORK/replicas") == 1 ]]
	[[ $(grep ' ' "$WORK/replicas") == "$(sha256sum <"$WORK/random/model.safetensors" | cut -d ' ' -f 1)  /model/model.safetensors" ]]
}

slowly_sent_is() { [[ $(slowly_sent "$1") == "$2" ]]; }

case_storage_class() {
	namespace
	release --set-json "storageClasses=[$(class minilm s3-reader "$REAL_MODEL_URI")]"
	claim minilm minilm
	reader 'persistentVolumeClaim: {claimName: minilm, readOnly: true}'
	kubectl --namespace "$NAMESPACE" delete pod reader --wait
	kubectl --namespace "$NAMESPACE" delete pvc minilm --wait
	until_true 30 "the end of the PersistentVolume" no_volumes
}

# class NAME SECRET [MODEL_URI] [ALLOWED_URIS]: one of the chart's storageClasses.
class() {
	jq --null-input --compact-output --arg name "$1" --arg secret "$2" --arg uri "${3:-$MODEL_URI}" --arg allowed "${4:-}" \
		--arg namespace "$NAMESPACE" --arg endpoint "$S3_ENDPOINT" \
		'{$name, modelUri: $uri, parameters: ({$endpoint} + if $allowed == "" then {} else {allowedUris: $allowed} end),
		  secret: {name: $secret, $namespace}}'
}

no_volumes() { prints_nothing kubectl get persistentvolumes --output name; }

# claim NAME CLASS [ANNOTATION VALUE]
claim() {
	kubectl --namespace "$NAMESPACE" apply --filename - <<-YAML
		apiVersion: v1
		kind: PersistentVolumeClaim
		metadata: {name: $1, annotations: {${3:+"$3": "$4"}}}
		spec:
		  storageClassName: $2
		  accessModes: [ReadOnlyMany]
		  resources: {requests: {storage: 1Gi}}
	YAML
}

case_static_volume() {
	namespace
	release
	kubectl apply --filename - <<-YAML
		apiVersion: v1
		kind: PersistentVolume
		metadata: {name: $NAMESPACE}
		spec:
		  capacity: {storage: 1Gi}
		  accessModes: [ReadOnlyMany]
		  persistentVolumeReclaimPolicy: Retain
		  storageClassName: ""
		  claimRef: {namespace: $NAMESPACE, name: fixed}
		  csi:
		    driver: csi.modelmount.io
		    volumeHandle: fixed
		    readOnly: true
		    nodePublishSecretRef: {name: s3-reader, namespace: $NAMESPACE}
		    volumeAttributes: {modelUri: "$REAL_MODEL_URI", endpoint: "$S3_ENDPOINT"}
	YAML
	claim fixed '""'
	reader 'persistentVolumeClaim: {claimName: fixed, readOnly: true}'
	kubectl --namespace "$NAMESPACE" delete pod reader --wait
	kubectl delete pv "$NAMESPACE" --wait=false
}

# A base and its adapter, from two places, in one volume.
case_several_models() {
	local models="[{\"uri\": \"$REAL_MODEL_URI\", \"path\": \"base\"}, {\"uri\": \"$MODEL_URI\", \"path\": \"adapters/a\"}]"
	namespace
	release
	IMAGE_OF_POD=$READER_IMAGE pod reader "$(inline "modelUris: '$models'" | sed '/modelUri:/d')"
	ready pod/reader
	serves reader /model/base
	verify reader "$NAMESPACE" /model/adapters/a
	[[ $(kubectl --namespace "$NAMESPACE" exec reader -- sh -c 'cd /model && echo * adapters/*') == "adapters base adapters/a" ]]
}

# A part of a model: a directory, and a single file.
case_sub_path() {
	namespace
	release
	pod_manifest reader "$(inline)" | kubectl --namespace "$NAMESPACE" create --dry-run=client --output json --filename - |
		jq '.spec.containers[0].volumeMounts |= [.[0] | (.mountPath = "/tokenizer" | .subPath = "tokenizer"),
			(.mountPath = "/config.json" | .subPath = "config.json")]' |
		kubectl --namespace "$NAMESPACE" apply --filename -
	ready pod/reader
	kubectl --namespace "$NAMESPACE" exec reader -- cat /tokenizer/tokenizer.json /config.json >"$WORK/parts"
	cat "$MODEL/tokenizer/tokenizer.json" "$MODEL/config.json" | cmp - "$WORK/parts"
	[[ $(mount_options reader) == ro,* ]]
	kubectl --namespace "$NAMESPACE" delete pod reader --wait
}

# Every file in deploy/examples works, once its model, its image and the keys exist: only addresses and keys are replaced.
case_examples() {
	local file
	release
	for file in "$ROOT"/deploy/examples/*.yaml; do
		echo "--- $file"
		namespace "$(basename "$file" .yaml)"
		kubectl label namespace "$NAMESPACE" --overwrite pod-security.kubernetes.io/enforce=baseline
		example "$file"
		put_away
		NAMESPACE=''
	done
}

example() {
	local file=$WORK/example.yaml uri pod
	while read -r uri; do put_model "$uri"; done < <(grep --only-matching --extended-regexp 's3://[^" ]+' "$1" | sort --unique)
	"$ROOT/tests/e2e/images.sh" tag "$TOOLS_IMAGE" registry.example/server:1
	sed -e "/AWS_ACCESS_KEY_ID/s|REPLACE-ME|$S3_KEY|" -e "/AWS_SECRET_ACCESS_KEY/s|REPLACE-ME|$S3_SECRET|" \
		-e "s|namespace: default|namespace: $NAMESPACE|" -e "s|region: .*|endpoint: $S3_ENDPOINT|" \
		-e "s|https://models.example/.*|$FILE_URL|" "$1" >"$file"
	if grep --quiet 'digest: sha256:0*$' "$file"; then
		sed -i "s|digest: sha256:0*\$|digest: $(digest_of "$file")|" "$file"
	fi
	kubectl --namespace "$NAMESPACE" apply --filename "$file"
	if grep --quiet 'kind: Deployment' "$file"; then
		kubectl --namespace "$NAMESPACE" rollout status deployment --timeout 60s
	fi
	until_true 60 "a pod" a_pod
	for pod in $(kubectl --namespace "$NAMESPACE" get pods --output name); do
		ready "$pod"
		if grep --quiet --extended-regexp 'allowPatterns|modelUri: http' "$file"; then
			verify_files "$pod" /mnt/models
		else
			verify "$pod" "$NAMESPACE" /mnt/models
		fi
	done
	kubectl --namespace "$NAMESPACE" delete --filename "$file" --wait --timeout 60s
}

a_pod() { [[ -n $(kubectl --namespace "$NAMESPACE" get pods --output name) ]]; }

# The digest that a pod sees of the model in the example, without asking for one.
digest_of() {
	sed -e '/digest: sha256/d' -e 's/name: server/name: digest/' -e 's/^spec:$/&\n  restartPolicy: OnFailure/' \
		-e "s|^\( *\)image: .*|\1image: $OWN_IMAGE\n\1args: [digest, /mnt/models]|" "$1" |
		kubectl --namespace "$NAMESPACE" apply --filename - >&2
	until_true 60 "a digest" prints_digest
	kubectl --namespace "$NAMESPACE" logs digest | grep --only-matching '^sha256:[0-9a-f]*'
	kubectl --namespace "$NAMESPACE" delete pod digest --wait >&2
}

prints_digest() { [[ $(kubectl --namespace "$NAMESPACE" logs digest) == sha256:* ]]; }

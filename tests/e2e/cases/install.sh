# shellcheck shell=bash
# The release: what `helm install` leaves running, what it may do, and what is left when it is gone.

case_install_defaults() {
	release
	until_true 30 "the driver in CSINode" registered
	[[ $(kubectl get csidriver csi.modelmount.io --output jsonpath='{.spec.volumeLifecycleModes}') == '["Persistent","Ephemeral"]' ]]
	# The default values run both components, and nothing has restarted.
	running_pods >"$WORK/pods"
	cat "$WORK/pods"
	awk '{ for (i = 2; i <= NF; i++) restarts += $i } END { exit restarts > 0 }' "$WORK/pods"
	[[ $(grep -c -- -node- "$WORK/pods") == 1 ]]
	[[ $(grep -c -- -controller- "$WORK/pods") == 2 ]]
}

# Whether kubelet knows the driver: it then is in the node's CSINode.
registered() { [[ " $(drivers) " == *" csi.modelmount.io "* ]]; }

not_registered() { lacks csi.modelmount.io drivers; }

drivers() { kubectl get csinode "$NODE_NAME" --output jsonpath='{.spec.drivers[*].name}'; }

no_pods() { prints_nothing kubectl --namespace "$RELEASE_NAMESPACE" get pods --output name; }

# Name of each pod of the release, and restarts of each of its containers.
running_pods() {
	kubectl --namespace "$RELEASE_NAMESPACE" get pods --field-selector status.phase=Running \
		--output jsonpath='{range .items[*]}{.metadata.name}{" "}{.status.containerStatuses[*].restartCount}{"\n"}{end}'
}

case_helm_test() {
	release --set tests.modelUri="$MODEL_URI" --set tests.attributes.endpoint="$S3_ENDPOINT" --set tests.secretName=s3-reader
	keys "$RELEASE_NAMESPACE"
	helm test modelmount --namespace "$RELEASE_NAMESPACE" --timeout 60s
}

# All but the node plugin fit the strictest standard: the API server says which pods would not.
case_pod_security() {
	local warnings
	release
	warnings=$(kubectl label namespace "$RELEASE_NAMESPACE" --dry-run=server --overwrite \
		pod-security.kubernetes.io/enforce=restricted 2>&1 >/dev/null)
	echo "$warnings"
	grep -q -- -node- <<<"$warnings"
	if grep -q -- -controller- <<<"$warnings"; then return 1; fi
}

no_cache() { [[ ! -e /var/lib/modelmount ]]; }

case_uninstall_leaves_the_cache() {
	namespace
	release
	pod reader "$(inline)"
	ready pod/reader
	kubectl --namespace "$NAMESPACE" delete pod reader --wait
	helm uninstall modelmount --namespace "$RELEASE_NAMESPACE" --wait --timeout 60s
	until_true 60 "the end of the release's pods" no_pods

	[[ ! -e $KUBELET_DIR/plugins/csi.modelmount.io ]] || { ls -laR "$KUBELET_DIR/plugins"; return 1; }
	[[ -z $(ls "$KUBELET_DIR/plugins_registry") ]] || { ls -la "$KUBELET_DIR/plugins_registry"; return 1; }
	if grep -e /var/lib/modelmount -e kubernetes.io~csi /proc/self/mountinfo; then return 1; fi
	until_true 30 "the driver's removal from CSINode" not_registered
	kubectl get clusterroles,clusterrolebindings,csidrivers,storageclasses --output name | tee "$WORK/objects"
	if grep modelmount "$WORK/objects"; then return 1; fi
	# The cache is what is left, and the documented command removes it.
	[[ -f /var/lib/modelmount/layout ]]
	kubectl debug "node/$NODE_NAME" --profile=sysadmin --image="$OWN_IMAGE" -- \
		/modelmount cache rm --all --cache-dir /host/var/lib/modelmount
	until_true 60 "the end of the cache" no_cache
	kubectl delete pods --selector app.kubernetes.io/managed-by=kubectl-debug --wait
}

# shellcheck shell=bash
# The rights of the release: enough, and no more than that.

# There is no right that is not used, and no use without a right: the API server's audit log says what was asked.
case_rbac_is_what_is_used() {
	local taint=modelmount.io/agent-not-ready
	namespace
	kubectl taint node "$NODE_NAME" --overwrite "$taint=:NoSchedule"
	# The controller reads a claim only for a class that uses its annotations.
	release --set startupTaint.enabled=true --set-json "storageClasses=[
		$(class family s3-reader "s3://models/\${pvc.annotations['e2e/model']}" s3://models), $(class keyless no-such-secret)]"
	claim tiny family e2e/model "${MODEL_URI##*/}"
	pod reader 'persistentVolumeClaim: {claimName: tiny, readOnly: true}'
	ready pod/reader
	kubectl --namespace "$NAMESPACE" delete pod reader --wait
	kubectl --namespace "$NAMESPACE" delete pvc tiny --wait
	until_true 30 "the end of the PersistentVolume" no_volumes
	# An event that is told again is patched.
	claim keyless keyless
	until_true 60 "use of every right" all_rights_used || {
		cat "$WORK/unused"
		return 1
	}

	# The last line may be half written.
	prints_nothing jq --raw-input --compact-output 'fromjson? | select(.responseStatus.code == 403)' "$E2E_DIR/audit.log"
	lacks forbidden logs_of_release
}

all_rights_used() {
	granted_rights >"$WORK/granted"
	comm -23 "$WORK/granted" <(used_rights) >"$WORK/unused"
	[[ -s $WORK/granted && ! -s $WORK/unused ]]
}

logs_of_release() {
	kubectl --namespace "$RELEASE_NAMESPACE" logs --selector app.kubernetes.io/instance=modelmount --all-containers --tail=-1
}

# Lines "VERB GROUP/RESOURCE".
granted_rights() {
	kubectl get clusterroles,roles --all-namespaces --selector app.kubernetes.io/instance=modelmount --output json |
		jq -r '.items[].rules[] | .verbs[] as $verb | .apiGroups[] as $group | .resources[] as $resource | "\($verb) \($group)/\($resource)"' |
		sort -u
}

used_rights() {
	jq -r 'select(.objectRef) | "\(.verb) \(.objectRef.apiGroup // "")/\(.objectRef.resource)"' "$E2E_DIR/audit.log" | sort -u
}

case_startup_taint() {
	local taint=modelmount.io/agent-not-ready
	release --set startupTaint.enabled=true
	# As a node that joins: with the taint, with a taint of somebody else's, and without the plugin.
	kubectl taint node "$NODE_NAME" --overwrite "$taint=:NoExecute" example.com/other=:PreferNoSchedule
	kubectl --namespace "$RELEASE_NAMESPACE" delete pod "$(plugin)" --wait
	until_true 60 "the taint's removal" taints_are example.com/other
	kubectl taint node "$NODE_NAME" example.com/other-
	# The taint has sent away the controller as well.
	kubectl --namespace "$RELEASE_NAMESPACE" rollout status deployment --timeout 60s
	lacks forbidden logs_of_release
}

taints_are() { [[ $(kubectl get node "$NODE_NAME" --output jsonpath='{.spec.taints[*].key}') == "$1" ]]; }

# 150 nodes that join at once must not all need the API server: a plugin that can't reach it starts all the same.
case_start_without_api_server() {
	local pod address container
	namespace
	release --set startupTaint.enabled=true
	pod reader "$(inline)"
	ready pod/reader
	pod=$(plugin)
	address=$(kubectl --namespace "$RELEASE_NAMESPACE" get pod "$pod" --output jsonpath='{.status.podIP}')
	container=$(running_container "$pod" modelmount)
	[[ -n $container ]]

	service_kill kube-apiserver
	ctr --namespace k8s.io tasks kill --signal KILL "$container"
	until_true 60 "another container of the plugin" runs_another "$pod" "$container"
	# Alive is what it can be: kubelet, too, needs the API server before it says that the plugin is registered.
	until_true 60 "the plugin to be alive" curl --silent --fail --max-time 2 "http://$address:9808/healthz"
	start_api_server

	verify reader
	pod late "$(inline)"
	ready pod/late
	verify late
}

runs_another() {
	local now
	now=$(running_container "$1" modelmount)
	[[ -n $now && $now != "$2" ]]
}

# shellcheck shell=bash
# What breaks around the driver must not break what is mounted, and costs no second download.

# A download goes on where it stopped; what was mounted is read all the time.
case_plugin_deleted_while_downloading() {
	local uri=s3://models/interrupted size=300000000 before sent
	namespace
	release --set fetch.connections=4
	reading
	serve_slowly 9011 4m
	random_model "$uri" $((size / 1000000))
	before=$(downloads)
	pod slow "$(MODEL_OF_POD=$uri S3_ENDPOINT=$SLOW inline)"
	until_true 60 "half of the download" downloaded_more_than $((before + size / 2))
	before=$(plugin)
	kubectl --namespace "$RELEASE_NAMESPACE" delete pod "$before" --wait
	downloading slow # else nothing was interrupted
	kubectl --namespace "$RELEASE_NAMESPACE" rollout status daemonset --timeout 60s

	kubectl --namespace "$NAMESPACE" wait --for=condition=Ready --timeout 120s pod/slow
	[[ $(plugin) != "$before" ]]
	has_random_model slow
	still_reading
	# At most the four parts that were in flight, of 16 MiB, came twice; from the beginning, it would be half of the model.
	sent=$(slowly_sent "${uri#s3:/}")
	echo "measured: $sent bytes were sent for a model of $size"
	((size <= sent && sent <= size + 4 * 16 * 1024 * 1024))
}

downloaded_more_than() { (($(downloads) > $1)); }

downloading() { [[ $(kubectl --namespace "$NAMESPACE" get pod "$1" --output jsonpath='{.status.phase}') == Pending ]]; }

# Kubelet, when it starts, publishes every volume again.
case_kubelet_restarts_without_the_source() {
	local address=$NODE_IP:9012 server before
	namespace
	release
	serve_s3 "$address"
	server=$STARTED
	S3_ENDPOINT=http://$address pod reader "$(S3_ENDPOINT=http://$address inline)"
	ready pod/reader
	stop "$server"

	before=$(publishes)
	service_kill kubelet
	start_kubelet
	until_true 60 "another publish" publishes_more_than "$before"
	verify reader
	ready pod/reader
	[[ $(kubectl --namespace "$NAMESPACE" get pod reader --output jsonpath='{.status.containerStatuses[0].restartCount}') == 0 ]]
	lacks "MountVolume.SetUp failed" other_events
}

# Before the plugin has registered itself with the new kubelet, that does not know whom to ask.
other_events() {
	local lines
	lines=$(events reader) && { grep --invert-match "not found in the list of registered CSI drivers" <<<"$lines" || true; }
}

# publishes: how many NodePublishVolume were answered with OK since the plugin started.
publishes() {
	metrics | sed -n 's/^modelmount_rpc_duration_seconds_count{.*method="NodePublishVolume".*code="OK".*} //p'
}

publishes_more_than() { (($(publishes) > $1)); }

# A pod that is gone for the API server is not gone for the node: its volume is given back when the plugin is there again.
case_pod_is_forced_away_without_the_plugin() {
	local uid
	namespace
	release
	pod reader "$(inline)"
	pod other "$(inline)"
	ready pod/reader pod/other
	uid=$(kubectl --namespace "$NAMESPACE" get pod reader --output jsonpath='{.metadata.uid}')
	[[ $(mounts_of reader) == 1 ]]

	plugin_nowhere
	kubectl --namespace "$NAMESPACE" delete pod reader --grace-period=0 --force
	until_true 60 "kubelet to ask for the plugin in vain" asked_in_vain "$uid"
	verify other
	[[ -n $(mounts_below "$KUBELET_DIR/pods/$uid") ]] # else there is nothing to see here

	plugin_everywhere
	until_true 150 "the end of the pod's directory" no_pod_directory "$uid"
	verify other
}

# The same, and kubelet, too, has forgotten the pod by the time that the plugin is back.
case_pod_is_forced_away_and_kubelet_restarts() {
	local uid
	namespace
	release
	pod reader "$(inline)"
	ready pod/reader
	uid=$(kubectl --namespace "$NAMESPACE" get pod reader --output jsonpath='{.metadata.uid}')
	plugin_nowhere
	service_kill kubelet
	kubectl --namespace "$NAMESPACE" delete pod reader --grace-period=0 --force
	start_kubelet
	until_true 60 "kubelet to ask for the plugin in vain" asked_in_vain "$uid"
	plugin_everywhere
	until_true 150 "the end of the pod's directory" no_pod_directory "$uid"
}

plugin_nowhere() {
	place_plugin '"true"'
	until_true 60 "the end of the plugin" no_plugin
}

plugin_everywhere() {
	place_plugin null
	kubectl --namespace "$RELEASE_NAMESPACE" rollout status daemonset --timeout 60s
}

no_plugin() {
	prints_nothing kubectl --namespace "$RELEASE_NAMESPACE" get pods --selector app.kubernetes.io/component=node --output name
}

# asked_in_vain UID: kubelet could not unmount a volume of the pod.
asked_in_vain() {
	tail -n "+$KUBELET_LINES" "$E2E_DIR/kubelet.log" | grep "$1" | grep -q -e "TearDown failed" -e "csi.modelmount.io not found"
}

no_pod_directory() { [[ ! -e $KUBELET_DIR/pods/$1 ]]; }

# All processes and all mounts of the node are gone, what is on its disk is not, and the source is down.
case_node_reboots_without_the_source() {
	local address=$NODE_IP:9013 server
	namespace
	release
	serve_s3 "$address"
	server=$STARTED
	pod reader "$(S3_ENDPOINT=http://$address inline)"
	ready pod/reader
	stop "$server"

	reboot_node
	[[ -z $(mounts_below "$KUBELET_DIR") ]]
	start_containerd
	start_kubelet
	until_true 120 "another container of the pod" restarted reader
	ready pod/reader
	verify reader
	kubectl --namespace "$RELEASE_NAMESPACE" wait --for=condition=Ready pod --all --timeout 60s
	kubectl --namespace "$NAMESPACE" delete pod reader --wait --timeout 60s
}

restarted() { (($(kubectl --namespace "$NAMESPACE" get pod "$1" --output jsonpath='{.status.containerStatuses[0].restartCount}') > 0)); }

# What the power's loss ends; the control plane and the servers of the models are elsewhere.
reboot_node() {
	local container mount
	service_kill kubelet
	for container in $(ctr --namespace k8s.io tasks list --quiet); do
		ctr --namespace k8s.io tasks kill --signal KILL "$container" || true
	done
	until_true 30 "the end of all containers" no_containers
	service_kill containerd
	end_shims
	while read -r mount; do umount --lazy "$mount"; done < <(mounts_below "$KUBELET_DIR"; mounts_below /run)
	find /run -mindepth 1 -delete
}

no_containers() { lacks RUNNING ctr --namespace k8s.io tasks list; }

# The processes that stand between containerd and its containers, and outlive both.
end_shims() {
	local process
	for process in /proc/[0-9]*; do
		# One may end by itself meanwhile.
		if [[ $(readlink "$process/exe") == */containerd-shim-runc-v2 ]]; then kill -KILL "${process#/proc/}" || true; fi
	done
}

# A publish needs the API server for nothing once it has begun.
case_api_server_down_during_a_publish() {
	local uri=s3://models/unattended before uid
	namespace
	release
	serve_slowly 9014 1m
	random_model "$uri" 30
	before=$(downloads)
	pod late "$(MODEL_OF_POD=$uri S3_ENDPOINT=$SLOW inline)"
	until_true 60 "the download's begin" downloaded_more_than $((before + 1000000))
	uid=$(kubectl --namespace "$NAMESPACE" get pod late --output jsonpath='{.metadata.uid}')
	[[ $(mounts_of late) == 0 ]]

	service_kill kube-apiserver
	until_true 60 "the mount" has_mount "$uid"
	start_api_server
	ready pod/late
	has_random_model late
	lacks "MountVolume.SetUp failed" events late
}

has_mount() { [[ -n $(mounts_below "$KUBELET_DIR/pods/$1/volumes/kubernetes.io~csi") ]]; }

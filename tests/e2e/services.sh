# shellcheck shell=bash
# The programs that a cluster consists of, each started with as few options as will do. Sourced by node.sh, which starts
# them all, and by the cases that stop and start one. Only to be used inside the cluster's namespaces.
# A program's output is in $E2E_DIR/NAME.log, its process id in $E2E_DIR/NAME.pid.

# Where another version of Kubernetes' programs is.
PATH=${E2E_KUBERNETES:-$TOOLS/kubernetes}:$PATH

# shellcheck disable=SC2034 # some are for who sources this
{
	NODE_NAME=node1
	NODE_IP=10.99.0.1        # kubelet refuses a loopback address
	PODS=10.99.1.0/24
	SERVICES=10.96.0.0/16
	API_SERVICE=10.96.0.1    # the first address of SERVICES is the API server's
	KUBELET_DIR=${KUBELET_DIR:-/var/lib/kubelet}
	TOOLS_IMAGE=localhost/modelmount-e2e/tools:1
	READER_IMAGE=localhost/modelmount-e2e/reader:1
	RELEASE_NAMESPACE=modelmount # as deploy/examples have it
}

# until_true SECONDS WHAT COMMAND...: until the command succeeds.
until_true() {
	local seconds=$1 what=$2 deadline=$((SECONDS + $1))
	shift 2
	until "$@" >/dev/null 2>&1; do
		if ((SECONDS >= deadline)); then
			echo "waited $seconds s in vain for $what" >&2
			return 1
		fi
		sleep 0.1
	done
}

# service NAME READY COMMAND...: starts a program and waits until the command READY succeeds.
service() {
	local name=$1 ready=$2
	shift 2
	setsid "$@" >>"$E2E_DIR/$name.log" 2>&1 </dev/null &
	echo $! >"$E2E_DIR/$name.pid"
	wait_for 60 $! "$name" eval "$ready" || {
		tail -n 20 "$E2E_DIR/$name.log" >&2
		return 1
	}
}

# service_kill NAME: at once, as a node loses it; the API server would take a minute to say farewell.
service_kill() {
	kill -KILL "$(<"$E2E_DIR/$1.pid")"
	until_true 30 "the end of $1" service_gone "$1"
}

service_gone() { ! kill -0 "$(<"$E2E_DIR/$1.pid")" 2>/dev/null; }

# It forgets everything with the cluster, so it need not wait for the disk.
start_etcd() {
	service etcd 'port_open 2379' \
		etcd --data-dir "$E2E_DIR/etcd" --unsafe-no-fsync --listen-peer-urls http://127.0.0.1:2380 \
		--listen-client-urls http://127.0.0.1:2379 --advertise-client-urls http://127.0.0.1:2379
}

# What the release's service accounts ask of the API: by it, a case finds rights that nobody uses.
audit_policy() {
	cat <<-END
		apiVersion: audit.k8s.io/v1
		kind: Policy
		omitStages: [RequestReceived]
		rules:
		  - level: Metadata
		    userGroups: ["system:serviceaccounts:$RELEASE_NAMESPACE"]
		  - level: None
	END
}

start_api_server() {
	audit_policy >"$E2E_DIR/audit-policy.yaml"
	service kube-apiserver 'kubectl get --raw /readyz' \
		kube-apiserver --etcd-servers=http://127.0.0.1:2379 --bind-address=0.0.0.0 --secure-port=443 \
		--advertise-address="$NODE_IP" --endpoint-reconciler-type=none --service-cluster-ip-range="$SERVICES" \
		--cert-dir="$E2E_DIR/pki" --token-auth-file="$E2E_DIR/pki/tokens.csv" --authorization-mode=Node,RBAC \
		--enable-admission-plugins=NodeRestriction --allow-privileged=true --kubelet-preferred-address-types=InternalIP \
		--audit-policy-file="$E2E_DIR/audit-policy.yaml" --audit-log-path="$E2E_DIR/audit.log" \
		--service-account-issuer=https://kubernetes.default.svc \
		--service-account-key-file="$E2E_DIR/pki/service-account.key" \
		--service-account-signing-key-file="$E2E_DIR/pki/service-account.key"
}

# Its own limits, of 20 requests a second, would hide those of the release when a thousand claims are made.
start_controller_manager() {
	service kube-controller-manager true \
		kube-controller-manager --kubeconfig="$E2E_DIR/pki/controller-manager.kubeconfig" --bind-address=127.0.0.1 \
		--cert-dir="$E2E_DIR/pki/controller-manager" --leader-elect=false --use-service-account-credentials \
		--kube-api-qps=1000 --kube-api-burst=1000 \
		--root-ca-file="$E2E_DIR/pki/apiserver.crt" \
		--service-account-private-key-file="$E2E_DIR/pki/service-account.key"
}

start_scheduler() {
	service kube-scheduler true \
		kube-scheduler --kubeconfig="$E2E_DIR/pki/scheduler.kubeconfig" --bind-address=127.0.0.1 \
		--cert-dir="$E2E_DIR/pki/scheduler" --leader-elect=false
}

# In the layout of containerd 1, which containerd 2 still reads.
containerd_config() {
	cat <<-END
		version = 2
		[plugins."io.containerd.grpc.v1.cri"]
		  sandbox_image = "$TOOLS_IMAGE"
		  restrict_oom_score_adj = true # in a container there is often no CAP_SYS_RESOURCE
		  [plugins."io.containerd.grpc.v1.cri".cni]
		    bin_dir = "$(cni_plugins)"
		    conf_dir = "$E2E_DIR/cni"
		  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
		    runtime_type = "io.containerd.runc.v2"
		    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
		      SystemdCgroup = false
	END
}

start_containerd() {
	cat >"$E2E_DIR/cni/pods.conflist" <<-END
		{"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "pods0", "isGateway": true,
		 "ipam": {"type": "host-local", "ranges": [[{"subnet": "$PODS"}]], "routes": [{"dst": "0.0.0.0/0"}]}}]}
	END
	containerd_config >"$E2E_DIR/containerd.toml"
	service containerd 'ctr version' containerd --config "$E2E_DIR/containerd.toml"
}

kubelet_config() {
	cat <<-END
		apiVersion: kubelet.config.k8s.io/v1beta1
		kind: KubeletConfiguration
		address: $NODE_IP
		containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
		cgroupDriver: cgroupfs
		cgroupRoot: /$CGROUP
		$(kubelet --version | awk -F . '$2 > 30 { print "failCgroupV1: false" }')
		failSwapOn: false
		makeIPTablesUtilChains: false
		resolvConf: ""
		authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
		authorization: {mode: AlwaysAllow}
		# The machine's disk and memory are not this cluster's alone: no eviction over what others use of them.
		evictionHard: {memory.available: 100Mi, nodefs.available: 100Mi, imagefs.available: 100Mi}
		imageGCHighThresholdPercent: 100
		# Tests wait for kubelet to notice things.
		syncFrequency: 5s
		nodeStatusUpdateFrequency: 4s
		volumeStatsAggPeriod: 10s
	END
}

start_kubelet() {
	kubelet_config >"$E2E_DIR/kubelet.yaml"
	service kubelet "kubectl get node $NODE_NAME" \
		kubelet --config="$E2E_DIR/kubelet.yaml" --kubeconfig="$E2E_DIR/pki/kubelet.kubeconfig" \
		--root-dir="$KUBELET_DIR" --hostname-override="$NODE_NAME" --node-ip="$NODE_IP" --v=2
}

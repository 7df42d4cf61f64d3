#!/usr/bin/env bash
# The cluster itself: process 1 of the namespaces that cluster.sh makes, and the parent of everything in them. Writes
# $E2E_DIR/ready once the cluster is ready, and then only buries the dead.
#
# It has a /proc, a /var and a /run of its own, so that each path that Kubernetes has by default (/var/lib/kubelet,
# /run/containerd, /var/log/pods) can be used and yet nothing of the machine's own is seen or touched.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"
# shellcheck source=tests/e2e/services.sh
source "$(dirname "$0")/services.sh"

# The process id by which the machine knows this process: what nsenter needs. /proc is still the machine's.
write_own_id() {
	local id
	read -r id _ </proc/self/stat
	echo "$id" >"$E2E_DIR/init"
}

# kubelet sets kernel settings that have no namespace. It gets files to write to in their place.
hide_sysctl() {
	local shadow=$E2E_DIR/sysctl/${1##*/}
	cat "$1" >"$shadow"
	mount --bind "$shadow" "$1"
}

isolate_files() {
	local setting
	mount --make-rshared / # what a driver mounts, other containers must see
	mount -t proc proc /proc
	mkdir -p "$E2E_DIR"/{sysctl,pki,cni} "$E2E_DIR"/var/{cache,lib,log,tmp}
	chmod 1777 "$E2E_DIR/var/tmp"
	ln -s /run "$E2E_DIR/var/run"
	mount --bind "$E2E_DIR/var" /var
	mount -t tmpfs -o mode=755 tmpfs /run
	# As its setupKernelTunables has them.
	for setting in kernel/panic kernel/panic_on_oops kernel/keys/root_max{bytes,keys} vm/overcommit_memory vm/panic_on_oom; do
		[[ ! -e /proc/sys/$setting ]] || hide_sysctl "/proc/sys/$setting"
	done
}

make_network() {
	ip link set lo up
	ip link add node0 type bridge
	ip address add "$NODE_IP/24" dev node0
	ip link set node0 up
	# The API server itself answers at its service's address, so that no kube-proxy is needed.
	ip address add "$API_SERVICE/32" dev lo
}

kubeconfig() {
	cat >"$2" <<-END
		apiVersion: v1
		kind: Config
		current-context: e2e
		contexts: [{name: e2e, context: {cluster: e2e, user: $1}}]
		users: [{name: $1, user: {token: $1}}]
		clusters: [{name: e2e, cluster: {server: "https://$NODE_IP", certificate-authority: $E2E_DIR/pki/apiserver.crt}}]
	END
	chmod 600 "$2"
}

# Everybody's token is a name: none opens anything outside these namespaces.
make_credentials() {
	local name
	openssl genrsa -out "$E2E_DIR/pki/service-account.key" 2048 2>/dev/null
	cat >"$E2E_DIR/pki/tokens.csv" <<-END
		admin,admin,admin,system:masters
		kubelet,system:node:$NODE_NAME,kubelet,system:nodes
		controller-manager,system:kube-controller-manager,controller-manager
		scheduler,system:kube-scheduler,scheduler
	END
	kubeconfig admin "$E2E_DIR/kubeconfig"
	for name in kubelet controller-manager scheduler; do kubeconfig "$name" "$E2E_DIR/pki/$name.kubeconfig"; done
}

write_own_id
isolate_files
make_network
make_credentials
export KUBECONFIG=$E2E_DIR/kubeconfig
start_etcd
start_api_server
start_controller_manager
if [[ -z $API_ONLY ]]; then
	start_scheduler
	start_containerd
	"$ROOT/tests/e2e/images.sh" tools
	start_kubelet
	kubectl wait --for=condition=Ready "node/$NODE_NAME" --timeout=60s
fi
# Before it exists, no pod is admitted to the namespace.
until_true 30 "the service account of the namespace default" kubectl get serviceaccount default
touch "$E2E_DIR/ready"

# While bash waits, it also takes up the processes whose parents have ended.
sleep infinity &
while :; do wait || true; done

#!/usr/bin/env bash
# A real Kubernetes with one node, on this machine, beside whatever else runs here. Needs root.
#
#   cluster.sh up [--api-only] [--owner PID]     start it; --api-only: no node, no scheduler, for `kubectl --dry-run=server`
#   cluster.sh exec COMMAND...                   run a command in its namespaces, with KUBECONFIG set
#   cluster.sh kubectl ARGUMENTS...              the same for kubectl
#   cluster.sh down                              end it and remove all that it made
#   cluster.sh watch PID                         end it once this process is gone; `up --owner` leaves one behind
#
# All of it lives in a mount, a network and a process namespace, and in one directory: $E2E_DIR, by default
# $TMPDIR/modelmount-e2e. What ends process 1 of the namespaces ends every process, mount, bridge and rule of the
# cluster with it; the directory and the control groups are the two things that are left, and `down` removes those.
# With --owner, the cluster also ends when that process does, however it ends; $E2E_DIR/owner has its id.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"
# shellcheck source=tests/e2e/services.sh
source "$(dirname "$0")/services.sh"

E2E_DIR=${E2E_DIR:-$(realpath "${TMPDIR:-/tmp}")/modelmount-e2e}
# kubelet's and containerd's control groups are below this one.
CGROUP=modelmount-e2e-$(cksum <<<"$E2E_DIR" | cut -d ' ' -f 1)
HERE=$(realpath "$(dirname "$0")")
export E2E_DIR CGROUP
# What is set for programs of these names means others than the cluster's.
without_proxies
unset "${!AWS_@}" "${!CONTAINERD_@}" "${!HELM_@}" "${!KUBERNETES_@}"

usage() {
	sed -n '2,/^set /{s/^# \{0,1\}//;/^set /d;p}' "$0" >&2
	exit 64
}

# Every process of a cluster has the lock file open from its birth: as long as one of them lives, the lock is held.
running() { [[ -e $E2E_DIR/lock ]] && ! flock --nonblock "$E2E_DIR/lock" true; }

cgroups() {
	local hierarchy
	if [[ -e /sys/fs/cgroup/cgroup.controllers ]]; then
		echo "/sys/fs/cgroup/$CGROUP"
	else
		for hierarchy in /sys/fs/cgroup/*/; do
			[[ -L ${hierarchy%/} ]] || echo "$hierarchy$CGROUP"
		done
	fi
}

# What a killed run leaves: these two. Only to be called when no process is left.
remove_state() {
	local group i
	while read -r group; do
		# A process that was just killed leaves its group a moment later.
		for ((i = 0; i < 100; i++)); do
			[[ -d $group ]] || break
			find "$group" -depth -type d -exec rmdir {} + 2>/dev/null && break
			sleep 0.05
		done
		[[ ! -d $group ]] || echo "${RED}left behind:${PLAIN} $group" >&2
	done < <(cgroups)
	rm -rf --one-file-system "$E2E_DIR"
}

down() {
	local i
	[[ -d $E2E_DIR ]] || return 0
	if running; then
		# It may still be starting, and its process id be unknown for a moment.
		for ((i = 0; i < 100; i++)); do
			[[ -s $E2E_DIR/init ]] && break
			running || break
			sleep 0.05
		done
		kill -KILL "$(<"$E2E_DIR/init")" 2>/dev/null || true
		flock --timeout 30 "$E2E_DIR/lock" true || die "the processes of the cluster in $E2E_DIR do not end"
	fi
	remove_state
}

# Ends the cluster once the process that wanted it is gone; unless the directory is another cluster's by then.
watch_owner() {
	while kill -0 "$1" 2>/dev/null; do
		running || return 0
		sleep 0.5
	done
	[[ $(cat "$E2E_DIR/owner" 2>/dev/null) != "$1" ]] || down
}

up() {
	local api_only='' owner='' began=$SECONDS group started
	while (($#)); do
		case $1 in
		--api-only) api_only=yes ;;
		--owner) owner=$2 && shift ;;
		*) usage ;;
		esac
		shift
	done
	can_mount || die "the cluster needs root and the right to mount"
	[[ $E2E_DIR != /var/* && $E2E_DIR != /run/* ]] || die "E2E_DIR=$E2E_DIR: the node has a /var and a /run of its own, choose another place"
	mkdir -p "$E2E_DIR"
	exec 9>>"$E2E_DIR/lock"
	flock --nonblock 9 || die "a cluster runs in $E2E_DIR; \`$0 down\` ends it"

	trap 'exec 9>&-; down' EXIT
	trap 'exit 130' INT TERM
	# What a killed run may have left.
	find "$E2E_DIR" -xdev -mindepth 1 -not -path "$E2E_DIR/lock" -delete
	while read -r group; do mkdir -p "$group"; done < <(cgroups)
	mkdir "$E2E_DIR/tmp"
	echo "$owner" >"$E2E_DIR/owner"
	HOME=$E2E_DIR/home TMPDIR=$E2E_DIR/tmp API_ONLY=$api_only setsid unshare --mount --net --pid --fork "$HERE/node.sh" >"$E2E_DIR/node.log" 2>&1 </dev/null &
	started=$!
	if ! wait_for 120 "$started" "the cluster" test -e "$E2E_DIR/ready"; then
		tail -n 30 "$E2E_DIR/node.log" >&2
		exit 1
	fi
	trap - EXIT INT TERM
	exec 9>&-
	# In a session of its own: what ends the owner's group of processes must not end it as well.
	if [[ -n $owner ]]; then setsid "$HERE/cluster.sh" watch "$owner" >/dev/null 2>&1 </dev/null & fi
	echo "Kubernetes $(cut -d ' ' -f 2 < <(kubelet --version)) is up after $((SECONDS - began)) s: $0 kubectl get pods -A" >&2
}

inside() {
	running || die "no cluster runs in $E2E_DIR: \`$0 up\` starts it"
	# What kubectl and helm keep in the home directory, and Kubernetes' suite forgets among temporary files, is the cluster's too.
	HOME=$E2E_DIR/home TMPDIR=$E2E_DIR/tmp KUBECONFIG=$E2E_DIR/kubeconfig exec nsenter --target "$(<"$E2E_DIR/init")" --mount --net --pid -- env --chdir="$PWD" "$@"
}

(($#)) || usage
COMMAND=$1
shift
case $COMMAND in
up) up "$@" ;;
down) down ;;
exec) inside "$@" ;;
kubectl) inside kubectl "$@" ;;
watch) watch_owner "$1" ;;
*) usage ;;
esac

#!/usr/bin/env bash
# What the node plugin's service account may do to nodes, with startupTaint.enabled: nothing but take its own taint off
# its own node. Asks a real API server, with tokens like those that kubelet gets for the plugin's pods.
#
#   chart-policy.sh KUBECTL...    KUBECTL: a command that is kubectl with all rights
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

KUBE=("$@")
NAMESPACE=policy
OURS='{"key": "modelmount.io/agent-not-ready", "effect": "NoSchedule"}'
ALSO_OURS='{"key": "modelmount.io/agent-not-ready", "effect": "NoExecute", "value": "x"}'
OTHER='{"key": "example.com/other", "effect": "NoSchedule", "value": "1"}'
NEW='{"key": "example.com/new", "effect": "NoSchedule"}'
TRIED=0

kube() { "${KUBE[@]}" "$@"; }

install_policy() {
	kube create namespace "$NAMESPACE" >/dev/null
	helm template modelmount "$ROOT/charts/modelmount" --namespace "$NAMESPACE" --kube-version 1.30.0 \
		--set startupTaint.enabled=true --show-only templates/node/startup-taint.yaml \
		--show-only templates/node/serviceaccount.yaml | kube apply --filename - >/dev/null
}

# node VERB NAME: creates or replaces a node with these three taints. Not deleted in between: the token is bound to it.
node() {
	kube "$1" --filename - >/dev/null <<-EOF
		{"apiVersion": "v1", "kind": "Node", "metadata": {"name": "$2", "labels": {"a": "b"}, "annotations": {"c": "d"}},
		 "spec": {"providerID": "cloud://$2", "podCIDR": "10.0.0.0/24", "taints": [$OURS, $OTHER, $ALSO_OURS]}}
	EOF
}

# patch NODE JSON_PATCH: as the plugin of the node "own".
patch() { kube --token "$TOKEN" patch node "$1" --type json --patch "$2" 2>&1; }

may() {
	node replace own
	patch "$@" >/dev/null || die "must be allowed: $*"
	TRIED=$((TRIED + 1))
}

may_not() {
	local reason=$1 output
	shift
	node replace own
	if output=$(patch "$@"); then die "must not be allowed: $*"; fi
	[[ $output == *"$reason"* ]] || die "$* is refused for another reason: $output"
	TRIED=$((TRIED + 1))
}

# take INDEX...: removes the taints at these places.
take() {
	local index
	printf -v index '{"op": "remove", "path": "/spec/taints/%s"}, ' "$@"
	echo "[${index%, }]"
}

# The API server takes a moment until a new policy holds.
policy_holds() { [[ $(patch other '[{"op": "add", "path": "/metadata/labels/x", "value": "x"}]') == *'change no node but'* ]]; }

work_through() {
	may own "$(take 0)"
	may own "$(take 2)"
	may own "$(take 2 0)"
	may own '[{"op": "test", "path": "/spec/taints/0/key", "value": "modelmount.io/agent-not-ready"}, {"op": "remove", "path": "/spec/taints/0"}]'
	may_not 'change no node but' other "$(take 0)"
	may_not 'change no other' own "$(take 1)"
	may_not 'change no other' own "$(take 0 0)"
	may_not 'change no other' own '[{"op": "remove", "path": "/spec/taints"}]'
	may_not 'change no other' own "[{\"op\": \"add\", \"path\": \"/spec/taints/-\", \"value\": $NEW}]"
	may_not 'change no other' own '[{"op": "replace", "path": "/spec/taints/1/value", "value": "2"}]'
	may_not 'change no other' own '[{"op": "replace", "path": "/spec/taints/0/effect", "value": "PreferNoSchedule"}]'
	may_not 'nothing of its node but' own '[{"op": "replace", "path": "/metadata/labels/a", "value": "x"}]'
	may_not 'nothing of its node but' own '[{"op": "add", "path": "/metadata/annotations/x", "value": "x"}]'
	may_not 'nothing of its node but' own '[{"op": "add", "path": "/metadata/finalizers", "value": ["example.com/x"]}]'
	may_not 'nothing of its node but' own '[{"op": "add", "path": "/spec/unschedulable", "value": true}]'
	if kube --token "$TOKEN" delete node own >/dev/null 2>&1; then die "the plugin may delete its node"; fi
	if kube --token "$TOKEN" get nodes >/dev/null 2>&1; then die "the plugin may list all nodes"; fi
	kube --token "$TOKEN" get node own >/dev/null || die "the plugin may not look at its node"
}

trap clean_up EXIT
install_policy
node create own
node create other
TOKEN=$(kube create token modelmount-node --namespace "$NAMESPACE" --bound-object-kind Node --bound-object-name own)
wait_for 30 $$ "the policy" policy_holds
work_through
kube delete node own other >/dev/null
echo "startup taint: ok, $TRIED changes tried"

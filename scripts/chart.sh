#!/usr/bin/env bash
# The Helm chart: what is generated from it, and whether it holds.
#
#   chart.sh lint        helm lint over every set of values in charts/modelmount/ci
#   chart.sh refuse      wrong values are refused, and the message names the key
#   chart.sh unittest    helm-unittest
#   chart.sh generate    write the chart's README and deploy/modelmount.yaml anew
#   chart.sh check       fail if these are not current
#   chart.sh apply       a real API server accepts what comes of every set of values, and of deploy/. Needs root.
#
# Without a command: all but `generate`.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

CHART=$ROOT/charts/modelmount
CLUSTER=$ROOT/tests/e2e/cluster.sh
NAMESPACE=modelmount
# Helm as built by Go believes in Kubernetes 1.20 unless it is told. This is the oldest that the chart takes.
OLDEST=1.30.0

render() { helm template modelmount "$CHART" --namespace "$NAMESPACE" --kube-version "$OLDEST" "$@"; }

lint() {
	local values sets=("$CHART"/ci/*-values.yaml)
	for values in "${sets[@]}"; do
		helm lint --strict --quiet --kube-version "$OLDEST" --values "$values" "$CHART" || die "${values##*/}: see above"
	done
	echo "helm lint: ok, ${#sets[@]} sets of values"
}

unittest() { helm-unittest --strict "$CHART"; }

# ------------------------------------------------------------- wrong values

# refused VALUES KEY: the chart does not take the values (as YAML, in flow style), and says that it is for the key.
REFUSED=0
refused() {
	local values=$1 key=$2 output
	if output=$(render --values - <<<"$values" 2>&1 >/dev/null); then
		die "not refused: $values"
	elif [[ $output != *"$key"* ]]; then
		die "$values is refused without naming $key: $output"
	fi
	REFUSED=$((REFUSED + 1))
}

refuse() {
	local values key
	# The schema writes a key as a path. A message of a template begins with the key.
	while IFS='|' read -r values key; do
		[[ -z ${values// /} ]] || refused "$values" "${key## }"
	done <"$CHART/tests/refused.txt"
	echo "wrong values: ok, $REFUSED refused by name"
}

# ------------------------------------------------------------- what is generated

# Without Helm, nobody is helped by its labels.
manifests() {
	cat <<-EOF
		# Made from charts/modelmount with its default values. \`make generate\` writes it anew.
		apiVersion: v1
		kind: Namespace
		metadata:
		  name: $NAMESPACE
		  labels:
		    # The node plugin mounts for the node, which only privileged pods may.
		    pod-security.kubernetes.io/enforce: privileged
	EOF
	render --skip-tests | sed '/helm.sh\/chart:/d; /managed-by: Helm/d'
}

# generate_into DIR: DIR/charts/modelmount/README.md, DIR/deploy/modelmount.yaml
generate_into() {
	local directory=$1
	mkdir -p "$directory/charts/modelmount" "$directory/deploy"
	helm-docs --log-level warning --chart-search-root "$CHART" --sort-values-order file \
		--template-files README.md.gotmpl --dry-run >"$directory/charts/modelmount/README.md"
	manifests >"$directory/deploy/modelmount.yaml"
}

generate() { generate_into "$ROOT"; }

check() {
	local file
	generate_into "$WORK"
	for file in charts/modelmount/README.md deploy/modelmount.yaml; do
		diff --unified "$ROOT/$file" "$WORK/$file" || die "$file is not current: \`make generate\` writes it anew"
	done
	[[ $(sed -n 's/^appVersion: //p' "$CHART/Chart.yaml") == "$(version)" ]] ||
		die "the chart's appVersion is not the version in Cargo.toml"
	echo "generated files: ok"
}

# ------------------------------------------------------------- a real API server

kube() { "$CLUSTER" kubectl "$@"; }

# accepted NAME: the API server takes the manifests on standard input, and warns of nothing.
accepted() {
	local name=$1 output
	output=$(kube apply --dry-run=server --validate=strict --filename - 2>&1) || die "$name: $output"
	if grep --ignore-case warning <<<"$output"; then die "$name: the API server warns"; fi
}

# only KINDS: of the manifests on standard input those of these kinds.
only() { awk -v RS='---\n' -v kinds="$1" '$0 ~ "(^|\n)kind: (" kinds ")\n" { print "---\n" $0 }'; }

apply() {
	local values name profile namespace
	if [[ ! -x $TOOLS/kubernetes/kube-apiserver ]] || ! can_mount; then
		unchecked "chart.sh apply" "needs root and the tools of the group e2e"
		return
	fi
	"$CLUSTER" up --api-only --owner $$
	STARTED_CLUSTER=yes
	kube apply --server-side --filename "$TOOLS/crds/podmonitors.yaml" >/dev/null
	kube create namespace models >/dev/null
	for profile in privileged restricted; do
		kube create namespace "$profile" >/dev/null
		kube label namespace "$profile" "pod-security.kubernetes.io/"{enforce,warn}"=$profile" >/dev/null
	done
	for namespace in default privileged restricted; do
		# Before it exists, the API server takes no pod.
		wait_for 30 $$ "the service account of the namespace $namespace" kube get serviceaccount default --namespace "$namespace"
	done
	for values in "$CHART"/ci/*-values.yaml; do
		name=${values##*/}
		NAMESPACE=privileged render --values "$values" >"$WORK/all.yaml"
		accepted "$name" <"$WORK/all.yaml"
		# All but the node plugin fits the strictest profile.
		NAMESPACE=restricted render --values "$values" | only 'Deployment|Pod' >"$WORK/restricted.yaml"
		accepted "$name" <"$WORK/restricted.yaml"
		echo "accepted: $name, $(grep -c '^kind:' "$WORK/all.yaml") objects"
	done
	only Namespace <"$ROOT/deploy/modelmount.yaml" | kube apply --filename - >/dev/null
	accepted deploy/modelmount.yaml <"$ROOT/deploy/modelmount.yaml"
	for values in "$ROOT"/deploy/examples/*.yaml; do
		accepted "${values#"$ROOT"/}" <"$values"
	done
	"$ROOT/scripts/chart-policy.sh" "$CLUSTER" kubectl
	echo "API server: ok"
}

STARTED_CLUSTER=''
end() {
	trap '' INT TERM # a second one would leave the cluster
	[[ -z $STARTED_CLUSTER ]] || "$CLUSTER" down
	clean_up
}

# ------------------------------------------------------------- main

trap end EXIT
trap 'exit 130' INT TERM
make_work chart
if (($# == 0)); then set -- lint refuse unittest check apply; fi
for command in "$@"; do
	case $command in
	lint | refuse | unittest | generate | check | apply) "$command" ;;
	*) die "chart.sh: no command '$command' (see the head of this file)" ;;
	esac
done

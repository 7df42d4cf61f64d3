#!/usr/bin/env bash
# `make e2e`: starts clusters, installs the chart with the image of this source tree, and runs cases against it.
#
#   run.sh [--oldest] [--keep] [CASE...]     the cases by their names (see cases/*.sh), by default all
#
#   --oldest   on the oldest Kubernetes that the chart installs on, by default only the cases that depend on it most
#   --keep     leaves the cluster up
#
# MODELMOUNT_IMAGE: the image's archive, by default the one that `make image` has put into target/image.
#
# Cases mostly wait, so all of them run in four clusters beside each other. Those that are named run in one.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"
cd "$ROOT"

CLUSTER=tests/e2e/cluster.sh
LANES=("storage upgrade access" "volumes secrets install" "events disruption" "provisioning controller")
# Kubelet, the API's versions, and the chart's parts that ask for a version.
OLDEST=(install_defaults rbac_is_what_is_used startup_taint inline_volume storage_class static_volume several_models
	kubelet_restarts_without_the_source pod_is_forced_away_without_the_plugin upgrade_under_load)
E2E_DIR=${E2E_DIR:-$(realpath "${TMPDIR:-/tmp}")/modelmount-e2e}
KEEP='' SUITES=()

# cases FILE...: the names of the cases in these files.
cases() { sed -n 's/^case_\([a-z0-9_]*\)() {$/\1/p' "$@"; }

# suite NUMBER CASE...: runs the cases in a cluster of their own, prints what they say, and keeps the last line.
suite() {
	(($1 == 1)) || export E2E_DIR=$E2E_DIR-$1
	if [[ -n $KEEP ]]; then "$CLUSTER" up; else "$CLUSTER" up --owner $$; fi
	"$CLUSTER" exec tests/e2e/suite.sh "${@:2}" | tee "$WORK/suite-$1" | grep --line-buffered --invert-match '^test result: '
	[[ -n $KEEP ]] || "$CLUSTER" down
}

in_lanes() {
	local lane files names count=0
	files=(tests/e2e/cases/*.sh)
	read -ra names <<<"${LANES[*]}"
	((${#files[@]} == ${#names[@]})) || die "run.sh: each file of cases must be in one lane"
	for lane in "${LANES[@]}"; do
		read -ra files <<<"$lane"
		files=("${files[@]/%/.sh}")
		mapfile -t names < <(cases "${files[@]/#/tests/e2e/cases/}")
		count=$((count + 1))
		suite "$count" "${names[@]}" </dev/null &
		SUITES+=($!)
	done
}

# Only what this run has started: where a cluster runs already, it is somebody else's. A cluster that does not end is
# said and fails the run; the others are put away all the same.
down() {
	local status=$? suite cluster
	trap '' INT TERM # a second one, which make sends as well, would leave the clusters
	for suite in "${SUITES[@]}"; do kill -TERM -- "-$suite" 2>/dev/null || true; done
	for suite in "${SUITES[@]}"; do wait "$suite" 2>/dev/null || true; done
	for cluster in "$E2E_DIR" "$E2E_DIR"-[0-9]; do
		[[ $(cat "$cluster/owner" 2>/dev/null) != "$$" ]] || E2E_DIR=$cluster "$CLUSTER" down || status=1
	done
	clean_up
	exit "$status"
}

# Adds up the last lines of the suites.
verdict() {
	local pid status=0 counts passed failed all
	for pid in "${SUITES[@]}"; do wait "$pid" || status=1; done
	SUITES=()
	counts=$({ tail --quiet --lines 1 "$WORK"/suite-* 2>/dev/null || true; } | sed 's/\x1b\[[0-9;]*m//g' |
		awk '/^test result: / { passed += $4; failed += $6 } END { print passed + 0, failed + 0 }')
	read -r passed failed <<<"$counts"
	all=$(cases tests/e2e/cases/*.sh | wc -l)
	((passed > 0)) || status=1
	echo
	echo "test result: $( ((status)) && echo "${RED}FAILED${PLAIN}" || echo "${GREEN}ok${PLAIN}"). $passed passed; $failed failed; 0 ignored; 0 measured; $((all - passed - failed)) filtered out; finished in $SECONDS.00s"
	return "$status"
}

while [[ ${1:-} == --* ]]; do
	case $1 in
	--keep) KEEP=yes ;;
	--oldest) export E2E_KUBERNETES=$TOOLS/kubernetes-oldest ;;
	*) die "run.sh: no option $1" ;;
	esac
	shift
done
if ! can_mount; then
	unchecked "the end-to-end tests" "need root and the right to mount"
	exit 0
fi
scripts/tools.sh e2e ${E2E_KUBERNETES:+e2e-oldest}
MODELMOUNT_IMAGE=$(realpath "${MODELMOUNT_IMAGE:-$(image_archive)}")
[[ -f $MODELMOUNT_IMAGE ]] || die "no image $MODELMOUNT_IMAGE: run \`make image\` first"
export MODELMOUNT_IMAGE

make_work e2e-run
set -m # each suite is a group of processes, which can be ended as a whole
trap down EXIT
trap 'exit 130' INT TERM
if [[ -n ${E2E_KUBERNETES:-} ]] && (($# == 0)); then set -- "${OLDEST[@]}"; fi
if (($#)); then
	suite 1 "$@" </dev/null &
	SUITES+=($!)
else
	in_lanes
fi
verdict

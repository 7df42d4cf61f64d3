#!/usr/bin/env bash
# Runs the cases, one after the other, inside the cluster: `cluster.sh exec tests/e2e/suite.sh [CASE...]`.
#
# A case is a function case_NAME in cases/*.sh. It runs in a shell of its own that ends at the first command that fails;
# what it printed, and the state of the cluster, are shown only then. Cases run in the order in which they are named, by
# default in that in which they are written, but none counts on another: each brings the release into the state that it wants.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"
# shellcheck source=tests/e2e/services.sh
source "$(dirname "$0")/services.sh"
# shellcheck source=tests/e2e/kube.sh
source "$(dirname "$0")/kube.sh"
# shellcheck source=tests/e2e/model.sh
source "$(dirname "$0")/model.sh"

PASSED=0 FAILED=0 FILTERED=0
KUBELET_LINES=1 # of kubelet's log, when the case began

all_cases() { sed -n 's/^case_\([a-z0-9_]*\)() {$/\1/p' "$ROOT"/tests/e2e/cases/*.sh; }

# What one needs to see of a cluster in which something went wrong.
dump() {
	local pod
	kubectl get pods --all-namespaces --output wide || true
	kubectl get events --all-namespaces --sort-by=.lastTimestamp | tail -n 25 || true
	for pod in $(kubectl --namespace "$RELEASE_NAMESPACE" get pods --output name); do
		echo "--- $pod"
		kubectl --namespace "$RELEASE_NAMESPACE" logs "$pod" --all-containers --prefix --tail 25 || true
	done
	echo "--- kubelet, since the case began"
	tail -n "+$KUBELET_LINES" "$E2E_DIR/kubelet.log" | grep -E '^[EWF]' | tail -n 15 || true
}

run_case() {
	local name=$1 began=$SECONDS log=$WORK/$1.log code=0
	export CASE=$name
	KUBELET_LINES=$(wc -l <"$E2E_DIR/kubelet.log")
	# Not as a condition: bash would then go on after a command that fails.
	set +e
	(
		set -e
		PIDS=() # from here on, the case's own
		trap 'code=$?; put_away || code=1; stop_all; exit "$code"' EXIT
		"case_$name"
	) >"$log" 2>&1 </dev/null
	code=$?
	set -e
	if ((code == 0)); then PASSED=$((PASSED + 1)); else FAILED=$((FAILED + 1)); fi
	# At once: another suite may be writing to the same place.
	report "$name" "$code" $((SECONDS - began)) "$log" >"$WORK/report" 2>&1
	cat "$WORK/report"
}

report() {
	local name=$1 code=$2 seconds=$3 log=$4
	if ((code == 0)); then
		echo "test $name ... ${GREEN}ok${PLAIN} ($seconds s)"
		sed -n 's/^measured: /     /p' "$log"
	else
		echo "test $name ... ${RED}FAILED${PLAIN} ($seconds s)"
		tail -n 40 "$log"
		dump
		echo "--- end of $name"
	fi
}

main() {
	local name wanted=("$@") all file
	mapfile -t all < <(all_cases)
	for name in "${wanted[@]}"; do
		[[ " ${all[*]} " == *" $name "* ]] || die "no case '$name' (there are: ${all[*]})"
	done
	for file in "$ROOT"/tests/e2e/cases/*.sh; do
		# shellcheck source=/dev/null
		source "$file"
	done

	make_work e2e
	trap clean_up EXIT
	import_images
	serve_model
	if (($# == 0)); then wanted=("${all[@]}"); fi
	FILTERED=$((${#all[@]} - ${#wanted[@]}))
	for name in "${wanted[@]}"; do run_case "$name"; done

	echo
	echo "test result: $( ((FAILED)) && echo "${RED}FAILED${PLAIN}" || echo "${GREEN}ok${PLAIN}"). $PASSED passed; $FAILED failed; 0 ignored; 0 measured; $FILTERED filtered out; finished in $SECONDS.00s"
	((FAILED == 0))
}

main "$@"

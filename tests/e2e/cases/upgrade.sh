# shellcheck shell=bash
# Pods that read go on reading while the plugin is replaced.

case_upgrade_under_load() {
	namespace
	release
	reading
	release --set image.tag=next
	still_reading
}

case_rollback_under_load() {
	namespace
	release
	release --set image.tag=next
	reading
	helm rollback modelmount --namespace "$RELEASE_NAMESPACE" --wait --timeout 120s
	still_reading
}

# A pod that reads the whole model again and again, opening each file anew, and writes a line for each time.
reading() {
	pod reader "$(inline)" "cd /model && expected=\$($SUMS) && while :; do if [ \"\$($SUMS)\" = \"\$expected\" ]; then echo whole; else echo torn; fi; done"
	ready pod/reader
	until_true 60 "the first reads" reads_more_than 2
}

reads() {
	local lines
	lines=$(kubectl --namespace "$NAMESPACE" logs reader) || return 1
	grep --count "$1" <<<"$lines" || true # none is a number too
}

reads_more_than() { (($(reads whole) > $1)); }

# The old plugin's pod is gone by now, `helm --wait` has seen to that; what was read since then, and before, was whole.
still_reading() {
	local before
	before=$(reads whole)
	until_true 60 "reads after the change" reads_more_than $((before + 2))
	[[ $(reads torn) == 0 ]]
	verify reader
	pod late "$(inline)"
	ready pod/late
	verify late
}

#!/usr/bin/env bash
# `make test`: everything that can be tested on this machine, and at the end a list of what could not. With CI=true
# that list must be empty.
#
# A Rust test that can't run here (no server, no root) appends a line `name<TAB>reason` to $MODELMOUNT_SKIP_FILE.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

OUT=${CARGO_TARGET_DIR:-$ROOT/target}/test
export MODELMOUNT_SKIP_FILE=$OUT/skips
FAILED=()

# Colours survive the pipe into the log only if asked for.
cargo_tests() {
	local colour=never filter=()
	[[ -t 1 ]] && colour=always
	if ! can_mount; then
		filter=(--skip privileged_)
		skip "the privileged_* tests" "need root and the right to mount"
	fi
	CARGO_TERM_COLOR=$colour cargo test --workspace --locked --no-fail-fast -- --color "$colour" "${filter[@]}" 2>&1 |
		tee "$OUT/cargo.log" || FAILED+=("cargo test")
}

csi_sanity() {
	echo
	scripts/sanity.sh debug || FAILED+=("csi-sanity")
}

# Adds up the closing lines of all test binaries and of csi-sanity. `ignored` and self-skipped are not the same thing:
# what a test said that it could not do is in the list of skips.
totals() {
	sed 's/\x1b\[[0-9;]*m//g' "$OUT/cargo.log" "$OUT/sanity.total" 2>/dev/null | awk '
		/^test result: / {
			for (i = 1; i < NF; i++) {
				if ($(i + 1) == "passed;") passed += $i
				if ($(i + 1) == "failed;") failed += $i
				if ($(i + 1) == "ignored;") ignored += $i
				if ($(i + 1) == "filtered") filtered += $i
			}
		}
		END { printf "%d passed; %d failed; %d ignored; 0 measured; %d filtered out", passed, failed, ignored, filtered }'
}

skips() {
	local count what reason
	[[ -s $MODELMOUNT_SKIP_FILE ]] || return 0
	sort -u -o "$MODELMOUNT_SKIP_FILE" "$MODELMOUNT_SKIP_FILE"
	count=$(wc -l <"$MODELMOUNT_SKIP_FILE")
	echo
	echo "${YELLOW}${BOLD}skipped on this machine: $count${PLAIN}"
	while IFS=$'\t' read -r what reason; do
		echo "  ${YELLOW}$what${PLAIN}: $reason"
	done <"$MODELMOUNT_SKIP_FILE"
	if in_ci; then FAILED+=("$count skipped, and with CI=true nothing may be"); fi
}

verdict() {
	local problem result="${GREEN}ok${PLAIN}"
	echo
	for problem in "${FAILED[@]}"; do
		result="${RED}FAILED${PLAIN}"
		echo "${RED}failed:${PLAIN} $problem"
	done
	echo "test result: $result. $(totals); finished in $SECONDS.00s"
	((${#FAILED[@]} == 0))
}

main() {
	rm -rf "$OUT"
	mkdir -p "$OUT"
	: >"$MODELMOUNT_SKIP_FILE"
	CI='' scripts/tools.sh test # what is missing is in the list of skips, which CI=true makes a failure below
	fetch_crates
	without_proxies
	cargo_tests
	# With the binary that the tests were built with: another set of features would be compiled anew.
	csi_sanity
	skips
	verdict
}

main

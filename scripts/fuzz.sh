#!/usr/bin/env bash
# `make fuzz`: runs each fuzz target for some seconds, from the corpus that is kept in fuzz/corpus.
#
#   fuzz.sh [TARGET...]     SECONDS_EACH=15
#
# What is found new stays outside the tree; an input that makes a target fail is printed with its path, and belongs into
# the corpus once the defect is mended.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

SECONDS_EACH=${SECONDS_EACH:-15}
# Coverage is an unstable option of the compiler, which the stable one knows too. Without a sanitizer: the crate has no
# unsafe code that a fuzzer reaches.
export RUSTC_BOOTSTRAP=1
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$ROOT/target}/fuzz
export CARGO_TARGET_DIR

fuzz() { cargo-fuzz fuzz "$1" --fuzz-dir fuzz --sanitizer none "${@:2}"; }

if ! have cargo-fuzz; then
	unchecked fuzzing "cargo-fuzz is not installed"
	exit 0
fi
targets=("$@")
((${#targets[@]})) || mapfile -t targets < <(sed -n 's|^path = "targets/\(.*\)\.rs"|\1|p' fuzz/Cargo.toml)
make_work fuzz
trap clean_up EXIT

fuzz build
for target in "${targets[@]}"; do
	[[ -n $(ls -A "fuzz/corpus/$target" 2>/dev/null) ]] || die "fuzz/corpus/$target is empty: each target begins with some inputs"
	mkdir -p "$WORK/$target"
	# The first directory takes what is found. A run that ends early has failed.
	if ! fuzz run "$target" "$WORK/$target" "fuzz/corpus/$target" -- \
		-max_total_time="$SECONDS_EACH" -timeout=10 -rss_limit_mb=2048 -print_final_stats=1 >"$WORK/$target.log" 2>&1; then
		tail -n 60 "$WORK/$target.log"
		die "the fuzz target $target has failed"
	fi
	echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$WORK/$target.log") inputs, ok"
done

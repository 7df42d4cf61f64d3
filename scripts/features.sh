#!/usr/bin/env bash
# `make test-features`: builds the library with none and with each of its features alone, and runs its tests.
#
#   features.sh [FEATURE...]
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

if (($#)); then features=("$@"); else
	features=('')
	while read -r feature; do features+=("$feature"); done < <(library_features)
	((${#features[@]} > 1)) || die "no features are found in Cargo.toml"
fi
make_work features
trap clean_up EXIT
fetch_crates
without_proxies
failed=()
for feature in "${features[@]}"; do
	log=$WORK/${feature:-none}.log
	if cargo test --locked --package modelmount --no-default-features --features "$feature" >"$log" 2>&1; then
		echo "${feature:-no feature}: $(awk '/^test result/ { n += $4 } END { print n }' "$log") tests passed"
	else
		grep -v '^test .* ok$' "$log"
		echo "${RED}${feature:-no feature}: FAILED${PLAIN}"
		failed+=("${feature:-none}")
	fi
done
((${#failed[@]} == 0)) || die "the library's tests fail with these features alone: ${failed[*]}"

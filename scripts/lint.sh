#!/usr/bin/env bash
# `make lint`: what must be true of the sources before anyone reads them.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

run() {
	echo "${BOLD}\$ $*${PLAIN}"
	"$@"
}

# The library's features, `default` excepted.
features() {
	cargo metadata --locked --no-deps --format-version 1 | python3 -c '
import json, sys
for package in json.load(sys.stdin)["packages"]:
    if package["name"] == "modelmount":
        print(*sorted(set(package["features"]) - {"default"}))'
}

each_feature_alone() {
	local feature list
	run cargo check --locked --package modelmount --no-default-features
	if ! have python3; then
		unchecked "each feature alone" "needs python3"
		return
	fi
	list=$(features)
	for feature in $list; do
		run cargo check --locked --package modelmount --no-default-features --features "$feature"
	done
}

scripts() {
	local file list=()
	if ! have shellcheck; then
		unchecked shellcheck "is not installed"
		return
	fi
	while read -r file; do
		[[ $(head -c 2 "$file") == '#!' || $file == *.sh ]] && list+=("$file")
	done < <(git ls-files --cached --others --exclude-standard -- '*.sh' .ci)
	run shellcheck --external-sources "${list[@]}"
}

dependencies() {
	if ! have cargo-deny; then
		unchecked "cargo deny" "is not installed"
		return
	fi
	run cargo-deny --workspace --log-level error check bans licenses sources
}

"$ROOT/scripts/tools.sh" lint
run cargo fmt --all --check
run cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
each_feature_alone
dependencies
scripts

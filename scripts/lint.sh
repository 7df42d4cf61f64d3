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

each_feature_alone() {
	local feature features=('')
	while read -r feature; do features+=("$feature"); done < <(library_features)
	((${#features[@]} > 1)) || die "no features are found in Cargo.toml"
	for feature in "${features[@]}"; do
		run cargo clippy --locked --package modelmount --all-targets --no-default-features --features "$feature" -- -D warnings
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
run cargo fmt --manifest-path fuzz/Cargo.toml --check
run cargo clippy --workspace --all-targets --all-features --locked -- -D warnings
each_feature_alone
# A workspace of its own, which uses the library's public items: only here is it compiled together with every change.
run env RUSTFLAGS='--cfg fuzzing' CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$ROOT/target}/fuzz" \
	cargo clippy --manifest-path fuzz/Cargo.toml --all-targets --locked -- -D warnings
dependencies
scripts

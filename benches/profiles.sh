#!/usr/bin/env bash
# What the release profile is chosen by: builds the static binary in several ways and prints the size, raw and compressed,
# the start-up and the cost of a download of each. Builds of many minutes, each from nothing.
#
#   profiles.sh [NAME...]      ROUNDS=5 SIZE_MB=1024 FILES=2
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../scripts/lib.sh"
cd "$ROOT"

TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
OUT=$TARGET/bench/profiles
export ROUNDS=${ROUNDS:-5} SIZE_MB=${SIZE_MB:-1024} FILES=${FILES:-2} SMALL=0

# NAME: LTO, code generation units, optimisation, panic.
declare -A PROFILES=(
	[thin-4]="thin 4 3 unwind"
	[thin-1]="thin 1 3 unwind"
	[fat-1]="fat 1 3 unwind"
	[fat-1-s]="fat 1 s unwind"
	[fat-1-abort]="fat 1 3 abort"
	[none-16]="off 16 3 unwind"
)

build() {
	local lto units level panic
	read -r lto units level panic <<<"${PROFILES[$1]}"
	CARGO_PROFILE_RELEASE_LTO=$lto CARGO_PROFILE_RELEASE_CODEGEN_UNITS=$units CARGO_PROFILE_RELEASE_OPT_LEVEL=$level \
		CARGO_PROFILE_RELEASE_PANIC=$panic CARGO_TARGET_DIR=$TARGET/profile-$1 \
		nice scripts/static.sh amd64 "$OUT/$1" 2>"$OUT/$1.log" || die "$1: $(tail -n 5 "$OUT/$1.log")"
}

# Start-up times and the download's cost, each by the benchmark that there is for it.
measure() {
	MODELMOUNT_BIN=$OUT/$1 REPORT=$OUT/$1.startup.json \
		cargo bench --locked --profile dev --package modelmount-driver --bench startup >&2
	MODELMOUNT_BIN=$OUT/$1 TOOLS_TO_COMPARE=modelmount benches/compare.sh >&2
	cp "$TARGET/bench/compare.json" "$OUT/$1.pull.json"
}

row() {
	python3 - "$OUT/$1" "$1" "${PROFILES[$1]}" <<-'PYTHON'
		import gzip, json, pathlib, sys
		binary, name, profile = sys.argv[1:]
		data = pathlib.Path(binary).read_bytes()
		ms = json.loads(pathlib.Path(f"{binary}.startup.json").read_text())["ms"]
		pull = json.loads(pathlib.Path(f"{binary}.pull.json").read_text())["tools"]["modelmount"]["summary"]
		print(f"| {name} | {' | '.join(profile.split())} | {len(data) / 2**20:.1f} | {len(gzip.compress(data, 9)) / 2**20:.1f} | "
		      f"{ms['version']['median']:.1f} | {ms['probe']['median']:.1f} | {pull['wall_s']['median']:.2f} | "
		      f"{pull['cpu_s']['median']:.2f} |")
	PYTHON
}

main() {
	local name
	if (($# == 0)); then set -- thin-4 thin-1 fat-1 fat-1-s fat-1-abort none-16; fi
	for name in "$@"; do [[ -n ${PROFILES[$name]:-} ]] || die "no profile $name (there are: ${!PROFILES[*]})"; done
	mkdir -p "$OUT"
	for name in "$@"; do build "$name"; done
	# All are measured after all are built, so that they find the machine in the same mood.
	for name in "$@"; do measure "$name"; done
	echo "| profile | LTO | units | level | panic | MiB | MiB gzip | --version, ms | first Probe, ms | pull, s | pull, CPU s |"
	echo "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |"
	for name in "$@"; do row "$name"; done
}

main "$@"

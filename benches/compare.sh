#!/usr/bin/env bash
# `make bench`: `modelmount pull` against s5cmd, rclone and kserve-storage, in turn, on one S3 server on loopback that
# keeps its objects in memory where there is room. Prints medians; writes them to target/bench/compare.json.
#
#   ROUNDS=5 SIZE_MB=1024 FILES=4 SMALL=20 SMALL_KB=20 TOOLS_TO_COMPARE="modelmount s5cmd rclone kserve-storage"
#
# A tool that is not there is left out, loudly. DEST: where to download to, by default a directory below target/.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../scripts/lib.sh"
cd "$ROOT"

ROUNDS=${ROUNDS:-5}
SIZE_MB=${SIZE_MB:-1024}
FILES=${FILES:-4}
SMALL=${SMALL:-20}
SMALL_KB=${SMALL_KB:-20}
OUT=${CARGO_TARGET_DIR:-$ROOT/target}/bench
DEST=${DEST:-$OUT/dest}

available_mb() { awk '/^MemAvailable:/ { print int($2 / 1024) }' /proc/meminfo; }

# Memory for the objects if it holds them, one more copy (page cache of the download) and 2 GiB besides.
storage() {
	local need=$((SIZE_MB * FILES))
	if [[ -d /dev/shm && -w /dev/shm ]] && (($(df --output=avail -m /dev/shm | tail -n 1) > need + SIZE_MB)) &&
		(($(available_mb) > 2 * need + 2048)); then
		echo /dev/shm
	else
		echo "${TMPDIR:-/tmp}"
	fi
}

# One file at a time: the server keeps its own copy. The digests are what every tool's result is held against.
upload() {
	local i size name
	mkdir -p "$WORK/source"
	: >"$WORK/sha256"
	for ((i = 0; i < FILES + SMALL; i++)); do
		if ((i < FILES)); then
			name=model-$i.safetensors size=$((SIZE_MB * 1024 * 1024))
		else
			name=part-$i.json size=$((SMALL_KB * 1000))
		fi
		head -c "$size" /dev/urandom >"$WORK/source/$name"
		(cd "$WORK/source" && sha256sum "$name") >>"$WORK/sha256"
		s3_put bench "$WORK/source/$name" "model/$name"
		rm "$WORK/source/$name"
	done
}

compared() {
	local tool
	for tool in ${TOOLS_TO_COMPARE:-modelmount s5cmd rclone kserve-storage}; do
		if [[ $tool == modelmount ]]; then
			[[ -n ${MODELMOUNT_BIN:-} || -x ${CARGO_TARGET_DIR:-$ROOT/target}/release/modelmount ]] || {
				skip modelmount "no release build: \`make release\`"
				continue
			}
		elif ! have "$tool"; then
			skip "$tool" "is not installed"
			continue
		fi
		echo "$tool"
	done
}

main() {
	local memory tools
	have s5cmd || die "s5cmd is needed, also to fill the server: scripts/tools.sh bench"
	have python3 || die "python3 is needed for measuring"
	mapfile -t tools < <(compared)
	((${#tools[@]})) || die "nothing to compare"
	memory=$(storage)
	TMPDIR=$memory make_work bench
	trap 'clean_up; rm -rf "$DEST"' EXIT
	trap 'exit 130' INT TERM
	mkdir -p "$OUT"
	start_s3 "$WORK/s3"
	echo "${DIM}uploading $FILES x $SIZE_MB MiB and $SMALL x $SMALL_KB kB to $S3_SERVER, objects in $memory${PLAIN}"
	upload

	export AWS_ACCESS_KEY_ID=$S3_KEY AWS_SECRET_ACCESS_KEY=$S3_SECRET AWS_REGION=$S3_REGION
	export AWS_DEFAULT_REGION=$S3_REGION AWS_ENDPOINT_URL=$S3_ENDPOINT AWS_EC2_METADATA_DISABLED=true
	benches/compare.py --rounds "$ROUNDS" --uri s3://bench/model --sha256 "$WORK/sha256" --dest "$DEST" \
		--server "$S3_SERVER, objects in $memory" --json "$OUT/compare.json" "${tools[@]}"
}

# DEST is emptied between the runs: it must hold nothing else.
if [[ -e $DEST && -n $(ls -A "$DEST") ]]; then die "$DEST is not empty"; fi
main

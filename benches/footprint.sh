#!/usr/bin/env bash
# `make footprint`: what the image weighs and how long its binary takes to start, against the Python environment of KServe's
# storage-initializer, measured in one run. Prints a table; with --write also puts it into docs/dependencies.md.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../scripts/lib.sh"
cd "$ROOT"

TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
ARCHIVE=$(image_archive)
OUT=$TARGET/bench

[[ -f $ARCHIVE ]] || die "no image in $TARGET/image: run \`make image\` first"
have kserve-storage || die "kserve-storage is not installed: scripts/tools.sh bench"
mkdir -p "$OUT"
scripts/image-contents.py --extract modelmount "$OUT/modelmount" --json "$ARCHIVE" >"$OUT/image.json"
chmod +x "$OUT/modelmount"
# What is timed is the image's binary; the program that times it may be the tests' build.
MODELMOUNT_BIN=$OUT/modelmount COMPARE='kserve-storage -c "from kserve_storage import Storage"' REPORT=$OUT/startup.json \
	cargo bench --locked --profile dev --package modelmount-driver --bench startup
exec kserve-storage -I benches/footprint.py --image "$OUT/image.json" --sbom "${ARCHIVE%.oci.tar}.cdx.json" \
	--startup "$OUT/startup.json" "$@"

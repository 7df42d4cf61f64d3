#!/usr/bin/env bash
# `make e2e`: starts a cluster, installs the chart with the image of this source tree, and runs cases against it.
#
#   run.sh [--keep] [CASE...]     the cases by their names (see cases/*.sh), by default all; --keep leaves the cluster up
#
# MODELMOUNT_IMAGE: the image's archive, by default the one that `make image` has put into target/image.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"
cd "$ROOT"

CLUSTER=tests/e2e/cluster.sh
KEEP=''
if [[ ${1:-} == --keep ]]; then
	KEEP=yes
	shift
fi
if ! can_mount; then
	unchecked "the end-to-end tests" "need root and the right to mount"
	exit 0
fi
scripts/tools.sh e2e
MODELMOUNT_IMAGE=$(realpath "${MODELMOUNT_IMAGE:-$(image_archive)}")
[[ -f $MODELMOUNT_IMAGE ]] || die "no image $MODELMOUNT_IMAGE: run \`make image\` first"
export MODELMOUNT_IMAGE

[[ -n $KEEP ]] || trap '"$CLUSTER" down' EXIT
trap 'exit 130' INT TERM
if [[ -n $KEEP ]]; then "$CLUSTER" up; else "$CLUSTER" up --owner $$; fi
"$CLUSTER" exec tests/e2e/suite.sh "$@"

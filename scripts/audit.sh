#!/usr/bin/env bash
# `make audit`: known advisories in the dependencies, by the RustSec database. It is fetched, unless ADVISORY_DB names
# a copy of it.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

have cargo-audit || die "cargo-audit is not installed"
if [[ -n ${ADVISORY_DB:-} ]]; then
	exec cargo-audit audit --deny warnings --db "$ADVISORY_DB" --no-fetch
fi
exec cargo-audit audit --deny warnings

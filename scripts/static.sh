#!/usr/bin/env bash
# Builds the static binary of the image, with flags that make the same bytes of the same sources, wherever they, cargo's
# home and the target directory lie. The same toolchain (rustc, gcc, libc's static library) is taken for granted.
#
#   static.sh amd64|arm64 OUTPUT [cargo build's options]
#
# Alone, without lib.sh and tools.sh: it also runs where there is only a Rust compiler, in deploy/Dockerfile.
set -euo pipefail
ROOT=$(cd "$(dirname "$0")/.." && pwd)
cd "$ROOT"

case ${1:-} in
amd64) TRIPLE=x86_64-unknown-linux-gnu GCC=x86_64-linux-gnu-gcc ;;
arm64) TRIPLE=aarch64-unknown-linux-gnu GCC=aarch64-linux-gnu-gcc ;;
*)
	echo "usage: static.sh amd64|arm64 OUTPUT [cargo build's options]" >&2
	exit 64
	;;
esac
OUTPUT=${2:?where to write the binary}
shift 2
TARGET=${CARGO_TARGET_DIR:-$ROOT/target}
HOME_OF_CARGO=${CARGO_HOME:-$HOME/.cargo}

# One compiler per target; where the machine's own is the target's, `cc` will do.
command -v "$GCC" >/dev/null || GCC=cc

if command -v rustup >/dev/null && ! rustup target list --installed | grep -qx "$TRIPLE"; then
	rustup target add "$TRIPLE"
fi
# Before the build: it makes the directories whose names are mapped away.
cargo fetch --locked --target "$TRIPLE"

# Of two prefixes that match, rustc takes the last: the target directory may lie in the sources'.
flags=(-C target-feature=+crt-static "--remap-path-prefix=$ROOT=/src")
maps=("-ffile-prefix-map=$ROOT=/src")
for directory in "$HOME_OF_CARGO"/registry/src/*; do
	flags+=("--remap-path-prefix=$directory=/crates")
	maps+=("-ffile-prefix-map=$directory=/crates")
done
flags+=("--remap-path-prefix=$TARGET=/target")

# The names of directories may have spaces: cargo separates by a byte that they do not have, the C code's build quotes.
# Build scripts and procedural macros, which run here, are not built with these flags.
CARGO_ENCODED_RUSTFLAGS=$(printf '%s\x1f' "${flags[@]}")
CARGO_ENCODED_RUSTFLAGS=${CARGO_ENCODED_RUSTFLAGS%$'\x1f'}
export CARGO_ENCODED_RUSTFLAGS CC_SHELL_ESCAPED_FLAGS=1
name=${TRIPLE//-/_}
export "CC_$name=$GCC" "CFLAGS_$name=$(printf '%q ' "${maps[@]}")" "CARGO_TARGET_${name^^}_LINKER=$GCC"
cargo build --release --locked --offline --target "$TRIPLE" --package modelmount-driver "$@"
install -D -m 0755 "$TARGET/$TRIPLE/release/modelmount" "$OUTPUT"

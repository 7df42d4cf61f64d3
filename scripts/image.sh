#!/usr/bin/env bash
# `make image`: the container image, without Docker. Builds the static binary, lays the last stage of deploy/Dockerfile
# on it with buildah, and writes an OCI archive, for `ctr images import` and `skopeo copy`, and beside it the list of its
# parts (SBOM). The same commit gives the same bytes.
#
#   image.sh [build]       into target/image
#   image.sh check         is it reproducible, and the list true? Builds all of it once more, elsewhere
#   image.sh build-args    what `docker buildx build` is to be told of this commit
#
# IMAGE: its name, by default ghcr.io/modelmount/modelmount:<version>. REVISION and SOURCE_DATE_EPOCH: the commit and
# its time, for sources without a git history.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

ARCH=amd64 # others are built with Docker: see deploy/Dockerfile
OUT=${CARGO_TARGET_DIR:-$ROOT/target}/image

revision() {
	local dirty=''
	[[ -z $(git status --porcelain) ]] || dirty=-dirty
	echo "$(git rev-parse HEAD)$dirty"
}

VERSION=$(version)
REVISION=${REVISION:-$(revision)}
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
IMAGE=${IMAGE:-ghcr.io/modelmount/modelmount:$VERSION}
NAME=modelmount-$VERSION-linux-$ARCH
export REVISION SOURCE_DATE_EPOCH

build_args() {
	printf -- '--build-arg=%s\n' "VERSION=$VERSION" "REVISION=$REVISION" "SOURCE_DATE_EPOCH=$SOURCE_DATE_EPOCH" \
		"CREATED=$(date --utc --date="@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)"
}

# The stages `roots` and `build` of deploy/Dockerfile, as directories.
stages() {
	cyclonedx-python -m pip install --quiet --disable-pip-version-check --no-deps --no-compile --require-hashes \
		--target "$WORK/roots/roots" -r deploy/ca-roots.txt
	nice scripts/static.sh "$ARCH" "$WORK/build/out/modelmount"
}

# buildah, with a storage of its own. Its cache of other images and its configuration stay out of it.
our_buildah() {
	buildah --root "$WORK/storage" --runroot "$WORK/run" --storage-driver vfs "$@" 2>>"$WORK/buildah.log" >&2 || {
		cat "$WORK/buildah.log" >&2
		die "buildah $1 failed"
	}
}

last_stage() {
	local args
	mapfile -t args < <(build_args)
	mkdir "$WORK/context"
	our_buildah build --isolation chroot --format oci --platform "linux/$ARCH" --timestamp "$SOURCE_DATE_EPOCH" \
		--identity-label=false --build-context "roots=$WORK/roots" --build-context "build=$WORK/build" \
		"${args[@]}" --file deploy/Dockerfile --tag "$IMAGE" "$WORK/context"
	our_buildah push "$IMAGE" "oci:$WORK/layout:$IMAGE"
}

# buildah would write the archive's entries with the time of day.
archive() {
	tar --create --file "$1" --directory "$WORK/layout" --sort=name --format=ustar --mtime="@$SOURCE_DATE_EPOCH" \
		--owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX .
}

build() {
	local tool
	for tool in cargo buildah cyclonedx-python; do have "$tool" || die "$tool is needed: scripts/tools.sh image"; done
	make_work image
	trap clean_up EXIT
	trap 'exit 130' INT TERM
	stages
	last_stage
	mkdir -p "$WORK/out" "$OUT"
	archive "$WORK/out/$NAME.oci.tar"
	scripts/image-contents.py --json "$WORK/out/$NAME.oci.tar" >"$WORK/contents.json"
	cyclonedx-python scripts/image-sbom.py "$WORK/out/$NAME.cdx.json" <"$WORK/contents.json"
	# What is not as it must be does not come so far.
	mv "$WORK/out/$NAME".* "$OUT"
	scripts/image-contents.py "$OUT/$NAME.oci.tar"
	echo "  its parts: $OUT/$NAME.cdx.json"
}

# The sources as they are, committed or not, in a directory with another name; the downloaded crates, to be unpacked and
# compiled there.
copy_sources() {
	mkdir -p "$WORK/another place" "$WORK/cargo/registry"
	git ls-files -z --cached --others --exclude-standard --deduplicate |
		tar --create --null --files-from - | tar --extract --directory "$WORK/another place"
	cp -r "${CARGO_HOME:-$HOME/.cargo}"/registry/{cache,index} "$WORK/cargo/registry"
}

check() {
	local file
	[[ -f $OUT/$NAME.oci.tar ]] || die "no image in $OUT: run \`make image\` first"
	make_work image-check
	trap clean_up EXIT
	trap 'exit 130' INT TERM
	copy_sources
	export CARGO_HOME=$WORK/cargo CARGO_TARGET_DIR=$WORK/target
	cd "$WORK/another place"
	scripts/image.sh
	for file in "$NAME.oci.tar" "$NAME.cdx.json"; do
		cmp "$OUT/$file" "$CARGO_TARGET_DIR/image/$file" || die "$file is not reproducible"
	done
	scripts/static.sh "$ARCH" "$WORK/modelmount" --message-format=json 2>/dev/null |
		scripts/image-crates.py "$OUT/$NAME.cdx.json" x86_64-unknown-linux-gnu
	echo "${GREEN}the same bytes from another place${PLAIN}"
}

case ${1:-build} in
build) build ;;
check) check ;;
build-args) build_args ;;
*) die "image.sh: no command '$1' (there are: build check build-args)" ;;
esac

#!/usr/bin/env bash
# Images without a registry: built from files, imported into the cluster's containerd. Run inside the cluster.
#
#   images.sh tools               a shell and the usual programs, for the tests' own pods
#   images.sh reader              the same, and a program that reads a model: reader/embed.py
#   images.sh agnhost NAME        a shell under this name that waits, whatever it is told to do
#   images.sh binary NAME FILE    a static binary and nothing else, as the image NAME
#   images.sh import TAR NAME     an image that another tool built, under this name
#   images.sh tag NAME NAME       another name for an image
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/../../scripts/lib.sh"
# shellcheck source=tests/e2e/services.sh
source "$(dirname "$0")/services.sh"

# image NAME DIRECTORY CONFIG: an image of one layer, the directory's content.
image() {
	local name=$1 directory=$2 config=$3 layer
	tar --create --file "$WORK/layer.tar" --directory "$directory" --sort=name --mtime=@0 --numeric-owner --owner=0 --group=0 .
	layer=$(sha256sum "$WORK/layer.tar" | cut -d ' ' -f 1)
	printf '{"os": "linux", "architecture": "%s", "config": %s, "rootfs": {"type": "layers", "diff_ids": ["sha256:%s"]}}' \
		"$(go_architecture)" "$config" "$layer" >"$WORK/config.json"
	printf '[{"Config": "config.json", "RepoTags": ["%s"], "Layers": ["layer.tar"]}]' "$name" >"$WORK/manifest.json"
	tar --create --directory "$WORK" manifest.json config.json layer.tar | ctr --namespace k8s.io images import - >/dev/null
}

go_architecture() {
	case $(uname -m) in
	x86_64) echo amd64 ;;
	aarch64) echo arm64 ;;
	*) uname -m ;;
	esac
}

# busybox_in ROOT: with all its names.
busybox_in() {
	local root=$1
	mkdir -p "$root"/{bin,etc,tmp}
	chmod 1777 "$root/tmp"
	cp "$(command -v busybox)" "$root/bin/busybox"
	"$root/bin/busybox" --list | while read -r name; do
		[[ $name == busybox ]] || ln -s busybox "$root/bin/$name"
	done
}

tools() {
	busybox_in "$WORK/root"
	# It also stands in for the image that holds a pod's namespaces. As process 1, sleep would ignore SIGTERM.
	image "$TOOLS_IMAGE" "$WORK/root" '{"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "2147483647"], "StopSignal": "SIGKILL"}'
}

# What the storage suite asks of agnhost is only to be there, for commands that it then runs in the node's namespaces.
agnhost() {
	busybox_in "$WORK/root"
	image "$1" "$WORK/root" '{"Env": ["PATH=/bin"], "Entrypoint": ["/bin/sh", "-c", "exec sleep 2147483647"], "StopSignal": "SIGKILL"}'
}

# This machine's interpreter, for which the libraries were installed, and what the two are linked with.
reader() {
	local root=$WORK/root wheels=$TOOLS/wheels/model-reader python stdlib
	busybox_in "$root"
	python=$("$TOOLS/python/bin/python" -c 'import os, sys; print(os.path.realpath(sys._base_executable))')
	stdlib=$("$python" -c 'import sysconfig; print(sysconfig.get_path("stdlib"))')
	{
		echo "$python"
		find "$stdlib" -name '*.py' -not -path '*-packages/*' -not -path '*/test/*'
		find "$stdlib/lib-dynload" -name '*.so'
		linked_with "$python" "$stdlib/lib-dynload" "$wheels"
	} | sed 's|^/||' | sort -u | tar --create --dereference --directory / --files-from - | tar --extract --directory "$root"
	mkdir "$root/libraries"
	tar --create --directory "$wheels" --exclude tests --exclude '*.pyi' . | tar --extract --directory "$root/libraries"
	# As a script with the interpreter's full name: it need not be called python3.
	{ echo "#!$python"; cat "$ROOT/tests/e2e/reader/embed.py"; } >"$root/bin/embed"
	chmod +x "$root/bin/embed"
	image "$READER_IMAGE" "$root" "{\"Env\": [\"PATH=/bin\", \"PYTHONPATH=/libraries\", \"PYTHONDONTWRITEBYTECODE=1\", \"OPENBLAS_NUM_THREADS=1\"]}"
}

# linked_with FILE|DIRECTORY...: the system's libraries that these programs and libraries need. Of scripts, ldd says that
# they are none.
linked_with() {
	{ find "$@" -type f \( -name '*.so*' -o -perm -u+x \) -exec ldd {} + 2>/dev/null || true; } |
		sed -n 's/.*[[:space:]]\(\/[^ ]*\) (0x.*/\1/p' | grep --invert-match "^$TOOLS/" | sort -u
}

binary() {
	local root=$WORK/root
	mkdir -p "$root"
	cp "$2" "$root/${2##*/}"
	image "$1" "$root" "{\"Entrypoint\": [\"/${2##*/}\"]}"
}

# The archive's own name for its one manifest is taken away. containerd would make it an image as well; and where that has
# the name that is given here, the index is nobody's, and may be collected before it is unpacked.
import() {
	local layout=$WORK/layout
	mkdir "$layout"
	tar --extract --file "$1" --directory "$layout"
	jq 'del(.manifests[].annotations)' "$layout/index.json" >"$WORK/index.json"
	mv "$WORK/index.json" "$layout"
	tar --create --directory "$layout" . | ctr --namespace k8s.io images import --index-name "$2" - >/dev/null
}

tag() {
	ctr --namespace k8s.io images tag --force "$1" "$2" >/dev/null
}

make_work images
trap clean_up EXIT
case ${1:-} in
tools) tools ;;
reader) reader ;;
agnhost) agnhost "$2" ;;
binary) binary "$2" "$3" ;;
import) import "$2" "$3" ;;
tag) tag "$2" "$3" ;;
*) die "images.sh: tools, reader, agnhost NAME, binary NAME FILE, import TAR NAME, or tag NAME NAME" ;;
esac

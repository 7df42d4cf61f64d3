#!/usr/bin/env bash
# Images without a registry: built from files, imported into the cluster's containerd. Run inside the cluster.
#
#   images.sh tools               a shell and the usual programs, for the tests' own pods
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

tools() {
	local root=$WORK/root
	mkdir -p "$root"/{bin,etc,tmp}
	chmod 1777 "$root/tmp"
	cp "$(command -v busybox)" "$root/bin/busybox"
	"$root/bin/busybox" --list | while read -r name; do
		[[ $name == busybox ]] || ln -s busybox "$root/bin/$name"
	done
	# It also stands in for the image that holds a pod's namespaces. As process 1, sleep would ignore SIGTERM.
	image "$TOOLS_IMAGE" "$root" '{"Env": ["PATH=/bin"], "Cmd": ["/bin/sleep", "2147483647"], "StopSignal": "SIGKILL"}'
}

binary() {
	local root=$WORK/root
	mkdir -p "$root"
	cp "$2" "$root/${2##*/}"
	image "$1" "$root" "{\"Entrypoint\": [\"/${2##*/}\"]}"
}

# Whatever names the archive has itself are of no use here.
import() {
	ctr --namespace k8s.io images import --index-name "$2" "$1" >/dev/null
}

tag() {
	ctr --namespace k8s.io images tag --force "$1" "$2" >/dev/null
}

make_work images
trap clean_up EXIT
case ${1:-} in
tools) tools ;;
binary) binary "$2" "$3" ;;
import) import "$2" "$3" ;;
tag) tag "$2" "$3" ;;
*) die "images.sh: tools, binary NAME FILE, import TAR NAME, or tag NAME NAME" ;;
esac

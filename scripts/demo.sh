#!/usr/bin/env bash
# `make demo`: a real model from a real S3 server becomes a read-only volume, by the calls that kubelet makes. Installs
# what it needs, builds, and leaves nothing behind but the build and the tools.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
cd "$ROOT"

STEP=0
TITLE=preparing
SHOWN=() # the command last shown, for the message of a failure

step() {
	STEP=$((STEP + 1))
	TITLE=$1
	printf '\n%s%d. %s%s\n' "$BOLD$BLUE" "$STEP" "$1" "$PLAIN"
}

note() { printf '   %s%s%s\n' "$DIM" "$1" "$PLAIN"; }

# Long paths by their short names, which `names` explains.
short() { sed -u -e "s|$POD_A|\$POD_A|g" -e "s|$POD_B|\$POD_B|g" -e "s|$WORK|\$D|g"; }

# What a command prints, set in.
indent() { short | sed -u 's/^/   /'; }

# A command that is too long for one line gets one for each of its options.
show() {
	local line
	line=$(short <<<"$*")
	if ((${#line} > 130)); then line=${line// --/ \\$'\n'         --}; fi
	printf '   %s$ %s%s\n' "$GREEN" "$line" "$PLAIN"
}

# The words of a command as one would type them.
typed() {
	local word words=()
	for word in "$@"; do
		if [[ $word == *[[:space:]]* ]]; then word="'$word'"; fi
		words+=("$word")
	done
	echo "${words[*]}"
}

# run COMMAND...: shows it, runs it, shows what it says.
run() {
	show "$(typed "$@")"
	SHOWN=("$@")
	"$@" 2>&1 | indent
}

seconds_since() { awk -v a="$1" -v b="$EPOCHREALTIME" 'BEGIN { printf "%.3f", b - a }'; }

# ------------------------------------------------------------- before the first step

prepare() {
	echo "${BOLD}modelmount: a model URI becomes a read-only volume${PLAIN}"
	may_mount || no_mounting # before minutes are spent on a build
	note "First: the tools (an S3 server and its client, a real model) and a release build."
	note "The first time takes some minutes."
	scripts/tools.sh demo
	[[ -z ${MODELMOUNT_BIN:-} ]] || return 0
	cargo build --release --locked -p modelmount-driver ||
		die "the build failed; what the compiler said is above"
}

may_mount() { can_mount || { [[ $(id -u) != 0 ]] && have sudo; }; }

no_mounting() {
	echo
	echo "The demo mounts a volume, and that is not possible here as $(id -un)."
	echo "Please run \`make demo\` as root (or as a user who may sudo), on a machine that lets root mount;"
	echo "a container needs --privileged for that."
	exit 1
}

# Only what comes now needs root. The build before it ran as whoever called.
as_root() {
	if can_mount; then return; fi
	if may_mount; then
		note "Mounting needs root, so the rest runs by sudo."
		exec sudo --preserve-env=MODELMOUNT_BIN,CARGO_TARGET_DIR,NO_COLOR,TERM \
			env MODELMOUNT_TOOLS="$TOOLS" MODELMOUNT_DEMO=prepared "$ROOT/scripts/demo.sh"
	fi
	no_mounting
}

# ------------------------------------------------------------- the steps

MODEL=$TOOLS/models/all-MiniLM-L6-v2
URI=s3://models/all-MiniLM-L6-v2
POD_A='' POD_B='' SOCKET=''

names() {
	BINARY=$(realpath "$(find_binary release)")
	mkdir -p "$WORK/bin"
	ln -s "$BINARY" "$WORK/bin/modelmount"
	PATH=$WORK/bin:$PATH
	SOCKET=$WORK/kubelet/plugins/csi.modelmount.io/csi.sock
	POD_A=$WORK/kubelet/pods/0a1fc3e2-5a4b-4c7d-9b1e-6d2f8c0e9a11/volumes/kubernetes.io~csi/model/mount
	POD_B=$WORK/kubelet/pods/7be0d9c4-1f32-4e8a-8c55-2a9d3b7f6e42/volumes/kubernetes.io~csi/model/mount
	note "D      $WORK"
	note "POD_A  \$D${POD_A#"$WORK"}"
	note "POD_B  \$D${POD_B#"$WORK"}"
	export MODELMOUNT_ENDPOINT=unix://$SOCKET
	# Kubelet makes everything but the last directory; that one is the driver's to make and to remove.
	mkdir -p "$(dirname "$SOCKET")" "$(dirname "$POD_A")" "$(dirname "$POD_B")"
}

serve_model() {
	step "An S3 server that holds a real model"
	start_s3 "$WORK/s3" "$WORK/s3.requests"
	show "$S3_COMMAND &"
	s3_put models "$(realpath "$MODEL")/" all-MiniLM-L6-v2/
	show "s5cmd --endpoint-url $S3_ENDPOINT ls $URI/*"
	s3 ls "$URI/*" | awk '{ printf "%11d  %s\n", $(NF - 1), $NF }' | indent
}

start_plugin() {
	step "The node plugin, with an empty cache"
	note "Loopback addresses are refused unless the operator allows them."
	show export "MODELMOUNT_ENDPOINT=$MODELMOUNT_ENDPOINT"
	show modelmount node --node-id demo --cache-dir "$WORK/cache" --kubelet-dir "$WORK/kubelet" \
		--allow-address 127.0.0.0/8 '&'
	start node modelmount node --node-id demo --cache-dir "$WORK/cache" --kubelet-dir "$WORK/kubelet" \
		--allow-address 127.0.0.0/8
	wait_for 20 "$STARTED" "the node plugin" test -S "$SOCKET"
}

# publish TARGET: as kubelet does for an inline volume, through the socket. Sets TOOK.
TOOK=''
READS=0 # requests for content that the S3 server had answered before

reads() { grep -c ' s3_GetObject ' "$WORK/s3.requests" 2>/dev/null || true; }

# reads_since COUNT: the end of a sentence; empty where the server keeps no log.
reads_since() {
	if [[ -e $WORK/s3.requests ]]; then echo "; the S3 server answered $(($(reads) - $1)) reads"; fi
}

publish() {
	local began
	printf '%s' "$S3_KEY" >"$WORK/access-key"
	printf '%s' "$S3_SECRET" >"$WORK/secret-key"
	began=$EPOCHREALTIME
	run modelmount mount "$URI" "$1" \
		--attribute "endpoint=$S3_ENDPOINT" --attribute "region=$S3_REGION" \
		--secret "AWS_ACCESS_KEY_ID=$WORK/access-key" --secret "AWS_SECRET_ACCESS_KEY=$WORK/secret-key"
	TOOK=$(seconds_since "$began")
}

first_pod() {
	step "A pod asks for the model: NodePublishVolume through the plugin's socket"
	publish "$POD_A"
	FIRST=$TOOK
	note "downloaded, verified and mounted in $FIRST s$(reads_since 0)"
	run findmnt --noheadings --output TARGET,OPTIONS --target "$POD_A"
}

show_content() {
	step "What the pod sees, and whether it is what the server has"
	show "find $POD_A -type f -printf '%s  %m  %P\\n'"
	find "$POD_A" -type f -printf '%11s  %m  %P\n' | sort -k 3 | indent
	show "cd $POD_A && sha256sum \$(find . -type f)"
	compare_hashes
}

hashes() { (cd "$1" && find . -type f -exec sha256sum {} + | sort -k 2); }

compare_hashes() {
	local pod source
	pod=$(hashes "$POD_A")
	source=$(hashes "$(realpath "$MODEL")")
	indent <<<"${pod// .\// }"
	if [[ $pod != "$source" ]]; then
		echo "   the source's files are others:"
		diff <(echo "$source") <(echo "$pod") | indent || true
		return 1
	fi
	note "the source's $(wc -l <<<"$source") files have the same hashes"
}

# refused COMMAND...: shows the command and its error; fails if it succeeds.
refused() {
	show "$@"
	if "$@" >"$WORK/refused" 2>&1; then
		echo "   this should have failed"
		return 1
	fi
	indent <"$WORK/refused"
}

read_only() {
	step "The pod can't write, root or not"
	refused touch "$POD_A/new"
	refused rm "$POD_A/config.json"
	refused dd if=/dev/zero of="$POD_A/model.safetensors" bs=1 count=1 conv=notrunc status=none
}

second_pod() {
	step "A second pod asks for the same model"
	READS=$(reads)
	publish "$POD_B"
	note "mounted in $TOOK s, the first took $FIRST s$(reads_since "$READS")"
	[[ $(reads) == "$READS" ]] || { echo "   it was downloaded again"; return 1; }
	run stat --format='inode %i  %n' "$POD_A/model.safetensors" "$POD_B/model.safetensors"
	note "one inode: the pods share one copy on disk and in the page cache"
	run modelmount cache ls --cache-dir "$WORK/cache"
}

unpublish() {
	step "Both pods go"
	run modelmount unmount "$POD_A"
	run modelmount unmount "$POD_B"
}

# nothing WHAT TEXT: the text must be empty.
nothing() {
	if [[ -z $2 ]]; then
		printf '   %s: %snone%s\n' "$1" "$GREEN" "$PLAIN"
	else
		printf '   %s: %sleft behind%s\n%s\n' "$1" "$RED" "$PLAIN" "$2"
		return 1
	fi
}

leave_nothing() {
	local pids pid work=$WORK
	step "Everything stops, and nothing is left"
	nothing "mounts after the unpublishing" "$(mounts_below "$work")"
	nothing "target directories" "$(ls -d "$POD_A" "$POD_B" 2>/dev/null || true)"
	pids=("${PIDS[@]}")
	note "stopping the plugin and the S3 server, removing \$D"
	clean_up
	nothing "processes" "$(for pid in "${pids[@]}"; do if kill -0 "$pid" 2>/dev/null; then echo "$pid"; fi; done)"
	nothing "mounts" "$(mounts_below "$work")"
	nothing "directories" "$(ls -d "$work" 2>/dev/null || true)"
}

# ------------------------------------------------------------- how it ends

finish() {
	local status=$? log
	if ((status == 130)); then
		printf '\nInterrupted; stopping and cleaning up.\n'
	elif ((status)); then
		echo
		echo "${RED}${BOLD}Step $STEP failed:${PLAIN} $TITLE"
		if ((${#SHOWN[@]})); then echo "  last command: ${SHOWN[*]}"; fi
		for log in node s3; do
			[[ -s $WORK/$log.log ]] || continue
			echo "  the end of the log of ${log/s3/the S3 server}:"
			tail -n 15 "$WORK/$log.log" | sed 's/^/    /'
		done
	fi
	clean_up
}

main() {
	if [[ ${MODELMOUNT_DEMO:-} != prepared ]]; then
		prepare
	fi
	as_root
	have s5cmd || die "the demo needs s5cmd; see above"
	[[ -s $MODEL/model.safetensors ]] || die "the demo needs the model; see above"
	without_proxies
	make_work demo
	trap finish EXIT
	trap 'exit 130' INT TERM
	note "Below, three directories go by short names; the last two are where kubelet would mount."
	names

	serve_model
	start_plugin
	first_pod
	show_content
	read_only
	second_pod
	unpublish
	leave_nothing

	printf '\n%sThat was it.%s A pod in Kubernetes names the same URI; see README.md.\n' "$BOLD" "$PLAIN"
}

main

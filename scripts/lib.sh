# shellcheck shell=bash
# What the scripts share: where the tools live, how a skip is recorded, and how servers, mounts and directories
# that a script made are put away again. Sourced, never run.

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
TOOLS=${MODELMOUNT_TOOLS:-${XDG_CACHE_HOME:-$HOME/.cache}/modelmount-tools}
PATH=$TOOLS/bin:$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin
export PATH MODELMOUNT_TOOLS=$TOOLS
# As everywhere: what goes into images, and what a node keeps for its containers, is for other users than root too.
umask 022

# Keys of the S3 servers that the scripts start on loopback. No secret: they open nothing else.
S3_KEY=modelmount-test
S3_SECRET=modelmount-test-secret
S3_REGION=us-east-1

if [[ -t 1 && -z ${NO_COLOR:-} ]]; then
	BOLD=$'\e[1m' DIM=$'\e[2m' RED=$'\e[31m' GREEN=$'\e[32m' YELLOW=$'\e[33m' BLUE=$'\e[34m' PLAIN=$'\e[0m'
else
	BOLD='' DIM='' RED='' GREEN='' YELLOW='' BLUE='' PLAIN=''
fi
# Not every script that sources this uses every colour.
: "$BOLD$DIM$RED$GREEN$YELLOW$BLUE$PLAIN"

die() {
	echo "${RED}error:${PLAIN} $*" >&2
	exit 1
}

have() { command -v "$1" >/dev/null 2>&1; }

in_ci() { [[ ${CI:-} == true ]]; }

# skip WHAT REASON: says that something could not be done here, and remembers it for the list that `make test`
# prints at its end. With CI=true that list must be empty.
skip() {
	echo "${YELLOW}SKIPPED${PLAIN} $1: $2" >&2
	[[ -z ${MODELMOUNT_SKIP_FILE:-} ]] || printf '%s\t%s\n' "$1" "$2" >>"$MODELMOUNT_SKIP_FILE"
}

# unchecked WHAT REASON: the same for a check that is a step of its own: in CI it is a failure at once.
unchecked() {
	if in_ci; then die "$1: $2"; fi
	skip "$1" "$2"
}

# What leads out of this machine to what is installed must not stand between programs on loopback and in the cluster.
without_proxies() { unset http_proxy https_proxy all_proxy no_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY NO_PROXY; }

# What is compiled here, fetched while there is a way out.
fetch_crates() { cargo fetch --locked --quiet --target "$(rustc -vV | sed -n 's/^host: //p')"; }

# The version in Cargo.toml.
version() { sed -n '/^\[workspace.package\]/,/^\[/ s/^version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml"; }

# The library's features in Cargo.toml, `default` excepted.
library_features() { sed -n '/^\[features\]/,/^\[/ { /^default /d; s/^\([a-z0-9_-]*\) = .*/\1/p }' "$ROOT/Cargo.toml"; }

# Where `make image` puts the image.
image_archive() { echo "${CARGO_TARGET_DIR:-$ROOT/target}/image/modelmount-$(version)-linux-amd64.oci.tar"; }

# True if this process may mount: root in a container often may not.
can_mount() { [[ $(id -u) == 0 ]] && unshare --mount true 2>/dev/null; }

# ------------------------------------------------------------- what a script made

WORK=''   # its one directory, set by make_work
PIDS=()   # its servers, in the order in which they were started

# make_work NAME: a private directory under TMPDIR for everything that this run writes.
make_work() {
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/modelmount-$1.XXXXXX")
	WORK=$(realpath "$WORK")
}

# start NAME COMMAND...: runs a server; its output goes to $WORK/NAME.log, its process id to $STARTED.
STARTED=''
start() {
	local name=$1
	shift
	"$@" >"$WORK/$name.log" 2>&1 </dev/null &
	STARTED=$!
	PIDS+=("$STARTED")
}

# stop PID: asks, waits ten seconds, then insists.
stop() {
	local pid=$1 i
	kill -TERM "$pid" 2>/dev/null || true
	for ((i = 0; i < 100; i++)); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	kill -KILL "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
}

# The servers end in the reverse order of their start.
stop_all() {
	local i
	for ((i = ${#PIDS[@]} - 1; i >= 0; i--)); do stop "${PIDS[i]}"; done
	PIDS=()
}

# mounts_below DIR: the mount points below it, deepest first.
mounts_below() {
	local dir=$1 mount
	while read -r _ _ _ _ mount _; do
		mount=$(printf '%b' "$mount")
		if [[ $mount == "$dir"/* ]]; then echo "$mount"; fi
	done </proc/self/mountinfo | sort -r
}

# Stops what was started, unmounts what is mounted below $WORK, removes $WORK. A directory with a live mount in it is
# left alone: removing it would reach into what is mounted.
clean_up() {
	local mount
	stop_all
	[[ -n $WORK && -d $WORK ]] || return 0
	while read -r mount; do umount "$mount" 2>/dev/null || umount -l "$mount" 2>/dev/null || true; done < <(mounts_below "$WORK")
	if [[ -n $(mounts_below "$WORK") ]]; then
		echo "${RED}left behind:${PLAIN} mounts below $WORK" >&2
		return 0
	fi
	chmod -R u+w "$WORK" 2>/dev/null || true
	rm -rf --one-file-system "$WORK"
}

# ------------------------------------------------------------- servers

# A TCP port of loopback that nobody listens on. Below the ephemeral range, so that no outgoing connection takes it
# between here and the server's start.
free_port() {
	local port i
	for ((i = 0; i < 100; i++)); do
		port=$((10000 + RANDOM % 20000))
		(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null || {
			echo "$port"
			return
		}
	done
	die "no free port on 127.0.0.1"
}

# wait_for SECONDS PID WHAT COMMAND...: until the command succeeds; fails at once if the process is gone.
wait_for() {
	local seconds=$1 pid=$2 what=$3 i
	shift 3
	for ((i = 0; i < seconds * 20; i++)); do
		"$@" >/dev/null 2>&1 && return
		kill -0 "$pid" 2>/dev/null || {
			echo "$what ended instead of starting" >&2
			return 1
		}
		sleep 0.05
	done
	echo "$what did not start within $seconds s" >&2
	return 1
}

port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# start_s3 DIR [ACCESS_LOG]: an S3 server on loopback that keeps its buckets in DIR. Sets S3_ENDPOINT, S3_SERVER and
# S3_COMMAND. Only versitygw writes an access log.
S3_ENDPOINT='' S3_SERVER='' S3_COMMAND=''
start_s3() {
	local dir=$1 log=${2:-} port
	mkdir -p "$dir"
	port=$(free_port)
	S3_ENDPOINT=http://127.0.0.1:$port
	if have versitygw; then
		# Without keep-alive each request costs a connection, which no S3 service asks of its users.
		set -- versitygw --port "127.0.0.1:$port" --region "$S3_REGION" --keep-alive --quiet ${log:+--access-log "$log"} posix "$dir"
		S3_SERVER="versitygw"
	elif have rclone; then
		set -- rclone serve s3 --addr "127.0.0.1:$port" --auth-key "$S3_KEY,$S3_SECRET" --config /dev/null "$dir"
		S3_SERVER="rclone serve s3"
	else
		echo "no S3 server: neither versitygw nor rclone could be installed" >&2
		return 1
	fi
	# shellcheck disable=SC2034 # for the demo, which shows it
	S3_COMMAND="$*"
	ROOT_ACCESS_KEY=$S3_KEY ROOT_SECRET_KEY=$S3_SECRET start s3 "$@"
	wait_for 20 "$STARTED" "$S3_SERVER" port_open "$port"
}

# s3_put BUCKET SOURCE KEY: creates the bucket if need be, uploads a file or (ending in /) a directory.
s3_put() {
	local bucket=$1 source=$2 key=$3
	s3 mb "s3://$bucket" >/dev/null 2>&1 || true
	s3 cp "$source" "s3://$bucket/$key" >/dev/null
}

s3() {
	AWS_ACCESS_KEY_ID=$S3_KEY AWS_SECRET_ACCESS_KEY=$S3_SECRET AWS_REGION=$S3_REGION AWS_EC2_METADATA_DISABLED=true \
		s5cmd --endpoint-url "$S3_ENDPOINT" "$@"
}

# Where this system has the programs that connect pods to a network.
cni_plugins() {
	local directory
	for directory in /usr/lib/cni /usr/libexec/cni /opt/cni/bin; do
		if [[ -x $directory/bridge ]]; then
			echo "$directory"
			return
		fi
	done
	return 1
}

# The binary under test: $MODELMOUNT_BIN, or the newest build.
find_binary() {
	local target=${CARGO_TARGET_DIR:-$ROOT/target} profile
	if [[ -n ${MODELMOUNT_BIN:-} ]]; then
		echo "$MODELMOUNT_BIN"
		return
	fi
	for profile in "$@"; do
		if [[ -x $target/$profile/modelmount ]]; then
			echo "$target/$profile/modelmount"
			return
		fi
	done
	die "no modelmount in $target: run \`make build\` first"
}

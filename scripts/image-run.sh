#!/usr/bin/env bash
# Runs the image that `make image` made, in a containerd of its own: the node plugin mounts a model from an HTTPS server
# whose name DNS resolves, the controller answers as a user without any capability. Root file systems are read-only.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
without_proxies
cd "$ROOT"

ARCHIVE=$(image_archive)
DNS_ADDRESS=127.0.53.77 # all of 127.0.0.0/8 is this machine, and nobody else is likely to serve names there
DNS_NAME=models.example
HOSTS_NAME=hosts.example

needs() {
	local tool
	for tool in containerd ctr runc nginx openssl python3 csi-sanity; do
		have "$tool" || { unchecked "running the image" "needs $tool"; exit 0; }
	done
	can_mount || { unchecked "running the image" "needs root and the right to mount"; exit 0; }
	[[ -f $ARCHIVE ]] || die "no image in ${ARCHIVE%/*}: run \`make image\` first"
}

step() { echo "${BOLD}$1${PLAIN}"; }

# ------------------------------------------------------------- containerd

our_ctr() { ctr --address "$WORK/containerd.sock" --namespace modelmount-test "$@"; }

# A container outlives its containerd: first they go, then it, then what they mounted.
put_away() {
	local name
	if [[ -S $WORK/containerd.sock ]]; then
		while read -r name; do our_ctr tasks delete --force "$name"; done < <(our_ctr tasks ls --quiet) >/dev/null 2>&1 || true
	fi
	clean_up
}

start_containerd() {
	cat >"$WORK/containerd.toml" <<-TOML
		version = 2
		root = "$WORK/containerd/root"
		state = "$WORK/containerd/state"
		disabled_plugins = ["io.containerd.grpc.v1.cri", "io.containerd.internal.v1.opt"]
		[grpc]
		address = "$WORK/containerd.sock"
	TOML
	start containerd containerd --config "$WORK/containerd.toml"
	wait_for 30 "$STARTED" containerd our_ctr version
}

# container NAME [ctr run's options] -- ARGUMENTS: runs the image to its end, in the network of this machine, but without its
# /etc/hosts and /etc/resolv.conf, which --net-host would bring.
container() {
	local name=$1 options=()
	shift
	while [[ $1 != -- ]]; do
		options+=("$1")
		shift
	done
	shift
	our_ctr run --rm --read-only --with-ns "network:/proc/$$/ns/net" "${options[@]}" "$IMAGE" "$name" /modelmount "$@"
}

bind() { echo "type=bind,src=$1,dst=${2:-$1},options=rbind:${3:-ro}"; }

# end NAME PID: the container is told to stop, and must do so by itself.
end() {
	local name=$1 pid=$2 code=0
	our_ctr tasks kill --signal SIGTERM "$name"
	wait "$pid" || code=$?
	((code == 0)) || die "$name ended with code $code: $(cat "$WORK/$name.log")"
}

# ------------------------------------------------------------- the model's server

# A name server that knows one name, for the part of libc that a static binary is said to lack.
start_dns() {
	start dns python3 scripts/image-dns.py "$DNS_ADDRESS" "$DNS_NAME" 127.0.0.1
	wait_for 10 "$STARTED" "the name server" grep -q serving "$WORK/dns.log"
	printf 'nameserver %s\noptions ndots:5\nsearch svc.cluster.local\n' "$DNS_ADDRESS" >"$WORK/resolv.conf"
	printf '127.0.0.1 localhost %s\n' "$HOSTS_NAME" >"$WORK/hosts"
}

make_certificates() {
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj "/CN=modelmount test CA" \
		-addext "basicConstraints=critical,CA:TRUE" -keyout "$WORK/ca.key" -out "$WORK/ca.pem"
	openssl req -newkey rsa:2048 -nodes -subj "/CN=$DNS_NAME" -keyout "$WORK/server.key" -out "$WORK/server.csr"
	openssl x509 -req -in "$WORK/server.csr" -CA "$WORK/ca.pem" -CAkey "$WORK/ca.key" -CAcreateserial -days 2 \
		-extfile <(printf 'subjectAltName=DNS:%s,DNS:%s\n' "$DNS_NAME" "$HOSTS_NAME") -out "$WORK/server.pem"
}

PORT=''
start_https() {
	make_certificates >"$WORK/openssl.log" 2>&1 || die "openssl failed: $(cat "$WORK/openssl.log")"
	PORT=$(free_port)
	mkdir -p "$WORK/www" "$WORK/nginx"
	head -c 3000000 /dev/urandom >"$WORK/www/model.safetensors"
	chmod 755 "$WORK" # nginx's workers are another user
	cat >"$WORK/nginx.conf" <<-CONF
		daemon off;
		pid $WORK/nginx/pid;
		error_log $WORK/nginx/error.log;
		events {}
		http {
			access_log off;
			client_body_temp_path $WORK/nginx/1; proxy_temp_path $WORK/nginx/2; fastcgi_temp_path $WORK/nginx/3;
			uwsgi_temp_path $WORK/nginx/4; scgi_temp_path $WORK/nginx/5;
			server {
				listen 127.0.0.1:$PORT ssl;
				ssl_certificate $WORK/server.pem;
				ssl_certificate_key $WORK/server.key;
				root $WORK/www;
			}
		}
	CONF
	start nginx nginx -e "$WORK/nginx/error.log" -c "$WORK/nginx.conf"
	wait_for 10 "$STARTED" nginx port_open "$PORT"
}

# ------------------------------------------------------------- what is tried

answers_at_once() {
	step "--version and --help"
	[[ $(container version -- --version) == "modelmount "* ]] || die "no version"
	container help -- node --help | grep -q -- --cache-dir || die "no help"
}

# resolve NAME OPTIONS: what the image's own client says of the model on our server.
resolve() {
	local host=$1
	shift
	container resolve --mount "$(bind "$WORK/resolv.conf" /etc/resolv.conf)" --mount "$(bind "$WORK/hosts" /etc/hosts)" \
		"$@" -- resolve "https://$host:$PORT/model.safetensors" 2>&1
}

resolves_and_trusts() {
	local host said ca
	ca=$(bind "$WORK/ca.pem" /ca.pem)
	step "names and certificates"
	for host in "$DNS_NAME" "$HOSTS_NAME"; do
		said=$(resolve "$host" --mount "$ca" --env SSL_CERT_FILE=/ca.pem) || die "$host: $said"
		[[ $said == *3000000* || $said == *model.safetensors* ]] || die "$host: $said"
	done
	# The file that the image brings is the one that counts …
	said=$(resolve "$DNS_NAME" --mount "$(bind "$WORK/ca.pem" /etc/ssl/certs/ca-certificates.crt)") || die "$said"
	# … and our authority is not in it, nor is a name believed that nobody knows.
	if said=$(resolve "$DNS_NAME"); then die "a certificate of nobody's was trusted: $said"; fi
	[[ $said == *ertificate* || $said == *UnknownIssuer* ]] || die "$said"
	if said=$(resolve nobody.example); then die "a name of nobody's was resolved: $said"; fi
	[[ $said == *"does not resolve"* ]] || die "$said"
}

identity_suite() {
	csi-sanity --csi.endpoint="unix://$1" --ginkgo.focus='Identity Service' --ginkgo.no-color >"$WORK/sanity.log" 2>&1 ||
		die "csi-sanity: $(cat "$WORK/sanity.log")"
}

node_mounts() {
	local kubelet=$WORK/kubelet cache=$WORK/cache socket target pid
	step "the node plugin"
	socket=$kubelet/plugins/csi.modelmount.io/csi.sock
	target=$kubelet/pods/5a17177e-0000-4000-8000-000000000000/volumes/kubernetes.io~csi/model/mount
	mkdir -p "$cache" "$(dirname "$socket")" "$(dirname "$target")"
	# As on a node: what the plugin mounts below kubelet's directory is seen outside of the container.
	mount --bind "$kubelet" "$kubelet"
	mount --make-rshared "$kubelet"
	start node container node --privileged --rootfs-propagation rshared --mount "$(bind "$WORK/resolv.conf" /etc/resolv.conf)" \
		--mount "$(bind "$WORK/ca.pem" /ca.pem)" --env SSL_CERT_FILE=/ca.pem \
		--mount "$(bind "$kubelet" "$kubelet" rshared:rw)" --mount "$(bind "$cache" "$cache" rw)" -- \
		node --endpoint "unix://$socket" --node-id node --cache-dir "$cache" --kubelet-dir "$kubelet" \
		--allow-address 127.0.0.0/8
	pid=$STARTED
	wait_for 20 "$pid" "the node plugin" test -S "$socket" || die "$(cat "$WORK/node.log")"
	identity_suite "$socket"
	inside() { our_ctr tasks exec --exec-id client node /modelmount "$@" --endpoint "unix://$socket"; }
	inside mount "https://$DNS_NAME:$PORT/model.safetensors" "$target" 2>"$WORK/mount.log" || die "$(cat "$WORK/mount.log")"
	cmp "$WORK/www/model.safetensors" "$target/model.safetensors" || die "the model is not what was mounted"
	if touch "$target/x" 2>/dev/null; then die "the model can be written to"; fi
	inside unmount "$target" 2>>"$WORK/mount.log" || die "$(cat "$WORK/mount.log")"
	[[ ! -e $target ]] || die "the target is still there"
	end node "$pid"
}

# spec ROOT DIRECTORY ARGUMENTS...: how kubelet would have the controller run. Options of `ctr run` know no user.
spec() {
	our_ctr oci spec | python3 -c '
import json, sys
root, directory, *arguments = sys.argv[1:]
spec = json.load(sys.stdin)
process = spec["process"]
process["user"] = {"uid": 65532, "gid": 65532}
process["capabilities"] = {kind: [] for kind in process["capabilities"]}
process["args"] = ["/modelmount", *arguments]
spec["root"] = {"path": root, "readonly": True}
spec["mounts"].append({"destination": directory, "source": directory, "type": "bind", "options": ["rbind", "rw"]})
json.dump(spec, sys.stdout)' "$@"
}

controller_answers() {
	local directory=$WORK/controller root=$WORK/root socket pid status
	step "the controller, as user 65532 without capabilities"
	socket=$directory/csi.sock
	mkdir -m 0700 "$directory"
	chown 65532:65532 "$directory"
	mkdir "$root"
	our_ctr images mount --rw "$IMAGE" "$root" >/dev/null
	spec "$root" "$directory" controller --endpoint "unix://$socket" >"$WORK/spec.json"
	start controller our_ctr run --rm --config "$WORK/spec.json" controller
	pid=$STARTED
	wait_for 20 "$pid" "the controller" test -S "$socket" || die "$(cat "$WORK/controller.log")"
	status=/proc/$(our_ctr tasks ls | awk '$1 == "controller" { print $2 }')/status
	grep -q '^Uid:[[:space:]]65532' "$status" || die "it runs as another user: $(grep Uid "$status")"
	if grep '^Cap' "$status" | grep -qv '0000000000000000$'; then die "it has capabilities: $(grep Cap "$status")"; fi
	identity_suite "$socket"
	end controller "$pid"
}

main() {
	needs
	make_work image-run
	trap put_away EXIT
	trap 'exit 130' INT TERM
	start_containerd
	our_ctr images import "$ARCHIVE" >/dev/null
	IMAGE=$(our_ctr images ls --quiet)
	step "$IMAGE in $(containerd --version | cut -d ' ' -f 1,3)"
	start_dns
	start_https
	answers_at_once
	resolves_and_trusts
	node_mounts
	controller_answers
	echo "${GREEN}the image runs${PLAIN}"
}

main

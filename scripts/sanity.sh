#!/usr/bin/env bash
# csi-sanity, the official conformance suite of CSI drivers, against the real binary: real model, real S3 server, real
# mounts.
#
#   sanity.sh [debug|release] [csi-sanity's flags, such as --ginkgo.focus=NodeUnpublish]
#
# Which tests do not run, and why: tests/sanity-skips.txt. Results: target/test/sanity.xml (JUnit), sanity.log.
set -euo pipefail
# shellcheck source=scripts/lib.sh
source "$(dirname "$0")/lib.sh"
without_proxies
cd "$ROOT"

OUT=${CARGO_TARGET_DIR:-$ROOT/target}/test
SKIPS=tests/sanity-skips.txt
PROFILE=debug
case ${1:-} in debug | release)
	PROFILE=$1
	shift
	;;
esac

needs() {
	local tool
	for tool in csi-sanity s5cmd python3; do
		have "$tool" || { skip csi-sanity "needs $tool"; exit 0; }
	done
	can_mount || { skip csi-sanity "needs root and the right to mount"; exit 0; }
}

# What `csi-sanity` publishes is what CreateVolume made of these.
write_configuration() {
	local rpc
	cat >"$WORK/parameters.yaml" <<-YAML
		modelUri: s3://models/sanity
		endpoint: $S3_ENDPOINT
		region: $S3_REGION
	YAML
	for rpc in CreateVolume DeleteVolume ControllerValidateVolumeCapabilities NodePublishVolume; do
		cat <<-YAML
			${rpc}Secret:
			  AWS_ACCESS_KEY_ID: $S3_KEY
			  AWS_SECRET_ACCESS_KEY: $S3_SECRET
		YAML
	done >"$WORK/secrets.yaml"
}

upload_model() {
	mkdir -p "$WORK/model/tokenizer"
	echo '{"architectures": ["Sanity"]}' >"$WORK/model/config.json"
	echo '{}' >"$WORK/model/tokenizer/tokenizer.json"
	head -c 3000000 /dev/urandom >"$WORK/model/model.safetensors"
	s3_put models "$WORK/model/" sanity/
}

# csi-sanity makes the last directory of each of these itself, and its targets are <mountdir>/target; kubelet's are
# …/<volume>/mount. The rest of the path is kubelet's.
KUBELET='' MOUNTS='' STAGING=''
make_kubelet_dir() {
	KUBELET=$WORK/kubelet
	MOUNTS=$KUBELET/pods/5a17177e-0000-4000-8000-000000000000/volumes/kubernetes.io~csi/sanity
	STAGING=$KUBELET/plugins/kubernetes.io/csi/csi.modelmount.io/sanity
	mkdir -p "$(dirname "$MOUNTS")" "$(dirname "$STAGING")" "$KUBELET/plugins/csi.modelmount.io"
}

run_suite() {
	local expression ask=()
	while read -r expression; do ask+=("--ginkgo.skip=$expression"); done < <(scripts/sanity-report.py ask "$SKIPS")
	csi-sanity --csi.endpoint="unix://$1" \
		--csi.mountdir="$MOUNTS" --csi.stagingdir="$STAGING" \
		--csi.testvolumeparameters="$WORK/parameters.yaml" --csi.secrets="$WORK/secrets.yaml" \
		--ginkgo.junit-report="$OUT/sanity.xml" --ginkgo.no-color --ginkgo.timeout=10m \
		"${ask[@]}" "${@:2}" >"$OUT/sanity.log" 2>&1
}

main() {
	local binary socket node status=0 left
	needs
	binary=$(find_binary "$PROFILE")
	mkdir -p "$OUT"
	rm -f "$OUT"/sanity.*
	make_work sanity
	trap clean_up EXIT
	trap 'exit 130' INT TERM

	start_s3 "$WORK/s3"
	upload_model
	make_kubelet_dir
	write_configuration
	socket=$KUBELET/plugins/csi.modelmount.io/csi.sock
	start node "$binary" node --with-controller --endpoint "unix://$socket" --node-id sanity \
		--cache-dir "$WORK/cache" --kubelet-dir "$KUBELET" --allow-address 127.0.0.0/8
	node=$STARTED
	wait_for 20 "$node" "the node plugin" test -S "$socket" || { cat "$WORK/node.log"; exit 1; }

	echo "${BOLD}csi-sanity${PLAIN} against $binary, real mounts, $S3_SERVER"
	run_suite "$socket" "$@" || status=1
	kill -0 "$node" 2>/dev/null || { echo "  the node plugin died"; status=1; }
	left=$(mounts_below "$WORK" | wc -l)
	((left == 0)) || { echo "  $left mounts were left behind"; status=1; }
	cp "$WORK/node.log" "$OUT/sanity.node.log"
	if [[ ! -s $OUT/sanity.xml ]]; then
		tail -n 20 "$OUT/sanity.log"
		die "csi-sanity wrote no report"
	fi
	if (($#)); then # a selection of tests: the list of skips says nothing about it
		cat "$OUT/sanity.log"
		return "$status"
	fi
	scripts/sanity-report.py check "$SKIPS" "$OUT/sanity.xml" >"$OUT/sanity.total" || status=1
	cat "$OUT/sanity.total"
	if ((status)); then echo "  logs: $OUT/sanity.log (the suite), $OUT/sanity.node.log (the plugin)"; fi
	return "$status"
}

main "$@"

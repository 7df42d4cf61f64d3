# shellcheck shell=bash
# How the cases talk to the cluster: the release, namespaces, pods. Sourced by suite.sh.

CHART=$ROOT/charts/modelmount
OWN_IMAGE=''    # the chart's, once it was imported
NAMESPACE=''    # of the case that runs, once it called `namespace`

# The images get the names by which the chart asks for them, so that the release is what a user gets. What is missing
# fails at once: no registry can be reached.
import_images() {
	local manifests provisioner
	manifests=$(helm template modelmount "$CHART" --kube-version "$(kubectl version --output json | jq -r .serverVersion.gitVersion)")
	OWN_IMAGE=$(image_named /modelmount <<<"$manifests")
	provisioner=$(image_named /csi-provisioner <<<"$manifests")
	"$ROOT/tests/e2e/images.sh" import "$MODELMOUNT_IMAGE" "$OWN_IMAGE"
	"$ROOT/tests/e2e/images.sh" tag "$OWN_IMAGE" "${OWN_IMAGE%:*}:next" # another version, as far as Kubernetes can tell
	"$ROOT/tests/e2e/images.sh" binary "$provisioner" "$TOOLS/bin/csi-provisioner"
	"$ROOT/tests/e2e/images.sh" reader
}

# image_named NAME: of the manifests on standard input.
image_named() { sed -n "s|^.*image: \"\{0,1\}\([^\"]*$1:[^\"]*\)\"\{0,1\}\$|\1|p" | sort -u; }

# release [HELM_FLAGS...]: installs the chart, or changes the release, so that it has its default values and these. Only the
# machine's disk is not this cluster's alone: what others use of it may leave less free than a node should have.
release() {
	kubectl get namespace "$RELEASE_NAMESPACE" >/dev/null 2>&1 || {
		kubectl create namespace "$RELEASE_NAMESPACE"
		# The node plugin mounts; the API server lets it do so only here.
		kubectl label namespace "$RELEASE_NAMESPACE" pod-security.kubernetes.io/enforce=privileged
	}
	helm upgrade --install modelmount "$CHART" --namespace "$RELEASE_NAMESPACE" --reset-values --wait --timeout 120s \
		--set cache.keepFree=1GiB "$@"
	# On one node, helm takes a DaemonSet without a ready pod for one that is being updated as it may be.
	kubectl --namespace "$RELEASE_NAMESPACE" rollout status daemonset --timeout 60s
}

# namespace [SUFFIX]: a namespace of the case's own, with the strictest Pod Security that there is.
namespace() {
	NAMESPACE=e2e-${CASE//_/-}${1:+-$1}
	kubectl create namespace "$NAMESPACE"
	kubectl label namespace "$NAMESPACE" pod-security.kubernetes.io/enforce=restricted
	keys "$NAMESPACE"
}

# keys NAMESPACE: the Secret that opens the model's server, under the name that the examples give it.
keys() {
	kubectl --namespace "$1" create secret generic s3-reader --dry-run=client --output yaml \
		--from-literal=AWS_ACCESS_KEY_ID="$S3_KEY" --from-literal=AWS_SECRET_ACCESS_KEY="$S3_SECRET" |
		kubectl apply --filename -
}

# What a case stopped runs again. What it made goes with its namespace; what is still mounted then would keep that from
# ending.
put_away() {
	if service_gone kube-apiserver; then start_api_server; fi
	if service_gone containerd; then start_containerd; fi
	if service_gone kubelet; then start_kubelet; fi
	# Where a case has put it that failed in between; there need be no release.
	place_plugin null >/dev/null 2>&1 || true
	[[ -z $NAMESPACE ]] || kubectl delete namespace "$NAMESPACE" --wait --timeout 90s
}

# inline [ATTRIBUTE: VALUE...]: the volume of a pod that names its model itself.
inline() {
	local attribute
	cat <<-YAML
		csi:
		  driver: csi.modelmount.io
		  readOnly: true
		  nodePublishSecretRef: {name: s3-reader}
		  volumeAttributes:
		    modelUri: ${MODEL_OF_POD:-$MODEL_URI}
		    endpoint: $S3_ENDPOINT
	YAML
	for attribute in "$@"; do echo "    $attribute"; done
}

# pod NAME VOLUME [SCRIPT]: a pod that has the volume at /model and runs the script, by default nothing, in the image
# $IMAGE_OF_POD. Fits the standard `restricted`.
pod() { pod_manifest "$@" | kubectl --namespace "$NAMESPACE" apply --filename -; }

pod_manifest() {
	local name=$1 volume=${2//$'\n'/$'\n'      } script=${3:-sleep 2147483647}
	cat <<-YAML
		apiVersion: v1
		kind: Pod
		metadata: {name: $name, labels: {app: $name}}
		spec:
		  # Not 0: the API server would forget the pod before kubelet has unmounted its volumes.
		  terminationGracePeriodSeconds: 1
		  automountServiceAccountToken: false
		  securityContext: {runAsNonRoot: true, runAsUser: 1000, seccompProfile: {type: RuntimeDefault}}
		  containers:
		    - name: main
		      image: ${IMAGE_OF_POD:-$TOOLS_IMAGE}
		      imagePullPolicy: Never
		      command: [sh, -c, $(jq --null-input --arg script "$script" '$script')]
		      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
		      volumeMounts: [{name: model, mountPath: /model, readOnly: true}]
		  volumes:
		    - name: model
		      $volume
	YAML
}

# deployment NAME REPLICAS VOLUME: of such pods.
deployment() {
	pod_manifest "$1" "$3" | kubectl create --dry-run=client --output json --filename - |
		jq --argjson replicas "$2" '{apiVersion: "apps/v1", kind: "Deployment", metadata: {name: .metadata.name}, spec: {$replicas,
			selector: {matchLabels: .metadata.labels}, template: {metadata: {labels: .metadata.labels}, spec: .spec}}}' |
		kubectl --namespace "$NAMESPACE" apply --filename -
}

# mounts_of APP: how many volumes of the driver are mounted for the pods with this label.
mounts_of() {
	local uid
	for uid in $(kubectl --namespace "$NAMESPACE" get pods --selector "app=$1" --output jsonpath='{.items[*].metadata.uid}'); do
		mounts_below "$KUBELET_DIR/pods/$uid/volumes/kubernetes.io~csi"
	done | wc -l
}

# ready KIND/NAME...: until all of them are.
ready() { kubectl --namespace "$NAMESPACE" wait --for=condition=Ready --timeout 60s "$@"; }

# What the node plugin tells Prometheus.
metrics() {
	local address
	address=$(kubectl --namespace "$RELEASE_NAMESPACE" get pod "$(plugin)" --output jsonpath='{.status.podIP}')
	curl --silent --fail "http://$address:9809/metrics"
}

# How many bytes it has downloaded since it started.
downloads() { metrics | sed -n 's/^modelmount_downloaded_bytes_total //p'; }

# place_plugin VALUE: runs the node plugin on nodes with the label nowhere=VALUE; null is everywhere.
place_plugin() {
	kubectl --namespace "$RELEASE_NAMESPACE" patch daemonset modelmount-node --type merge \
		--patch "{\"spec\": {\"template\": {\"spec\": {\"nodeSelector\": {\"nowhere\": $1}}}}}"
}

# running_container POD NAME: its id, as containerd knows it: the API server need not be there. The list of tasks is read to
# its end: who stops at a match has ctr fail, and the match with it.
running_container() {
	local id tasks
	tasks=$(ctr --namespace k8s.io tasks list)
	for id in $(ctr --namespace k8s.io containers list --quiet \
		"labels.\"io.kubernetes.pod.name\"==$1,labels.\"io.kubernetes.container.name\"==$2"); do
		if grep --quiet "^$id .*RUNNING" <<<"$tasks"; then echo "$id"; fi
	done
}

# The node plugin's pod.
plugin() {
	kubectl --namespace "$RELEASE_NAMESPACE" get pods --selector app.kubernetes.io/component=node --output jsonpath='{.items[0].metadata.name}'
}

# events POD: the text of all its events.
events() {
	kubectl --namespace "$NAMESPACE" get events --field-selector "involvedObject.name=$1" --output jsonpath='{range .items[*]}{.message}{"\n"}{end}'
}

# prints_nothing COMMAND...: whether it succeeds and has nothing to say. One that fails has nothing to say either.
prints_nothing() { lacks '' "$@"; }

# lacks TEXT COMMAND...: whether the command succeeds and no line that it prints has the text, in any case of its letters.
lacks() {
	local text=$1 output
	shift
	output=$("$@") || return 1
	[[ -z $output ]] || ! grep --ignore-case --fixed-strings -- "$text" <<<"$output"
}

# shellcheck shell=bash
# What the events of a pod say while it has no volume.

# Kubelet waits two minutes for an answer. A model that takes longer is told of in the pod's events, in few of them, and
# its pod starts as soon as the model is there.
case_slow_model() {
	local uri=s3://models/slow ended started
	namespace
	release
	serve_slowly 9015 110k # a part of the model is 16 MiB
	random_model "$uri" 40
	pod reader "$(MODEL_OF_POD=$uri S3_ENDPOINT=$SLOW inline)"
	kubectl --namespace "$NAMESPACE" wait --for=condition=Ready --timeout 300s pod/reader
	has_random_model reader

	ended=$(awk '$1 == "GET" && $3 == 206 { if ($5 > last) last = $5 } END { printf "%d\n", last }' "$SLOW_LOG")
	started=$(kubectl --namespace "$NAMESPACE" get pod reader --output jsonpath='{.status.containerStatuses[0].state.running.startedAt}')
	echo "measured: the pod has started $(($(date --date "$started" +%s) - ended)) s after the download's end"
	(($(date --date "$started" +%s) - ended <= 5))
	events reader >"$WORK/events"
	cat "$WORK/events"
	grep 'FailedMount\|SetUp failed' "$WORK/events" >"$WORK/progress"
	grep --quiet "code = Aborted desc = $uri is being downloaded, [1-9]0 % of .* so far; the pod starts when it is complete" "$WORK/progress"
	(($(wc -l <"$WORK/progress") <= 2))
	[[ $(slowly_sent "${uri#s3:/}") == 40000000 ]]
}

# What is wrong is in the pod's events: nobody sees the plugin's log.
case_wrong_model() {
	namespace
	release
	MODEL_OF_POD=s3://models/no-such-model pod reader "$(MODEL_OF_POD=s3://models/no-such-model inline)"
	until_true 60 "an event that says what to do" told reader "code = NotFound" s3://models/no-such-model "$S3_ENDPOINT" \
		"check the path in the URI" || {
		events reader
		return 1
	}
	[[ $(kubectl --namespace "$NAMESPACE" get pod reader --output jsonpath='{.status.phase}') == Pending ]]
}

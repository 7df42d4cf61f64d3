# shellcheck shell=bash
# The model that the cases mount, and its server: a real S3 server on the node's own address, since the plugin refuses
# loopback. Sourced by suite.sh.

MODEL=''           # the model's files
MODEL_SUMS=''      # their checksums, as `sums` prints them
MODEL_URI=s3://models/tiny
FILE_URL=''        # one of its files, for anybody

# Names and SHA-256 of all files below a directory, in a form that does not depend on who lists them.
# In one line, so that a pod can run it too.
SUMS='find . -type f -exec sha256sum {} + | sort -k 2'

serve_model() {
	local address=$NODE_IP:9000
	MODEL=$WORK/model
	mkdir -p "$MODEL/tokenizer" "$WORK/s3"
	echo '{"architectures": ["Tiny"]}' >"$MODEL/config.json"
	echo '{}' >"$MODEL/tokenizer/tokenizer.json"
	: >"$MODEL/empty"
	head -c 40000000 /dev/urandom >"$MODEL/model.safetensors" # more than one ranged request
	MODEL_SUMS=$(cd "$MODEL" && eval "$SUMS")

	S3_ENDPOINT=http://$address
	ROOT_ACCESS_KEY=$S3_KEY ROOT_SECRET_KEY=$S3_SECRET start s3 \
		versitygw --port "$address" --region "$S3_REGION" --keep-alive --quiet posix "$WORK/s3"
	wait_for 20 "$STARTED" versitygw curl --silent --max-time 2 --output /dev/null "$S3_ENDPOINT"
	put_model "$MODEL_URI"

	FILE_URL=http://$NODE_IP:9001/model.safetensors
	start httpd busybox httpd -f -p "$NODE_IP:9001" -h "$MODEL"
	wait_for 20 "$STARTED" "busybox httpd" curl --silent --fail --head "$FILE_URL"
}

# put_model URI: the model, under another name.
put_model() {
	local path=${1#s3://}
	s3_put "${path%%/*}" "$MODEL/" "${path#*/}/"
}

# verify POD [NAMESPACE] [DIRECTORY]: every file of the model is in the pod, whole, and no other.
verify() {
	local pod=$1 namespace=${2:-$NAMESPACE} directory=${3:-/model} found
	found=$(kubectl --namespace "$namespace" exec "$pod" -- sh -c "cd $directory && $SUMS")
	[[ $found == "$MODEL_SUMS" ]] || {
		echo "the model in $pod is not the one on the server:"
		diff <(echo "$MODEL_SUMS") <(echo "$found") || true
		return 1
	}
}

# verify_files POD DIRECTORY: there are files, and each is one of the model's; for pods that ask for some of them.
verify_files() {
	local found
	found=$(kubectl --namespace "$NAMESPACE" exec "$1" -- sh -c "cd $2 && $SUMS" | cut -d ' ' -f 1 | sort -u)
	[[ -n $found ]]
	[[ -z $(comm -23 <(echo "$found") <(cut -d ' ' -f 1 <<<"$MODEL_SUMS" | sort -u)) ]]
}

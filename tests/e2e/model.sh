# shellcheck shell=bash
# The models that the cases mount, and their servers: a real S3 server on the node's own address, since the plugin refuses
# loopback. Sourced by suite.sh.

MODEL=''           # the files of a model that is quickly made and that no program can use
MODEL_SUMS=''      # their checksums, as SUMS prints them
MODEL_URI=s3://models/tiny
FILE_URL=''        # one of its files, for anybody

REAL_MODEL=$TOOLS/models/all-MiniLM-L6-v2 # what a program does use
REAL_MODEL_URI=s3://models/all-MiniLM-L6-v2
REAL_MODEL_SUMS=''

# Names and SHA-256 of all files below a directory, in a form that does not depend on who lists them.
# In one line, so that a pod can run it too.
SUMS='find . -type f -exec sha256sum {} + | sort -k 2'

serve_model() {
	MODEL=$WORK/model
	mkdir -p "$MODEL/tokenizer"
	echo '{"architectures": ["Tiny"]}' >"$MODEL/config.json"
	echo '{}' >"$MODEL/tokenizer/tokenizer.json"
	: >"$MODEL/empty"
	head -c 40000000 /dev/urandom >"$MODEL/model.safetensors" # more than one ranged request
	MODEL_SUMS=$(cd "$MODEL" && eval "$SUMS")

	REAL_MODEL_SUMS=$(cd "$REAL_MODEL" && eval "$SUMS")

	serve_s3 "$NODE_IP:9000"
	S3_ENDPOINT=http://$NODE_IP:9000
	put_model "$MODEL_URI"
	put_model "$REAL_MODEL_URI" "$REAL_MODEL"

	FILE_URL=http://$NODE_IP:9001/model.safetensors
	start httpd busybox httpd -f -p "$NODE_IP:9001" -h "$MODEL"
	wait_for 20 "$STARTED" "busybox httpd" curl --silent --fail --head "$FILE_URL"
}

# serve_s3 ADDRESS: the buckets, also at this address.
serve_s3() {
	mkdir -p "$WORK/s3" "$WORK/users"
	ROOT_ACCESS_KEY=$S3_KEY ROOT_SECRET_KEY=$S3_SECRET start "s3-${1##*:}" \
		versitygw --port "$1" --region "$S3_REGION" --keep-alive --quiet --iam-dir "$WORK/users" posix "$WORK/s3"
	wait_for 20 "$STARTED" versitygw curl --silent --max-time 2 --output /dev/null "http://$1"
}

# serve_slowly PORT RATE: the buckets at $SLOW, with so many bytes a second for each request. What was asked of it is in
# $SLOW_LOG: lines METHOD PATH STATUS BYTES TIME, with the bytes that were sent and when the request ended.
SLOW='' SLOW_LOG=''
serve_slowly() {
	local directory=$WORK/slow-$1
	SLOW=http://$NODE_IP:$1
	SLOW_LOG=$directory/requests
	mkdir -p "$directory"
	cat >"$directory/nginx.conf" <<-END
		daemon off;
		pid $directory/pid;
		error_log stderr;
		events {}
		http {
		  log_format requests '\$request_method \$uri \$status \$body_bytes_sent \$msec';
		  access_log $SLOW_LOG requests;
		  proxy_temp_path $directory/proxy;
		  client_body_temp_path $directory/body;
		  fastcgi_temp_path $directory/fastcgi;
		  uwsgi_temp_path $directory/uwsgi;
		  scgi_temp_path $directory/scgi;
		  server {
		    listen $NODE_IP:$1;
		    location / {
		      proxy_pass $S3_ENDPOINT;
		      proxy_http_version 1.1;
		      proxy_set_header Host \$http_host; # it is signed
		      proxy_set_header Connection "";
		      proxy_max_temp_file_size 0; # without buffers there would be no limit, with a file it would not reach the S3 server
		      limit_rate $2;
		    }
		  }
		}
	END
	start "slow-$1" nginx -p "$directory" -e stderr -c "$directory/nginx.conf"
	wait_for 20 "$STARTED" nginx curl --silent --max-time 2 --output /dev/null "$SLOW"
}

# slowly_sent [PATH]: how many bytes of files below the path the slow server has sent, in answers that have ended.
slowly_sent() {
	awk -v path="${1:-/}" '$1 == "GET" && index($2, path) == 1 && $3 == 206 { sum += $4 } END { printf "%d\n", sum }' "$SLOW_LOG"
}

# put_model URI [DIRECTORY]: a model, by default the small one, under this name.
put_model() {
	local path=${1#s3://}
	s3_put "${path%%/*}" "$(realpath "${2:-$MODEL}")/" "${path#*/}/"
}

# random_model URI MEGABYTES: one that is in no cache yet. Its files are in $WORK/random.
random_model() {
	mkdir -p "$WORK/random"
	head -c "${2}000000" /dev/urandom >"$WORK/random/model.safetensors"
	put_model "$1" "$WORK/random"
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

# has_random_model POD: the model that random_model has made, whole.
has_random_model() {
	[[ $(kubectl --namespace "$NAMESPACE" exec "$1" -- sha256sum /model/model.safetensors | cut -d ' ' -f 1) == \
		"$(sha256sum "$WORK/random/model.safetensors" | cut -d ' ' -f 1)" ]]
}

# serves POD [DIRECTORY]: the pod has the real model, every file of it, and a program in it gets from the model what it is
# known to give. The tokens and numbers are those that Hugging Face's transformers 4.56.2 computes, with its FlaxBertModel on
# jax 0.10.2: the mean over the tokens, scaled to length 1. What reader/embed.py makes of the same files, with numpy, is less
# than 0.000001 away from that in each of the 384 numbers.
serves() {
	MODEL_SUMS=$REAL_MODEL_SUMS verify "$1" "$NAMESPACE" "${2:-/model}"
	kubectl --namespace "$NAMESPACE" exec "$1" -- embed "${2:-/model}" "This is an example sentence" |
		jq --exit-status '(.tokens == [101, 2023, 2003, 2019, 2742, 6251, 102]) and (.embedding | length == 384) and
			([.embedding[:5], [0.0676569, 0.0634959, 0.0487131, 0.0793049, 0.0374480]] | transpose | all((.[0] - .[1]) | fabs < 0.00001))'
}

# verify_files POD DIRECTORY: there are files, and each is one of the model's; for pods that ask for some of them.
verify_files() {
	local found
	found=$(kubectl --namespace "$NAMESPACE" exec "$1" -- sh -c "cd $2 && $SUMS" | cut -d ' ' -f 1 | sort -u)
	[[ -n $found ]]
	[[ -z $(comm -23 <(echo "$found") <(cut -d ' ' -f 1 <<<"$MODEL_SUMS" | sort -u)) ]]
}

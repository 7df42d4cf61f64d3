# shellcheck shell=bash
# Many claims, and what goes wrong while they are made: the source, the controller, its leader.

# A source that is down is no fault of the claim: it is asked again, and nobody has to do anything.
case_source_is_down() {
	local elsewhere=http://$NODE_IP:9002 server
	namespace
	release --set-json "storageClasses=[$(class_with down ".parameters.endpoint = \"$elsewhere\"")]"
	claim_with late down
	refused late code Unavailable "$elsewhere"
	# The same buckets at that address.
	serve_s3 "${elsewhere#http://}"
	server=$STARTED
	bound late
	pod reader "$(claimed late)"
	ready pod/reader
	verify reader
	stop "$server"
}

# Its containers may end at any moment: each claim gets one volume, no more and no less.
case_controller_is_killed() {
	no_volumes_left
	namespace
	release --set-json "storageClasses=[$(class_with killed)]"
	claims_with 100 first killed &
	until_true 60 "the first volumes" has_volumes 5
	for pod in $(controllers); do kill_container "$pod" modelmount; done
	not_all_bound 100
	wait $!
	until_true 120 "the volumes of all claims" all_bound 100

	claims_with 100 second killed &
	until_true 60 "more volumes" has_volumes 105
	kill_container "$(leader)" provisioner
	not_all_bound 200
	wait $!
	until_true 120 "the volumes of all claims" all_bound 200
	one_volume_each 200
	delete_claims
}

case_leader_is_deleted() {
	local before
	no_volumes_left
	namespace
	release --set-json "storageClasses=[$(class_with lead)]"
	until_true 60 "a leader" has_leader
	before=$(leader)
	claims_with 200 claim lead &
	until_true 60 "the first volumes" has_volumes 5
	kubectl --namespace "$RELEASE_NAMESPACE" delete pod "$before" --wait=false
	not_all_bound 200
	wait $!
	until_true 120 "the volumes of all claims" all_bound 200
	[[ $(leader) != "$before" ]]
	one_volume_each 200
	delete_claims
}

case_thousand_claims() {
	local began
	no_volumes_left
	namespace
	release --set-json "storageClasses=[$(class_with thousand)]"
	until_true 60 "a leader" has_leader
	began=$SECONDS
	claims_with 1000 claim thousand
	echo "measured: 1000 claims are written after $((SECONDS - began)) s"
	until_true 300 "a thousand volumes" volumes_are 1000
	until_true 60 "the binding of a thousand claims" all_bound 1000
	echo "measured: 1000 claims are bound after $((SECONDS - began)) s"
	one_volume_each 1000
	began=$SECONDS
	delete_claims
	echo "measured: 1000 volumes are deleted after $((SECONDS - began)) s"
}

# The pods of the controller.
controllers() {
	kubectl --namespace "$RELEASE_NAMESPACE" get pods --selector app.kubernetes.io/component=controller --field-selector status.phase=Running \
		--output jsonpath='{.items[*].metadata.name}'
}

# The one of them whose provisioner works.
leader() {
	kubectl --namespace "$RELEASE_NAMESPACE" get lease csi-modelmount-io --output jsonpath='{.spec.holderIdentity}'
}

has_leader() { [[ " $(controllers) " == *" $(leader) "* ]]; }

# kill_container POD NAME: as the kernel ends a program that takes too much memory.
kill_container() {
	local id
	id=$(running_container "$1" "$2")
	[[ -n $id ]]
	ctr --namespace k8s.io tasks kill --signal KILL "$id"
}

# has_volumes COUNT: whether there are at least so many.
has_volumes() { (($(kubectl get persistentvolumes --output name | wc -l) >= $1)); }

# all_bound COUNT: whether so many claims have their volumes.
all_bound() {
	[[ $(kubectl --namespace "$NAMESPACE" get pvc --output jsonpath='{.items[*].status.phase}' | grep -o '\bBound\b' | wc -l) == "$1" ]]
}

# not_all_bound COUNT: else the case did not disturb anything.
not_all_bound() {
	if all_bound "$1"; then
		echo "all $1 claims were bound before anything happened"
		return 1
	fi
}

# one_volume_each COUNT: there are so many volumes, each for another claim.
one_volume_each() {
	volumes_are "$1"
	[[ $(kubectl get persistentvolumes --output jsonpath='{range .items[*]}{.spec.claimRef.uid}{"\n"}{end}' | sort -u | wc -l) == "$1" ]]
}

delete_claims() {
	kubectl --namespace "$NAMESPACE" delete pvc --all --wait=false >/dev/null
	until_true 240 "the end of all PersistentVolumes" volumes_are 0
}

# shellcheck shell=bash
# Kubernetes' own tests of storage drivers. Most of them write first, which no model allows: which do not run, and why, is
# in storage-skips.txt. A test that was skipped and is not there fails the case, and so does a line that nothing needs.

case_storage_suite() {
	local skips=$ROOT/tests/e2e/storage-skips.txt expression skip=() status=0
	namespace
	release --set-json "storageClasses=[$(class storage-suite s3-reader)]"
	suite_images
	sed "s|MODEL|$FILE_URL|" "$ROOT/tests/e2e/storage-driver.yaml" >"$WORK/driver.yaml"
	while read -r expression; do skip+=("-ginkgo.skip=$expression"); done < <("$ROOT/scripts/sanity-report.py" ask "$skips")
	e2e.test -kubeconfig="$KUBECONFIG" -provider=skeleton -storage.testdriver="$WORK/driver.yaml" \
		-ginkgo.focus='External Storage' "${skip[@]}" -ginkgo.junit-report="$WORK/storage.xml" -ginkgo.no-color -ginkgo.v \
		>"$WORK/storage.log" 2>&1 || status=1
	"$ROOT/scripts/sanity-report.py" check "$skips" "$WORK/storage.xml" 'External Storage' >"$WORK/storage.total" || status=1
	((status == 0)) || grep --after-context 30 '^  \[FAILED\]' "$WORK/storage.log" || true
	sed 's/^  /measured: /' "$WORK/storage.total"
	return "$status"
}

# No registry can be reached. Of these images the tests that are left use a shell and nothing else, so busybox stands in.
suite_images() {
	local image
	while read -r image; do
		case $image in
		*/busybox:* | */glibc-dns-testing:*) "$ROOT/tests/e2e/images.sh" tag "$TOOLS_IMAGE" "$image" ;;
		*/agnhost:*) "$ROOT/tests/e2e/images.sh" agnhost "$image" ;;
		esac
	done < <(e2e.test -list-images 2>/dev/null)
}

# Everything that one does with this repository. `make` lists it.
.DEFAULT_GOAL := help
.PHONY: help build release demo test test-features sanity fuzz bench footprint lint fmt chart generate image image-alone image-test image-same e2e e2e-tools e2e-oldest audit tools clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

build: ## Debug build
	cargo build --workspace --locked

release: ## Release build: target/release/modelmount
	cargo build --release --locked -p modelmount-driver

demo: ## A real model from a real S3 server becomes a read-only volume, step by step
	@scripts/demo.sh

test: ## All tests, csi-sanity among them; ends with what was skipped
	@scripts/test.sh

test-features: ## The library's tests with each of its features alone
	@scripts/tools.sh test
	@scripts/features.sh

sanity: build ## Only csi-sanity, against the binary of `make build`
	@scripts/tools.sh test
	@scripts/sanity.sh

bench: ## modelmount pull against s5cmd, rclone and kserve-storage (ROUNDS=5 SIZE_MB=1024)
	@scripts/tools.sh bench
	@$(MAKE) --no-print-directory release
	@benches/compare.sh
	@cargo bench --locked -p modelmount-driver --bench publish

footprint: image ## Size, packages and start-up of the image, against kserve-storage
	@scripts/tools.sh bench
	@benches/footprint.sh

image: ## The container image: target/image/modelmount-<version>-linux-amd64.oci.tar
	@scripts/tools.sh image
	@scripts/image.sh

image-test: image ## Runs the image in containerd, as node plugin and as controller
	@scripts/tools.sh image-test
	@scripts/image-run.sh

image-same: image ## Builds the image once more from nothing, elsewhere, and compares the bytes
	@scripts/image.sh check

# On a new machine both take long. The tools take what the image's build leaves idle.
e2e: ## A real Kubernetes node with the image and the chart of this source tree; needs root
	@scripts/tools.sh image
	@$(MAKE) --no-print-directory --jobs=2 image-alone e2e-tools
	@tests/e2e/run.sh

image-alone:
	@scripts/image.sh

e2e-tools:
	@nice -n 19 scripts/tools.sh e2e

e2e-oldest: image ## The same on the oldest Kubernetes that the chart installs on, with the cases that depend on it most
	@tests/e2e/run.sh --oldest

lint: ## Formatting, clippy, each feature alone, dependencies and scripts
	@scripts/lint.sh

fmt: ## Format the Rust sources
	cargo fmt --all

chart: ## The Helm chart: lint, unit tests, wrong values, generated files, and a real API server takes it all
	@scripts/tools.sh chart e2e
	@scripts/chart.sh

generate: ## Write anew what is generated: the chart's README, deploy/modelmount.yaml, and the tables in docs/
	@scripts/tools.sh chart
	@scripts/chart.sh generate
	@MODELMOUNT_WRITE_DOCS=1 cargo test --quiet --locked -p modelmount-driver --test docs

fuzz: ## A short run of each fuzz target (SECONDS_EACH=15)
	@scripts/tools.sh fuzz
	@scripts/fuzz.sh

audit: ## Known advisories in the dependencies (ADVISORY_DB=directory to stay offline)
	@scripts/tools.sh audit
	@scripts/audit.sh

tools: ## Install the tools that the other targets use
	@scripts/tools.sh test lint demo bench fuzz chart image image-test e2e e2e-oldest

clean: ## Remove what was built (the tools stay)
	cargo clean

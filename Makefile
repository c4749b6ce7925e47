# gpuwarden: every command of the contract (make help). Works on a fresh Debian 12 with root.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
export PIP_DISABLE_PIP_VERSION_CHECK := 1

VENV := .venv
PYTHON := $(VENV)/bin/python

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# What the host must have: Debian packages, once.
build/host-ready: tools/prepare-host
	mkdir -p build
	tools/prepare-host
	touch $@

$(VENV)/ready: requirements/dev.txt build/host-ready
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install --quiet --require-hashes -r requirements/dev.txt
	$(VENV)/bin/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.PHONY: lint
lint: $(VENV)/ready ## ruff, mypy --strict, one-way imports, worker on Python 3.9
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
	$(VENV)/bin/vermin --quiet --no-tips --eval-annotations --target=3.9- --violations gpuwarden/worker

.PHONY: quick
quick: $(VENV)/ready ## the dev loop, seconds: lint, types, and the unit tests that your change can touch
	@$(PYTHON) -m tools.quick

.PHONY: deb
deb: $(VENV)/ready ## the packages, in dist: gpuwarden_*.deb, gpuwarden-simulator_*.deb, cockpit-gpuwarden_*.deb
	@$(PYTHON) -m tools.build_packages >&2

.PHONY: docs
docs: $(VENV)/ready ## the documentation as pages that open from the disk, in build/site
	@$(PYTHON) -m tools.build_docs

.PHONY: lock
lock: ## resolve requirements/*.txt again (pins and hashes for Python 3.11 to 3.13)
	python3 -m venv build/uv && build/uv/bin/pip install --quiet uv
	build/uv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 pyproject.toml -o requirements/runtime.txt
	build/uv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 --extra dev pyproject.toml -o requirements/dev.txt
	build/uv/bin/uv pip compile --quiet --universal --generate-hashes --python-version 3.11 -c requirements/dev.txt requirements/bench.in -o requirements/bench.txt
	build/uv/bin/uv pip compile --quiet --find-links $(TORCH_WHEELS) --custom-compile-command "make lock" --generate-hashes --python-version 3.11 --python-platform x86_64-manylinux_2_28 -c requirements/dev.txt requirements/engine.in -o requirements/engine.txt

# torch for the CPU is in no general index: a folder that pip is told of, or PyTorch's own.
TORCH_WHEELS := $(or $(PIP_FIND_LINKS),https://download.pytorch.org/whl/cpu/torch/)

# torch and transformers are the site's on a node, and large: the tests of that engine have their own.
build/engine-venv/ready: requirements/engine.txt build/host-ready
	python3 -m venv build/engine-venv
	build/engine-venv/bin/pip install --quiet --no-compile --require-hashes --find-links $(TORCH_WHEELS) -r requirements/engine.txt
	touch $@

.PHONY: test-engine
test-engine: build/engine-venv/ready ## the transformers engine on the CPU, with tiny models
	build/engine-venv/bin/python -m pytest -q tests/engine

# axe-core, which the tests of the page in Cockpit run: one file out of this package.
build/axe/ready: requirements/axe.txt $(VENV)/ready
	$(VENV)/bin/pip install --quiet --upgrade --no-deps --no-compile --require-hashes --target build/axe -r requirements/axe.txt
	touch $@

# Not by its own name in the recipe: `make -n test` would run all of it.
AGAIN = $(MAKE) --no-print-directory
.PHONY: test
test: $(VENV)/ready ## lint, types, unit, integration (private bus), system (VM); the long ones with KVM alone
	# Much of this waits for downloads, the images of the nodes among it.
	$(AGAIN) --jobs 4 node-image build/engine-venv/ready build/axe/ready deb
	# What is installed in the nodes, beside what compares nothing with a clock.
	$(PYTHON) -m tests.node build >&2 & images=$$!
	trap 'kill $$images 2>/dev/null || true' EXIT
	$(AGAIN) lint
	$(AGAIN) test-engine
	$(PYTHON) -m pytest -n 2 --dist worksteal tests/unit tests/bench
	wait $$images
	# These wait for something, three quarters of their time.
	$(PYTHON) -m pytest -n 6 --dist worksteal tests/integration tests/gpu
	# Three nodes at once take longer than two: their processors wait for each other. Emulated, each
	# keeps one and a half of ours busy, and a second one on two of them brings hardly anything.
	long= nodes=2
	if ! $(PYTHON) -m tests.node kvm; then
	  echo "the nodes are emulated: what takes minutes in one is left to make test-long"
	  long='not long' nodes=$$(($$(nproc) < 4 ? 1 : 2))
	fi
	# By name, as each ends: a run that is cut off has told what failed.
	$(PYTHON) -m pytest -v -n $$nodes --dist worksteal --durations 15 -m "$$long" tests/system

.PHONY: test-long
test-long: $(VENV)/ready deb ## the whole-node tests that make test leaves out where nodes are emulated
	$(PYTHON) -m tests.node build
	$(PYTHON) -m pytest -v --durations 15 -m long tests/system

.PHONY: bench
bench: build/bench/ready ## benchmarks: the data plane beside its peers, both thermal policies; SECTIONS='small'
	@build/bench/bin/python -m tests.bench $(SECTIONS)

# Measured, ours and the peers, is what a node's own Python makes of it: Debian's, built with a profile
# and optimised as a whole. Another that comes first on PATH may be built without, and far slower.
build/bench/ready: requirements/dev.txt requirements/bench.txt build/host-ready
	/usr/bin/python3 -m venv build/bench
	build/bench/bin/pip install --quiet --require-hashes -r requirements/dev.txt -r requirements/bench.txt
	build/bench/bin/pip install --quiet --no-deps --no-build-isolation -e .
	touch $@

.PHONY: soak
soak: $(VENV)/ready deb ## the long campaigns (kills, power cuts, crashes of the disk, fuzz), a table of figures
	@$(PYTHON) -m tests.soak $(CAMPAIGNS)

.PHONY: run
run: $(VENV)/ready deb ## the main job: a node with two simulated cards answers about a DICOM image
	@$(PYTHON) -m tests.node.demo

# The test node: a Debian 12 with systemd, 2 NUMA nodes and 2 simulated cards, under QEMU.
.PHONY: node-image
node-image: $(VENV)/ready ## build the test nodes' images (Debian 12 and 13) and boot them once
	$(PYTHON) -m tests.node build --bare

# As it was typed: make would take the dollars of CMD='echo $HOME' for its own.
override export CMD := $(value CMD)

.PHONY: vm
vm: $(VENV)/ready deb ## run CMD='...' as root in a fresh node with the service running
	@if [ -z "$$CMD" ]; then echo "usage: make vm CMD='systemctl status medgemma-guard'" >&2; exit 2; fi
	$(PYTHON) -m tests.node run "$$CMD"

.PHONY: shell
shell: $(VENV)/ready deb ## a root shell in a fresh node with the service running
	@$(PYTHON) -m tests.node shell

# make             print this
# make demo        set up, then run the whole workflow on simulated houses
# make demo-full   the same, with all benchmarks
# make quick       set up, then lint and run a fast selection of the tests, before a commit
# make test        set up, then lint and run the tests
# make test-all    the same, with the long tests: every shipped configuration from raw files to tables, for example
# make test-cluster   set up, then run the workflow on a SLURM cluster on this machine, which it installs (Debian, root)
# make docs        set up, then build the documentation site: build/site/index.html
# make env         only set up: .venv from constraints.txt
# make lint        check style, types and the Snakefile
# make clean       delete everything in results/ but its README
# After a kill, type `.venv/bin/snakemake --unlock` and the same command again.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help env browser demo demo-full quick test test-all test-cluster cluster-packages docs lint clean

PYTHON ?= python3
CORES ?= $(shell nproc)
BIN := .venv/bin
READY := .venv/.ready
# Debian and Ubuntu packages of the libraries that open3d and opencv link against.
SYSTEM_LIBRARIES := libusb-1.0-0 libgl1 libegl1 libx11-6 libgomp1 libglib2.0-0

# Debian packages of the tests on SLURM and on a storage provider.
CLUSTER := munge rsync slurm-client slurmctld slurmd

# The comment at the top of this file.
help:
	@sed -n -e '/^#/!q' -e 's/^# \{0,1\}//p' $(firstword $(MAKEFILE_LIST))

env: $(READY)

$(READY): constraints.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
		|| { echo "error: Python 3.11 or newer is required; run 'make PYTHON=python3.12 env'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(call apt_install,python3-venv)
	@echo 'Setting up .venv from constraints.txt; the first time takes a few minutes.'
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --requirement constraints.txt
	$(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
	@$(BIN)/python -c 'import cv2, open3d' 2>/dev/null || $(call apt_install,$(SYSTEM_LIBRARIES))
	@$(BIN)/python -c 'import cv2, open3d'
	@touch $@
	@echo "Ready: run 'source .venv/bin/activate', or call the programs in .venv/bin."

demo: env
	$(call run,)

demo-full: env
	$(call run,--configfile config/full.yaml)

# For `make quick`: fast files of every package, together about a minute of processor time.
QUICK := $(patsubst %,tests/unit/%.py, \
	datasets/test_calibration datasets/test_distortion datasets/test_orientation datasets/test_ply \
	evaluation/test_catalogue evaluation/test_refinement geometry/test_cameras geometry/test_patches \
	losses/test_contrastive losses/test_triplet matching/test_pairs models/test_heads \
	results/test_report results/tables/test_checks results/tables/test_labels results/tables/test_markup \
	simulate/test_house steps/test_conventions storage/test_content_id storage/test_json_file storage/test_manifest \
	training/test_optimiser training/test_phases test_environment test_records test_structure)

PYTEST = $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder tests/workflow tests/unit

quick: lint
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(QUICK)

test: env browser
	$(call beside_lint,$(PYTEST) -m "not long")

test-all: env browser
	$(call beside_lint,$(PYTEST))

# Tests of HTML pages need a browser, and are skipped without one. The package of Ubuntu is a snap, which containers cannot run.
browser:
	@command -v chromium chromium-browser google-chrome google-chrome-stable >/dev/null \
		|| (grep -qsx 'ID=debian' /etc/os-release && $(call apt_install,chromium)) \
		|| echo 'note: no Chromium is installed, so the tests of HTML pages are skipped' >&2

test-cluster: env cluster-packages
	$(BIN)/pytest tests/cluster --durations 0 --verbose

cluster-packages:
	@(for program in munged slurmctld slurmd sbatch rsync; do command -v $$program; done) | wc -l | grep -qx 5 \
		|| $(call apt_install,$(CLUSTER))

# Without links that lead nowhere. The variable silences an advertisement of the theme.
docs: env
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict
	@echo 'Documentation: build/site/index.html'

lint: env
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check .
	mkdir -p build && cat loco/results/explorer/assets/*.js > build/explorer.js # one script in the page
	$(BIN)/oxlint --quiet --config .oxlintrc.json build/explorer.js
	$(BIN)/snakemake --lint

clean:
	find results -mindepth 1 -maxdepth 1 ! -name README.md -exec rm -r {} +

# Run a command, and `make lint` at the same time, whose output is shown if it fails.
define beside_lint
@mkdir -p build; $(MAKE) --no-print-directory lint >build/lint.log 2>&1 & lint=$$!; \
code=0; $(1) || code=$$?; wait $$lint || { code=$$?; cat build/lint.log; echo 'error: make lint failed' >&2; }; exit $$code
endef

# Run the workflow with a configuration, and build its report.
define run
$(BIN)/snakemake $(1) --cores $(CORES) -- all
$(BIN)/snakemake $(1) --report results/report.html
@printf '\n%s\n' 'Tables: results/tables/   Figures: results/figures/   Report: results/report.html'
endef

# Install Debian packages if that is possible without a password; otherwise print the command and stop.
define apt_install
{ if [ "$$(id -u)" = 0 ]; then become=; elif sudo -n true 2>/dev/null; then become=sudo; \
else echo "error: system packages are missing; run 'sudo apt-get install $(1)', then make again" >&2; exit 1; fi; \
$$become apt-get update -qq && $$become env DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes $(1) >&2; }
endef

# Copyright: Contributors to the nvgrace.passthrough project
# SPDX-License-Identifier: GPL-3.0-or-later

.DEFAULT_GOAL := help
SHELL := /bin/bash

BIN := .venv/bin
export ANSIBLE_COLLECTIONS_PATH := $(CURDIR)/.build
export ANSIBLE_INJECT_FACT_VARS := false
export MOLECULE_GLOB := molecule/*/molecule.yml
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup demo test lint docs unit sanity cores variants domains test-report test-guest fuzz-args mutants kmod-check proof \
	molecule test-all test-debug stress compare bench bench-modules bench-kmod bench-fleet build clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:
	@tests/setup

demo: setup  ## the whole way on an emulated Grace host (root, 6 GB of disk, 10 to 20 minutes first, 3 to 6 later); GUEST=1 starts a VM
	@$(BIN)/python tests/demo/demo.py $(if $(GUEST),--guest)

test: setup  ## everything that guards the main job (root, 14 GB of disk, 45 to 120 minutes; MINUTES=75 leaves out what would not end)
	@$(BIN)/python tests/run $(if $(MINUTES),--minutes $(MINUTES)) lint unit docs sanity variants kmod proof style package \
		report simulated domains molecule faults behaviour refusals guest fleet

test-all: setup  ## all of test, and what takes too long for it (20 GB of disk, hours)
	@$(BIN)/python tests/run lint unit docs sanity variants kmod proof style package report simulated domains molecule faults \
		behaviour refusals guest fleet more_scenarios walk hosts cores arguments arithmetic matrix kill contract stress debug speed \
		ways bench_fleet

lint: setup  ## what can be said without running it
	@$(BIN)/python tests/run lint

docs: setup  ## the documentation's site in docs/build, with a page for each module and role
	@$(BIN)/python tests/tools/docs_site.py

unit: setup  ## unit tests
	@$(BIN)/python tests/run unit

sanity: setup  ## ansible-test sanity of one ansible-core
	@$(BIN)/python tests/run sanity

cores: setup  ## ansible-test sanity and units of three ansible-cores, Pythons of managed hosts, Galaxy's importer
	@$(BIN)/python tests/run cores

variants: setup  ## the choice of the VFIO driver against libvirt's rule, on the aliases of Debian's kernels (root)
	@$(BIN)/python tests/run variants

domains: setup  ## golden domains against three libvirts, and each one started as a twin (root, 3 GB of disk)
	@$(BIN)/python tests/run domains

test-report: setup  ## the page of a fleet in a headless browser (root, where chromium is missing)
	@$(BIN)/python tests/run report

test-guest: setup  ## a domain of site.yml started inside an emulated host; its guest looks at the GPU
	@$(BIN)/python tests/run guest

fuzz-args: setup  ## every option of every module with values that nobody should give (some minutes)
	@$(BIN)/python tests/run arguments

mutants: setup  ## mutation test of planners and judges, report in .build/mutants (hours; MINUTES=, AREAS=)
	@$(BIN)/python tests/tools/mutants.py $(if $(MINUTES),--minutes $(MINUTES)) $(AREAS)

kmod-check: setup  ## arithmetic of the kernel module, in userspace under sanitizers
	@$(BIN)/python tests/run kmod

proof: setup  ## the proof of that arithmetic (root, for a Debian root with CBMC)
	@$(BIN)/python tests/run proof

test-debug: setup  ## the kernel module on a debug kernel: KASAN, lockdep, leaks, fault injection; report in .build
	@$(BIN)/python tests/run debug

stress: setup  ## five minutes of eight users, bind cycles, kills, on the emulated host
	@$(BIN)/python tests/run stress

compare: setup  ## the whole contract on all hosts, and this driver beside the kernel's own
	@$(BIN)/python tests/run contract

molecule: setup  ## the default scenario alone
	@$(BIN)/python tests/run molecule

bench: setup  ## calls and time of a converged site.yml, beside ansible -m ping
	@$(BIN)/python tests/bench/converged.py

bench-modules: setup  ## what each module call of a converged host costs over ping, on a simulated host (root)
	@$(BIN)/python tests/bench/fleet/per_module.py

bench-fleet: setup  ## what a fleet of N=10 simulated hosts costs, beside ping and stock modules (root)
	@$(BIN)/python tests/bench/fleet/bench.py $(or $(N),10) $(FLEET)

bench-kmod: setup  ## speed of the kernel module over that of the kernel's own
	@$(BIN)/python tests/run speed

build: setup  ## the collection's tarball in .build; the same sources give the same bytes
	@$(BIN)/python tests/tools/build_collection.py .build

clean:  ## stops the labs, unmounts, removes the cache and all that the targets made here
	@tests/lab/lab clean
	@rm -rf .venv .build docs/build reports

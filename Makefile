# Every target is a script or a tool; what it needs is set up on the way. `make` alone lists them.
.DEFAULT_GOAL := help
.NOTPARALLEL:
BIN := .venv/bin

.PHONY: help run cluster test test-unit test-integration lint types proto build bench fleet reboot record-load conformance
.PHONY: install uninstall clean venv packages binaries

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## set this machine up, then run the agent here, in the foreground (ARGS="--nodename edge1")
	@hack/run.sh $(ARGS)

cluster: venv packages binaries ## run a local control plane with the agent joined to it, until Ctrl-C
	@$(BIN)/python -m hack.cluster

test: lint test-unit test-integration ## run every check and test (as root, the first time about 15 minutes)

test-unit: venv ## run the unit tests (any user, seconds)
	$(BIN)/pytest tests/unit --numprocesses auto

test-integration: packages venv binaries ## run the integration tests: real containerd, real control plane (as root)
	$(BIN)/pytest tests/integration

lint: venv types ## check style, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: venv ## check types
	$(BIN)/mypy

proto: venv ## generate the CRI stubs from proto/
	$(BIN)/python hack/stubs.py

build: venv ## make dist/: the wheel, and edgelet.pyz, one file that runs where there is only Python
	@hack/build.sh

bench: venv packages binaries ## compare the agent with a kubelet on this machine (ARGS="--quick"; as root, about 45 minutes)
	@$(BIN)/python -m hack.bench $(ARGS)

fleet: venv packages binaries ## many agents with simulated pods against one API server (NODES="50 100 200"; as root, about 10 minutes a size)
	@$(BIN)/python -m hack.fleet $(or $(NODES),50 100 200) $(ARGS)

reboot: venv packages binaries ## start a machine with 50 pods again without its network, against containerd alone (as root, about 6 minutes)
	@$(BIN)/python -m hack.reboot $(ARGS)

record-load: venv packages ## write 10,000 statuses a minute into a record for ten minutes (ARGS="--behind redis")
	@$(BIN)/python -m hack.record_load $(ARGS)

conformance: venv packages ## run upstream's NodeConformance suite, compare with a kubelet (AGENT, FOCUS, SKIP, PROCS; as root, 10 to 20 minutes)
	@hack/packages.sh debootstrap
	@$(BIN)/python -m hack.conformance $(if $(AGENT),--agent '$(AGENT)') $(if $(FOCUS),--focus '$(FOCUS)') $(if $(filter undefined,$(origin SKIP)),,--skip '$(SKIP)') \
	  $(if $(PROCS),--procs $(PROCS)) $(ARGS)

install: ## install the agent into /opt/edgelet, with a systemd unit where there is systemd (as root)
	@hack/install.sh

uninstall: ## take back what install did
	@hack/install.sh --uninstall

clean: ## remove what was made in this folder; the cache in ~/.cache/edgelet stays
	rm -rf .venv dist build agent/cri/_generated .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage

venv:
	@hack/venv.sh dev

packages:
	@hack/packages.sh

binaries: venv
	@$(BIN)/python -m hack.binaries >/dev/null

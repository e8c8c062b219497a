# Everything a clone needs: `make demo` and `make test`. Both set up .venv first, once.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test same-science bench test-all test-cluster test-cluster-full images lint lock clean

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $$($(PYTHON) --version) is $(PYTHON). Name another with make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing: apt install python3-venv"; exit 1; }
	@command -v git >/dev/null || { echo "git is missing: apt install git"; exit 1; }
	@echo "Setting up .venv (some minutes, once)"
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)
	$(BIN)/edm2 run experiments/demo.yaml

test: $(READY)
	$(BIN)/pytest

# After a change that moves no number: tests that, and adds the line by which users' trainings go on under it.
# make same-science SINCE=<revision before> WHY="what changed"
same-science: $(READY)
	$(BIN)/python tests/same_science.py "$(SINCE)" "$(WHY)"

# Everything fast against a plain path: writes bench/RESULTS.md (half an hour on two cores; rows for a GPU where there is one).
bench: $(READY)
	$(BIN)/python -m bench

test-all: $(READY)
	$(BIN)/pytest -m "not cluster"

# On a machine with a throw-away cluster: LAB names the command that brings it up.
LAB ?= ../shared/lab/lab

test-cluster: $(READY)
	LAB=$(LAB) tests/cluster/up.sh
	eval "$$($(LAB) env)" && $(BIN)/pytest -m "cluster and not slow" tests/cluster

test-cluster-full: $(READY)
	LAB=$(LAB) tests/cluster/up.sh
	eval "$$($(LAB) env)" && $(BIN)/pytest -m cluster tests/cluster

# make images REGISTRY=registry.example.org/team: builds and pushes both images, and records their digests in k8s/images.json
images:
	docker/images.sh $(REGISTRY) $(TAG)

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The lock is made for Python 3.11 and newer, with the versions that are known to work together.
lock:
	uv pip compile --universal --python-version 3.11 --generate-hashes --extra compute --extra mlflow --extra dev -c constraints.txt pyproject.toml -o requirements.lock

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

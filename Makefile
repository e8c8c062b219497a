# Everything a clone needs. `make demo` sets up .venv with what running takes, `make test` adds what developing takes.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
DEV := .venv/ready-dev

.PHONY: demo test same-science bench bench-gpu speedrun gpu-wheels test-all cluster test-cluster test-cluster-full recovery chaos images docs lint lock clean

# uv installs in seconds what it has downloaded once. It asks the index and the folder of wheels that pip is told to ask by its variables.
ifneq ($(PIP_FIND_LINKS),)
export UV_FIND_LINKS ?= $(PIP_FIND_LINKS)
endif
ifneq ($(PIP_INDEX_URL),)
export UV_DEFAULT_INDEX ?= $(PIP_INDEX_URL)
endif
export UV_SYSTEM_CERTS ?= 1
# The tests start hundreds of processes. Where this variable is set, each of them compiles torch anew, in 2.5 s of its 4.2.
unexport PYTHONDONTWRITEBYTECODE
say_size = @sed -n "s/^\# download on $$(uname -sm): \(.*\)/Installing $(1) into .venv: up to \1 to download, once./p" $(1)
install = $(BIN)/uv pip install --python $(BIN)/python --require-hashes -r $(1) || { echo "uv could not: pip tries, more slowly."; $(BIN)/pip install --require-hashes -r $(1); }

$(READY): requirements.lock docker/uv.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "Python 3.11 or newer is needed: apt install python3 python3-venv"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed; $$($(PYTHON) --version) is $(PYTHON). Name another with make PYTHON=python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "Python's venv is missing: apt install python3-venv"; exit 1; }
	@command -v git >/dev/null || { echo "git is missing: apt install git"; exit 1; }
	$(call say_size,requirements.lock)
	@$(PYTHON) -m venv .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r docker/uv.lock || echo "uv cannot be had here."
	@$(call install,requirements.lock)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

$(DEV): $(READY) requirements-dev.lock
	$(call say_size,requirements-dev.lock)
	@$(call install,requirements-dev.lock)
	@touch $@

demo: $(READY)
	$(BIN)/edm2 run experiments/demo.yaml

# The fast tests, in about five minutes on two quiet cores. Each test file stays in one process, so that what its tests share is made once.
test: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder

# After a change that moves no number: tests that, and adds the line by which users' trainings go on under it.
# make same-science SINCE=<revision before> WHY="what changed"
same-science: $(DEV)
	$(BIN)/python tests/same_science.py "$(SINCE)" "$(WHY)"

# Everything fast against a plain path: writes bench/RESULTS.md (half an hour on two cores; rows for a GPU where there is one).
bench: $(DEV)
	$(BIN)/python -m bench

# On a machine with a GPU, with the torch (2.11 or newer) that is there and without a network: eight minutes of measurements, the most
# important first; the same command goes on with what is left. WHEELS=FOLDER has the packages that the machine lacks: `make gpu-wheels`.
# MINUTES=…; ROWS="gpu-train-E …" measures just those whose names begin so.
GPU_PYTHON ?= $(if $(wildcard $(DEV)),$(BIN)/python,python3)
MINUTES ?= 8
ROWS ?=
bench-gpu:
	$(if $(WHEELS),$(GPU_PYTHON) -m bench.gpu.packages $(WHEELS))
	PYTHONPATH=.:.gpu-packages $(GPU_PYTHON) -m bench.gpu --minutes $(MINUTES) $(ROWS)

# The recipe's best images a second over three minutes as in use, and how long its training takes: RECIPE=E, C, G or tiny-E.
RECIPE ?= E
speedrun:
	$(MAKE) bench-gpu MINUTES=10 ROWS=gpu-speedrun-$(RECIPE)

# make gpu-wheels WHEELS=FOLDER FOR=3.12: the packages that a machine without a network may lack, for its version of Python.
FOR ?= 3.12
gpu-wheels: $(READY)
	$(BIN)/python -m bench.gpu.packages --gather $(FOR) $(WHEELS)

# All tests that need no cluster, in at most 25 minutes on two cores: those marked slow as well, and MinIO beside SeaweedFS where there is one.
test-all: $(DEV)
	OMP_NUM_THREADS=1 $(BIN)/pytest -n auto --dist loadfile --no-loadscope-reorder -m "not cluster" --durations 40

# On a machine with a throw-away cluster: LAB names the command that brings it up.
LAB ?= ../shared/lab/lab

cluster: $(DEV)
	LAB=$(LAB) tests/cluster/up.sh

test-cluster: cluster
	eval "$$($(LAB) env)" && $(BIN)/pytest -m "cluster and not slow" tests/cluster --durations 20

test-cluster-full: cluster
	eval "$$($(LAB) env)" && $(BIN)/pytest -m cluster tests/cluster

# How long a training stands still when a pod is killed: KILLS kills for each kind of job, and a table. Half an hour on a quiet machine.
KILLS ?= 20
recovery: cluster
	eval "$$($(LAB) env)" && EDM2_TEST_KILLS=$(KILLS) $(BIN)/pytest -s -m cluster tests/cluster/test_recovery.py

# An hour of faults in a throw-away cluster (docs/operations.md): MINUTES=… EVERY=… SEED=… JOB=pytorchjob API_SERVER=PID
chaos: MINUTES = 60
chaos: $(DEV)
	$(BIN)/python -m tests.cluster.chaos --minutes $(MINUTES) --job $(or $(JOB),trainjob) --every $(or $(EVERY),120) \
		$(if $(SEED),--seed $(SEED)) $(if $(API_SERVER),--api-server $(API_SERVER))

# make images REGISTRY=registry.example.org/team: builds and pushes both images, and records their digests in k8s/images.json
images:
	docker/images.sh $(REGISTRY) $(TAG)

# Writes docs/reference from the code; a test fails where it is behind.
docs: $(DEV)
	$(BIN)/python docs/generate.py

lint: $(DEV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The locks hold the versions that are known to work together, for Python 3.11 and newer. Only an index has the digests for every platform,
# so a folder of wheels is not asked.
lock: $(DEV)
	PATH=$(BIN):$$PATH env -u UV_FIND_LINKS -u PIP_FIND_LINKS uv run --no-project --with packaging docker/lock.py

clean:
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis build *.egg-info

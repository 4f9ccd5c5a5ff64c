# Every habit of this project. `make demo` and `make test` set up all they need below .venv.
PYTHON ?= python3
VENV ?= .venv
# PyTorch's package index of CPU builds, where pip's own index would bring the CUDA build.
TORCH_INDEX_URL ?=
BIN := $(VENV)/bin
# Named after the Python, so that another one gets an environment of its own making.
INSTALLED := $(VENV)/.installed-$(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
CXX_FILES := $(wildcard server/tritium/server/backends/onnxruntime/native/*.* tests/server/fuzz/*.cc)

.PHONY: installed demo test models lint format bench bench-client bench-export bench-loadtest bench-memory bench-serving bench-startup bench-tuner conformance fuzz mutations clean

installed: $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python cli/examples/demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 --dist loadgroup

models: $(INSTALLED)
	$(BIN)/tritium zoo train --repository model_repository

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/clang-format --dry-run --Werror $(CXX_FILES)

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format
	$(BIN)/clang-format -i $(CXX_FILES)

# ARGS="--write docs/benchmarks.md" writes the page anew.
bench: $(INSTALLED)
	@$(BIN)/python -m benchmarks.peers $(ARGS)

bench-client: $(INSTALLED)
	@$(BIN)/python -m benchmarks.client

bench-export: $(INSTALLED)
	@$(BIN)/python -m benchmarks.export

bench-loadtest: $(INSTALLED)
	@$(BIN)/python -m benchmarks.loadtest $(ARGS)

# Twenty minutes; ARGS="--minutes 3" makes it three.
bench-memory: $(INSTALLED)
	@$(BIN)/python -m benchmarks.memory $(ARGS)

bench-serving: $(INSTALLED)
	@$(BIN)/python -m benchmarks.serving $(ARGS)

bench-startup: $(INSTALLED)
	@$(BIN)/python -m benchmarks.startup

bench-tuner: $(INSTALLED)
	@$(BIN)/python -m benchmarks.tuner $(ARGS)

# WRITE=docs/conformance.md writes the page anew.
conformance: $(INSTALLED)
	$(BIN)/python -m tests.server.conformance $(if $(WRITE),--write $(WRITE))

# The native backend under AddressSanitizer and UBSan: two minutes. ARGS=--help says what can be had less or more of.
fuzz: $(INSTALLED)
	$(BIN)/python -m tests.server.fuzz $(ARGS)

# What lint misses: 500 random mutations of good models; ARGS="--write docs/lint-mutations.md" writes the page.
mutations: $(INSTALLED)
	$(BIN)/python -m tests.repository.mutations $(ARGS)

clean:
	rm -rf $(VENV) dist .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 13) else "Python 3.11 or 3.12 is needed: make PYTHON=python3.12 …")'
	@echo "Installing into $(VENV): a minute or two"
	$(PYTHON) -m venv --clear $(VENV)
	$(if $(TORCH_INDEX_URL),$(BIN)/python -m pip install --quiet --constraint constraints.txt --index-url $(TORCH_INDEX_URL) torch)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[all,dev]'
	@touch $@

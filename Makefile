# A fresh machine needs make and Python 3.11 or newer; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
GPU_BUDGET ?= 80GB
PYTEST_ARGS ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
PYTEST := $(VENV)/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test lint

help: ## list what make can do
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)
	@echo
	@echo '  PYTHON=$(PYTHON) VENV=$(VENV) GPU_BUDGET=$(GPU_BUDGET) PYTEST_ARGS="$(PYTEST_ARGS)" can be set on the command line.'

demo: $(VENV)/.installed-test ## run the example strategies against a budget of $(GPU_BUDGET)
	@mkdir -p results
	$(PYTEST) examples --gpu-budget=$(GPU_BUDGET) --loraperf-json=results/demo.json $(PYTEST_ARGS)

test: $(VENV)/.installed-test ## run the test suite
	$(PYTEST) $(PYTEST_ARGS)

lint: $(VENV)/.installed-lint ## run ruff and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

# mypy reads the installed libraries' types, so linting needs all that testing needs.
$(VENV)/.installed-lint: $(VENV)/.installed-test
	$(PIP) install --group lint
	@touch $@

# `venv` and the installs may be repeated over what is there: a set-up that broke off is mended by the next run.
# `pip install --group` needs pip 25.1, newer than what most Pythons bring.
$(VENV)/.installed-test: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>/dev/null) || found='not found'; \
		echo "Python 3.11 or newer is needed, but $(PYTHON) is $$found; install one, or name one: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	@echo 'Setting up $(VENV): PyTorch with CUDA is a download of about 3 GB, once.'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	$(PIP) install -e '.[diffsynth,torchao]' --group test
	@touch $@

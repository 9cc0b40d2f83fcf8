# A fresh machine needs make and Python 3.11 or newer; everything else goes into $(VENV).
PYTHON ?= python3
VENV ?= .venv
VENV1 ?= $(VENV)-diffsynth1
GPU_BUDGET ?= 80GB
PYTEST_ARGS ?=

PIP := $(VENV)/bin/python -m pip --disable-pip-version-check
PYTEST := $(VENV)/bin/python -m pytest

.DEFAULT_GOAL := help
.PHONY: help demo test test-diffsynth1 lint docs

help: ## list what make can do
	@sed -n 's/^\([a-z0-9-]*\):.*## \(.*\)/  make \1	\2/p' $(MAKEFILE_LIST)
	@echo
	@echo '  PYTHON=$(PYTHON) VENV=$(VENV) GPU_BUDGET=$(GPU_BUDGET) PYTEST_ARGS="$(PYTEST_ARGS)" can be set on the command line.'

demo: $(VENV)/.installed-test ## run the example strategies against a budget of $(GPU_BUDGET)
	@mkdir -p results
	$(PYTEST) examples --gpu-budget=$(GPU_BUDGET) --loraperf-json=results/demo.json $(PYTEST_ARGS)

test: $(VENV)/.installed-test ## run the test suite
	$(PYTEST) $(PYTEST_ARGS)

test-diffsynth1: $(VENV1)/.installed ## run the tests of the backend for DiffSynth 1.1, in an environment of its own
	$(VENV1)/bin/python -m pytest -n 0 tests/diffsynth1 $(PYTEST_ARGS)

lint: $(VENV)/.installed-lint ## run ruff and mypy
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy

docs: $(VENV)/.installed-docs ## build the documentation into build/docs; a warning, such as a broken link, is an error
	$(VENV)/bin/sphinx-build -W --keep-going --fresh-env -q docs build/docs

# mypy reads the installed libraries' types, so linting needs all that testing needs.
$(VENV)/.installed-lint: $(VENV)/.installed-test
	$(PIP) install --group lint
	@touch $@

# `venv` and the installs may be repeated over what is there: a set-up that broke off is mended by the next run.
# `pip install --group` needs pip 25.1, newer than what most Pythons bring.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
		found=$$($(PYTHON) --version 2>/dev/null) || found='not found'; \
		echo "Python 3.11 or newer is needed, but $(PYTHON) is $$found; install one, or name one: make PYTHON=/path/to/python3" >&2; \
		exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --upgrade 'pip>=25.1'
	@touch $@

$(VENV)/.installed-test: $(VENV)/.made pyproject.toml
	@echo 'Setting up $(VENV): PyTorch with CUDA is a download of about 3 GB, once.'
	$(PIP) install -e '.[diffsynth,torchao]' --group test
	@touch $@

# The pages need neither PyTorch nor the package: what is made from the code is committed, and a test holds it.
$(VENV)/.installed-docs: $(VENV)/.made pyproject.toml
	$(PIP) install --group docs
	@touch $@

# DiffSynth 1.1 and 2.x exclude one another, and 1.1 needs an older transformers. Its environment lies over the first
# one: what both can use, PyTorch above all, is found there through a .pth file and is not downloaded again. That pip
# finds diffusers there, which needs a newer huggingface-hub, is no error: nothing here uses it.
$(VENV1)/.installed: $(VENV)/.installed-test pyproject.toml
	$(VENV)/bin/python -m venv $(VENV1)
	$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
		>"$$($(VENV1)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/first-environment.pth"
	$(VENV1)/bin/python -m pip --disable-pip-version-check install --quiet -e '.[diffsynth1]'
	@touch $@

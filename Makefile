# Two commands do everything on a fresh machine: `make demo` and `make test`.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c

PYTHON ?= $(shell command -v python3.11 || command -v python3.12 || command -v python3)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev
OUT ?= out
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

# Files of tests that run side by side; each keeps to itself.
TEST_PROCESSES ?= 2
SERVE_STAMP := $(VENV)/.installed-serve

.PHONY: help demo serve test test-plugins check format proto system-packages bench bench-chain bench-recovery clean

help:
	@echo "make demo    render the sample portrait and speech to $(OUT)/demo.mp4"
	@echo "make serve   talk to a face in the browser, at http://127.0.0.1:8080/ once it is warm"
	@echo "make test    install what the tests need and run all of them"
	@echo "make test-plugins   install LiveKit Agents and Pipecat apart, and test the plug-ins (1 GB)"
	@echo "make check   format, lint, types, import contracts"
	@echo "make proto   make the gRPC code of proto/viva/v1/*.proto anew (it is committed)"
	@echo "make bench   measure speed and memory, write benchmarks/results/"
	@echo "make bench-chain   measure the chain on Ray against its limits (idle machine, 8 minutes)"
	@echo "make bench-recovery   kill the chain's stages again and again (idle machine, 10 minutes)"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 12) else f"Python 3.11 or 3.12 is needed, found {v[0]}.{v[1]}: set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)

$(STAMP): $(BIN)/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e .
	@touch $@

$(DEV_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,ray,train,recordings,wav2vec,serve,grpc,jobs,postgres,provenance,traces]'
	@touch $@

$(SERVE_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[serve]'
	@touch $@

# What draws and speaks the training data, the browser, and the database of the tests.
system-packages:
	@missing=(); \
	for package in libegl1 libgl1-mesa-dri libespeak-ng1 espeak-ng-data flite espeak-ng chromium \
	  postgresql iproute2; do \
	  dpkg -s "$$package" >/dev/null 2>&1 || missing+=("$$package"); \
	done; \
	if [ $${#missing[@]} -gt 0 ]; then \
	  if command -v apt-get >/dev/null; then \
	    $(SUDO) apt-get update -qq && $(SUDO) apt-get install -y -qq --no-install-recommends "$${missing[@]}"; \
	  else echo "not a Debian system: tests that need $${missing[*]} will say so and skip"; fi; \
	fi

demo: $(STAMP)
	@mkdir -p $(OUT)
	$(BIN)/viva render \
	  --portrait configs/models/pocket/portraits/ada.png \
	  --audio configs/models/pocket/speech.flac \
	  --out $(OUT)/demo.mp4 --overwrite
	@echo "$(abspath $(OUT)/demo.mp4)"

serve: $(SERVE_STAMP)
	@exec $(BIN)/viva serve --deployment laptop

test: system-packages $(DEV_STAMP)
	OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile

# Each plug-in has an environment of its own beside .venv, as its users do; the server that it talks to
# runs in .venv with a fake model.
test-plugins: .venv-livekit/.installed .venv-pipecat/.installed $(DEV_STAMP)
	cd plugins/livekit && VIVA_PYTHON=$(abspath $(BIN)/python) ../../.venv-livekit/bin/python -m pytest
	cd plugins/pipecat && VIVA_PYTHON=$(abspath $(BIN)/python) ../../.venv-pipecat/bin/python -m pytest

.venv-%/.installed: plugins/%/pyproject.toml plugins/%/constraints.txt proto/pyproject.toml \
  $(wildcard proto/viva/v1/*.py)
	$(PYTHON) -m venv .venv-$*
	.venv-$*/bin/python -m pip install --quiet -c plugins/$*/constraints.txt ./proto -e './plugins/$*[test]'
	@rm -rf proto/build proto/*.egg-info
	@touch $@

check: $(DEV_STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	PYTHONPATH=.:proto $(BIN)/lint-imports

format: $(DEV_STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

proto: $(DEV_STAMP)
	$(BIN)/python proto/generate.py

bench: $(DEV_STAMP)
	$(BIN)/python benchmarks/render_speed.py
	$(BIN)/python benchmarks/memory_flat.py

bench-chain: $(DEV_STAMP)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/chain.py all

bench-recovery: $(DEV_STAMP)
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python benchmarks/recovery.py

clean:
	rm -rf $(OUT) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

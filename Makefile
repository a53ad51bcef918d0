# make run: try dambench.   make test: everything CI runs.   Both need only Python 3.11+ and make.
PYTHON ?= python3
BIN := .venv/bin/python -m
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: run test test-slow test-gpu bench ledger pictures clean
.DELETE_ON_ERROR:

# Real digits that come with scikit-learn: nothing to download, no GPU needed.
# The ledger has these runs already, from another machine: --again makes them here.
RUN := $(BIN) dambench run --headless --again --dataset digits
run: .venv/ready  ## distil digits at IPC 1 and 10, compare with a random subset and the whole set
	$(RUN) --method random --ipc 1
	$(RUN) --method random --ipc 10
	$(RUN) --method dm --ipc 1
	$(RUN) --method dm --ipc 10
	$(RUN) --method whole
	@echo && $(BIN) dambench report --short
	@echo && echo "Try next:" && \
	echo "  . .venv/bin/activate" && \
	echo "  dambench report                  # with seconds, memory and how to read it" && \
	echo "  dambench runs                    # every run is in $${DAMBENCH_DB:-runs.db}" && \
	echo "  dambench run --headless --method dm --dataset digits --ipc 5 --seeds 0-2" && \
	echo "  dambench run --headless --method dm --dataset folder --data YOUR/IMAGES --ipc 1 --seeds 0-2" && \
	echo "  dambench --help"

test: .venv/ready  ## format, lint, types, import contracts, tests
	$(BIN) ruff format --check .
	$(BIN) ruff check .
	$(BIN) mypy
	.venv/bin/lint-imports --no-logo
	$(BIN) pytest -n logical --maxprocesses 4 --dist worksteal

test-slow: .venv/ready  ## what takes longer: a wheel in an environment of its own, the README's commands
	$(BIN) pytest -m slow

test-gpu: .venv/ready  ## what needs a CUDA device
	$(BIN) pytest -m gpu

# A part of it: make bench BENCH="evaluation --rounds 2 --no-record"
bench: .venv/ready  ## measure ours beside the official form, about 25 minutes; nothing else should run
	$(BIN) benchmarks $(BENCH)

# In pieces, if need be: Ctrl+C or `timeout -s INT 2h make ledger` at any time, and again later.
ledger: .venv/ready  ## make those runs of ledger.txt that runs.db lacks; their figures are in the README
	$(BIN) benchmarks.ledger

pictures: .venv/ready  ## draw the README's pictures of the console anew, from runs.db
	$(BIN) benchmarks.pictures

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "dambench needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	$(PYTHON) -m venv --clear .venv
	$(BIN) pip install --quiet --upgrade "pip==26.3"
	$(BIN) pip install --quiet --group dev --editable .
	@touch $@

clean:  ## remove what make installed and the tools' caches; runs.db stays
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache dist build

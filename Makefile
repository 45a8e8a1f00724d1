# Everything happens in .venv; a stamp there says which extra is installed, so that a second call starts at once.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo test clean

demo: .venv/export.stamp
	$(BIN)/sfiin demo -o build/demo

test: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2 --dist loadgroup

clean:
	rm -rf .venv build dist sfiin.egg-info .mypy_cache .ruff_cache .pytest_cache

.venv/%.stamp: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

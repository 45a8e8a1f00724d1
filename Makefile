# Everything happens in .venv; a stamp there says which extras are installed, so that a second call starts at once.
PYTHON ?= python3
BIN := .venv/bin
INSTALL = test -x $(BIN)/python || $(PYTHON) -m venv .venv; $(BIN)/pip install --quiet --constraint constraints.txt --editable

.PHONY: demo test docs clean

demo: .venv/demo.stamp
	$(BIN)/sfiin demo -o build/demo

test: .venv/dev.stamp
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/pytest -n 2 --dist loadfile

docs: .venv/dev.stamp
	$(BIN)/mkdocs build --strict --site-dir build/site

clean:
	rm -rf .venv build dist sfiin.egg-info .mypy_cache .ruff_cache .pytest_cache

.venv/demo.stamp: pyproject.toml constraints.txt
	$(INSTALL) '.[export,cpu]'
	touch $@

.venv/dev.stamp: pyproject.toml constraints.txt
	$(INSTALL) '.[dev]'
	touch $@

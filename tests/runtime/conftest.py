"""Boards whose files are known, for what reads a machine's."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def boards() -> Any:
    """The module `boards.py` beside this file."""
    spec = importlib.util.spec_from_file_location("boards", Path(__file__).with_name("boards.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module

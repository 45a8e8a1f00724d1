"""Boards whose files are known, for what reads a machine's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(scope="session")
def boards(script: Callable[[Path], Any]) -> Any:
    """The module `boards.py` beside this file."""
    return script(Path(__file__).with_name("boards.py"))

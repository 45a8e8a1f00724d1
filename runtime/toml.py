"""How is a table of facts read? As TOML, by what Python has for it since 3.11, or by the package it came
from."""

from __future__ import annotations

import sys
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def parse(text: str) -> dict[str, Any]:
    """A TOML document. Raises ValueError for what is none."""
    return tomllib.loads(text)

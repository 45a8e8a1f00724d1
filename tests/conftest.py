"""Shared by all tests: where real imagery lies, and small networks to test with."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def imagery() -> Path:
    """A folder with `train/`, `check/` and `scenes/`: $SFIIN_IMAGERY, or any `*/data` beside the checkout.

    Real imagery belongs to its providers and is not part of the repository.
    """
    named = os.environ.get("SFIIN_IMAGERY")
    candidates = [Path(named)] if named else sorted(ROOT.parent.glob("*/data"))
    for folder in candidates:
        if all((folder / part).is_dir() for part in ("train", "check", "scenes")):
            return folder
    pytest.skip("no real imagery at hand; set SFIIN_IMAGERY to a folder with train/, check/ and scenes/")


@pytest.fixture(scope="session")
def shipped_checkpoint() -> Path:
    """The checkpoint that comes with the package."""
    return ROOT / "sfiin" / "checkpoints" / "sfiin-vhr4.safetensors"

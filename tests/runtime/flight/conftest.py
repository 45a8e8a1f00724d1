"""Bundles of the small network, for all tests of flights."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfiin.runtime.flight import bundle


@pytest.fixture(scope="session")
def sealed(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle of the small network and two classical methods."""
    path = tmp_path_factory.mktemp("bundles") / "one.bundle"
    bundle.make(path, [small_model], ["gsa", "bicubic"])
    return path


@pytest.fixture(scope="session")
def other(small_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Another bundle, with another chain."""
    path = tmp_path_factory.mktemp("bundles") / "two.bundle"
    bundle.make(path, [small_model], ["brovey"])
    return path

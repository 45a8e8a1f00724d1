"""Where nvcc is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfiin.export.plugin import toolkit
from sfiin.runtime.errors import UnavailableError


@pytest.fixture
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without nvcc anywhere."""
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    for name in ("CUDA_HOME", "CUDA_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(toolkit, "USUAL", tmp_path / "usual")
    return tmp_path


def placed(folder: Path) -> Path:
    folder.mkdir(parents=True)
    program = folder / "nvcc"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def test_it_is_found_where_a_jetson_has_it_and_the_path_comes_first(
    nowhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnavailableError, match=r"nvcc, which compiles .* \$CUDA_HOME"):
        toolkit.nvcc()
    assert not toolkit.has_nvcc()
    usual = placed(nowhere / "usual" / "bin")
    assert toolkit.nvcc() == usual
    home = placed(nowhere / "home" / "bin")
    monkeypatch.setenv("CUDA_HOME", str(nowhere / "home"))
    assert toolkit.nvcc() == home
    on_path = placed(nowhere / "path")
    assert toolkit.nvcc() == on_path

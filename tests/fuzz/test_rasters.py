"""A hundred damaged scenes: each ends in a product, or in one line, a documented code, and nothing left."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("rasters.py")
SEEDS = 100


def rasters() -> Any:
    spec = importlib.util.spec_from_file_location("rasters", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["rasters"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_a_hundred_seeds(small_model: Path) -> None:
    """In a process of its own, which forks a run a seed."""
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--seeds", f"0:{SEEDS}", "--model", str(small_model)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f'"seeds": {SEEDS}' in done.stdout


def test_a_seed_makes_the_same_scene_again(tmp_path: Path) -> None:
    module = rasters()
    for seed in range(8):
        contents = []
        for name in ("one", "two"):
            folder = tmp_path / f"{name}{seed}"
            folder.mkdir()
            _, _, what = module.spoil(folder, seed)
            contents.append((what, {path.name: path.read_bytes() for path in folder.iterdir()}))
        assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("code", "said", "left", "kind"),
    [
        (None, "", (), "hangs"),
        (-11, "", (), "ends by SIGSEGV"),
        (1, "Traceback\nValueError: x", (), "traceback: ValueError: x"),
        (3, "sfiin: error: no", (), "refused"),
        (3, "", (), "exit code 3, 0 lines"),
        (99, "sfiin: error: no", (), "exit code 99, 1 lines"),
        (3, "sfiin: error: no", (".o.tif.sfiin",), "left behind: ['.o.tif.sfiin']"),
    ],
)
def test_what_counts_as_a_finding(
    tmp_path: Path, code: Any, said: str, left: tuple[str, ...], kind: str
) -> None:
    for name in left:
        (tmp_path / name).touch()
    assert rasters()._verdict(code, said, tmp_path / "o.tif") == kind

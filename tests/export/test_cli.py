"""The commands `export` and `demo`, run as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
import typer

from export.cli import parse_tile
from sfiin import checkpoint
from sfiin.checkpoint import Checkpoint
from sfiin.network import SFIIN, NetworkConfig
from sfiin.sensors import SENSORS


def sfiin(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from runtime.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    checkpoint.save(path, Checkpoint(SFIIN(NetworkConfig(blocks=1), SENSORS["vhr4"])))
    return path


def test_export_checks_and_tells(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    done = sfiin("export", small, "-o", out, "--fourier", "dft", "--tile", "32x64", "--opset", "20", "--overlap", "8")
    assert (done.returncode, done.stderr) == (0, "")
    assert "checkerboard" in done.stdout
    assert "32x64" in done.stdout
    again = sfiin("export", small, "-o", out)
    assert again.returncode == 7
    assert "--overwrite" in again.stderr
    quiet = sfiin("export", small, "-o", out, "--tile", "64", "--overwrite", "--quiet")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--tile", "huge"], 2, "is no tile"),
        (["--tile", "66"], 4, "no multiple of the ratio"),
        (["--tile", "64", "--overlap", "64"], 4, "tile.overlap"),
        (["--fourier", "fft"], 2, "fft"),
        (["--opset", "13"], 2, "opset"),
    ],
)
def test_wrong_options_are_refused(small: Path, tmp_path: Path, arguments: list[str], code: int, text: str) -> None:
    done = sfiin("export", small, "-o", tmp_path / "m.onnx", *arguments)
    assert done.returncode == code
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_demo_goes_the_whole_way(tmp_path: Path) -> None:
    done = sfiin("demo", "-o", tmp_path / "demo")
    assert done.returncode == 0, done.stderr
    made = {path.name for path in (tmp_path / "demo").iterdir()}
    assert made == {"pan.tif", "ms.tif", "truth.tif", "model.onnx", "model.golden.npz", "hrms.tif", "demo.png"}
    quality = {
        cells[0]: [float(cell) for cell in cells[1:]]
        for cells in (line.split() for line in done.stdout.splitlines())
        if len(cells) == 4 and cells[0] in {"bicubic", "brovey", "sfiin"}
    }
    psnr, sam, ergas = (dict(zip(quality, column, strict=True)) for column in zip(*quality.values(), strict=True))
    # Brovey's assumption nearly holds in the simulation; on real pairs tests/sfiin/test_evaluation.py compares both.
    assert psnr["sfiin"] > psnr["bicubic"] + 3
    assert ergas["sfiin"] < 0.7 * ergas["bicubic"]
    assert 0 < sam["sfiin"] < 3


def test_parse_tile() -> None:
    assert parse_tile("128") == (128, 128)
    assert parse_tile("96x160") == (96, 160)
    for text in ("", "x", "12x", "1.5", "128 ", "-4"):
        with pytest.raises(typer.BadParameter):
            parse_tile(text)

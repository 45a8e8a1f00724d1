"""The commands `train`, `import` and `evaluate`, run as a user runs them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from sfiin import checkpoint
from sfiin.simulate import simulate


def sfiin(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", "from runtime.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    for seed in range(4):
        scene = simulate(64, 64, seed)
        np.savez(folder / f"p{seed}.npz", pan=scene.pan, ms=scene.ms, gt=scene.truth, meta='{"sensor": "simulated"}')
    return folder


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    out = data.parent / f"{data.name}.safetensors"
    small = ["--channels", 4, "--blocks", 1, "--steps", 4, "--batch", 2, "--patch", 32, "--seed", 3, "--threads", 1]
    done = sfiin("train", "--data", data, "-o", out, *small)
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 held-out" in done.stdout
    return out


def test_train_writes_a_checkpoint_that_says_how(trained: Path) -> None:
    result = checkpoint.load(trained)
    assert (result.network.config.channels, result.network.config.blocks) == (4, 1)
    assert result.training["seed"] == 3
    assert result.training["pairs"] == ["p0", "p1", "p2"]
    assert result.training["held_out"] == ["p3"]


def test_train_goes_on_from_a_checkpoint(trained: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "more.safetensors"
    done = sfiin("train", "--data", data, "-o", out, "--init", trained, "--steps", 1, "--rate", 0, "--patch", 32, "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    before, after = (checkpoint.load(path).network.state_dict() for path in (trained, out))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_evaluate_prints_a_table_or_one_document(trained: Path, data: Path) -> None:
    done = sfiin("evaluate", trained, "--data", data, "--tile", 32, "--overlap", 8)
    assert (done.returncode, done.stderr) == (0, "")
    assert "brovey" in done.stdout
    document = json.loads(sfiin("evaluate", trained, "--data", data, "--tile", 32, "--overlap", 8, "--json").stdout)
    assert [mean["method"] for mean in document["means"]] == ["bicubic", "brovey", "sfiin"]
    assert len(document["scores"]) == 12
    assert {"psnr", "sam", "ergas", "bias"} <= set(document["scores"][0]["quality"])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["train", "-o", "{out}", "--data", "{none}"], 2, "does not exist"),
        (["train", "-o", "{out}", "--data", "{empty}"], 3, "no .npz pair of 4 bands"),
        (["train", "-o", "{out}", "--data", "{data}", "--sensor", "hubble"], 2, "unknown sensor 'hubble'"),
        (["train", "-o", "{out}", "--data", "{data}", "--sensor", "worldview2"], 3, "8 bands"),
        (["train", "-o", "{out}", "--data", "{data}", "--channels", "6"], 2, "multiple of 4"),
        (["train", "-o", "{out}", "--data", "{data}", "--spatial", "magic"], 2, "magic"),
        (["train", "-o", "{trained}", "--data", "{data}"], 7, "exists already"),
        (["import", "{text}", "-o", "{out}"], 3, "tensors only"),
        (["evaluate", "{text}", "--data", "{data}"], 3, "not a readable .safetensors"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    trained: Path, data: Path, tmp_path: Path, *, arguments: list[str], code: int, text: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pth").write_text("hello")
    places = {
        "out": tmp_path / "out.safetensors", "none": tmp_path / "none", "empty": tmp_path / "empty",
        "text": tmp_path / "text.pth", "data": data, "trained": trained,
    }  # fmt: skip
    done = sfiin(*(argument.format(**places) for argument in arguments))
    assert done.returncode == code, done.stderr
    assert text in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not places["out"].exists()

"""The commands `train`, `import` and `evaluate`, run as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sfiin.model import checkpoint

Invoke = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def data(simulated_pairs: Callable[[int, str], Path]) -> Path:
    return simulated_pairs(64, "simulated")


@pytest.fixture
def trained(invoke: Invoke, data: Path) -> Path:
    out = data.parent / f"{data.name}.safetensors"
    if out.exists():
        return out
    small = [
        "--channels",
        4,
        "--blocks",
        1,
        "--steps",
        4,
        "--batch",
        2,
        "--patch",
        32,
        "--seed",
        3,
        "--threads",
        1,
    ]
    code, output, errors = invoke("train", "--data", data, "-o", out, *small)
    assert (code, errors) == (0, "")
    assert "1 held-out" in output
    return out


def test_train_writes_a_checkpoint_that_says_how(trained: Path) -> None:
    result = checkpoint.load(trained)
    assert (result.network.config.channels, result.network.config.blocks) == (4, 1)
    assert result.training["seed"] == 3
    assert result.training["pairs"] == ["p0", "p1", "p2"]
    assert result.training["held_out"] == ["p3"]


def test_train_goes_on_from_a_checkpoint(invoke: Invoke, trained: Path, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "more.safetensors"
    done = invoke(
        "train", "--data", data, "-o", out, "--init", trained, "--steps", 1, "--rate", 0, "--patch", 32, "-q"
    )
    assert done == (0, "", "")
    before, after = (checkpoint.load(path).network.state_dict() for path in (trained, out))
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_checkpoint_is_brought_to_another_patch(
    invoke: Invoke, trained: Path, data: Path, tmp_path: Path
) -> None:
    """As amplitudes grow with the tile, so do their biases: the network stays what it was."""
    out = tmp_path / "more.safetensors"
    larger = ["--init", trained, "--steps", 1, "--rate", 0, "--patch", 64, "-q"]
    assert invoke("train", "--data", data, "-o", out, *larger) == (0, "", "")
    name = "blocks.0.frequency.amplitude.0.bias"
    first, second = (checkpoint.load(path).network.get_parameter(name) for path in (trained, out))
    torch.testing.assert_close(second, 2 * first)


def test_evaluate_prints_a_table_or_one_document(invoke: Invoke, trained: Path, data: Path) -> None:
    code, output, errors = invoke("evaluate", trained, "--data", data, "--tile", 32, "--overlap", 8)
    assert (code, errors) == (0, "")
    assert "brovey" in output
    document = json.loads(
        invoke("evaluate", trained, "--data", data, "--tile", 32, "--overlap", 8, "--json")[1]
    )
    assert [mean["method"] for mean in document["means"]] == ["bicubic", "brovey", "sfiin"]
    assert len(document["scores"]) == 12
    assert {"psnr", "sam", "ergas", "bias"} <= set(document["scores"][0]["quality"])


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["train", "-o", "{out}", "--data", "{none}"], 2, "does not exist"),
        (["train", "-o", "{out}", "--data", "{empty}"], 3, "no pair of 4 bands"),
        (["train", "-o", "{out}", "--data", "{data}", "--sensor", "hubble"], 3, "unknown sensor 'hubble'"),
        (["train", "-o", "{out}", "--data", "{data}", "--sensor", "worldview2"], 3, "8 bands"),
        (["train", "-o", "{out}", "--data", "{data}", "--channels", "6"], 2, "multiple of 4"),
        (["train", "-o", "{out}", "--data", "{data}", "--spatial", "magic"], 2, "magic"),
        (["train", "-o", "{trained}", "--data", "{data}"], 7, "exists already"),
        (["import", "{text}", "-o", "{out}"], 3, "tensors only"),
        (["evaluate", "{text}", "--data", "{data}"], 3, "no checkpoint of sfiin"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    invoke: Invoke, trained: Path, data: Path, tmp_path: Path, *, arguments: list[str], code: int, text: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.pth").write_text("hello")
    places = {
        "out": tmp_path / "out.safetensors",
        "none": tmp_path / "none",
        "empty": tmp_path / "empty",
        "text": tmp_path / "text.pth",
        "data": data,
        "trained": trained,
    }
    found, _, errors = invoke(*(argument.format(**places) for argument in arguments))
    assert found == code, errors
    assert text in " ".join(errors.split())
    assert "Traceback" not in errors
    assert not places["out"].exists()

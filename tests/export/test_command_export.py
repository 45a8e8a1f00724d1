"""The commands `export` and `demo`, run as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from sfiin.export.api import sides
from sfiin.export.command_export import check_tile
from sfiin.runtime.errors import ContractError

Invoke = Callable[..., tuple[int, str, str]]


def test_export_checks_and_tells(invoke: Invoke, small_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    code, out_text, errors = invoke(
        "export",
        small_checkpoint,
        "-o",
        out,
        "--fourier",
        "dft",
        "--tile",
        "32x64",
        "--opset",
        "20",
        "--overlap",
        "8",
    )
    assert (code, errors) == (0, "")
    assert "zero" in out_text
    assert "32x64" in out_text
    code, _, errors = invoke("export", small_checkpoint, "-o", out)
    assert code == 7
    assert "--overwrite" in errors
    quiet = invoke("export", small_checkpoint, "-o", out, "--tile", "64", "--overwrite", "--quiet")
    assert quiet == (0, "", "")


def test_a_plugin_model_says_what_it_needs(invoke: Invoke, small_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    chosen = ("--fourier", "plugin", "--target", "jetpack6", "--tile", "32", "--overlap", "8")
    code, output, errors = invoke("export", small_checkpoint, "-o", out, *chosen)
    assert (code, errors) == (0, "")
    assert "The plugin's reference against PyTorch" in output
    code, output, _ = invoke("inspect", out, "--json")
    assert code == 0
    assert json.loads(output)["needs"].startswith("TensorRT with the plugin sfiin::SpectralFusion")
    scene = (
        "--pan",
        tmp_path / "pan.tif",
        "--ms",
        tmp_path / "ms.tif",
    )  # never opened: the model is refused first
    code, _, errors = invoke("run", *scene, "-o", tmp_path / "o.tif", "--model", out, "--provider", "cpu")
    assert code == 5
    assert errors.count("\n") == 1
    assert "it needs TensorRT with the plugin" in errors
    assert "--fourier matmul" in errors
    code, output, _ = invoke("preflight", out, "--target", "jetpack6", "--json")
    assert code == 0
    assert "needs sfiin's TensorRT plugin" in output
    code, _, errors = invoke("preflight", out, "--target", "ort", "--quiet")
    assert code == 6
    assert "export with --fourier matmul" in errors


def test_auto_tells_its_figures(invoke: Invoke, small_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "m.onnx"
    code, output, errors = invoke("export", small_checkpoint, "-o", out, "--fourier", "auto", "--tile", "64")
    assert (code, errors) == (0, "")
    assert "Lowerings for ort" in output
    assert output.count("chosen") == 1
    code, output, _ = invoke("inspect", out, "--json")
    record = json.loads(output)["contract"]["lowering_choice"]
    assert code == 0
    assert record["target"] == "ort"
    assert {"matmul.ms", "dft.ms", "matmul.relative_l2", "dft.relative_l2"} < set(record)


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--tile", "huge"], 2, "is no tile"),
        (["--tile", "66"], 4, "no multiple of the ratio"),
        (["--tile", "64", "--overlap", "64"], 4, "tile.overlap"),
        (["--fourier", "fft"], 2, "fft"),
        (["--opset", "13"], 2, "opset"),
        (["--target", "tpu"], 2, "tpu"),
        (["--fourier", "plugin", "--target", "ort"], 6, "sfiin's plugin, which the target cannot load"),
        (["--fourier", "plugin", "--target", "rtx"], 6, "export with --fourier matmul"),
        (["--fourier", "dft", "--target", "jetpack6"], 6, "will not read this model: DFT"),
    ],
)
def test_wrong_options_are_refused(
    invoke: Invoke, small_checkpoint: Path, tmp_path: Path, *, arguments: list[str], code: int, text: str
) -> None:
    found, _, errors = invoke("export", small_checkpoint, "-o", tmp_path / "m.onnx", *arguments)
    assert found == code
    assert text in errors
    assert "Traceback" not in errors
    assert not list(tmp_path.iterdir())


DEMO_METHODS = {"bicubic", "brovey", "local_regression", "sfiin"}


def test_demo_goes_the_whole_way(invoke: Invoke, tmp_path: Path) -> None:
    code, output, errors = invoke("demo", "-o", tmp_path / "demo")
    assert code == 0, errors
    made = {path.name for path in (tmp_path / "demo").iterdir()}
    assert made == {
        "pan.tif",
        "ms.tif",
        "truth.tif",
        "model.onnx",
        "model.golden.npz",
        "hrms.tif",
        "demo.png",
        "momotombo",
    }
    made = {path.name for path in (tmp_path / "demo" / "momotombo").iterdir()}
    assert made == {"pan.tif", "ms.tif", "hrms.tif", "momotombo.png"}
    rows = [cells for cells in (line.split() for line in output.splitlines()) if len(cells) == 4]
    named = [(cells[0], [float(cell) for cell in cells[1:]]) for cells in rows if cells[0] in DEMO_METHODS]
    simulated, real = dict(named[: len(DEMO_METHODS)]), dict(named[len(DEMO_METHODS) :])
    psnr, sam, ergas = (
        dict(zip(simulated, column, strict=True)) for column in zip(*simulated.values(), strict=True)
    )
    assert real["sfiin"][0] > max(values[0] for name, values in real.items() if name != "sfiin") + 0.5
    # Brovey's assumption nearly holds in the simulation; on real pairs tests/sfiin/test_evaluation.py
    # compares both.
    assert psnr["sfiin"] > psnr["bicubic"] + 3
    assert ergas["sfiin"] < 0.7 * ergas["bicubic"]
    assert 0 < sam["sfiin"] < 3


def test_a_tile_is_a_side_or_two() -> None:
    for text, size in (("128", (128, 128)), ("96x160", (96, 160))):
        check_tile(text)
        assert sides(text) == size
    for text in ("", "x", "12x", "1.5", "128 ", "-4"):
        with pytest.raises(typer.BadParameter):
            check_tile(text)
        with pytest.raises(ContractError):
            sides(text)

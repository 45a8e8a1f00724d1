"""`import sfiin`: what is there, what it costs, and that it goes the way of the commands."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

import sfiin
from sfiin.runtime import errors, models

ROOT = Path(__file__).parents[1]
Invoke = Any


def example() -> Any:
    """The example's module, for its scene."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("example", ROOT / "examples" / "sharpen.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def arrays() -> tuple[np.ndarray, np.ndarray]:
    pan, ms = example().scene(200)
    return pan, ms


def test_everything_that_is_told_is_there() -> None:
    assert list(sfiin.__all__) == sorted(sfiin.__all__)
    assert dir(sfiin) == sfiin.__all__
    for name in sfiin.__all__:
        assert getattr(sfiin, name) is not None
        if name != "__version__":
            assert getattr(sfiin, name).__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match="no attribute 'sharpened'"):
        _ = sfiin.sharpened


def test_every_error_is_there() -> None:
    tree = {
        name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)
    }
    assert tree == {name for name in sfiin.__all__ if name.endswith("Error")}
    assert all(issubclass(getattr(sfiin, name), sfiin.SfiinError) for name in tree)


def test_what_a_type_checker_sees_is_what_there_is() -> None:
    import ast

    tree = ast.parse((ROOT / "sfiin" / "__init__.py").read_text("utf-8"))
    typed = {
        name.name
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and getattr(node.test, "id", "") == "TYPE_CHECKING"
        for line in node.body
        if isinstance(line, ast.ImportFrom)
        for name in line.names
    }
    assert typed == set(sfiin.__all__) - {"__version__"}


def test_importing_it_loads_nothing() -> None:
    code = """
import sys
before = set(sys.modules)
import sfiin
new = {name.partition(".")[0] for name in set(sys.modules) - before}
assert not {"numpy", "torch", "rasterio", "typer", "rich"} & set(sys.modules), sys.modules.keys()
assert sfiin.__version__
assert "sfiin.runtime" not in sys.modules
"""
    subprocess.run([sys.executable, "-I", "-c", code], check=True)


def test_the_example_runs(tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", str(ROOT / "examples" / "sharpen.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "from arrays: (4, 256, 256) uint16" in done.stdout
    assert "the same pixels: True" in done.stdout
    assert "one tile: (4, 128, 128) float32 for blue, green, red, nir" in done.stdout
    assert "refused: no shipped model fits 3 MS bands" in done.stdout


def test_arrays_files_and_the_command_give_the_same_pixels(
    arrays: tuple[np.ndarray, np.ndarray], invoke: Invoke, small_model: Path, tmp_path: Path
) -> None:
    pan, ms = arrays
    seen: list[tuple[int, int]] = []
    hrms = sfiin.sharpen(pan, ms, small_model, progress=lambda done, total: seen.append((done, total)))
    assert (hrms.shape, hrms.dtype) == ((4, 200, 200), np.uint16)
    assert seen[-1][0] == seen[-1][1]
    for name, image, pixel in (("pan", pan[None], 1.0), ("ms", ms, 4.0)):
        transform = rasterio.Affine(pixel, 0, 1000, 0, -pixel, 2000)
        size = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
        kind = {"driver": "GTiff", "dtype": image.dtype, "crs": "EPSG:32633", "transform": transform}
        with rasterio.open(tmp_path / f"{name}.tif", "w", **kind, **size) as file:
            file.write(image)
    report = sfiin.sharpen_files(
        tmp_path / "pan.tif", [tmp_path / "ms.tif"], tmp_path / "a.tif", model=small_model
    )
    assert (report.size, report.bands, report.output) == (
        (200, 200),
        ("blue", "green", "red", "nir"),
        tmp_path / "a.tif",
    )
    command = ("run", "--pan", tmp_path / "pan.tif", "--ms", tmp_path / "ms.tif", "--model", small_model)
    assert invoke(*command, "-o", tmp_path / "b.tif", "--quiet")[0] == 0
    assert (tmp_path / "a.tif").read_bytes() == (tmp_path / "b.tif").read_bytes()
    with rasterio.open(tmp_path / "a.tif") as file:
        assert np.array_equal(file.read(), hrms)


def test_no_data_stays_no_data(arrays: tuple[np.ndarray, np.ndarray], small_model: Path) -> None:
    pan, ms = (image.copy() for image in arrays)
    pan[:64, :64] = 0
    ms[:, :16, :16] = 0
    hrms = sfiin.sharpen(pan, ms, small_model, nodata=0)
    assert not hrms[:, :64, :64].any()
    assert hrms[:, 64:, 64:].all()


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int64, np.float32])
def test_types_of_arrays(arrays: tuple[np.ndarray, np.ndarray], small_model: Path, kind: Any) -> None:
    pan, ms = (np.clip(image, 0, 120).astype(kind) + kind(1) for image in arrays)
    hrms = sfiin.sharpen(pan, ms, small_model, max_shift=100)
    assert hrms.dtype == (ms.dtype if kind is not np.int64 else np.uint8)


@pytest.mark.parametrize(
    ("pan", "ms", "kind"),
    [
        (np.ones((8, 8)), np.ones((8, 8)), sfiin.SceneError),
        (np.ones((2, 128, 128)), np.ones((4, 32, 32)), sfiin.SceneError),
        (np.ones((128, 128), complex), np.ones((4, 32, 32)), sfiin.SceneError),
        (np.ones((128, 128), bool), np.ones((4, 32, 32)), sfiin.SceneError),
        (np.full((128, 128), 1 << 40), np.ones((4, 32, 32)), sfiin.SceneError),
        (np.ones((0, 0)), np.ones((4, 0, 0)), sfiin.SceneError),
        (np.ones((128, 128)), np.ones((7, 32, 32)), sfiin.MismatchError),
    ],
)
def test_arrays_that_cannot_be_used_are_refused(pan: Any, ms: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        sfiin.sharpen(pan, ms)


def test_models_by_file_and_by_name(small_model: Path) -> None:
    with sfiin.open_model("sfiin-wv8") as model:
        assert len(model.contract.sensor.bands) == 8
        shapes = model.contract.shapes
        one = model.run(np.full(shapes["ms"], 400), np.full(shapes["pan"], 400))
        assert (one.shape, one.dtype) == (shapes["hrms"], np.float32)
        many = model.run(np.full((2, *shapes["ms"]), 400.0), np.full((2, *shapes["pan"]), 400.0))
        assert np.array_equal(many[1], one)
        with pytest.raises(sfiin.SceneError, match="the model takes tiles of"):
            model.run(np.ones((4, 32, 32)), np.ones((1, 128, 128)))
    with sfiin.open_model(str(small_model)) as model:
        assert model.contract == models.contract(small_model)
    with pytest.raises(sfiin.InputError, match=r"no shipped model of this name; those are .*sfiin-vhr4"):
        sfiin.open_model("sfiin-vhr5")
    with pytest.raises(sfiin.InputError, match="no such model"):
        sfiin.open_model("none/net.onnx")


def test_checkpoints_by_file_and_by_name(small_checkpoint: Path) -> None:
    import torch

    network = sfiin.load("sfiin-vhr4").network
    assert isinstance(network, torch.nn.Module)
    assert sfiin.load(str(small_checkpoint)).network.config.blocks == 1
    with pytest.raises(sfiin.InputError, match=r"no shipped checkpoint of this name; those are .*sfiin-vhr4"):
        sfiin.load("nonesuch")


def test_export_evaluate_and_build_are_functions(
    small_checkpoint: Path, simulated_pairs: Any, tmp_path: Path
) -> None:
    model = tmp_path / "net.onnx"
    made = sfiin.export(small_checkpoint, str(model), tile=32, overlap=8)
    assert made.contract == models.contract(model)
    with pytest.raises(sfiin.OutputError, match="exists already"):
        sfiin.export(small_checkpoint, model)
    with pytest.raises(sfiin.ContractError, match="is no tile"):
        sfiin.export(small_checkpoint, tmp_path / "x.onnx", tile="big")
    told: list[tuple[int, int, str]] = []
    scores = sfiin.evaluate(model, simulated_pairs(64, "vhr4"), progress=lambda *step: told.append(step))
    assert {score.method for score in scores} >= {"bicubic", "brovey"}
    assert told[-1][:2] == (len(scores), len(scores))
    with pytest.raises((sfiin.UnavailableError, sfiin.MismatchError)):
        sfiin.build(model, tmp_path / "net.plan", flavour="tensorrt")
    from sfiin.export.fourier import MatMulFourier

    assert MatMulFourier.__module__ == "sfiin.export.fourier"


def test_without_torch_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    code = """
import sys
sys.modules["torch"] = None
import sfiin
try:
    sfiin.load("sfiin-vhr4")
except sfiin.UnavailableError as error:
    assert "torch is not installed; sfiin.load needs the extra 'train': pip install" in str(error), error
else:
    raise SystemExit(1)
"""
    subprocess.run([sys.executable, "-c", code], check=True)

"""Values that no sensor delivers: no data, counted once, said; or refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.errors import MismatchError, SceneError
from sfiin.runtime.scenes.outliers import Outliers
from sfiin.runtime.scenes.pipeline import sharpen
from sfiin.runtime.scenes.scene import open_scene


def test_a_pixel_in_overlapping_windows_counts_once() -> None:
    outliers = Outliers.of(2047)
    image = np.full((2, 6, 6), 500, np.float32)
    image[0, 2, 3], image[1, 2, 3], image[1, 5, 5] = 1e10, -9999, 9000
    for top, left in ((0, 0), (2, 3), (0, 3)):
        part = image[:, top : top + 6, left : left + 6]
        valid = np.ones(part.shape, bool)
        outliers.sift(part, valid, top, left, "pan.tif")
        assert (~valid).sum() == (np.abs(part) > 8188).sum() + (part < -204.7).sum() - (part == -9999).sum()
    (note,) = outliers.notes("pan.tif")
    assert note.startswith("2 pixels of pan.tif")
    assert "1e+10" in note


def test_what_a_sensor_may_deliver_stays() -> None:
    image = np.array([[[-100, 0, 2047, 4000, 8000]]], np.float32)
    valid = np.ones(image.shape, bool)
    outliers = Outliers.of(2047)
    outliers.sift(image, valid, 0, 0, "x")
    assert valid.all()
    assert outliers.notes("x") == ()


def pair(folder: Path, dtype: str = "float32", **changes: Any) -> tuple[Path, Path]:
    random = np.random.default_rng(2)
    ms = random.integers(300, 900, (4, 32, 32)).astype(dtype)
    pan = ms.mean(0).repeat(4, 0).repeat(4, 1)[None].astype(dtype)
    for where, value in changes.get("pan", {}).items():
        pan[0][where] = value
    for where, value in changes.get("ms", {}).items():
        ms[0][where] = value
    for name, image, pixel in (("pan", pan, 0.5), ("ms", ms, 2.0)):
        with rasterio.open(
            folder / f"{name}.tif",
            "w",
            driver="GTiff",
            count=len(image),
            height=image.shape[1],
            width=image.shape[2],
            dtype=dtype,
            crs="EPSG:32650",
            transform=Affine(pixel, 0, 5e5, 0, -pixel, 4e6),
        ) as file:
            file.write(image)
    return folder / "pan.tif", folder / "ms.tif"


def fused(folder: Path, files: tuple[Path, Path], model: Path, **options: Any) -> tuple[np.ndarray, Any]:
    with (
        OnnxSession(model) as session,
        open_scene(files[0], [files[1]], session.contract.sensor, **options) as scene,
    ):
        report = sharpen(session, scene, folder / "o.tif")
    with rasterio.open(folder / "o.tif") as file:
        return file.read(), report


@pytest.mark.parametrize("value", [1e10, -9999.0, 3e38, -3e38])
@pytest.mark.parametrize("which", ["pan", "ms"])
def test_one_such_pixel_costs_itself_alone(
    tmp_path: Path, small_model: Path, value: float, which: str
) -> None:
    plain, _ = fused(tmp_path, pair(tmp_path), small_model)
    changes: dict[str, Any] = {which: {(9, 11): value}}
    files = pair(tmp_path, **changes)
    image, report = fused(tmp_path, files, small_model)
    count = 1 if which == "pan" else 16
    assert np.isnan(image[0]).sum() == report.nodata == count
    assert np.nanmax(np.abs(image - plain)) < 300
    assert any(f"1 pixels of {which}.tif" in note for note in report.notes)
    with pytest.raises(SceneError, match="which no sensor delivers"):
        fused(tmp_path, files, small_model, refuse_outliers=True)


@pytest.mark.parametrize(
    ("dtype", "value"),
    [("int16", -9999), ("int16", -32768), ("int32", -2147483648), ("uint16", 65535), ("int32", 10**9)],
)
@pytest.mark.parametrize("which", ["pan", "ms"])
def test_undeclared_fill_values_of_integers_are_no_data(
    tmp_path: Path, small_model: Path, dtype: str, value: int, which: str
) -> None:
    """The product marks them by that value, so that a 0 stays a 0."""
    plain, before = fused(tmp_path, pair(tmp_path, dtype), small_model)
    files = pair(tmp_path, dtype, **{which: {(9, 11): value}})
    image, report = fused(tmp_path, files, small_model)
    with rasterio.open(tmp_path / "o.tif") as file:
        assert file.nodata == value
    lacking = (image == value).all(axis=0)
    assert lacking.sum() == report.nodata == (1 if which == "pan" else 16)
    assert before.nodata == 0
    assert np.abs(np.where(lacking, 0, image - plain.astype(int))).max() < 300
    assert any(f"1 pixels of {which}.tif" in note for note in report.notes)
    with pytest.raises(SceneError, match="which no sensor delivers"):
        fused(tmp_path, files, small_model, refuse_outliers=True)


def test_bright_clouds_in_integers_are_data(tmp_path: Path, small_model: Path) -> None:
    """Reflectance times 10000, with a cloud: some pixels are far above the rest, and are there."""
    _, report = fused(tmp_path, pair(tmp_path, "uint16", pan={(9, 11): 16000}), small_model)
    assert report.nodata == 0
    assert not any("no data" in note for note in report.notes)


def test_much_fill_makes_no_other_sensor(tmp_path: Path, small_model: Path) -> None:
    """A border of the type's largest value is no data, and does not count as brightness or saturation."""
    border = {(row, col): 65535 for row in range(32) for col in range(8)}
    image, report = fused(tmp_path, pair(tmp_path, "uint16", ms=border), small_model)
    assert report.nodata == 128 * 32
    assert (image[:, :, :32] == 65535).all()
    assert image[:, :, 32:].max() < 2047
    assert not any("saturated" in note for note in report.notes)


def test_what_a_resumed_run_has_read_before_counts_too(tmp_path: Path, small_model: Path) -> None:
    files = pair(tmp_path, "float32", pan={(0, 0): 1e10})
    with OnnxSession(small_model) as session:
        side = session.contract.tile.height
        with open_scene(files[0], [files[1]], session.contract.sensor) as scene:
            assert scene.sifted() is scene
            scene.read(side, 0, side, side)
            assert scene.found() == ()
            assert scene.sifted(wholly=True) is scene
            assert "1 pixels of pan.tif" in scene.found()[0]


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("gain", [1e-30, 1e-6])
def test_a_gain_that_is_no_gain_is_refused(
    tmp_path: Path, small_model: Path, dtype: str, gain: float
) -> None:
    files = pair(tmp_path, dtype)
    with pytest.raises(MismatchError, match="scale"):
        fused(tmp_path, files, small_model, gain=gain)
    assert not (tmp_path / "o.tif").exists()


def test_another_scale_is_refused_and_not_taken_for_outliers(tmp_path: Path, small_model: Path) -> None:
    files = pair(tmp_path)
    with pytest.raises(MismatchError, match="bits"):
        fused(tmp_path, files, small_model, gain=100.0)

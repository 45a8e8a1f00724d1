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
    files = pair(tmp_path, **{which: {(9, 11): value}})
    image, report = fused(tmp_path, files, small_model)
    count = 1 if which == "pan" else 16
    assert np.isnan(image[0]).sum() == report.nodata == count
    assert np.nanmax(np.abs(image - plain)) < 300
    assert any(f"1 pixels of {which}.tif" in note for note in report.notes)
    with pytest.raises(SceneError, match="which no sensor delivers"):
        fused(tmp_path, files, small_model, refuse_outliers=True)


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

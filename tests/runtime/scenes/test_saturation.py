"""Where a sensor could count no further."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import rasterio

from sfiin.runtime.scenes import saturation

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def level(folder: Path, image: np.ndarray, **profile: Any) -> float:
    path = folder / "ms.tif"
    made = {
        "driver": "GTiff",
        "height": image.shape[0],
        "width": image.shape[1],
        "count": 1,
        "dtype": image.dtype,
    }
    with rasterio.open(path, "w", **made | profile) as file:
        file.write(image, 1)
    with rasterio.open(path) as file:
        return float(saturation.levels(SimpleNamespace(ms_bands=[(file, 1)], brightest=np.inf)).most[0])  # type: ignore[arg-type]


@pytest.mark.parametrize("bits", [8, 10, 11, 12, 14, 16])
def test_several_pixels_at_the_most_that_so_many_bits_hold(tmp_path: Path, bits: int) -> None:
    image = np.full((40, 30), 100, np.uint16)
    image[20:22, 3:5] = (1 << bits) - 1
    assert level(tmp_path, image) == (1 << bits) - 1


@pytest.mark.parametrize("top", [4095, 4094, 3000])
def test_what_is_no_plateau_is_none(tmp_path: Path, top: int) -> None:
    image = np.full((40, 30), 100, np.uint16)
    image[0, : 3 if top == 4095 else 30] = top
    assert level(tmp_path, image) == np.inf


def test_floats_and_nodata_are_none(tmp_path: Path) -> None:
    assert level(tmp_path, np.full((9, 9), 255, np.float32)) == np.inf
    image = np.full((9, 9), 77, np.uint16)
    image[:3] = 65535
    assert level(tmp_path, image, nodata=65535) == np.inf


def test_a_tile_keeps_what_is_saturated() -> None:
    fused = np.full((2, 8, 8), 4300, np.float32)
    ms = np.full((2, 2, 2), 900, np.float32)
    ms[0, 0, 1] = 4095
    found = saturation.kept(fused, ms, np.array([4095, np.inf]), 1.0)
    assert (found[0, :4, 4:] == 4095).all()
    assert (found == 4300).sum() == 2 * 64 - 16
    assert saturation.kept(fused, ms / np.float32(2), np.array([4095, np.inf]), 1.0) is fused
    assert (
        saturation.kept(fused, ms * np.float32(2), np.array([4095, np.inf]), 2.0)[0, :4, 4:] == 8190
    ).all()

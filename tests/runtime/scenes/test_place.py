"""Where one image's pixel lies in another, by RPCs and the height of the ground."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.rpc import RPC
from rasterio.transform import Affine

from sfiin.runtime.errors import InputError, SceneError
from sfiin.runtime.scenes.place import Relief, relation
from sfiin.runtime.scenes.raster import open_raster

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def camera(scale: float, per_height: float) -> RPC:
    """A plain camera, whose line moves by a part of its scale for each 500 m above 100 m."""
    none = [0.0] * 20
    return RPC(
        height_off=100,
        height_scale=500,
        lat_off=34.68,
        lat_scale=0.05,
        long_off=113.53,
        long_scale=0.05,
        line_off=scale / 2,
        line_scale=scale,
        line_num_coeff=[0.0, 0.0, -1.0, per_height, *none[4:]],
        line_den_coeff=[1.0, *none[1:]],
        samp_off=scale / 2,
        samp_scale=scale,
        samp_num_coeff=[0.0, 1.0, *none[2:]],
        samp_den_coeff=[1.0, *none[1:]],
        err_bias=0,
        err_rand=0,
    )


@pytest.fixture()
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """PAN and MS that see the ground from two directions: 500 m more are 40 PAN lines."""
    for name, bands, side, rpcs in (
        ("pan", 1, 400, camera(10_000, 0.0)),
        ("ms", 4, 100, camera(2500, 0.004)),
    ):
        profile = {"driver": "GTiff", "height": side, "width": side, "count": bands, "dtype": "uint16"}
        with rasterio.open(tmp_path / f"{name}.tif", "w", rpcs=rpcs, **profile) as file:
            file.write(np.ones((bands, side, side), np.uint16))
    return tmp_path / "pan.tif", tmp_path / "ms.tif"


def begins(pair: tuple[Path, Path], relief: Relief) -> float:
    """PAN's row at which MS begins."""
    with open_raster(pair[0]) as pan, open_raster(pair[1]) as ms:
        matrix, notes = relation(pan, ms, 4, relief)
    if matrix[1, 2]:
        assert relief.said() in notes[0]
    return float(matrix[1, 2])


@pytest.fixture()
def dem(tmp_path: Path) -> Path:
    profile = {"driver": "GTiff", "height": 60, "width": 60, "count": 1, "dtype": "float32"}
    transform = Affine(0.01, 0, 113.23, 0, -0.01, 34.98)
    with rasterio.open(tmp_path / "dem.tif", "w", crs="EPSG:4326", transform=transform, **profile) as file:
        file.write(np.full((1, 60, 60), 350, np.float32))
    return tmp_path / "dem.tif"


def test_a_height_moves_ms(pair: tuple[Path, Path]) -> None:
    assert begins(pair, Relief()) == 0
    assert begins(pair, Relief(100)) == 0
    assert begins(pair, Relief(600)) == pytest.approx(-40, abs=0.01)
    assert begins(pair, Relief(350)) == pytest.approx(-20, abs=0.01)


def test_a_dem_is_as_its_height(pair: tuple[Path, Path], dem: Path) -> None:
    Relief(dem=dem).check()
    assert begins(pair, Relief(dem=dem)) == pytest.approx(begins(pair, Relief(350)), abs=0.1)


def test_what_is_no_relief(pair: tuple[Path, Path], dem: Path) -> None:
    with pytest.raises(InputError, match="one of them"):
        Relief.of(3.0, str(dem))
    with pytest.raises(SceneError, match="no such file"):
        Relief.of(None, "nowhere.tif").check()
    with pytest.raises(SceneError, match="georeference"):
        Relief.of(None, str(pair[0])).check()
    assert dataclasses.replace(Relief.of(12.0, None)).options(camera(1, 0)) == {"RPC_HEIGHT": "12.0"}

"""Headers that declare what cannot be meant, against scenes that are only large."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes import limits
from sfiin.runtime.scenes.limits import check_file, check_tiles
from sfiin.runtime.scenes.raster import open_raster

TILE = Tile(height=128, width=128, overlap=32)


def sparse(path: Path, height: int, width: int, count: int = 1, **profile: Any) -> Path:
    options = {
        "SPARSE_OK": True,
        "BIGTIFF": "YES",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
    } | profile
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        height=height,
        width=width,
        count=count,
        dtype="uint16",
        transform=Affine(1, 0, 5e5, 0, -1, 4e6),
        **options,
    ):
        pass
    return path


@pytest.mark.parametrize(("height", "width"), [(1 << 31, 128), (128, 1 << 31), (1_000_000, 1_000_000)])
def test_what_cannot_be_meant_is_refused_before_anything_is_made(height: int, width: int) -> None:
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(SceneError, match="are done at most"):
        check_tiles(height, width, TILE, 4)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()
    assert time.process_time() - began < 1


@pytest.mark.parametrize(("height", "width"), [(1, 1), (400_000, 60_000), (40_000, 40_000)])
def test_what_is_only_large_is_not(height: int, width: int) -> None:
    check_tiles(height, width, TILE, 4)


def test_a_row_of_blocks_must_fit_into_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "available_memory", lambda: 1 << 30)
    tile = {"blockxsize": 16384, "blockysize": 16384}
    with open_raster(sparse(tmp_path / "tile.tif", 16384, 16384, 2, **tile)) as file:
        with pytest.raises(SceneError, match="of 1024 MiB there are"):
            check_file(file)
        with pytest.raises(SceneError, match="of 100 MiB there are"):
            check_file(file, 100 << 20)
    with open_raster(sparse(tmp_path / "tall.tif", 2_000_000, 128)) as file:
        check_file(file, 100 << 20)


def test_the_places_of_all_blocks_must_fit_into_memory(tmp_path: Path) -> None:
    path = sparse(tmp_path / "small.tif", 16384, 16384, blockxsize=16, blockysize=16)
    with open_raster(path) as file:
        with pytest.raises(SceneError, match="1048576 blocks of 16 x 16"):
            check_file(file, 30 << 20)
        check_file(file, 40 << 20)


@pytest.mark.parametrize(("height", "width"), [(1 << 30, 128), (128, 1 << 30)])
def test_a_side_that_cannot_be_meant_is_refused(tmp_path: Path, height: int, width: int) -> None:
    path = sparse(tmp_path / "x.tif", height, width)
    with open_raster(path) as file, pytest.raises(SceneError, match="are done at most"):
        check_file(file)


def test_bands_are_counted(tmp_path: Path) -> None:
    with (
        open_raster(sparse(tmp_path / "many.tif", 16, 16, 300, blockxsize=16, blockysize=16)) as file,
        pytest.raises(SceneError, match="declares 300 bands"),
    ):
        check_file(file)


def test_memory_here_is_told() -> None:
    there = limits.available_memory()
    assert there is None or there > 1 << 20

"""The seam meter on products whose seams are known."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.contract import Tile
from sfiin.runtime.scenes.seams import LIMIT, borders, measure
from sfiin.runtime.scenes.tiles import TilePlan, plan

SIZE = 640, 480
TILE = Tile(64, 64, 16)


def write(path: Path, image: np.ndarray, **profile: object) -> Path:
    options = {
        "driver": "GTiff",
        "count": image.shape[0],
        "height": image.shape[1],
        "width": image.shape[2],
        "dtype": image.dtype,
        "transform": Affine(1.0, 0.0, 5e5, 0.0, -1.0, 4e6),
    }
    with rasterio.open(path, "w", **options | profile) as file:
        file.write(image)
    return path


def ground(seed: int = 2) -> np.ndarray:
    """Two bands of noise, whose steps have a mean square of 200 DN² in both directions."""
    return np.random.default_rng(seed).normal(500, 10, (2, *SIZE)).astype(np.float32)


def tiled(step: float) -> tuple[np.ndarray, TilePlan]:
    """Tiles of a hard cut of which every other one is brighter by a step."""
    tiles = plan(*SIZE, Tile(64, 64, 0), 4)
    image = ground()
    for i, row in enumerate(tiles.rows):
        for j, col in enumerate(tiles.cols):
            image[:, row : row + 64, col : col + 64] += step * ((i + j) % 2)
    return image, tiles


def test_without_seams_the_ratio_is_one(tmp_path: Path) -> None:
    image, tiles = tiled(0)
    for found in measure(write(tmp_path / "p.tif", image), tiles):
        assert found.ratio == pytest.approx(1, abs=0.06)
        assert found.error < 0.1
        assert not found.shows


@pytest.mark.parametrize("step", [10.0, 20.0])
def test_a_step_adds_its_square(tmp_path: Path, step: float) -> None:
    image, tiles = tiled(step)
    for found in measure(write(tmp_path / "p.tif", image), tiles):
        assert found.ratio == pytest.approx(1 + step**2 / 200, rel=0.1)
        assert found.shows


def test_seams_along_one_axis_are_told_from_the_other(tmp_path: Path) -> None:
    tiles = plan(*SIZE, Tile(64, 64, 0), 4)
    image = ground()
    for i, row in enumerate(tiles.rows):
        image[:, row : row + 64] += 20 * (i % 2)
    rows, columns = measure(write(tmp_path / "p.tif", image), tiles)
    assert (rows.axis, rows.shows, columns.axis, columns.shows) == ("rows", True, "columns", False)


def test_pixels_without_data_do_not_count(tmp_path: Path) -> None:
    image, tiles = tiled(0)
    image[:, :, 100:300] = -9999
    for found in measure(write(tmp_path / "p.tif", image, nodata=-9999), tiles):
        assert not found.shows
        assert found.ratio == pytest.approx(1, abs=0.2)


def test_one_tile_or_one_value_has_no_ratio(tmp_path: Path) -> None:
    image = ground()[:, :60, :60]
    for found in measure(write(tmp_path / "p.tif", image), plan(60, 60, TILE, 4)):
        assert (found.lines, found.shows) == (0, False)
        assert np.isnan(found.ratio)
    even = np.ones((1, *SIZE), np.float32)
    assert not any(seam.shows for seam in measure(write(tmp_path / "e.tif", even), plan(*SIZE, TILE, 4)))


def test_borders_are_where_tiles_begin_and_end() -> None:
    assert borders((0, 48, 96), 64, 160) == [48, 64, 96, 112]
    assert borders((0,), 64, 64) == []


def test_the_shipped_model_has_seams_only_where_they_are_cut(imagery: Path, tmp_path: Path) -> None:
    import dataclasses

    from sfiin.runtime import models
    from sfiin.runtime.backends.session import OnnxSession
    from sfiin.runtime.scenes.pipeline import sharpen
    from sfiin.runtime.scenes.scene import open_scene

    folder = imagery / "scenes" / "VHR4_zhengzhou_1"
    with OnnxSession(models.choose(4, 4), threads=1) as session:
        contract = session.contract
        with open_scene(folder / "pan.tif", [folder / "ms.tif"], contract.sensor) as scene:
            found = []
            for overlap in (0, contract.tile.overlap):
                out = tmp_path / f"{overlap}.tif"
                sharpen(session, scene, out, overlap=overlap)
                tiles = plan(
                    scene.height, scene.width, dataclasses.replace(contract.tile, overlap=overlap), 4
                )
                found.append(measure(out, tiles))
                assert any(seam.shows for seam in found[-1]) == (overlap == 0)
            # Beside the same borders where tiles share their edges; by itself a cut varies with the weights.
            assert max(cut.ratio / shared.ratio for cut, shared in zip(*found, strict=True)) > LIMIT * 2

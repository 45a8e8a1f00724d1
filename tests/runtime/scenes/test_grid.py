import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.transform import Affine
from rasterio.warp import reproject

from sfiin.runtime.scenes.grid import Axis, common_grid, is_located, moved

UTM = CRS.from_epsg(32633)


@dataclass
class Raster:
    """As much of an open raster as a grid needs."""

    transform: Affine
    height: int
    width: int
    crs: Any = UTM
    name: str = "ms.tif"

    @property
    def shape(self) -> tuple[int, int]:
        return self.height, self.width


def pan(height: int, width: int) -> Raster:
    return Raster(Affine(0.5, 0.0, 400000.0, 0.0, -0.5, 5000000.0), height, width, name="pan.tif")


def ms(height: int, width: int, row: float, col: float, step: float = 2.0) -> Raster:
    """MS whose first corner is at PAN's (row, col)."""
    return Raster(Affine(step, 0.0, 400000 + 0.5 * col, 0.0, -step, 5000000 - 0.5 * row), height, width)


@pytest.mark.parametrize(
    ("sharp", "coarse", "notes"),
    [
        (pan(400, 400), ms(100, 100, 0, 0), []),
        (
            pan(403, 402),
            ms(100, 100, 0, 0),
            ["PAN covers more than MS: 3 rows and 2 columns of PAN are left out"],
        ),
        (
            pan(520, 400),
            ms(100, 100, 120, 0),
            ["PAN covers more than MS: 120 rows and 0 columns of PAN are left out"],
        ),
        (
            pan(400, 400),
            ms(105, 108, -8, 0),
            ["MS covers more than PAN: 5 rows and 8 columns of MS are left out"],
        ),
        (
            pan(400, 404),
            ms(120, 100, -40, 2),
            [
                "PAN covers more than MS: 0 rows and 4 columns of PAN are left out",
                "MS covers more than PAN: 20 rows and 0 columns of MS are left out",
            ],
        ),
        (
            pan(401, 401),
            ms(100, 100, 0.5, -0.5),
            [
                "by the georeferences MS lies at PAN's rows 0.50 to 400.50, columns -0.50 to 399.50: "
                "it is interpolated onto PAN's grid by cubic convolution",
                "PAN covers more than MS: 0 rows and 2 columns of PAN are left out",
            ],
        ),
        (
            pan(400, 400),
            ms(100, 100, -1.5, -1.5, 2 * 403 / 400),
            [
                "by the georeferences MS lies at PAN's rows -1.50 to 401.50, columns -1.50 to 401.50: "
                "its pixels are taken as they are, as the sizes are in the exact ratio"
            ],
        ),
    ],
)
def test_notes_say_what_is_not_as_it_looks(sharp: Raster, coarse: Raster, notes: list[str]) -> None:
    assert list(common_grid(sharp, [coarse], 4).notes) == notes


@given(st.integers(-90, 90), st.integers(1, 60), st.integers(1, 300))
def test_counts_of_whole_offsets(at: int, number: int, size: int) -> None:
    """Along one axis, PAN's lines and MS' lines are counted as sets of integers."""
    covered = [line for line in range(size) if at <= line < at + 4 * number]
    if not covered:
        return
    grid = common_grid(pan(size, 4), [ms(number, 1, at, 0)], 4)
    assert (grid.rows.start, grid.rows.count) == (covered[0], len(covered))
    assert (grid.rows.start - grid.rows.lead - at) % 4 == 0
    assert 0 <= grid.rows.lead < 4
    used = {(line - at) // 4 for line in covered}
    assert grid.rows.ms.outside == number - len(used)
    np.testing.assert_array_equal(grid.rows.ms.nearest(0, len(used)), sorted(used))


@given(st.floats(-5, 40), st.floats(0.4, 2.5), st.integers(2, 40))
def test_nearest_holds_the_centre(origin: float, step: float, size: int) -> None:
    axis = Axis(origin, step, 30, size)
    centre = origin + step * (np.arange(30) + 0.5)
    expected = np.clip(np.floor(centre), 0, size - 1)
    near_an_edge = np.abs(centre - np.round(centre)) < 1e-9
    assert ((axis.nearest(0, 30) == expected) | near_an_edge).all()


def test_nearest_agrees_with_gdal() -> None:
    mask = (np.random.default_rng(0).random((50, 60)) > 0.4).astype(np.uint8)
    rows, cols = Axis(2.75, 1.0, 40, 50), Axis(1.3, 1.01, 50, 60)
    source = Affine(30.0, 0.0, 400000.0, 0.0, -30.0, 5000000.0)
    target = Affine(30 * 1.01, 0.0, 400000 + 30 * 1.3, 0.0, -30.0, 5000000 - 30 * 2.75)
    expected = np.zeros((40, 50), np.uint8)
    grids = {
        "src_transform": source,
        "src_crs": "EPSG:32633",
        "dst_transform": target,
        "dst_crs": "EPSG:32633",
    }
    reproject(mask, expected, **grids, resampling=Resampling.nearest, tolerance=0)
    np.testing.assert_array_equal(mask[np.ix_(rows.nearest(0, 40), cols.nearest(0, 50))], expected)


def test_an_image_with_control_points_has_no_geotransform() -> None:
    assert not is_located(Raster(Affine.identity(), 1, 1))
    assert is_located(pan(1, 1))


def test_moved_along_a_rotated_grid() -> None:
    turned = moved(Affine(0.4, 0.3, 100.0, 0.3, -0.4, 200.0), 10, 20)
    assert tuple(turned)[:6] == pytest.approx((0.4, 0.3, 100 + 8 + 3, 0.3, -0.4, 200 + 6 - 4))
    assert math.isclose(turned.determinant, -0.25)

import os
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from sfiin.runtime.errors import OutputError, SceneError, UnavailableError
from sfiin.runtime.files import publish
from sfiin.runtime.scenes import product
from sfiin.runtime.scenes.raster import open_raster

GRID = {"driver": "GTiff", "crs": "EPSG:32633", "transform": Affine(0.5, 0.0, 400000.0, 0.0, -0.5, 5000000.0)}


def smooth(count: int, height: int, width: int, dtype: Any = np.uint16) -> np.ndarray:
    row, col = np.mgrid[:height, :width]
    bands = [500 + 300 * np.sin((row + 40 * i) / 50) * np.cos(col / 70) for i in range(count)]
    return np.stack(bands).astype(dtype)


def write(
    path: Path, bands: np.ndarray, compress: Any = "deflate", bits: int | None = None, **profile: Any
) -> Path:
    count, height, width = bands.shape
    options = product.creation_options(bands.dtype, compress, bits)
    size = {"count": count, "height": height, "width": width, "dtype": bands.dtype}
    with open_raster(path, "w", **GRID, **size, **options, **profile) as file:
        file.write(bands)
    return path


def structure(path: Path) -> dict[str, Any]:
    with rasterio.open(path) as file:
        return file.tags(ns="IMAGE_STRUCTURE") | {
            "blocks": set(file.block_shapes),
            "overviews": file.overviews(1),
            "NBITS": bits(file),
        }


def bits(file: Any) -> str | None:
    return file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS")


# --- creation options ---


@pytest.mark.parametrize("compress", get_args(product.Compression))
@pytest.mark.parametrize(
    ("dtype", "used", "predictor"),
    [
        ("uint8", None, "2"),
        ("int16", None, "2"),
        ("uint16", 11, None),
        ("int32", None, "2"),
        ("int64", None, None),
        ("float32", None, "3"),
        ("float64", None, "3"),
    ],
)
def test_every_type_and_compression_is_written(
    tmp_path: Path, dtype: str, used: int | None, predictor: str | None, compress: Any
) -> None:
    bands = smooth(3, 40, 50, np.float64)
    path = write(tmp_path / "a.tif", (bands / 10).astype(dtype), compress, used)
    found = structure(path)
    assert found.get("COMPRESSION", "NONE").lower() == compress
    assert found.get("PREDICTOR") == (predictor if compress != "none" else None)
    assert found["blocks"] == {(256, 256)}
    assert found["NBITS"] == (used and str(used))
    with rasterio.open(path) as file:
        np.testing.assert_array_equal(file.read(), (bands / 10).astype(dtype))


def test_predictor_makes_smaller_files(tmp_path: Path) -> None:
    for dtype in ("uint16", "float32"):
        options = product.creation_options(np.dtype(dtype)) | {"predictor": 1}
        bands = smooth(2, 300, 300, dtype)
        with open_raster(
            tmp_path / "plain.tif", "w", **GRID, **options, count=2, height=300, width=300, dtype=dtype
        ) as f:
            f.write(bands)
        assert write(tmp_path / "a.tif", bands).stat().st_size < 0.8 * (tmp_path / "plain.tif").stat().st_size


def test_what_might_exceed_four_gigabytes_is_a_bigtiff(tmp_path: Path) -> None:
    versions = {}
    for side in (256, 33000):
        options = product.creation_options(np.dtype(np.uint16)) | {"SPARSE_OK": True}
        path = tmp_path / f"{side}.tif"
        with open_raster(path, "w", **GRID, **options, count=4, height=side, width=side, dtype="uint16"):
            pass
        versions[side] = int.from_bytes(path.read_bytes()[2:4], "little")
    assert versions == {256: 42, 33000: 43}  # TIFF 6.0 and BigTIFF


# --- what this GDAL can make ---


@pytest.mark.parametrize("kind", get_args(product.Kind))
@pytest.mark.parametrize("compress", get_args(product.Compression))
def test_all_kinds_are_there(kind: Any, compress: Any) -> None:
    product.require(kind, compress)


def test_missing_cog_driver_is_said(tmp_path: Path) -> None:
    code = (
        "from sfiin.runtime import cli\nfrom sfiin.runtime.scenes import product\n"
        "from sfiin.runtime.errors import UnavailableError\n"
        "product.require('gtiff', 'deflate')\n"
        "try:\n    product.require('cog', 'deflate')\nexcept UnavailableError as error:\n    print(error)\n"
    )
    environment = os.environ | {"GDAL_SKIP": "COG", "PYTHONPATH": str(Path(product.__file__).parents[1])}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("COG: GDAL ")
    assert "no driver for it; install rasterio from PyPI, or write a GeoTIFF" in done.stdout


def test_missing_codec_is_said() -> None:
    jxl: Any = "jxl"  # nothing of ours, but a codec that few builds of GDAL have
    try:
        product.require("gtiff", jxl)
    except UnavailableError as error:
        assert re.fullmatch(
            "jxl: GDAL .* cannot compress with it; choose one of deflate, zstd, lzw, none", str(error)
        )
    else:
        pytest.skip("this GDAL has every codec")


# --- overviews ---


@pytest.mark.parametrize(
    ("size", "kind", "factors"),
    [
        ((256, 256), "gtiff", []),
        ((257, 30), "gtiff", [2]),
        ((700, 1100), "gtiff", [2, 4, 8]),
        ((512, 512), "cog", []),
        ((513, 30), "cog", [2]),
        ((700, 1100), "cog", [2, 4]),
    ],
)
def test_overviews_by_halves_until_they_fit_a_tile(
    tmp_path: Path, size: tuple[int, int], kind: Any, factors: list[int]
) -> None:
    path = write(tmp_path / "a.tif", smooth(2, *size))
    product.finish(path, kind)
    assert structure(path)["overviews"] == factors
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("kind", get_args(product.Kind))
@pytest.mark.parametrize("nodata", [7.0, np.nan])
def test_overviews_average_valid_pixels(tmp_path: Path, kind: Any, nodata: float) -> None:
    bands = smooth(2, 600, 640, np.float32 if np.isnan(nodata) else np.uint16)
    lost = np.zeros((600, 640), bool)
    lost[100:201, 51:300] = True
    lost[400, 500] = True
    bands[:, lost] = nodata
    path = write(tmp_path / "a.tif", bands, nodata=nodata)
    product.finish(path, kind)
    with rasterio.open(path, overview_level=0) as file:
        half, valid = file.read(), file.read_masks() > 0
    number = (~lost).reshape(300, 2, 320, 2).sum(axis=(1, 3))
    np.testing.assert_array_equal(valid, np.stack([number > 0] * 2))
    blocks = np.where(lost, 0, bands.astype(float)).reshape(2, 300, 2, 320, 2)
    expected = blocks.sum(axis=(2, 4)) / np.maximum(number, 1)
    # Integers are rounded to the next.
    tolerance = 1e-3 if np.isnan(nodata) else 0.5
    np.testing.assert_allclose(half[valid], expected[valid], rtol=0, atol=tolerance)


def test_pixels_stay_as_they_are(tmp_path: Path) -> None:
    bands = np.random.default_rng(0).integers(0, 2048, (4, 530, 540), dtype=np.uint16)
    for kind in get_args(product.Kind):
        path = write(tmp_path / f"{kind}.tif", bands, "zstd", 11)
        product.finish(path, kind, "zstd")
        found = structure(path)
        assert (found["NBITS"], found["COMPRESSION"]) == ("11", "ZSTD")
        with rasterio.open(path) as file:
            np.testing.assert_array_equal(file.read(), bands)


# --- COG ---


@pytest.mark.parametrize("compress", get_args(product.Compression))
@pytest.mark.parametrize(("dtype", "predictor"), [("uint16", "2"), ("float32", "3"), ("int64", None)])
def test_cog_layout(tmp_path: Path, compress: Any, dtype: str, predictor: str | None) -> None:
    path = write(tmp_path / "a.tif", smooth(2, 1100, 600, dtype), compress)
    product.finish(path, "cog", compress)
    found = structure(path)
    assert (found["LAYOUT"], found["blocks"], found["overviews"]) == ("COG", {(512, 512)}, [2, 4])
    assert found.get("COMPRESSION", "NONE").lower() == compress
    assert found.get("PREDICTOR") == (predictor if compress != "none" else None)
    check_cog(path)
    assert list(tmp_path.iterdir()) == [path]


def check_cog(path: Path) -> None:
    """A COG's rules: all directories in front, large image first; pixels of smaller images before larger
    ones'."""
    found = directories(path.read_bytes())
    places = [place for place, _, _ in found]
    assert places == sorted(places)
    assert [width for _, width, _ in found] == [600, 300, 150]
    assert max(places) < min(min(tiles) for _, _, tiles in found)
    for (_, _, larger), (_, _, smaller) in pairwise(found):
        assert larger == sorted(larger)
        assert max(smaller) < min(larger)


def directories(content: bytes) -> list[tuple[int, int, list[int]]]:
    """A little-endian TIFF's directories: place, ImageWidth (tag 256), TileOffsets (324), by TIFF 6.0,
    section 2."""
    assert content[:4] == b"II*\0"
    (place,), found = struct.unpack_from("<I", content, 4), []
    while place:
        (number,) = struct.unpack_from("<H", content, place)
        entries = (struct.unpack_from("<HHII", content, place + 2 + 12 * i) for i in range(number))
        tags = {tag: (kind, count, value) for tag, kind, count, value in entries}
        _, count, value = tags[324]
        tiles = [value] if count == 1 else list(struct.unpack_from(f"<{count}I", content, value))
        found.append((place, tags[256][2], tiles))
        (place,) = struct.unpack_from("<I", content, place + 2 + 12 * number)
    return found


def test_cog_keeps_what_the_geotiff_says(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tif", smooth(2, 20, 30), nodata=3)
    with open_raster(path, "r+") as file:
        file.update_tags(SFIIN_VERSION="1")
        file.descriptions, file.scales, file.offsets, file.units = (
            ("red", "nir"),
            (0.5, 2),
            (1, -1),
            ("a", "b"),
        )
        file.colorinterp = (ColorInterp.red, ColorInterp.undefined)
    said = []
    for _ in range(2):
        with rasterio.open(path) as file:
            facts = (file.tags(), file.descriptions, file.scales, file.offsets, file.units)
            said.append((*facts, file.colorinterp, file.nodata, file.crs, file.transform))
        product.finish(path, "cog")
    assert said[0] == said[1]


@pytest.mark.parametrize("kind", get_args(product.Kind))
@pytest.mark.parametrize("room", [0.05, 0.6, 1.1])
def test_full_disk_is_an_os_error(
    tmp_path: Path, file_size_limit: Callable[[int], AbstractContextManager[None]], kind: Any, room: float
) -> None:
    bands = np.random.default_rng(0).integers(0, 65535, (2, 600, 600), dtype=np.uint16)
    out = tmp_path / "a.tif"
    with (
        pytest.raises(OutputError, match=r"a\.tif: cannot be written .*check the disk"),
        publish(out) as part,
    ):
        write(part, bands)
        with file_size_limit(int(part.stat().st_size * room)):
            product.finish(part, kind)
    assert not list(tmp_path.iterdir())


# --- picture ---


def picture(path: Path) -> np.ndarray:
    product.quicklook(path, path.with_suffix(".png"))
    with open_raster(path.with_suffix(".png")) as file:
        assert file.driver == "PNG"
        assert file.colorinterp[3] == ColorInterp.alpha
        return file.read()


def ramps() -> np.ndarray:
    """Three bands of 100 x 101 pixels, each rising along the columns from another value with another
    slope."""
    return np.stack(
        [np.tile(start + slope * np.arange(101), (100, 1)) for start, slope in ((0, 1), (50, 3), (900, 9))]
    )


def test_picture_stretches_each_band(tmp_path: Path) -> None:
    red, green, blue, alpha = picture(write(tmp_path / "a.tif", ramps().astype(np.uint16)))
    np.testing.assert_array_equal(red, green)
    np.testing.assert_array_equal(red, blue)
    expected = np.rint(255 * np.clip((np.arange(101) - 2) / 96, 0, 1))
    np.testing.assert_array_equal(red, np.tile(expected, (100, 1)))
    assert (alpha == 255).all()


def labelled(path: Path, labels: tuple[Any, ...], *, by: str) -> list[float]:
    """How many columns of the picture's red, green and blue are black; the first band is so in 60, the
    next in 15."""
    bands = np.zeros((4, 60, 60), np.uint8)
    for i, band in enumerate(bands[1:], start=1):
        band[:, i * 15 :] = 200
    write(path, bands)
    with open_raster(path, "r+") as file:
        setattr(file, by, labels)
    shown = picture(path)[:3]
    return [float((channel == 0).sum() / 60) for channel in shown]


def test_picture_knows_red_green_and_blue(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    colours = (ColorInterp.undefined, ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    assert labelled(path, colours, by="colorinterp") == [45, 30, 15]
    assert labelled(path, ("Green", "Red", "nir", "BLUE"), by="descriptions") == [15, 60, 45]
    assert labelled(path, ("red", "green", "b3", "b4"), by="descriptions") == [60, 60, 60]


def test_picture_is_transparent_without_data(tmp_path: Path) -> None:
    bands = ramps().astype(np.float32)
    bands[:, 10:20, 30:50] = np.nan
    shown = picture(write(tmp_path / "a.tif", bands, nodata=np.nan))
    np.testing.assert_array_equal(shown[3] == 0, np.isnan(bands[0]))
    bands[:] = np.nan
    assert not picture(write(tmp_path / "a.tif", bands, nodata=np.nan)).any()


def test_picture_is_bounded(tmp_path: Path) -> None:
    bands = np.full((1, 300, 5000), 9, np.uint8)
    bands[:, :, 2500:] = 12
    shown = picture(write(tmp_path / "a.tif", bands))
    assert shown.shape == (4, 123, 2048)
    np.testing.assert_array_equal(shown[0], np.tile(np.where(np.arange(2048) < 1024, 0, 255), (123, 1)))


def test_picture_of_nothing_and_to_nowhere(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no such file"):
        product.quicklook(tmp_path / "a.tif", tmp_path / "a.png")
    path = write(tmp_path / "a.tif", ramps().astype(np.uint16))
    with pytest.raises(OutputError, match="there is no folder"):
        product.quicklook(path, tmp_path / "no" / "a.png")
    assert list(tmp_path.iterdir()) == [path]

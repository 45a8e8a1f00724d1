"""Which files are PAN and MS: by name, by content, and what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from sfiin.runtime.errors import SceneError
from sfiin.runtime.station.delivery import find


def image(path: Path, bands: int, side: int) -> Path:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=bands,
        height=side,
        width=side,
        dtype="uint16",
        crs="EPSG:32650",
        transform=rasterio.Affine(64 / side, 0, 5e5, 0, -64 / side, 4e6),
    ) as file:
        file.write(np.ones((bands, side, side), np.uint16))
    return path


@pytest.mark.parametrize(
    ("names", "pan", "ms"),
    [
        (("PAN.TIF", "ms-10.tif", "ms-2.tif", "ms-3.tif", "ms-4.tif"), "PAN.TIF", "2 3 4 10"),
        (("pan.tiff", "MS.tif", "ms-1.tif"), "pan.tiff", "MS"),
    ],
)
def test_by_name(tmp_path: Path, names: tuple[str, ...], pan: str, ms: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    found = find(tmp_path, bands=4)
    assert found[0].name == pan
    wanted = ["MS.tif"] if ms == "MS" else [f"ms-{number}.tif" for number in ms.split()]
    assert [path.name for path in found[1]] == wanted


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("pan.tif",), "no MS"),
        (("ms.tif",), "no PAN"),
        (("ms-1.tif", "ms-2.tif"), "no PAN"),
        (("pan.tif", "ms-1.tif", "ms-2.tif"), "MS has 2 files, a band each; the model wants 4"),
        ((), "PAN"),
        (("READY",), "PAN"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with pytest.raises(SceneError, match=said):
        find(tmp_path, bands=4)


def test_by_content(tmp_path: Path) -> None:
    pan, ms = image(tmp_path / "M2AS_is_not_MS.TIF", 1, 64), image(tmp_path / "x.tif", 4, 16)
    assert find(tmp_path) == (pan, (ms,))
    image(tmp_path / "y.tif", 4, 16)
    with pytest.raises(SceneError, match="several images"):
        find(tmp_path)


def test_images_of_one_size_are_no_pair(tmp_path: Path) -> None:
    image(tmp_path / "a.tif", 1, 64)
    image(tmp_path / "b.tif", 4, 64)
    with pytest.raises(SceneError, match="no PAN and MS"):
        find(tmp_path)

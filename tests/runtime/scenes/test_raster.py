from pathlib import Path

import numpy as np
import pytest
from rasterio.errors import RasterioIOError
from rasterio.transform import Affine

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes.raster import describe, open_raster


def write(path: Path, transform: Affine, crs: str | None) -> Path:
    size = {"count": 2, "height": 3, "width": 5, "dtype": "uint16", "nodata": 1}
    with open_raster(path, "w", driver="GTiff", transform=transform, crs=crs, **size) as file:
        file.write(np.ones((2, 3, 5), np.uint16))
    return path


def test_describe(tmp_path: Path) -> None:
    assert describe(write(tmp_path / "ms.tif", Affine(2.0, 0.0, 10.0, 0.0, -3.0, 20.0), "EPSG:32633")) == {
        "size": (3, 5),
        "bands": 2,
        "names": [None, None],
        "dtype": "uint16",
        "crs": "EPSG:32633",
        "transform": (2, 0, 10, 0, -3, 20),
        "pixel_size": (3, 2),
        "nodata": 1,
    }
    nowhere = describe(write(tmp_path / "no.tif", Affine.identity(), None))
    assert (nowhere["crs"], nowhere["transform"], nowhere["pixel_size"]) == (None, None, None)


def test_nothing_and_no_image(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="nothing: no such file"):
        describe(tmp_path / "nothing")
    (tmp_path / "text").write_text("not an image")
    with (
        pytest.raises(SceneError, match=r"text: no image that GDAL can read \(.*not recognized"),
        open_raster(tmp_path / "text"),
    ):
        pass


def test_what_cannot_be_written_is_the_caller_s(tmp_path: Path) -> None:
    size = {"count": 1, "height": 3, "width": 5, "dtype": "uint16"}
    with pytest.raises(RasterioIOError), open_raster(tmp_path / "no" / "a.tif", "w", driver="GTiff", **size):
        pass


def test_a_file_that_went_while_it_was_written_is_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), open_raster(tmp_path / "part.tif", "r+"):
        pass


def test_a_name_that_is_no_text_is_refused_in_words(tmp_path: Path) -> None:
    with (
        pytest.raises(SceneError, match=r"'.*\\udcff\.tif': a name that is not UTF-8"),
        open_raster(tmp_path / "p\udcff.tif"),
    ):
        pass

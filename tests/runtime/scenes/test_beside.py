"""What is taken for a part of a product, and what is not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio

from sfiin.runtime.errors import OutputError
from sfiin.runtime.scenes import beside

PARTS = [
    "sharp.tif.aux.xml",
    "sharp.tif.ovr",
    "SHARP.TIF.OVR",
    "sharp.tif.msk",
    "sharp.tif.msk.ovr",
    "sharp.tif.ovr.aux.xml",
    "sharp.aux",
    "sharp.tfw",
    "sharp.TFW",
    "sharp.wld",
    "sharp.tab",
    "sharp_rpc.txt",
    "sharp_RPC.TXT",
    "sharp.RPB",
    "sharp.IMD",
]
OTHERS = [
    "sharp.png",
    "sharp.json",
    "sharp.html",
    "sharp2.tif",
    "sharp.tiff",
    "other.tfw",
    ".sharp.tif.sfiin",
    "sharp",
]


@pytest.mark.parametrize("name", PARTS)
def test_parts_are_refused_or_removed(tmp_path: Path, name: str) -> None:
    output = tmp_path / "sharp.tif"
    (tmp_path / name).touch()
    assert beside.parts(output) == [tmp_path / name]
    with pytest.raises(OutputError, match="--overwrite"):
        beside.refuse(output, overwrite=False)
    beside.refuse(output, overwrite=True)
    beside.remove(output)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", OTHERS)
def test_other_files_are_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    beside.refuse(tmp_path / "sharp.tif", overwrite=False)
    beside.remove(tmp_path / "sharp.tif")
    assert (tmp_path / name).exists()


def test_what_belongs_to_the_scene_is_never_removed(tmp_path: Path) -> None:
    own = tmp_path / "scene.tfw"
    own.touch()
    with pytest.raises(OutputError, match="belongs to the scene"):
        beside.refuse(tmp_path / "scene.tif", overwrite=True, inputs=[str(own), "/vsicurl/http://host/a.tif"])


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
@pytest.mark.parametrize("content", ["tfw", "ovr", "msk", "aux.xml"])
def test_gdal_does_take_them_for_parts(tmp_path: Path, content: str) -> None:
    """The reason for all of this: GDAL's own list of a file's parts has them."""
    output = tmp_path / "sharp.tif"
    profile = {"driver": "GTiff", "height": 64, "width": 64, "count": 1, "dtype": "uint8"}
    with rasterio.open(output, "w", **profile) as file:
        file.write(np.ones((1, 64, 64), np.uint8))
    part = tmp_path / (f"sharp.{content}" if content == "tfw" else f"sharp.tif.{content}")
    if content == "tfw":
        part.write_text("2\n0\n0\n-2\n1\n1\n")
    elif content == "aux.xml":
        part.write_text("<PAMDataset/>")
    else:
        with rasterio.open(part, "w", **profile) as file:
            file.write(np.ones((1, 64, 64), np.uint8))
    with rasterio.open(output) as file:
        assert {Path(name).name for name in file.files} >= {part.name}
    assert beside.parts(output) == [part]


@pytest.mark.parametrize("name", ["o.jp2", "o.vrt", "o.img", "o.png", "o.TIF.gz", "o.nc"])
def test_names_that_say_something_else_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="is a GeoTIFF") as error:
        beside.check_name(tmp_path / name)
    assert error.value.exit_code == 7


@pytest.mark.parametrize("name", ["o.tif", "o.TIF", "o.tiff", "o", "a.b.tif"])
def test_names_of_geotiffs(tmp_path: Path, name: str) -> None:
    beside.check_name(tmp_path / name)

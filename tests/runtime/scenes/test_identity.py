"""What a scene is: every file, by content; and what changes meanwhile."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.errors import SceneError
from sfiin.runtime.files import sha256
from sfiin.runtime.scenes.identity import ChangedError, of, of_files


def image(path: Path, value: int = 1) -> Path:
    profile = {"driver": "GTiff", "count": 1, "height": 8, "width": 8, "dtype": "uint16"}
    with rasterio.open(
        path, "w", **profile, crs="EPSG:32650", transform=Affine(1, 0, 5e5, 0, -1, 4e6)
    ) as file:
        file.write(np.full((1, 8, 8), value, np.uint16))
    return path


def mosaic(path: Path, source: Path) -> Path:
    path.write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        "<SourceFilename "
        f'relativeToVRT="1">{source.name}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    return path


def test_a_name_or_a_place_is_no_part_of_it(tmp_path: Path) -> None:
    first = of_files([image(tmp_path / "a.tif")])
    (tmp_path / "in").mkdir()
    moved = (tmp_path / "a.tif").rename(tmp_path / "in" / "b.tif")
    second = of_files([moved])
    assert first.digests == second.digests == [sha256(moved)]
    assert (first.inputs[0].name, second.inputs[0].name) == ("a.tif", "b.tif")


def test_what_lies_beside_counts(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif")
    plain = of_files([path])
    (tmp_path / "a.tif.aux.xml").write_text("<PAMDataset></PAMDataset>")
    beside = of_files([path])
    assert [found.name for found in beside.inputs] == ["a.tif", "a.tif.aux.xml"]
    assert beside.digests[0] == plain.digests[0]


def test_a_mosaic_of_mosaics_is_followed_down(tmp_path: Path) -> None:
    tile = image(tmp_path / "tile.tif")
    top = mosaic(tmp_path / "top.vrt", mosaic(tmp_path / "inner.vrt", tile))
    found = of_files([top])
    assert {item.name for item in found.inputs} == {"top.vrt", "inner.vrt", "tile.tif"}
    image(tile, 2)
    with pytest.raises(SceneError, match=r"tile\.tif: changed"):
        found.check()


def test_a_change_under_the_same_size_and_time_is_seen(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif")
    found, stamp = of_files([path]), path.stat()
    found.check()
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    with pytest.raises(ChangedError, match="changed while it was read"):
        found.check()


def test_a_file_that_has_gone_is_a_change(tmp_path: Path) -> None:
    path = image(tmp_path / "a.tif")
    found = of_files([path])
    path.unlink()
    with pytest.raises(SceneError, match="changed"):
        found.check()


def test_what_is_no_file_of_this_machine_is_said() -> None:
    address = "/vsicurl/https://example.com/a.tif"
    found = of([SimpleNamespace(name=address, files=[address])])
    assert found.digests == ["a.tif"]
    assert "a.tif: no file of this machine, known by name only" in found.notes[0]
    found.check()

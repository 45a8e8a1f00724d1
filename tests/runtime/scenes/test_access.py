"""What an upload may make the station open: its own images, and nothing that they lead to."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.errors import NotGeoreferencedWarning

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes import access
from sfiin.runtime.scenes.access import Access, restricted
from sfiin.runtime.scenes.raster import open_raster

pytestmark = pytest.mark.filterwarnings(
    f"ignore::{NotGeoreferencedWarning.__module__}.NotGeoreferencedWarning"
)

SECRET = 4242


def image(path: Path, value: int = 1, **profile: object) -> Path:
    options = {"driver": "GTiff", "count": 1, "height": 8, "width": 8, "dtype": "uint16"} | profile
    with rasterio.open(path, "w", **options) as file:
        file.write(np.full((1, 8, 8), value, np.uint16))
    return path


def vrt(source: object) -> str:
    return (
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="UInt16" band="1"><SimpleSource>'
        "<SourceFilename "
        f'relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "scene").mkdir()
    image(tmp_path / "secret.tif", SECRET)
    return tmp_path / "scene"


def opened(path: Path, folder: Path) -> int:
    """The first pixel, if policy and GDAL let it be had."""
    policy = Access(folder)
    policy.check()
    with restricted(policy), open_raster(path) as file:
        return int(file.read(1)[0, 0])


@pytest.mark.parametrize(
    ("name", "driver"), [("pan.tif", "GTiff"), ("x.jp2", "JP2OpenJPEG"), ("pan", "GTiff")]
)
def test_images_of_their_own_are_opened(folder: Path, name: str, driver: str) -> None:
    profile = {"driver": driver} | ({"QUALITY": "100", "REVERSIBLE": "YES"} if driver != "GTiff" else {})
    assert opened(image(folder / name, 7, **profile), folder) == 7


def link(folder: Path) -> Path:
    (folder / "pan.tif").symlink_to(folder.parent / "secret.tif")
    return folder / "pan.tif"


def linked_beside(folder: Path) -> Path:
    (folder / "pan.tif.ovr").symlink_to(folder.parent / "secret.tif")
    return image(folder / "pan.tif")


def linked_folder(folder: Path) -> Path:
    (folder / "in").symlink_to(folder.parent)
    return folder / "in" / "secret.tif"


def pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pan.tif")
    return folder / "pan.tif"


def pipe_beside(folder: Path) -> Path:
    os.mkfifo(folder / "pan.tif.aux.xml")
    return image(folder / "pan.tif")


def mosaic(folder: Path) -> Path:
    (folder / "pan.tif").write_text(vrt(folder.parent / "secret.tif"))
    return folder / "pan.tif"


def mosaic_after_spaces(folder: Path) -> Path:
    (folder / "pan.tif").write_text(" " * 5000 + vrt(folder.parent / "secret.tif"))
    return folder / "pan.tif"


def raw_mosaic(folder: Path) -> Path:
    (folder / "pan.tif").write_text(
        '<VRTDataset rasterXSize="8" rasterYSize="8"><VRTRasterBand dataType="Byte" band="1" '
        f'subClass="VRTRawRasterBand"><SourceFilename>{folder.parent}/secret.tif</SourceFilename>'
        "</VRTRasterBand></VRTDataset>"
    )
    return folder / "pan.tif"


def service(folder: Path) -> Path:
    (folder / "pan.tif").write_text(
        '<GDAL_WMS><Service name="TMS"><ServerUrl>http://127.0.0.1:1</ServerUrl></Service></GDAL_WMS>'
    )
    return folder / "pan.tif"


def mosaic_as_mask(folder: Path) -> Path:
    (folder / "pan.tif.msk").write_text(vrt(folder.parent / "secret.tif"))
    return image(folder / "pan.tif")


def mosaic_as_overview(folder: Path) -> Path:
    (folder / "pan.tif.ovr").write_text(vrt(folder.parent / "secret.tif"))
    return image(folder / "pan.tif")


def overview_by_name(folder: Path) -> Path:
    path = image(folder / "pan.tif")
    (folder / "pan.tif.aux.xml").write_text(
        '<PAMDataset><Metadata domain="OVERVIEWS">'
        f'<MDI key="OVERVIEW_FILE">{folder.parent}/secret.tif</MDI></Metadata></PAMDataset>'
    )
    return path


def overview_in_the_tags(folder: Path) -> Path:
    path = image(folder / "pan.tif")
    with rasterio.open(path, "r+") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=str(folder.parent / "secret.tif"))
    return path


def huge_text(folder: Path) -> Path:
    with (folder / "pan.tif.aux.xml").open("wb") as file:
        file.truncate(access.MOST_TEXT + 1)
    return image(folder / "pan.tif")


def another_kind(folder: Path) -> Path:
    return image(folder / "pan.png", driver="PNG")


def deep(folder: Path) -> Path:
    inside = folder
    for _ in range(access.MOST_DEPTH + 1):
        inside = inside / "in"
        inside.mkdir()
    return image(folder / "pan.tif")


HOSTILE = [
    link,
    linked_beside,
    linked_folder,
    pipe,
    pipe_beside,
    mosaic,
    mosaic_after_spaces,
    raw_mosaic,
    service,
    mosaic_as_mask,
    mosaic_as_overview,
    overview_by_name,
    overview_in_the_tags,
    huge_text,
    another_kind,
    deep,
]


@pytest.mark.parametrize("make", HOSTILE, ids=lambda make: make.__name__)
def test_what_leads_elsewhere_is_not_opened(folder: Path, make: object) -> None:
    path = make(folder)  # type: ignore[operator]
    with pytest.raises(SceneError):
        opened(path, folder)


def test_what_lies_outside_is_not_opened(folder: Path) -> None:
    for path in (folder.parent / "secret.tif", folder / ".." / "secret.tif"):
        with restricted(Access(folder)), pytest.raises(SceneError, match="outside"), open_raster(path):
            pass


def test_too_many_files_are_no_scene(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(access, "MOST_FILES", 3)
    for number in range(4):
        (folder / str(number)).touch()
    with pytest.raises(SceneError, match="more than 3 files"):
        Access(folder).check()


def test_a_users_own_run_opens_what_it_names(folder: Path) -> None:
    path = mosaic(folder)
    with open_raster(path) as file:
        assert file.read(1)[0, 0] == SECRET
    image(folder / "sub.tif", 3)
    (folder / "link.tif").symlink_to(folder / "sub.tif")
    with open_raster(folder / "link.tif") as file:
        assert file.read(1)[0, 0] == 3


def test_a_pipe_is_refused_for_anyone(folder: Path) -> None:
    with pytest.raises(SceneError, match="a pipe or a device"), open_raster(pipe(folder)):
        pass


def test_huge_text_beside_is_refused_for_anyone(folder: Path) -> None:
    with pytest.raises(SceneError, match="which no statistics take"), open_raster(huge_text(folder)):
        pass


def test_a_folder_that_is_reached_by_a_link_of_the_operator_is_fine(folder: Path) -> None:
    image(folder / "pan.tif", 5)
    (folder.parent / "mounted").symlink_to(folder)
    assert opened(folder.parent / "mounted" / "pan.tif", folder.parent / "mounted") == 5

"""Deliveries as providers make them, with small images: what is PAN, what is MS, and which band is which."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes.deliveries import Delivery, find, is_delivery
from sfiin.runtime.scenes.scene import open_scene

BGRN = SensorProfile("quad", ("blue", "green", "red", "nir"), 4, 11, 2047.0)
NOON = datetime(2020, 5, 1, 10, 20, 30, tzinfo=timezone.utc)


def image(
    path: Path, bands: int, side: int = 16, first: int = 1, at: tuple[int, int] = (0, 0), pixel: float = 0
) -> Path:
    """Band i is `first + i` hundred everywhere."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixel = pixel or 64 / side
    transform = Affine(pixel, 0, 5e5 + at[1] * pixel, 0, -pixel, 4e6 - at[0] * pixel)
    profile = {"driver": "GTiff", "count": bands, "height": side, "width": side, "dtype": "uint16"}
    with rasterio.open(path, "w", crs="EPSG:32650", transform=transform, **profile) as file:
        for i in range(bands):
            file.write(np.full((side, side), 100 * (first + i), np.uint16), i + 1)
    return path


def imd(path: Path, bands: str) -> None:
    groups = "".join(
        f"BEGIN_GROUP = BAND_{band}\n\tULLon = 1.0;\nEND_GROUP = BAND_{band}\n" for band in bands.split()
    )
    path.write_text(
        f'version = "28.3";\nbandId = "{"P" if bands == "P" else "Multi"}";\n{groups}'
        'BEGIN_GROUP = IMAGE_1\n\tsatId = "WV02";\n\tfirstLineTime = 2020-05-01T10:20:30.123456Z;\n'
        "\tmeanSunAz = 150.5;\n\tmeanSunEl = 55.1;\nEND_GROUP = IMAGE_1\nEND;\n"
    )


def til(path: Path, files: list[str], side: int) -> None:
    text = f'bandId = "x";\nnumTiles = {len(files)};\ntileSizeX = {side};\ntileSizeY = {side};\n'
    for number, name in enumerate(files, 1):
        left = (number - 1) * side
        text += (
            f'BEGIN_GROUP = TILE_{number}\n\tfilename = "{name}";\n\tULColOffset = {left};\n\tULRowOffset = '
            "0;\n"
            f"\tLRColOffset = {left + side - 1};\n\tLRRowOffset = {side - 1};\nEND_GROUP = TILE_{number}\n"
        )
    path.write_text(text + "END\n")


def maxar(folder: Path, bands: str = "B G R N") -> None:
    for kind, names, side in (("PAN", "P", 64), ("MUL", bands, 16)):
        stem = f"20MAY01102030-{kind[0]}2AS-1_P001"
        image(folder / f"X_P001_{kind}" / f"{stem}.TIF", len(names.split()), side)
        imd(folder / f"X_P001_{kind}" / f"{stem}.IMD", names)


def dimap(path: Path, processing: str, bands: str, files: list[str]) -> None:
    indices = "".join(
        f"<Raster_Index><BAND_ID>{band}</BAND_ID><BAND_INDEX>{i}</BAND_INDEX></Raster_Index>"
        for i, band in enumerate(bands.split(), 1)
    )
    groups = "".join(
        '<Data_Files><Data_File tile_R="1" tile_C="1"><DATA_FILE_PATH '
        f'href="{name}"/></Data_File></Data_Files>'
        for name in files
    )
    path.write_text(
        '<?xml version="1.0"?><Dimap_Document><Metadata_Identification><METADATA_FORMAT version="2.15">DIMAP'
        "</METADATA_FORMAT></Metadata_Identification><Processing_Information><Product_Settings>"
        f"<SPECTRAL_PROCESSING>{processing}</SPECTRAL_PROCESSING></Product_Settings></Processing_Information>"
        f"<Raster_Data><Data_Access>{groups}</Data_Access><Raster_Display><Raster_Index_List>{indices}"
        "</Raster_Index_List></Raster_Display></Raster_Data><Geometric_Data><Use_Area><Located_Geometric_Values>"
        "<TIME>2020-05-01T10:20:30.5Z</TIME><Solar_Incidences><SUN_ELEVATION>55.1</SUN_ELEVATION></Solar_Incidences>"
        "</Located_Geometric_Values></Use_Area></Geometric_Data></Dimap_Document>"
    )


def pleiades(folder: Path, bands: str = "B2 B1 B0 B3") -> None:
    image(folder / "IMG_01_P/IMG_P_R1C1.TIF", 1, 64)
    dimap(folder / "IMG_01_P/DIM_P.XML", "P", "P", ["IMG_P_R1C1.TIF"])
    image(folder / "IMG_01_MS/IMG_MS_R1C1.TIF", 4)
    dimap(folder / "IMG_01_MS/DIM_MS.XML", "MS", bands, ["IMG_MS_R1C1.TIF"])


def neo(folder: Path) -> None:
    image(folder / "PAN/IMG_PNEO_P_R1C1.TIF", 1, 64)
    dimap(folder / "PAN/DIM_P.XML", "PAN", "PAN", ["IMG_PNEO_P_R1C1.TIF"])
    image(folder / "MS/IMG_RGB_R1C1.TIF", 3)
    image(folder / "MS/IMG_NED_R1C1.TIF", 3, first=4)
    dimap(folder / "MS/DIM_MS.XML", "MS-FS", "R G B NIR RE DB", ["IMG_RGB_R1C1.TIF", "IMG_NED_R1C1.TIF"])


def landsat(folder: Path) -> None:
    text = 'GROUP = LANDSAT_METADATA_FILE\n    SPACECRAFT_ID = "LANDSAT_9"\n    DATE_ACQUIRED = 2020-05-01\n'
    text += '    SCENE_CENTER_TIME = "10:20:30.1234560Z"\n    SUN_AZIMUTH = 150.5\n    SUN_ELEVATION = 55.1\n'
    for band in range(1, 10):
        name = f"LC09_L1TP_121040_20200501_20200510_02_T1_B{band}.TIF"
        image(folder / name, 1, 32 if band == 8 else 16, first=band)
        text += f'    FILE_NAME_BAND_{band} = "{name}"\n'
    (folder / "LC09_L1TP_121040_20200501_20200510_02_T1_MTL.txt").write_text(text + "END\n")


def skysat(folder: Path) -> None:
    item = "20200501_102030_ssc1d1_0001"
    image(folder / f"{item}_basic_panchromatic_dn.tif", 1, 64)
    image(folder / f"{item}_basic_analytic_dn.tif", 4)
    image(folder / f"{item}_basic_analytic_udm.tif", 1)
    properties = {"item_type": "SkySatScene", "acquired": "2020-05-01T10:20:30.5Z", "satellite_id": "SSC1"}
    (folder / f"{item}_metadata.json").write_text(json.dumps({"id": item, "properties": properties}))


def geoeye(folder: Path) -> None:
    text = "Product Order Metadata\nSensor Name: GeoEye-1\nAcquisition Date/Time: 2020-05-01 10:20:30 GMT\n"
    text += "Sun Angle Azimuth: 150.5 degrees\nSun Angle Elevation: 55.1 degrees\n"
    for first, word in enumerate(("red", "grn", "blu", "nir", "pan"), 1):
        name = f"po_123_{word}_0000000.tif"
        image(folder / name, 1, 64 if word == "pan" else 16, first=first)
        text += f"Component File Name: {name}\n"
    (folder / "po_123_metadata.txt").write_text(text)


def levels(found: Delivery) -> list[int]:
    """The hundreds of the bands that the model gets as blue, green, red and infrared."""
    with open_scene(found.pan, found.ms, BGRN, stated=found.bands) as scene:
        return (scene.read(0, 0, 16, 16)[0][:, 0, 0] / 100).astype(int).tolist()


CASES: list[tuple[Any, str, list[int]]] = [
    (maxar, "Maxar", [1, 2, 3, 4]),
    (lambda folder: maxar(folder, "R G B N"), "Maxar", [3, 2, 1, 4]),
    (lambda folder: maxar(folder, "C B G Y R RE N N2"), "Maxar", [2, 3, 5, 7]),
    (pleiades, "Airbus", [3, 2, 1, 4]),
    (lambda folder: pleiades(folder, "B0 B1 B2 B3"), "Airbus", [1, 2, 3, 4]),
    (neo, "Airbus", [3, 2, 1, 4]),
    (skysat, "SkySat", [1, 2, 3, 4]),
    (geoeye, "GeoEye", [3, 2, 1, 4]),
]


@pytest.mark.parametrize(("write", "kind", "expected"), CASES)
def test_a_delivery_is_recognised_by_its_metadata(
    tmp_path: Path, write: Any, kind: str, expected: list[int]
) -> None:
    write(tmp_path)
    found = find(tmp_path)
    assert found.kind == kind
    assert found.acquired == NOON
    assert levels(found) == expected
    assert is_delivery(tmp_path)


def test_landsat_has_its_reflecting_bands(tmp_path: Path) -> None:
    landsat(tmp_path)
    found = find(tmp_path)
    assert found.bands == ("coastal", "blue", "green", "red", "nir", "swir1", "swir2")
    assert found.acquired == NOON
    assert found.facts["satellite"] == "LANDSAT_9"
    sensor = SensorProfile("oli", ("blue", "green", "red"), 2, 16, 65535.0)
    with open_scene(found.pan, found.ms, sensor, stated=found.bands) as scene:
        assert scene.read(0, 0, 16, 16)[0][:, 0, 0].tolist() == [200, 300, 400]


@pytest.mark.parametrize(("write", "kind", "expected"), CASES[:1] + CASES[3:4] + CASES[6:])
def test_any_file_of_its_metadata_will_do(tmp_path: Path, write: Any, kind: str, expected: list[int]) -> None:
    write(tmp_path / "in")
    names = [
        path
        for path in (tmp_path / "in").rglob("*")
        if path.suffix.lower() in (".imd", ".xml", ".json", ".txt")
    ]
    assert names
    for path in names:
        assert is_delivery(path)
        assert find(path).kind == kind


def test_several_tiles_are_one_image(tmp_path: Path) -> None:
    for kind, names, side in (("PAN", "P", 64), ("MUL", "B G R N", 16)):
        folder = tmp_path / kind
        tiles = [f"x_R1C{number}.TIF" for number in (1, 2)]
        for number, name in enumerate(tiles):
            image(folder / name, len(names.split()), side, at=(0, side * number))
        til(folder / "x.TIL", tiles, side)
        imd(folder / "x.IMD", names)
    found = find(tmp_path)
    assert (found.pan.name, found.ms[0].name) == ("x.TIL", "x.TIL")
    (tmp_path / "PAN/x_R1C2.TIF").unlink()
    with pytest.raises(SceneError, match=r"x_R1C2\.TIF, which is not there"):
        find(tmp_path)


def test_plain_images_by_name_and_by_bands(tmp_path: Path) -> None:
    image(tmp_path / "PAN.tif", 1, 64)
    image(tmp_path / "ms-2.tif", 1)
    image(tmp_path / "ms-10.tif", 1)
    assert [path.name for path in find(tmp_path).ms] == ["ms-2.tif", "ms-10.tif"]
    other = tmp_path / "other"
    image(other / "a.tif", 1, 64)
    image(other / "b.tif", 4)
    assert (find(other).pan.name, find(other).ms[0].name) == ("a.tif", "b.tif")


def test_what_is_no_scene_says_what_is_there(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no image"):
        find(tmp_path)
    image(tmp_path / "a.tif", 1)
    image(tmp_path / "b.tif", 1)
    with pytest.raises(SceneError, match=r"a\.tif \(1 bands\), b\.tif"):
        find(tmp_path)


def test_pan_without_ms(tmp_path: Path) -> None:
    maxar(tmp_path)
    (tmp_path / "X_P001_MUL/20MAY01102030-M2AS-1_P001.IMD").unlink()
    with pytest.raises(SceneError, match="Maxar without MS"):
        find(tmp_path)


def test_two_scenes_are_not_mixed(tmp_path: Path) -> None:
    maxar(tmp_path)
    for path in [*tmp_path.rglob("*P001.*")]:
        copy = path.with_name(path.name.replace("P001", "P002"))
        copy.write_bytes(path.read_bytes())
    with pytest.raises(SceneError, match="2 pairs"):
        find(tmp_path)


@pytest.mark.parametrize("name", ["../secret.TIF", "/etc/secret.TIF"])
def test_nothing_outside_the_folder_is_taken(tmp_path: Path, name: str) -> None:
    image(tmp_path / "secret.TIF", 1, 64)
    folder = tmp_path / "in"
    pleiades(folder)
    dimap(folder / "IMG_01_P/DIM_P.XML", "P", "P", [f"../{name}" if name.startswith("..") else name])
    with pytest.raises(SceneError, match="outside"):
        find(folder)
    if name.startswith(".."):
        assert find(folder, trust=True).pan.name == "secret.TIF"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "<a>", "<Dimap_Document/>", '<!DOCTYPE a [<!ENTITY b "c">]><Dimap_Document/>']
)
@pytest.mark.parametrize("suffix", [".txt", ".IMD", ".XML", ".json"])
def test_other_files_beside_are_no_metadata(tmp_path: Path, text: str, suffix: str) -> None:
    image(tmp_path / "pan.tif", 1, 64)
    image(tmp_path / "ms.tif", 4)
    (tmp_path / f"x{suffix}").write_text(text)
    assert find(tmp_path).kind == "images"

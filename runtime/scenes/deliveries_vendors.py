"""What do vendors' metadata say of the images beside them? One reader a vendor, each from content, not names.

| reader    | metadata                                 | source                                              |
|-----------|------------------------------------------|-----------------------------------------------------|
| `landsat` | `*_MTL.txt`, Landsat 7 to 9              | USGS, "Landsat 8-9 C2 L1 Data Format Control Book"  |
| `maxar`   | `.IMD`, with `.TIL` or a single image    | Maxar, "Imagery Support Data (ISD) Documentation"   |
| `airbus`  | DIMAP version 2: Pleiades, Neo, SPOT 6/7 | Airbus, "Pleiades Imagery" and "Neo" "User Guide"   |
| `planet`  | `*metadata.json` of SkySat               | Planet, "Imagery Product Specifications"            |
| `geoeye`  | `*_metadata.txt` of GeoEye-1 and IKONOS  | GeoEye, "Product Guide"                             |

Each returns `Part`s: an image, or one of several files of it, with what it shows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from sfiin.runtime.scenes import words
from sfiin.runtime.scenes.metadata import parse_time

_MOST_TEXT = 16 << 20  # bytes of metadata that are read


@dataclass(frozen=True)
class Part:
    """An image of a delivery: of which `vendor`, PAN or not, in which files, which bands these hold in order,
    and when it was acquired. `group` is equal for PAN and MS of one scene; `facts` is what else is known."""

    vendor: str
    is_pan: bool
    files: tuple[Path, ...]
    bands: tuple[str | None, ...]
    acquired: datetime | None = None
    group: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)


Reader = Callable[[Path], list[Part]]


def read(path: Path) -> list[Part]:
    """The images that a file of metadata describes; none where it is no metadata of a known vendor."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None or path.stat().st_size > _MOST_TEXT:
        return []
    return reader(path)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")


# --- Landsat ---

_ETM = {1: "blue", 2: "green", 3: "red", 4: "nir", 5: "swir1", 7: "swir2"}
_OLI = {1: "coastal", 2: "blue", 3: "green", 4: "red", 5: "nir", 6: "swir1", 7: "swir2"}


def landsat(path: Path) -> list[Part]:
    """An MTL file: bands 8, and those that reflect light."""
    text = _text(path)
    if "LANDSAT_METADATA_FILE" not in text and "L1_METADATA_FILE" not in text:
        return []
    values = dict(re.findall(r'^\s*(\w+)\s*=\s*"?([^"\n]*?)"?\s*$', text, re.MULTILINE))
    names = _ETM if values.get("SPACECRAFT_ID", "").endswith("7") else _OLI
    # The first of several groups names the files of level 1 or 2 that are delivered.
    files = {int(number): name for number, name in re.findall(r'FILE_NAME_BAND_(\d+)\s*=\s*"([^"]+)"', text)}
    when = parse_time(f"{values.get('DATE_ACQUIRED')} {values.get('SCENE_CENTER_TIME', '').rstrip('Z')}"[:19])
    facts = _named(
        values, satellite="SPACECRAFT_ID", sun_azimuth="SUN_AZIMUTH", sun_elevation="SUN_ELEVATION"
    )
    chosen = [number for number in names if number in files and (path.parent / files[number]).is_file()]
    found = []
    if 8 in files:
        found.append(Part("Landsat", True, (path.parent / files[8],), ("pan",), when, "", facts))
    if chosen:
        ms = tuple(path.parent / files[number] for number in chosen)
        found.append(Part("Landsat", False, ms, tuple(names[number] for number in chosen), when, "", facts))
    return found


# --- Maxar ---


def maxar(path: Path) -> list[Part]:
    """An IMD file, and the TIL or image of the same name."""
    text = _text(path)
    bands = re.findall(r"BEGIN_GROUP\s*=\s*BAND_(\w+)", text)
    if not bands:
        return []
    values = dict(re.findall(r'^\s*(\w+)\s*=\s*"?([^";\n]*)"?;', text, re.MULTILINE))
    image = _beside(path, (".til", ".tif", ".tiff", ".ntf", ".jp2"))
    if image is None:
        return []
    stamp = str(values.get("firstLineTime") or values.get("earliestAcqTime") or "")
    when = parse_time(re.sub(r"\.\d+", "", stamp))
    facts = _named(
        values, satellite="satId", sun_azimuth="meanSunAz", sun_elevation="meanSunEl", product="productType"
    )
    is_pan = bands == ["P"]
    return [Part("Maxar", is_pan, (image,), tuple(words.of_all(bands)), when, _part_number(path.stem), facts)]


def tiles(path: Path) -> list[Path]:
    """The files that a TIL names."""
    return [path.parent / name for name in re.findall(r'filename\s*=\s*"([^"]+)"', _text(path))]


def _part_number(stem: str) -> str:
    found = re.search(r"[_-](P\d{3})$", stem, re.IGNORECASE)
    return found[1].upper() if found else ""


# --- Airbus ---

_PAN = {"P", "PAN", "PANCHROMATIC"}


def airbus(path: Path) -> list[Part]:
    """A DIMAP document of version 2 that describes an image."""
    text = _text(path)
    if "<!ENTITY" in text or "Dimap_Document" not in text:
        return []
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return []
    kind = root.find("Metadata_Identification/METADATA_FORMAT")
    if root.tag != "Dimap_Document" or kind is None or not kind.get("version", "").startswith("2"):
        return []
    groups = [_files(path, group) for group in root.iterfind("Raster_Data/Data_Access/Data_Files")]
    files = [file for group in groups for file in group]
    if not files or root.findtext("Metadata_Identification/METADATA_SUBPROFILE") == "REFERENCE":
        return []
    names = [item.findtext("BAND_ID") for item in root.iter("Raster_Index")]
    processing = (root.findtext(".//Product_Settings/SPECTRAL_PROCESSING") or "").upper()
    is_pan = processing in _PAN or [name for name in names if name] in (["P"], ["PAN"])
    if processing.startswith(("PMS", "PANSHARPENED")):
        return []
    # Several tiles are one image by the document, which GDAL reads.
    images = (
        tuple(group[0] for group in groups if group) if all(len(group) == 1 for group in groups) else (path,)
    )
    when = parse_time(_first(root, ".//Located_Geometric_Values/TIME")[:19]) or parse_time(
        f"{_first(root, './/Source_Identification/Strip_Source/IMAGING_DATE')} "
        f"{_first(root, './/Source_Identification/Strip_Source/IMAGING_TIME')}"[:19]
    )
    facts = {
        "satellite": " ".join(filter(None, (_first(root, ".//MISSION"), _first(root, ".//MISSION_INDEX")))),
        "sun_azimuth": _first(root, ".//Solar_Incidences/SUN_AZIMUTH"),
        "sun_elevation": _first(root, ".//Solar_Incidences/SUN_ELEVATION"),
    }
    bands = ("pan",) if is_pan else tuple(words.of_all(names))
    return [
        Part("Airbus", is_pan, images, bands, when, "", {key: value for key, value in facts.items() if value})
    ]


def _files(path: Path, group: Any) -> list[Path]:
    return [path.parent / str(item.get("href")) for item in group.iter("DATA_FILE_PATH") if item.get("href")]


def _first(root: Any, where: str) -> str:
    return (root.findtext(where) or "").strip()


# --- Planet ---


def planet(path: Path) -> list[Part]:
    """A SkySat item's metadata, and the images whose names begin as the item's."""
    try:
        document = json.loads(_text(path))
        properties = document["properties"]
        if not str(properties["item_type"]).startswith("SkySat"):
            return []
        item = str(document.get("id") or "")
        when = parse_time(re.sub(r"\.\d+", "", str(properties.get("acquired", ""))))
    except (ValueError, KeyError, TypeError):
        return []
    facts = {
        name: str(properties[key])
        for name, key in (
            ("satellite", "satellite_id"),
            ("sun_azimuth", "sun_azimuth"),
            ("sun_elevation", "sun_elevation"),
        )
        if key in properties
    }
    found = []
    for image in sorted(path.parent.iterdir()):
        rest = image.name[len(item) :].casefold()
        if (
            image.suffix.lower() not in (".tif", ".tiff")
            or not (item and image.name.startswith(item))
            or "udm" in rest
        ):
            continue
        if "panchromatic" in rest:
            found.append(Part("SkySat", True, (image,), ("pan",), when, item, facts))
        elif "analytic" in rest:
            found.append(Part("SkySat", False, (image,), ("blue", "green", "red", "nir"), when, item, facts))
    return found


# --- GeoEye, IKONOS ---


def geoeye(path: Path) -> list[Part]:
    """A GeoEye or IKONOS product's metadata; bands stand in a file each, or all in one."""
    text = _text(path)
    if not re.search(
        r"^(Sensor( Name| Type)?|Satellite):\s*(GeoEye|IKONOS)", text, re.MULTILINE | re.IGNORECASE
    ):
        return []
    named = re.findall(r"(?:Component )?File ?Name:\s*(\S+\.(?:tif|ntf|jp2))", text, re.IGNORECASE)
    stamp = re.search(r"Acquisition Date/Time:\s*(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d)(:\d\d)?", text)
    when = parse_time(f"{stamp[1]} {stamp[2]}{stamp[3] or ':00'}") if stamp else None
    facts = {}
    for name, pattern in (
        ("satellite", r"^(?:Sensor(?: Name)?|Satellite):\s*(.+)$"),
        ("sun_azimuth", r"Sun Angle Azimuth:\s*([\d.]+)"),
        ("sun_elevation", r"Sun Angle Elevation:\s*([\d.]+)"),
    ):
        match = re.search(pattern, text, re.MULTILINE)
        if match:
            facts[name] = match[1].strip()
    bands = {}
    found = []
    for name in dict.fromkeys(named):
        file = path.parent / Path(name).name
        tokens = re.split(r"[_.]", file.name.casefold())
        if "pan" in tokens:
            found.append(Part("GeoEye", True, (file,), ("pan",), when, "", facts))
        elif "bgrn" in tokens:
            found.append(Part("GeoEye", False, (file,), ("blue", "green", "red", "nir"), when, "", facts))
        else:
            word = next((word for token in tokens if (word := words.of_name(token))), None)
            if word:
                bands[word] = file
    if bands:
        found.append(Part("GeoEye", False, tuple(bands.values()), tuple(bands), when, "", facts))
    return found


# --- shared ---


def _beside(path: Path, suffixes: tuple[str, ...]) -> Path | None:
    """The file of the same stem, in any spelling, with the first of these endings that there is."""
    there = {other.name.casefold(): other for other in path.parent.iterdir()}
    names = (f"{path.stem}{suffix}".casefold() for suffix in suffixes)
    return next((there[name] for name in names if name in there), None)


def _named(values: Mapping[str, str], **keys: str) -> dict[str, str]:
    return {name: values[key] for name, key in keys.items() if values.get(key)}


def _text_file(path: Path) -> list[Part]:
    return landsat(path) or geoeye(path)


_READERS: dict[str, Reader] = {
    ".txt": _text_file,
    ".imd": maxar,
    ".xml": airbus,
    ".dim": airbus,
    ".json": planet,
}


def candidates(folder: Path, depth: int) -> Iterator[Path]:
    """Files of a folder and those in it, without hidden ones and symbolic links."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and depth:
            yield from candidates(path, depth - 1)

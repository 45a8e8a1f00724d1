"""How is a product described to a catalogue? As a STAC Item, a JSON file beside it.

STAC 1.1 (https://github.com/radiantearth/stac-spec) with the extensions projection, raster, eo, processing
and file, of which a field is there when its fact is known, and an extension when one of its fields is. The
item is made from the finished product alone, with the model's names of the bands.

- `datetime` is the time of acquisition: what the user states, else what the files' tags state
  (sfiin.runtime.scenes.metadata). Where that is two times, because PAN and MS have their own or the user
  gives an interval, `datetime` is null and `start_datetime` and `end_datetime` hold them. Without any, no
  item is made: the time of processing is no substitute.
- `geometry` is the outline of the whole image, nodata included, in longitude and latitude (WGS 84), with
  eight points an edge, as straight edges on a map are bent there; cut in two at the antimeridian. It comes
  from the geotransform, else from the ground control points, else from the RPCs at their mean height, else it
  is null.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import CRSError
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform_geom

import sfiin
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError
from sfiin.runtime.files import publish, sha256
from sfiin.runtime.scenes.grid import is_located
from sfiin.runtime.scenes.metadata import Acquired, parse_time, read_tags
from sfiin.runtime.scenes.names import Name, title
from sfiin.runtime.scenes.raster import open_raster

VERSION = "1.1.0"

_EXTENSIONS = {
    "proj": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "raster": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
    "eo": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
    "processing": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
    "file": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
}
# The ranges of the eo extension's common names; WorldView's two infrared bands are 0.77-0.895 and 0.86-1.04
# um.
_COMMON_NAMES = {name: name for name in ("coastal", "blue", "green", "yellow", "red", "rededge", "nir")} | {
    "nir1": "nir08",
    "nir2": "nir09",
    "swir1": "swir16",
    "swir2": "swir22",
}
_MEDIA_TYPE = "image/tiff; application=geotiff"
_SHA256 = "1220"  # of a multihash: the function's code and the digest's 32 bytes
_EDGE_POINTS = 8
_DEGREES = 7  # decimals, a centimetre

Json = dict[str, Any]
Bounds = tuple[float, float, float, float]


def acquired(stated: str | None, tagged: Acquired | None) -> Acquired:
    """The first and the last time of acquisition: what is stated, as a time or as two with '/' between, else
    tagged.

    Raises InputError for anything else; long work calls it before it starts.
    """
    if stated is not None:
        return _stated(stated)
    if tagged is None:
        raise InputError(
            "STAC: neither PAN nor MS says when it was acquired (tag ACQUISITIONDATETIME), and an item needs "
            "it; give it with --acquired 2024-05-01T10:20:30Z"
        )
    return tagged


def item(
    product: Path, contract: Contract, when: Acquired, *, sources: Sequence[Name], picture: Path | None = None
) -> Json:
    """The item of a product, to be written into its folder; its name without extension is the item's id.

    `sources` are the files it was made from, `picture` a quick look in the same folder. Raises SceneError
    when the product cannot be read.
    """
    with open_raster(product) as file:
        document: Json = {
            "type": "Feature",
            "stac_version": VERSION,
            "id": product.stem,
            **_footprint(file),
            "properties": _times(when) | _acquisition(read_tags(file)) | _processing(contract, sources),
            "links": [],
            "assets": {"image": _image(file, product, contract)},
        }
    if picture:
        document["assets"]["thumbnail"] = {
            "href": f"./{picture.name}",
            "type": "image/png",
            "roles": ["thumbnail"],
        }
    used = {key.split(":")[0] for key in _keys(document)}
    return document | {"stac_extensions": [url for prefix, url in _EXTENSIONS.items() if prefix in used]}


def write(path: Path, document: Json) -> None:
    """Write an item as JSON. Raises OutputError when it cannot be written."""
    with publish(path) as part:
        part.write_text(
            json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8"
        )


def _keys(value: Any) -> Iterator[str]:
    """The names of all fields, at any depth."""
    if isinstance(value, Mapping):
        yield from value
    if isinstance(value, Mapping | list):
        for inner in value.values() if isinstance(value, Mapping) else value:
            yield from _keys(inner)


# --- properties ---


def _stated(text: str) -> Acquired:
    times = [parse_time(part) for part in text.split("/")]
    first, last = times[0], times[-1]
    if not first or not last or len(times) > 2 or last < first:
        raise InputError(
            f"--acquired: '{text}' is no time; write 2024-05-01T10:20:30Z, or two such, the earlier first, "
            "with a / between"
        )
    return first, last


def _times(when: Acquired) -> Json:
    first, last = (_rfc3339(time) for time in when)
    return (
        {"datetime": first}
        if first == last
        else {"datetime": None, "start_datetime": first, "end_datetime": last}
    )


def _rfc3339(time: datetime) -> str:
    return time.isoformat().replace("+00:00", "Z")


def _acquisition(tags: Mapping[str, Mapping[str, str]]) -> Json:
    """What GDAL's domain IMAGERY states of the satellite and of clouds, percent."""
    imagery = tags.get("IMAGERY", {})
    found: Json = {"platform": imagery["SATELLITEID"].lower()} if imagery.get("SATELLITEID") else {}
    clouds = _number(imagery.get("CLOUDCOVER"))
    return found | ({"eo:cloud_cover": clouds} if clouds is not None and 0 <= clouds <= 100 else {})


def _processing(contract: Contract, sources: Sequence[Name]) -> Json:
    names = " and ".join(map(title, sources))
    method = contract.network.get("method")
    by = f"{method}" if method else f"the network SFIIN (checkpoint SHA-256 {contract.checkpoint})"
    return {
        "processing:software": {"sfiin": sfiin.__version__},
        "processing:lineage": f"{names} pan-sharpened by {by}",
    }


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if math.isfinite(number) else None


# --- the image ---


def _image(file: Any, product: Path, contract: Contract) -> Json:
    cog = file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == "COG"
    return {
        "href": f"./{product.name}",
        "type": f"{_MEDIA_TYPE}; profile=cloud-optimized" if cog else _MEDIA_TYPE,
        "roles": ["data"],
        "data_type": file.dtypes[0],
        **_nodata(file),
        "raster:sampling": "area",
        **_resolution(file),
        "bands": [_band(file, i, name) for i, name in zip(file.indexes, contract.sensor.bands, strict=True)],
        **_projection(file),
        "file:size": product.stat().st_size,
        "file:checksum": _SHA256 + sha256(product),
    }


def _nodata(file: Any) -> Json:
    nodata = file.nodata
    if nodata is None:
        return {}
    if not math.isfinite(nodata):
        return {"nodata": str(nodata)}
    return {"nodata": int(nodata) if nodata.is_integer() else nodata}


def _resolution(file: Any) -> Json:
    """The pixels' size in metres, where the map has a unit of length: the mean of both sides."""
    if not (is_located(file) and file.crs and file.crs.is_projected):
        return {}
    metres = file.crs.linear_units_factor[1]
    return {"raster:spatial_resolution": float(np.sqrt(abs(file.transform.determinant))) * metres}


def _band(file: Any, index: int, name: str) -> Json:
    imagery = file.tags(index, ns="IMAGERY")
    facts = {
        "name": file.descriptions[index - 1] or name,
        "unit": file.units[index - 1] or None,
        "raster:bits_per_sample": _number(file.tags(index, ns="IMAGE_STRUCTURE").get("NBITS")),
        "raster:scale": file.scales[index - 1],
        "raster:offset": file.offsets[index - 1],
        "eo:common_name": _COMMON_NAMES.get(name.casefold()),
        "eo:center_wavelength": _number(imagery.get("CENTRAL_WAVELENGTH_UM")),
        "eo:full_width_half_max": _number(imagery.get("FWHM_UM")),
    }
    return {key: _integral(value) for key, value in facts.items() if value is not None}


def _integral(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _projection(file: Any) -> Json:
    facts: Json = {"proj:shape": list(file.shape)}
    if not file.crs:
        return {"proj:code": None} | facts
    authority = file.crs.to_authority()
    facts |= (
        {"proj:code": ":".join(authority)} if authority else {"proj:code": None, "proj:wkt2": _wkt2(file.crs)}
    )
    if is_located(file):
        facts |= {"proj:transform": list(file.transform)[:6], "proj:bbox": list(_bounds(_outline(file)))}
    return facts


def _wkt2(crs: Any) -> str | None:
    try:
        text: str = crs.to_wkt(version="WKT2_2019")
    except CRSError:
        return None
    return text


# --- where it lies ---


def _footprint(file: Any) -> Json:
    """The members `geometry` and, if that is not null, `bbox`."""
    crs = _map_of(file)
    if crs is None:
        return {"geometry": None}
    outline = {"type": "Polygon", "coordinates": [_outline(file)]}
    found = transform_geom(crs, "EPSG:4326", outline, precision=_DEGREES)
    polygons = found["coordinates"] if found["type"] == "MultiPolygon" else [found["coordinates"]]
    polygons = [[_counterclockwise(ring) for ring in polygon] for polygon in polygons]
    geometry = {**found, "coordinates": polygons if found["type"] == "MultiPolygon" else polygons[0]}
    return {"geometry": geometry, "bbox": _bbox([_bounds(polygon[0]) for polygon in polygons])}


def _bbox(parts: list[Bounds]) -> list[float]:
    """The box around parts of an outline; across the antimeridian its west is the larger number (RFC 7946,
    5.2)."""
    parts = sorted(parts, key=lambda part: part[0] < 0) if len(parts) > 1 else parts
    return [parts[0][0], min(part[1] for part in parts), parts[-1][2], max(part[3] for part in parts)]


def _map_of(file: Any) -> Any:
    """The CRS in which `_outline` is, or None if nothing says where the image lies."""
    if is_located(file):
        return file.crs
    if file.gcps[0]:
        return file.gcps[1]
    return rasterio.CRS.from_epsg(4326) if file.rpcs else None


def _outline(file: Any) -> list[tuple[float, float]]:
    """The image's edge as a closed ring of map coordinates, from the upper left corner by way of the lower
    left."""
    height, width = file.shape
    corners = [(0, 0), (height, 0), (height, width), (0, width), (0, 0)]
    steps = np.arange(_EDGE_POINTS) / _EDGE_POINTS
    edges = [np.outer(1 - steps, one) + np.outer(steps, other) for one, other in pairwise(corners)]
    rows, cols = np.concatenate([*edges, [corners[0]]]).T
    xs, ys = _to_map(file, rows, cols)
    return list(zip(map(float, xs), map(float, ys), strict=True))


def _to_map(file: Any, rows: Any, cols: Any) -> tuple[Any, Any]:
    """Pixel coordinates, from the upper left pixel's upper left corner, as map coordinates."""
    if is_located(file):
        a, b, c, d, e, f = tuple(file.transform)[:6]
        return c + a * cols + b * rows, f + d * cols + e * rows
    points, rpcs = file.gcps[0], file.rpcs
    with (
        GCPTransformer(points) if points else RPCTransformer(rpcs, rpc_height=rpcs.height_off) as transformer
    ):
        xs, ys = transformer.xy(rows, cols, offset="ul")
    return xs, ys


def _bounds(ring: Iterable[Sequence[float]]) -> Bounds:
    """West, south, east and north of a ring."""
    xs, ys = zip(*ring, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _counterclockwise(ring: list[Sequence[float]]) -> list[Sequence[float]]:
    """A ring in the order that RFC 7946, section 3.1.6, wants of an outline."""
    area = sum(x0 * y1 - x1 * y0 for (x0, y0), (x1, y1) in pairwise(ring))
    return ring if area > 0 else ring[::-1]

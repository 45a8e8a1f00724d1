"""What does a product take over from its scene's files, besides pixels and georeference?

From MS, band by band, in the model's order:
- names: the file's, else the model's; colours: by the model's name, else by the file's, else the file's
  colour interpretation, which is believed last because writers give it away (the first three of any bands
  become RGB);
- scale, offset and unit: digital numbers stay what they were, so they keep their meaning;
- tags of a band, and of the whole, except statistics, what describes the file itself (resolution for
  printing, software, sample range), and what an earlier run of sfiin left.

From PAN: tags of the acquisition (the domain IMAGERY, and such as name an acquisition) that MS lacks; RPCs
and ground control points, whose pixel coordinates move with the product's corner, because the product has
PAN's pixels.

The time of acquisition is GDAL's ACQUISITIONDATETIME (UTC where no zone is given), or the same under the name
ACQUISITION_DATETIME. TIFFTAG_DATETIME is carried but is no acquisition: TIFF 6.0 defines it as the file's
creation.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp

from sfiin.runtime.errors import SceneError

Tags = dict[str, dict[str, str]]
"""Names and values by domain; the default domain is ""."""

Acquired = tuple[datetime, datetime]
"""The earliest and the latest time of acquisition, aware of their zone."""

_IMAGERY = "IMAGERY"
_DOMAINS = ("", _IMAGERY)
_OF_THE_FILE = re.compile(
    r"AREA_OR_POINT|STATISTICS_.*|SFIIN_.*"
    r"|TIFFTAG_([XY]RESOLUTION|RESOLUTIONUNIT|SOFTWARE|M(IN|AX)SAMPLEVALUE)"
    r"|bidx|ns"  # which rasterio, in update_tags, takes for its own
)
_OF_THE_ACQUISITION = re.compile(r".*ACQUISITION.*|TIFFTAG_DATETIME", re.IGNORECASE)
_ACQUIRED = ("ACQUISITIONDATETIME", "ACQUISITION_DATETIME")
_TIME = re.compile(r"(\d{4})[-:](\d\d)[-:](\d\d)[T ](\d\d:\d\d:\d\d)(\.\d+)?\s*(Z|UTC|[+-]\d\d:?\d\d)?")
_TOGETHER = timedelta(minutes=1)

# GDAL knows the colours beyond red, green and blue since 3.10 only.
_COLOURS = {
    name: getattr(ColorInterp, kind, ColorInterp.undefined)
    for name, kind in {
        "coastal": "coastal",
        "blue": "blue",
        "green": "green",
        "yellow": "yellow",
        "red": "red",
        "rededge": "rededge",
        "nir": "nir",
        "nir1": "nir",
        "nir2": "nir",
    }.items()
}
_NO_COLOURS = (ColorInterp.gray, ColorInterp.palette, ColorInterp.alpha)


@dataclass(frozen=True, eq=False)
class Metadata:
    """Everything the product takes over; sequences have one item per band.

    `rpcs` is rasterio's RPC or None, `gcps` ground control points and their CRS or None. `acquired` is what
    the files state, or None.
    """

    names: tuple[str, ...]
    colours: tuple[ColorInterp, ...]
    scales: tuple[float, ...]
    offsets: tuple[float, ...]
    units: tuple[str, ...]
    tags: Tags
    band_tags: tuple[Tags, ...]
    rpcs: Any
    gcps: tuple[list[Any], Any] | None
    acquired: Acquired | None

    def write(self, product: Any) -> None:
        """Write all of it to an open product of as many bands; before its pixels, so that it stays one
        file."""
        product.descriptions = self.names
        product.colorinterp = self.colours
        product.scales, product.offsets, product.units = self.scales, self.offsets, self.units
        for index, tags in enumerate((self.tags, *self.band_tags)):
            for domain, items in tags.items():
                product.update_tags(index, domain or None, **items)
        if self.rpcs:
            product.rpcs = self.rpcs
        if self.gcps:
            product.gcps = self.gcps

    @property
    def notes(self) -> list[str]:
        """What is to be said about the files' metadata, a sentence each."""
        if not self.acquired or self.acquired[1] - self.acquired[0] <= _TOGETHER:
            return []
        first, last = (time.isoformat(" ") for time in self.acquired)
        return [f"PAN and MS were acquired at {first} and {last}: what moved in between shows twice"]


def gather(pan: Any, ms: Sequence[tuple[Any, int]], wanted: Sequence[str], row: int, col: int) -> Metadata:
    """Collect from PAN, MS bands (open raster and index) and the model's band names.

    The product begins at PAN's pixel (row, col). Raises SceneError when PAN has RPCs that cannot be read.
    """
    names = [file.descriptions[i - 1] for file, i in ms]
    colours = [file.colorinterp[i - 1] for file, i in ms]
    files = [*dict.fromkeys(file for file, _ in ms), pan]
    return Metadata(
        names=tuple(name or default for name, default in zip(names, wanted, strict=True)),
        colours=tuple(_colour(*band) for band in zip(wanted, names, colours, strict=True)),
        scales=tuple(file.scales[i - 1] for file, i in ms),
        offsets=tuple(file.offsets[i - 1] for file, i in ms),
        units=tuple(file.units[i - 1] or "" for file, i in ms),
        tags=_dataset_tags(files),
        band_tags=tuple(_tags(file, i) for file, i in ms),
        rpcs=_moved_rpcs(pan, row, col),
        gcps=_moved_gcps(pan.gcps, row, col),
        acquired=_acquired(files),
    )


def bits(ms: Iterable[tuple[Any, int]]) -> int | None:
    """Bits per sample of MS bands (NBITS) if all have fewer than their data type, else None."""
    declared = [int(file.tags(i, ns="IMAGE_STRUCTURE").get("NBITS", 0)) for file, i in ms]
    return max(declared) if all(declared) else None


def acquisition(tags: Mapping[str, Mapping[str, str]]) -> datetime | None:
    """The time of acquisition that tags state, or None."""
    stated = [tags.get(domain, {}).items() for domain in (_IMAGERY, "")]
    times = (parse_time(value) for items in stated for name, value in items if name.upper() in _ACQUIRED)
    return next((time for time in times if time), None)


def parse_time(text: str) -> datetime | None:
    """A time to the second as GDAL or ISO 8601 writes it, in UTC where no zone is given; None for anything
    else."""
    found = _TIME.fullmatch(text.strip())
    if not found:
        return None
    year, month, day, clock, fraction, zone = found.groups()
    try:
        time = datetime.fromisoformat(f"{year}-{month}-{day}T{clock}{_microseconds(fraction)}{_offset(zone)}")
    except ValueError:
        return None
    return time.astimezone(timezone.utc)


def read_tags(file: Any) -> Tags:
    """The tags of an open raster that a product takes over or has taken over."""
    return _tags(file, 0)


def _tags(file: Any, index: int) -> Tags:
    """The tags of band `index`, or of the file for 0, without those of the file itself and without empty
    domains."""
    found = {domain: file.tags(index, ns=domain or None) for domain in _DOMAINS}
    kept = {
        domain: {key: value for key, value in items.items() if not _OF_THE_FILE.fullmatch(key)}
        for domain, items in found.items()
    }
    return {domain: items for domain, items in kept.items() if items}


def _dataset_tags(files: Sequence[Any]) -> Tags:
    """MS' tags, the first file's before the next one's, then the acquisition's of PAN, which is the last
    file."""
    *ms, pan = map(read_tags, files)
    shared = {key: value for key, value in pan.get("", {}).items() if _OF_THE_ACQUISITION.fullmatch(key)}
    sources = [{**pan, "": shared}, *reversed(ms)]
    merged = {
        domain: {k: v for tags in sources for k, v in tags.get(domain, {}).items()} for domain in _DOMAINS
    }
    return {domain: items for domain, items in merged.items() if items}


def _colour(wanted: str, name: str | None, colour: ColorInterp) -> ColorInterp:
    for word in (wanted, name or ""):
        if word.casefold() in _COLOURS:
            return _COLOURS[word.casefold()]
    return ColorInterp.undefined if colour in _NO_COLOURS else colour


def _moved_rpcs(pan: Any, row: int, col: int) -> Any:
    try:
        rpcs = pan.rpcs
    except (KeyError, ValueError) as error:
        raise SceneError(f"{pan.name}: its RPCs cannot be read ({error}); mend or remove them") from error
    if rpcs is None:
        return None
    moved = copy.copy(rpcs)
    moved.line_off, moved.samp_off = rpcs.line_off - row, rpcs.samp_off - col
    return moved


def _moved_gcps(gcps: tuple[list[Any], Any], row: int, col: int) -> tuple[list[Any], Any] | None:
    points, crs = gcps
    moved = [GroundControlPoint(p.row - row, p.col - col, p.x, p.y, p.z, p.id, p.info) for p in points]
    return (moved, crs) if moved else None


def _acquired(files: Sequence[Any]) -> Acquired | None:
    times = [time for time in (acquisition(read_tags(file)) for file in files) if time]
    return (min(times), max(times)) if times else None


def _microseconds(fraction: str | None) -> str:
    # Python 3.10 reads three or six digits only.
    return f"{fraction[:7]:0<7}" if fraction else ""


def _offset(zone: str | None) -> str:
    return f"{zone[:3]}:{zone[-2:]}" if zone and zone[0] in "+-" else "+00:00"

"""How does a sensor blur? Its modulation transfer function (MTF), as gains at MS' Nyquist frequency.

A gain is what is left there of a pattern's contrast, between 0 and 1: of each MS band, and of PAN where it is
reduced to MS' pixels. Those of QuickBird, IKONOS, GeoEye-1 and WorldView are the ones of the toolbox of G.
Vivone et al., "A New Benchmark Based on Recent Advances in Multispectral Pansharpening", IEEE GRSM 9 (2021).
The others have no published MTF that the field agrees on, and get that toolbox's defaults.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sfiin.runtime.errors import InputError
from sfiin.runtime.quality.degradation import OTHER_MS_GAIN, OTHER_PAN_GAIN

_COLOURS = ("blue", "green", "red", "nir")
_EIGHT = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2")

_SENSORS: Mapping[str, tuple[str, Mapping[str, float], float]] = {
    "quickbird": ("QuickBird", dict(zip(_COLOURS, (0.34, 0.32, 0.30, 0.22), strict=True)), 0.15),
    "ikonos": ("IKONOS", dict(zip(_COLOURS, (0.26, 0.28, 0.29, 0.28), strict=True)), 0.17),
    "geoeye1": ("GeoEye-1", dict.fromkeys(_COLOURS, 0.23), 0.16),
    "worldview2": ("WorldView-2", dict(zip(_EIGHT, (*[0.35] * 7, 0.27), strict=True)), 0.11),
    "worldview3": (
        "WorldView-3",
        dict(zip(_EIGHT, (0.325, 0.355, 0.360, 0.350, 0.365, 0.360, 0.335, 0.315), strict=True)),
        0.14,
    ),
    "worldview4": ("WorldView-4", dict.fromkeys(_COLOURS, 0.23), 0.16),
}
_ALIASES = {
    "qb02": "quickbird",
    "qb2": "quickbird",
    "quickbird2": "quickbird",
    "ikonos2": "ikonos",
    "ge01": "geoeye1",
    "ge1": "geoeye1",
    "geoeye": "geoeye1",
    "wv02": "worldview2",
    "wv2": "worldview2",
    "wv03": "worldview3",
    "wv3": "worldview3",
    "wv04": "worldview4",
    "wv4": "worldview4",
}
_TAGS = (
    "SATELLITEID",
    "SATID",
    "SATELLITE",
    "SPACECRAFT_ID",
    "SPACECRAFT_NAME",
    "MISSION",
    "PLATFORM",
    "SENSOR",
)


@dataclass(frozen=True)
class Mtf:
    """Gains of each MS band and of PAN, and what is to be said of where they are from, a sentence."""

    ms: tuple[float, ...]
    pan: float
    note: str


def of_scene(files: Iterable[Any], bands: Sequence[str], said: str | None = None) -> Mtf:
    """The MTF for a scene's open files and its bands' names.

    `said` is a sensor's name, or one gain for all bands, or one each, divided by ','; with `pan=` before the
    one of PAN. None: what the files' tags say. Raises InputError for anything else.
    """
    if said:
        return _said(said, bands)
    stated = [name for file in files for name in _stated(file)]
    found = next((known for name in stated if (known := _known(name))), None)
    if found:
        return _of_sensor(found, bands, "by its metadata")
    return Mtf(
        (OTHER_MS_GAIN,) * len(bands),
        OTHER_PAN_GAIN,
        f"no MTF is known{f' of {stated[0]}' if stated else ''}: gains of {OTHER_MS_GAIN} for MS and "
        f"{OTHER_PAN_GAIN} for PAN are taken; --mtf says others",
    )


def _known(name: str) -> str | None:
    word = re.sub(r"[^a-z0-9]", "", name.casefold())
    word = _ALIASES.get(word, word)
    return word if word in _SENSORS else None


def _of_sensor(key: str, bands: Sequence[str], how: str) -> Mtf:
    name, gains, pan = _SENSORS[key]
    mean = sum(gains.values()) / len(gains)
    each = tuple(gains.get("nir" if band == "nir1" else band, mean) for band in bands)
    return Mtf(each, pan, f"the MTF is {name}'s, {how}")


def _stated(file: Any) -> list[str]:
    """What an open file's tags say of the satellite."""
    tags = [
        (key.upper(), value) for ns in ("IMAGERY", "IMD", None) for key, value in file.tags(ns=ns).items()
    ]
    found = [value.strip().strip('"') for wanted in _TAGS for key, value in tags if key.endswith(wanted)]
    return [value for value in found if value]


def _said(text: str, bands: Sequence[str]) -> Mtf:
    found = _known(text)
    if found:
        return _of_sensor(found, bands, "by --mtf")
    parts = [part.strip() for part in text.split(",")]
    fine = [part.removeprefix("pan=") for part in parts if part.startswith("pan=")]
    try:
        gains, pan = (
            [float(part) for part in parts if not part.startswith("pan=")],
            [float(part) for part in fine],
        )
    except ValueError:
        gains, pan = [], []
    right = len(gains) in (1, len(bands)) and len(pan) <= 1 and all(0 < gain < 1 for gain in (*gains, *pan))
    if not right:
        raise InputError(
            f"--mtf {text}: give a sensor ({', '.join(_SENSORS)}), or gains at Nyquist between 0 and 1: one, "
            f"or one for each of {', '.join(bands)}, and pan=GAIN"
        )
    each = tuple(gains if len(gains) == len(bands) else gains * len(bands))
    return Mtf(each, pan[0] if pan else OTHER_PAN_GAIN, f"the MTF is {text}, by --mtf")

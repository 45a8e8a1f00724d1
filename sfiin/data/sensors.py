"""Which sensors does the toolkit know, what do they deliver, and how do they blur?

The data is in `sensors.toml` beside this file, whose head explains the fields. A user's own sensor is a TOML
file with one such table.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import ContractError, InputError
from sfiin.runtime.toml import parse

_FIELDS = {"bands", "ratio", "bits", "scale", "ms_gain", "pan_gain", "aliases"}
_COLOURS = {"b": "blue", "g": "green", "r": "red", "y": "yellow", "n": "nir"}


@dataclass(frozen=True)
class Sensor:
    """A sensor's profile and its modulation transfer function: gains at the MS Nyquist frequency, MS band
    by band."""

    profile: SensorProfile
    ms_gains: tuple[float, ...]
    pan_gain: float
    aliases: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The profile's name."""
        return self.profile.name

    def is_called(self, name: str) -> bool:
        """Whether this is the sensor's name or an alias, in any spelling of case."""
        return name.casefold() in (spelling.casefold() for spelling in (self.name, *self.aliases))


def load(path: Path) -> dict[str, Sensor]:
    """Read sensors from a TOML file, one table each. Raises InputError that names the file, the table and
    the field."""
    try:
        document = parse(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise InputError(f"{path}: no such sensor file") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a TOML file of sensors: {error}") from None
    if not document or not all(isinstance(table, dict) for table in document.values()):
        raise InputError(f"{path}: a sensor file holds tables, [name], with {', '.join(sorted(_FIELDS))}")
    return {name: _sensor(name, table, f"{path}: [{name}]") for name, table in document.items()}


def find(name: str) -> Sensor:
    """The sensor of this name or alias, or the one sensor of a TOML file. Raises InputError with what is
    known."""
    if name.endswith(".toml"):
        found = load(Path(name))
        if len(found) > 1:
            raise InputError(
                f"{name}: holds {len(found)} sensors ({', '.join(found)}); keep the one that is meant"
            )
        return next(iter(found.values()))
    sensor = known(name)
    if sensor is None:
        raise InputError(f"unknown sensor '{name}'; known: {', '.join(SENSORS)}, or a TOML file")
    return sensor


def known(name: str) -> Sensor | None:
    """The shipped sensor of this name or alias, in any spelling of case, if there is one."""
    return next((sensor for sensor in SENSORS.values() if sensor.is_called(name)), None)


def band_name(text: str) -> str:
    """A band's name as the profiles spell it: 'B' is 'blue', 'RedEdge' is 'rededge'."""
    return _COLOURS.get(text.casefold(), text.casefold())


def _sensor(name: str, table: dict[str, Any], where: str) -> Sensor:
    unknown = sorted(set(table) - _FIELDS)
    missing = sorted({"bands", "ratio", "bits"} - set(table))
    if unknown or missing:
        problem = f"unknown field '{unknown[0]}'" if unknown else f"missing field '{missing[0]}'"
        raise InputError(f"{where}: {problem}; a sensor has {', '.join(sorted(_FIELDS))}")
    bands, aliases = (_texts(table, key, where) for key in ("bands", "aliases"))
    ratio, bits = (_whole(table, key, where) for key in ("ratio", "bits"))
    given = table.get("ms_gain", 0.3)
    gains = tuple(given) if isinstance(given, list) else (given,) * len(bands)
    if len(gains) != len(bands):
        raise InputError(f"{where}: ms_gain has {len(gains)} values for {len(bands)} bands")
    pan_gain = table.get("pan_gain", 0.15)
    for gain in (*gains, pan_gain):
        if not _number(gain) or not 0 < gain < 1:
            raise InputError(f"{where}: a gain lies between 0 and 1, not {gain!r}")
    scale = table.get("scale", (1 << bits) - 1 if 0 < bits <= 32 else 1)
    if not _number(scale) or not math.isfinite(scale):
        raise InputError(f"{where}: scale is a number, not {scale!r}")
    try:
        profile = SensorProfile(name, bands, ratio, bits, float(scale))
    except ContractError as error:
        raise InputError(f"{where}: {error}") from None
    return Sensor(profile, tuple(map(float, gains)), float(pan_gain), aliases)


def _texts(table: dict[str, Any], key: str, where: str) -> tuple[str, ...]:
    value = table.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise InputError(f"{where}: {key} is a list of names, not {value!r}")
    return tuple(value)


def _whole(table: dict[str, Any], key: str, where: str) -> int:
    value = table[key]
    if not isinstance(value, int) or isinstance(value, bool):
        raise InputError(f"{where}: {key} is a whole number, not {value!r}")
    return value


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


SENSORS: dict[str, Sensor] = load(Path(__file__).with_name("sensors.toml"))

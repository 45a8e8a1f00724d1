"""What do the pairs of a set mean: which bands in which order, in which range, on which peak are they judged?

That is taken from what the pairs say of themselves (`meta`), or from what the user says, or it is guessed,
and the guess is said. Fractions become digital numbers. A set whose numbers cannot be the sensor's is refused
with them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfiin.data import fitting, reading, sensors
from sfiin.data.pairs import Image, Pair, from_raw
from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import InputError

OVERSHOOT = 1.1
"""By how much values may exceed a sensor's peak: filters overshoot at edges."""

FARTHEST = 6.0
"""How many times as bright as MS PAN may be, or the other way; scenes of nine sensors stay below 3."""

_BITS = (8, 10, 11, 12, 14, 16)


@dataclass(frozen=True)
class Given:
    """What the user says of a set: the bands' names in order, and the bits of its digital numbers."""

    bands: tuple[str, ...] | None = None
    bits: int | None = None


@dataclass(frozen=True)
class DataSet:
    """Pairs in a sensor's order of bands, DN, with their own `peak` in `meta`; and what was guessed."""

    pairs: list[Pair]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Range:
    """What the values of a set are, all pairs together."""

    low: float
    high: float
    whole: bool

    @property
    def fractions(self) -> bool:
        """Whether they are shares of the peak, as loaders divide them."""
        return 0 < self.high <= 1.5 and self.low >= -0.1 and not self.whole

    @property
    def negative(self) -> bool:
        """Whether they go below zero by more than a filter overshoots."""
        return self.low < -0.05 * max(self.high, 0.0)


def read(folder: Path, profile: SensorProfile, given: Given | None = None) -> DataSet:
    """A folder's pairs of the sensor's bands and ratio. Raises InputError when there is none, or a range is
    wrong."""
    found = [from_raw(raw, profile.ratio) for raw in reading.read_folder(folder)]
    pairs = [pair for pair in found if (len(pair.ms), pair.ratio) == (len(profile.bands), profile.ratio)]
    if not pairs:
        raise InputError(none_fits(folder, found, profile))
    return meant(pairs, profile, given or Given(), str(folder))


def none_fits(folder: Path, found: Sequence[Pair], profile: SensorProfile) -> str:
    """Why none of the pairs serves a sensor."""
    kinds = sorted({(len(pair.ms), pair.ratio) for pair in found})
    wanted = f"no pair of {len(profile.bands)} bands at ratio {profile.ratio}"
    if kinds:
        there = ", ".join(f"{bands} bands at ratio {ratio}" for bands, ratio in kinds)
        return f"{folder}: {wanted} (of {len(found)} pairs there: {there}); name their sensor with --sensor"
    return f"{folder}: {wanted} (of 0 pairs there); {reading.describe(folder)}"


def meant(pairs: Sequence[Pair], profile: SensorProfile, given: Given, where: str) -> DataSet:
    """The pairs as the sensor has them, and what of it was guessed. Raises InputError for a range that cannot
    be."""
    said: list[str] = []
    for pair in pairs:
        if not all(np.isfinite(image).all() for image in _images(pair)):
            raise InputError(
                f"{where}: {pair.name}: holds values that are not finite; leave it out, or fill them"
            )
    ordered = [_in_order(pair, profile, given) for pair in pairs]
    if given.bands is None and not all("bands" in pair.meta for pair in pairs):
        said.append(
            f"{where}: bands are taken to be {', '.join(profile.bands)}, for the pairs do not name them "
            "(--bands)"
        )
    unsaid = [pair for pair in ordered if given.bits is None and _own_peak(pair) is None]
    guessed, note = _guess(unsaid, profile, where) if unsaid else (None, "")
    if note:
        said.append(note)
    silent = {id(pair) for pair in unsaid}
    result = []
    for pair in ordered:
        peak = guessed if id(pair) in silent else _peak(pair, given)
        _require_one_range(pair, where)
        result.append(_in_range(pair, float(peak or profile.peak), where))
    said += [note for pair in result for note in pair.meta.get("notes", ())]
    return DataSet(result, tuple(dict.fromkeys(said)))


def fitted(pair: Pair, profile: SensorProfile) -> Pair:
    """A pair in the range that a sensor's network knows: one of far fewer or of more bits is scaled to its
    peak."""
    factor = scale_of(pair, profile)
    return pair if factor == 1 else fitting.scaled(pair, factor)


def scale_of(pair: Pair, profile: SensorProfile) -> float:
    """By what a pair's DN are multiplied before a network of the sensor sees them.

    Data of a bit or two less are as dark scenes are, and stay as they are.
    """
    own = fitting.peak(pair, profile.peak)
    return 1.0 if profile.peak / 4 <= own <= profile.peak else profile.peak / own


def _in_order(pair: Pair, profile: SensorProfile, given: Given) -> Pair:
    if given.bands is not None:
        pair = dataclasses.replace(pair, meta={**pair.meta, "bands": list(given.bands)})
    names = [sensors.band_name(str(band)) for band in pair.meta.get("bands", ())]
    if sorted(names) != sorted(profile.bands):  # such as numbered ones: nothing is known of their order
        if given.bands is not None:
            raise InputError(
                f"--bands: {', '.join(names)} are not the sensor's {', '.join(profile.bands)}; give these"
            )
        return pair
    return fitting.in_order(pair, profile.bands)


def _own_peak(pair: Pair) -> int | None:
    found = fitting.peak(pair, -1)
    return None if found < 0 else found


def _peak(pair: Pair, given: Given) -> int:
    return (1 << given.bits) - 1 if given.bits is not None else fitting.peak(pair, 0)


def _guess(pairs: Sequence[Pair], profile: SensorProfile, where: str) -> tuple[int, str]:
    """The peak of pairs that do not say theirs, and what is to be said of it."""
    found = _range(pairs)
    if found.fractions or found.negative:  # the one becomes DN, the other is refused, pair by pair
        return profile.peak, ""
    if found.high > OVERSHOOT * profile.peak:
        fits = next((bits for bits in _BITS if found.high <= (1 << bits) - 1), None)
        hint = f"--bits {fits}" if fits else "the bits of its digital numbers with --bits"
        raise InputError(
            f"{where}: values range to {found.high:g}, but digital numbers of '{profile.name}' to "
            f"{profile.peak} only; say what range they have ({hint}), or name their sensor"
        )
    if found.high <= 255 and profile.peak > 4 * 255:
        return 255, (
            f"{where}: taken for 8 bits, for no value is above {found.high:g}; judged at a peak of 255 "
            "(--bits)"
        )
    return (
        profile.peak,
        f"{where}: taken for {profile.bits} bits, as '{profile.name}' has, for the pairs do not say (--bits)",
    )


def _in_range(pair: Pair, peak: float, where: str) -> Pair:
    found = _range([pair])
    meta: dict[str, Any] = {**pair.meta, "peak": peak}
    if found.fractions:
        meta["notes"] = (
            *meta.get("notes", ()),
            f"{where}: fractions of 0 to 1 were taken times {peak:g}, the peak (--bits)",
        )
        return dataclasses.replace(fitting.scaled(pair, peak), meta=meta)
    if found.negative or found.high > 2 * peak:
        raise InputError(
            f"{where}: {pair.name}: values range from {found.low:g} to {found.high:g}, not within 0 to "
            f"{peak:g}; give their range with --bits, or bring them to digital numbers"
        )
    return dataclasses.replace(pair, meta=meta)


def _require_one_range(pair: Pair, where: str) -> None:
    """Raise InputError for a pair whose images cannot be in one range: MS and truth are of equal
    brightness."""
    images = {"PAN": pair.pan, "MS": pair.ms} | ({} if pair.truth is None else {"the truth": pair.truth})
    means = {name: float(image.mean(dtype=np.float64)) for name, image in images.items()}
    for name, other, most in (("MS", "the truth", 2.0), ("PAN", "MS", FARTHEST)):
        if other in means and min(means[name], means[other]) > 0:
            factor = means[name] / means[other]
            if not 1 / most <= factor <= most:
                raise InputError(
                    f"{where}: {pair.name}: {name} and {other} are in different ranges: their means are "
                    f"{means[name]:.4g} and {means[other]:.4g}; bring both to the sensor's digital numbers"
                )


def _range(pairs: Sequence[Pair]) -> _Range:
    """The smallest and largest value of all images; a pair of zeros has the range of one DN."""
    lows, highs = zip(*((image.min(), image.max()) for pair in pairs for image in _images(pair)), strict=True)
    whole = not any("stored" in pair.meta for pair in pairs)  # which names a type of fractions only
    return _Range(float(np.min(lows)), float(np.max(highs)), whole)


def _images(pair: Pair) -> Iterator[Image]:
    yield from (image for image in (pair.pan, pair.ms, pair.truth) if image is not None)

"""How does a pair of one sensor become what a model of another expects?

Its bands are reordered by name, its DN scaled by the ratio of both peaks, and a large one is cut to its
middle.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from sfiin.data import sensors
from sfiin.data.pairs import Pair
from sfiin.runtime.errors import MismatchError


def in_order(pair: Pair, bands: Sequence[str]) -> Pair:
    """The pair with its bands, its truth's too, in the order of these names; as it is where its `meta` names
    none.

    Raises MismatchError for a pair of other bands.
    """
    if "bands" not in pair.meta:
        return pair
    found, wanted = (
        [sensors.band_name(str(band)) for band in names] for names in (pair.meta["bands"], bands)
    )
    if len(found) != len(pair.ms) or sorted(found) != sorted(wanted):
        raise MismatchError(f"{pair.name}: its bands are {', '.join(found)}, not {', '.join(wanted)}")
    order = [found.index(band) for band in wanted]
    truth = None if pair.truth is None else pair.truth[order]
    return dataclasses.replace(pair, ms=pair.ms[order], truth=truth, meta={**pair.meta, "bands": wanted})


def peak(pair: Pair, otherwise: int) -> int:
    """The largest DN that the pair's `meta` states, or that of the bit depth there, or else its sensor's, or
    else `otherwise`."""
    if "peak" in pair.meta:
        return round(float(pair.meta["peak"]))
    if "nominal_bits" in pair.meta:
        return int((1 << int(pair.meta["nominal_bits"])) - 1)
    sensor = sensors.known(str(pair.meta.get("sensor", "")))
    return otherwise if sensor is None else sensor.profile.peak


def scaled(pair: Pair, factor: float) -> Pair:
    """The pair with all DN, and the peak that it states, times `factor`."""
    truth = None if pair.truth is None else pair.truth * factor
    meta = {**pair.meta, "peak": pair.meta["peak"] * factor} if "peak" in pair.meta else pair.meta
    return dataclasses.replace(pair, pan=pair.pan * factor, ms=pair.ms * factor, truth=truth, meta=meta)


def central(pair: Pair, side: int) -> Pair:
    """The middle of the pair, at most `side` x `side` PAN pixels, cut along whole MS pixels."""
    ratio = pair.ratio
    height, width = (min(size, side // ratio) for size in pair.size)
    top, left = (pair.size[0] - height) // 2, (pair.size[1] - width) // 2
    coarse = (slice(None), slice(top, top + height), slice(left, left + width))
    fine = (slice(None), *(slice(part.start * ratio, part.stop * ratio) for part in coarse[1:]))
    truth = None if pair.truth is None else pair.truth[fine]
    return dataclasses.replace(pair, pan=pair.pan[fine], ms=pair.ms[coarse], truth=truth)

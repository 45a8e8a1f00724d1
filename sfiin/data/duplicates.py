"""Which images show the same ground twice? Found by what they share, at whatever offset.

Each window of 8 x 8 pixels gets a number from all of its values; the smallest of these numbers make an
image's sketch (Broder, "On the resemblance and containment of documents", 1997). The same window has the same
number wherever it lies, so images that overlap share part of their sketches. Images that were turned, scaled
or resampled are not found.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIDE = 8
"""Pixels of a window's side."""

KEPT = 256
"""Numbers in a sketch."""

LEAST = 0.03
"""The share of their sketches from which on two images count as overlapping; chance gives none."""

_ROW, _COLUMN, _MIX = (
    np.uint64(number) for number in (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xFF51AFD7ED558CCD)
)


@dataclass(frozen=True)
class Overlap:
    """Two images by name, and about what share of their ground they have in common, 0 to 1; 1: the same
    image."""

    first: str
    second: str
    share: float


def overlaps(images: Mapping[str, NDArray[Any]]) -> list[Overlap]:
    """All pairs of images (H, W) that share ground, the most first."""
    sketches = {name: sketch(image) for name, image in images.items()}
    holders: dict[int, list[str]] = {}
    for name, numbers in sketches.items():
        for number in numbers:
            holders.setdefault(int(number), []).append(name)
    together = {pair for names in holders.values() for pair in combinations(names, 2)}
    found = [Overlap(*pair, _share(*(sketches[name] for name in pair))) for pair in sorted(together)]
    return sorted((each for each in found if each.share >= LEAST), key=lambda each: -each.share)


def sketch(image: NDArray[Any]) -> NDArray[np.uint64]:
    """The smallest numbers of an image's windows, each once; none of windows without any contrast."""
    values = np.ascontiguousarray(image, np.float32)
    if min(values.shape) < SIDE:
        return np.empty(0, np.uint64)
    numbers = _mixed(values.view(np.uint32).astype(np.uint64))
    height, width = (side - SIDE + 1 for side in values.shape)
    rows = np.zeros((len(numbers), width), np.uint64)
    for at in range(SIDE):
        rows += numbers[:, at : at + width] * _power(_COLUMN, at)
    both = np.zeros((height, width), np.uint64)
    for at in range(SIDE):
        both += rows[at : at + height] * _power(_ROW, at)
    return np.unique(_mixed(both)[_has_contrast(values)])[:KEPT]


def _share(one: NDArray[np.uint64], other: NDArray[np.uint64]) -> float:
    """How much of the smaller set of windows is in the other, from the smallest numbers of their union."""
    union = np.union1d(one, other)[:KEPT]
    common = np.isin(union, one) & np.isin(union, other)
    return float(common.mean()) if len(union) else 0.0


def _mixed(numbers: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Numbers without order (the finaliser of MurmurHash3)."""
    found = (numbers ^ (numbers >> np.uint64(33))) * _MIX
    return np.asarray(found ^ (found >> np.uint64(29)))


def _power(base: np.uint64, exponent: int) -> np.uint64:
    return np.uint64(pow(int(base), exponent, 1 << 64))


def _has_contrast(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Whether a window, by its first pixel, holds more than one value: sea and gaps are the same
    everywhere."""
    height, width = (side - SIDE + 1 for side in values.shape)
    first = values[:height, :width]
    found = np.zeros((height, width), np.bool_)
    for at in range(1, SIDE):  # along both diagonals
        found |= values[at : at + height, at : at + width] != first
        found |= (
            values[at : at + height, SIDE - 1 - at : SIDE - 1 - at + width] != values[:height, SIDE - 1 :]
        )
    return found

"""How does a shift change over a scene? A smooth function of place through what windows say, most of which
must agree.

A constant is tried first, then a plane, then a surface of second degree, each only with three times as many
windows as it has numbers. Windows that are off are weighed down, and at last left out (least squares
reweighted by Cauchy's function).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

_TERMS = (1, 3, 6)
_ROUNDS = 20


@dataclass(frozen=True, eq=False)
class Drift:
    """A shift (row, column) as a polynomial of place.

    `numbers` (terms, 2) belong to 1, y, x, y^2, yx, x^2, where y and x go from -1 to 1 over the scene's
    `size` (height, width). `count` of the windows agree with it, of `seen`, to a median distance of `spread`;
    `most` is its largest length at any of these.
    """

    numbers: Array
    size: tuple[int, int]
    count: int
    seen: int
    spread: float
    most: float

    @property
    def mean(self) -> tuple[float, float]:
        """The mean over the scene."""
        row, col = self._over_the_scene().mean(0)
        return float(row), float(col)

    def _over_the_scene(self) -> Array:
        grid = np.linspace(0, 1, 9)
        rows, cols = np.meshgrid(grid * self.size[0], grid * self.size[1], indexing="ij")
        return self(rows.ravel(), cols.ravel())

    def farthest_from(self, shift: tuple[float, float]) -> float:
        """The largest distance from one shift, over the scene."""
        return float(np.hypot(*(self._over_the_scene() - shift).T).max())

    @property
    def is_majority(self) -> bool:
        """Whether more than half of the windows agree."""
        return 2 * self.count > self.seen

    @property
    def is_constant(self) -> bool:
        """Whether it is the same everywhere."""
        return len(self.numbers) == 1

    def __call__(self, rows: Array, cols: Array) -> Array:
        """The shift (n, 2) at places (n,)."""
        terms = _terms(np.stack([rows, cols], axis=-1), self.size, len(self.numbers))
        shift: Array = terms @ self.numbers
        return shift


def read(document: Mapping[str, Any]) -> Drift:
    """The drift of a run's document, as far as it is needed to move MS by it."""
    numbers = np.array(document["numbers"], np.float64)
    height, width = document["size"]
    return Drift(numbers, (height, width), 0, 0, 0.0, 0.0)


def fit(
    places: Array, shifts: Array, size: tuple[int, int], tolerance: float, enough: int
) -> tuple[Drift, Drift] | None:
    """The simplest drift with which most windows agree to within `tolerance` (else that with which most do),
    and the one that follows them best: one with more terms must win a fifth more of them.

    `places` and `shifts` are (n, 2). None where fewer than `enough` agree on anything.
    """
    found = [
        _fit(places, shifts, size, tolerance, terms)
        for terms in _TERMS
        if len(places) >= max(enough, 3 * terms)
    ]
    usable = [drift for drift in found if drift.count >= enough]
    if not usable:
        return None
    best = usable[0]
    for drift in usable[1:]:
        best = drift if drift.count > 1.2 * best.count else best
    return next((drift for drift in usable if drift.is_majority), best), best


def _fit(places: Array, shifts: Array, size: tuple[int, int], tolerance: float, terms: int) -> Drift:
    matrix = _terms(places, size, terms)
    numbers = np.zeros((terms, 2))
    numbers[0] = np.median(shifts, axis=0)
    for _ in range(_ROUNDS):
        apart = np.hypot(*(shifts - matrix @ numbers).T)
        weight = 1 / (1 + (apart / (tolerance / 2)) ** 2)
        numbers = np.linalg.lstsq(
            matrix * np.sqrt(weight)[:, None], shifts * np.sqrt(weight)[:, None], rcond=None
        )[0]
    apart = np.hypot(*(shifts - matrix @ numbers).T)
    agree = apart <= tolerance
    lengths = np.hypot(*(matrix @ numbers)[agree].T) if agree.any() else np.zeros(1)
    spread = float(np.median(apart[agree])) if agree.any() else 0.0
    return Drift(numbers, size, int(agree.sum()), len(places), spread, float(lengths.max()))


def _terms(places: Array, size: tuple[int, int], count: int) -> Array:
    y, x = (2 * places[:, axis] / max(size[axis], 1) - 1 for axis in (0, 1))
    return np.stack([np.ones_like(y), y, x, y * y, y * x, x * x][:count], axis=-1)

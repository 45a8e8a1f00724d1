"""Which values does no sensor deliver? They are no data, counted, and said.

One pixel of 1e10, or an undeclared -9999, spreads over a whole tile, as a frequency branch sees all of it. A
sensor of so many bits delivers numbers from 0 to its peak; calibration makes some of them negative or larger.
What lies below minus `BELOW` peaks is no light. Nor is, of floats, what lies beyond `ABOVE` peaks. Of
integers, which are often reflectances times 10000, it is what lies beyond `ABOVE_INTEGER`, and the type's
largest value, by which many writers mean that there is nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import DTypeLike, NDArray

from sfiin.runtime.errors import SceneError

ABOVE, ABOVE_INTEGER, BELOW = 4.0, 10.0, 0.1
"""Of the sensor's peak."""

_FILL = 1e20  # what is as large in a float is no number of anything

_MOST = 100_000  # places that are remembered, so that overlapping windows count a pixel once


@dataclass(eq=False)
class Outliers:
    """The values of one file that no sensor delivers, between `low` and `high` DN being what one does.

    From `fill` DN on they say of themselves that they are none; `least` is the least that the file's type can
    hold. With `refuse` they are an error instead of no data.
    """

    low: float
    high: float
    fill: float
    least: float
    refuse: bool = False
    _places: set[tuple[int, int]] = field(default_factory=set)
    _extreme: float = 0.0

    @classmethod
    def of(
        cls, peak: float, refuse: bool = False, dtype: DTypeLike = np.float32, gain: float = 1.0
    ) -> Outliers:
        """Those of a file of a type for a sensor's peak, in DN; `gain` DN are one of the file's numbers."""
        kind = np.dtype(dtype)
        if kind.kind not in "ui":
            return cls(-BELOW * peak, ABOVE * peak, _FILL, -np.inf, refuse)
        least, most = (float(np.float32(bound) * gain) for bound in (np.iinfo(kind).min, np.iinfo(kind).max))
        if most <= ABOVE * peak:
            return cls(-BELOW * peak, np.inf, np.inf, least, refuse)
        return cls(-BELOW * peak, min(ABOVE_INTEGER * peak, most * (1 - 1e-6)), most, least, refuse)

    @property
    def possible(self) -> bool:
        """Whether the file's type can hold any."""
        return self.least < self.low or self.fill < np.inf

    @property
    def count(self) -> int:
        """Pixels with such values that were met so far, at most `_MOST`."""
        return len(self._places)

    @property
    def extreme(self) -> float:
        """The value farthest from 0 of them, in DN."""
        return self._extreme

    def is_light(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Where values in DN are what a sensor delivers."""
        within: NDArray[np.bool_] = (values >= self.low) & (values <= self.high)
        return within

    def sift(
        self, image: NDArray[np.float32], valid: NDArray[np.bool_], top: int, left: int, name: str
    ) -> None:
        """Take what is out of range out of `valid`, both (bands, height, width); the window begins at `top`,
        `left`.

        Raises SceneError with `refuse`.
        """
        with np.errstate(invalid="ignore"):
            odd = valid & ~self.is_light(image)
        if not odd.any():
            return
        extreme = float(max(image[odd].min(), image[odd].max(), key=abs))
        if self.refuse:
            raise SceneError(
                f"{name}: holds {extreme:g}, which no sensor delivers (from {self.low:g} to {self.high:g} DN "
                "at most); declare it as nodata, or leave --outliers out"
            )
        valid &= ~odd
        self._extreme = max(self._extreme, extreme, key=abs)
        if len(self._places) < _MOST:
            rows, cols = np.nonzero(odd.any(axis=0))
            self._places.update(zip((rows + top).tolist(), (cols + left).tolist(), strict=True))

    def notes(self, name: str) -> tuple[str, ...]:
        """What is to be said of them, a sentence."""
        count = self.count
        if not count:
            return ()
        least = "at least " if count >= _MOST else ""
        return (
            f"{least}{count} pixels of {name} are taken as no data: values up to {self._extreme:g}, "
            "which no sensor delivers",
        )

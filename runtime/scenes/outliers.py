"""Which values does no sensor deliver? They are no data, counted, and said.

One pixel of 1e10 in a float image, or an undeclared -9999, spreads over a whole tile, as a frequency branch
sees all of it. A sensor of so many bits delivers numbers from 0 to its peak; calibration makes some of them
negative or larger. What lies beyond `ABOVE` peaks, or below minus `BELOW` of one, is no light.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.errors import SceneError

ABOVE, BELOW = 4.0, 0.1
"""Of the sensor's peak."""

_MOST = 100_000  # places that are remembered, so that overlapping windows count a pixel once


@dataclass(eq=False)
class Outliers:
    """The values of one file that no sensor delivers, between `low` and `high` DN being what one does.

    With `refuse` they are an error instead of no data.
    """

    low: float
    high: float
    refuse: bool = False
    _places: set[tuple[int, int]] = field(default_factory=set)
    _extreme: float = 0.0

    @classmethod
    def of(cls, peak: float, refuse: bool = False) -> Outliers:
        """Those for a sensor's peak, in DN."""
        return cls(-BELOW * peak, ABOVE * peak, refuse)

    def sift(
        self, image: NDArray[np.float32], valid: NDArray[np.bool_], top: int, left: int, name: str
    ) -> None:
        """Take what is out of range out of `valid`, both (bands, height, width); the window begins at `top`,
        `left`.

        Raises SceneError with `refuse`.
        """
        with np.errstate(invalid="ignore"):
            odd = valid & ((image < self.low) | (image > self.high))
        if not odd.any():
            return
        extreme = float(max(image[odd].min(), image[odd].max(), key=abs))
        if self.refuse:
            raise SceneError(
                f"{name}: holds {extreme:g}, which no sensor delivers (from {self.low:g} to {self.high:g} DN at most); "
                "declare it as nodata, or leave --outliers out"
            )
        valid &= ~odd
        self._extreme = max(self._extreme, extreme, key=abs)
        if len(self._places) < _MOST:
            rows, cols = np.nonzero(odd.any(axis=0))
            self._places.update(zip((rows + top).tolist(), (cols + left).tolist(), strict=True))

    def notes(self, name: str) -> tuple[str, ...]:
        """What is to be said of them, a sentence."""
        count = len(self._places)
        if not count:
            return ()
        least = "at least " if count >= _MOST else ""
        return (
            f"{least}{count} pixels of {name} are taken as no data: values up to {self._extreme:g}, "
            "which no sensor delivers",
        )

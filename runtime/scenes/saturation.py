"""From which value on could the sensor count no further? That value is kept, and no product goes beyond it.

A sensor of so many bits delivers 2**bits - 1 for whatever is brighter, and the product's type often has more
bits than that: sharpened, a cloud of 4095 would become one of 4300, as if it had been measured. A band is
taken to be saturated at its largest value where that is such a number, and several pixels have it; or one
pixel, where the file declares so many bits (NBITS).

Where PAN is saturated, its detail is missing, not the bands' own values: that is counted and said.

At the other end, a sensor that counts light has no 0, which the world takes for "no data": where MS has none,
a product of an unsigned type has none, either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes.names import title
from sfiin.runtime.scenes.raster import reason
from sfiin.runtime.scenes.scene import Scene

BITS = (8, 10, 11, 12, 13, 14, 15, 16)
"""Of sensors and of products."""

ENOUGH = 4
"""Pixels that must have the largest value, where no bits are declared."""

_BYTES = 4 << 20  # read at once


@dataclass(frozen=True, eq=False)
class Levels:
    """Of each MS band (B,), in the files' numbers: the value at which it is saturated, infinity where it is
    not, and the least value that its product may have."""

    most: NDArray[np.float64]
    least: NDArray[np.float64]


@dataclass
class Peak:
    """The largest value of an image that is seen part by part, and how many pixels have it."""

    value: float = -np.inf
    count: int = 0

    def add(self, values: NDArray[Any]) -> None:
        """See another part."""
        if values.size:
            most = float(values.max())
            if most >= self.value:
                self.join(most, int((values == most).sum()))

    def join(self, value: float, count: int) -> None:
        """See another part, whose peak is known."""
        if value >= self.value:
            self.count = (self.count if value == self.value else 0) + count
            self.value = value

    def is_saturated(self, declared: int | None) -> bool:
        """Whether a sensor could count no further there; `declared` is how many bits the file says that it
        has, None for none."""
        full = any(self.value == (1 << bits) - 1 for bits in BITS)
        return full and self.count >= (1 if declared and self.value == (1 << declared) - 1 else ENOUGH)


def levels(scene: Scene) -> Levels:
    """The bands' levels. All of MS is read once. Raises SceneError for a damaged file."""
    found = [_levels(file, index, scene.brightest) for file, index in scene.ms_bands]
    return Levels(*np.array(found, np.float64).T)


def declared_bits(file: Any, index: int) -> int | None:
    """How many bits of its type a band says that it uses."""
    text = file.tags(index, ns="IMAGE_STRUCTURE").get("NBITS", "")
    return int(text) if text.isdigit() else None


def _levels(file: Any, index: int, brightest: float) -> tuple[float, float]:
    kind = np.dtype(file.dtypes[index - 1])
    if kind.kind not in "ui":
        return np.inf, -np.inf
    peak, least = Peak(), np.inf
    nodata = file.nodatavals[index - 1]
    lines = max(1, _BYTES // (file.width * kind.itemsize))
    for first in range(0, file.height, lines):
        window = Window(0, first, file.width, min(lines, file.height - first))
        try:
            values = file.read(index, window=window)
        except RasterioIOError as error:
            raise SceneError(
                f"{title(file.name)}: damaged or cut short ({reason(error)}); fetch it again"
            ) from error
        values = values if nodata is None else values[values != nodata]
        values = values[values <= brightest]
        if values.size:
            peak.add(values)
            least = min(least, float(values.min()))
    return (
        peak.value if peak.is_saturated(declared_bits(file, index)) else np.inf,
        1.0 if kind.kind == "u" and 0 < least < np.inf else -np.inf,
    )


def notes(bands: Sequence[str], level: NDArray[np.float64]) -> tuple[str, ...]:
    """What is to be said of saturated bands, a sentence."""
    found = [f"{name} at {value:.0f}" for name, value in zip(bands, level, strict=True) if np.isfinite(value)]
    return (
        (f"MS is saturated: {', '.join(found)}; there the product is so, too, and nowhere above",)
        if found
        else ()
    )


def pan_notes(scene: Scene, peak: Peak) -> tuple[str, ...]:
    """What is to be said of a saturated PAN, a sentence; `peak` is of its valid pixels, in DN."""
    file = scene.datasets[0]
    if np.dtype(file.dtypes[0]).kind not in "ui" or not np.isfinite(peak.value):
        return ()
    own = Peak(round(peak.value / scene.gain), peak.count)
    if not own.is_saturated(declared_bits(file, 1)):
        return ()
    return (
        f"PAN is saturated: {own.count} pixels at {own.value:.0f}; there the product has MS' colours, but "
        "lacks detail",
    )


def kept(
    fused: NDArray[np.float32], ms: NDArray[np.float32], level: NDArray[np.float64], gain: float
) -> NDArray[np.float32]:
    """A fused tile (B, H, W) in which the pixels that MS (B, h, w) has saturated are so; `level` (B,) in the
    files' numbers, `gain` DN in one of these."""
    full = ms >= (level[:, None, None] - 0.5) * gain
    if not full.any():
        return fused
    ratio = fused.shape[-1] // ms.shape[-1]
    everywhere = full.repeat(ratio, axis=1).repeat(ratio, axis=2)
    values = (np.where(np.isfinite(level), level, 0) * gain).astype(np.float32)[:, None, None]
    result: NDArray[np.float32] = np.where(everywhere, values, fused)
    return result

"""From which value on could the sensor count no further? That value is kept, and no product goes beyond it.

A sensor of so many bits delivers 2**bits - 1 for whatever is brighter, and the product's type often has more
bits than that: sharpened, a cloud of 4095 would become one of 4300, as if it had been measured. A band is
taken to be saturated at its largest value where that is such a number, and several pixels have it.
"""

from __future__ import annotations

from collections.abc import Sequence
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
"""Pixels that must have the largest value."""

_BYTES = 4 << 20  # read at once


def levels(scene: Scene) -> NDArray[np.float64]:
    """For each MS band the value, in the files' numbers, at which it is saturated; infinity where none is.

    All of MS is read once. Raises SceneError for a damaged file.
    """
    return np.array([_level(file, index, scene.brightest) for file, index in scene.ms_bands])


def _level(file: Any, index: int, brightest: float) -> float:
    kind = np.dtype(file.dtypes[index - 1])
    if kind.kind not in "ui":
        return np.inf
    largest, count = -1, 0
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
        if not values.size:
            continue
        most = int(values.max())
        if most >= largest:
            count = (count if most == largest else 0) + int((values == most).sum())
            largest = most
    full = any(largest == (1 << bits) - 1 for bits in BITS)
    return float(largest) if full and count >= ENOUGH else np.inf


def notes(bands: Sequence[str], level: NDArray[np.float64]) -> tuple[str, ...]:
    """What is to be said of saturated bands, a sentence."""
    found = [f"{name} at {value:.0f}" for name, value in zip(bands, level, strict=True) if np.isfinite(value)]
    return (
        (f"MS is saturated: {', '.join(found)}; there the product is so, too, and nowhere above",)
        if found
        else ()
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

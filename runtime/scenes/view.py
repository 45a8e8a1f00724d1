"""How are bands of one or more files seen on the scene's grid? As they are, or interpolated.

Where MS is interpolated, by cubic convolution, its validity goes by the nearest pixel.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.windows import Window

from sfiin.runtime.scenes.cubic import cubic
from sfiin.runtime.scenes.drift import Drift
from sfiin.runtime.scenes.grid import Axis
from sfiin.runtime.scenes.layer import Image, Layer, Mask


@dataclass(frozen=True, eq=False)
class View:
    """Bands of one or more files of one grid, seen on the scene's grid."""

    layers: Sequence[Layer]
    rows: Axis
    cols: Axis
    drift: Drift | None = None
    ratio: int = 1

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Image, Mask]:
        """Pixels (bands, height, width) float32, all finite, and where all bands are valid (height,
        width)."""
        if self.drift is not None:
            return self._read_drifted(self.drift, row, col, height, width)
        rows, cols = self.rows.taps(row, height), self.cols.taps(col, width)
        window, (top, left) = _window(rows, cols)
        image, everywhere = self._load(window)
        for axis, (taps, first) in enumerate([(rows, top), (cols, left)], start=-2):
            image = _apply(image, taps, first, axis)
        nearest = np.ix_(self.rows.nearest(row, height) - top, self.cols.nearest(col, width) - left)
        return image, everywhere[nearest]

    def _load(self, window: Window) -> tuple[Image, Mask]:
        """A window of the files, with gaps filled, and where all bands are valid."""
        image, valid = map(np.concatenate, zip(*(layer.load(window) for layer in self.layers), strict=True))
        return image, np.logical_and.reduce(valid)

    def _read_drifted(self, drift: Drift, row: int, col: int, height: int, width: int) -> tuple[Image, Mask]:
        """As `read`, each pixel from where its content lies, by cubic convolution."""
        down, right = np.meshgrid(
            (np.arange(row, row + height) + 0.5) * self.ratio,
            (np.arange(col, col + width) + 0.5) * self.ratio,
            indexing="ij",
        )
        by = drift(down.ravel(), right.ravel()).reshape(height, width, 2) / self.ratio
        places = (
            np.clip(
                self.rows.centres(row, height)[:, np.newaxis] - by[..., 0] * self.rows.step,
                0,
                self.rows.size - 1,
            ),
            np.clip(
                self.cols.centres(col, width)[np.newaxis, :] - by[..., 1] * self.cols.step,
                0,
                self.cols.size - 1,
            ),
        )
        nearest = [np.floor(place).astype(np.intp) for place in places]
        taps = [
            [
                (np.clip(first + k, 0, size - 1), cubic(place - first - k).astype(np.float32))
                for k in (-1, 0, 1, 2)
            ]
            for place, first, size in zip(places, nearest, (self.rows.size, self.cols.size), strict=True)
        ]
        window, (top, left) = _window(*taps)
        image, everywhere = self._load(window)
        total = np.zeros((len(image), height, width), np.float32)
        for (i, down_weight), (j, right_weight) in itertools.product(*taps):
            total += image[:, i - top, j - left] * (down_weight * right_weight)
        rows, cols = (
            np.clip(np.rint(place).astype(np.intp), 0, size - 1)
            for place, size in zip(places, (self.rows.size, self.cols.size), strict=True)
        )
        return total, everywhere[rows - top, cols - left]


def _window(rows: list[Any], cols: list[Any]) -> tuple[Window, tuple[int, int]]:
    """The smallest window of the file that holds all taps, and its first row and column."""
    (top, bottom), (left, right) = (
        (min(int(index.min()) for index, _ in taps), max(int(index.max()) for index, _ in taps))
        for taps in (rows, cols)
    )
    return Window(left, top, right - left + 1, bottom - top + 1), (top, left)


def _apply(image: Image, taps: list[Any], first: int, axis: int) -> Image:
    """Sum of weighted taps along an axis, -2 for rows or -1 for columns, of an image that begins at pixel
    `first`."""
    total: Image = np.zeros(1, np.float32)
    for index, weight in taps:
        shaped = weight[:, np.newaxis] if axis == -2 else weight
        total = total + np.take(image, index - first, axis) * shaped
    return total

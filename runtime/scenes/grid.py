"""Where do PAN and MS lie on the common grid, by their georeferences or their arrays?

The common grid has PAN's pixels; its MS pixels are `ratio` x `ratio` of them, beginning at a corner of a PAN
pixel. Along each axis, MS is brought there in one of two ways.

- As it is, when its own pixels lie there to within 0.05 PAN pixel, or when the arrays are exactly ratio:1 and
  the georeferences contradict that only by what files in circulation get wrong: their centres differ by less
  than half a PAN pixel, their ends by at most the (ratio - 1) / 2 pixels that arise where the outermost
  pixels' centres were written down as the edges. Where PAN begins inside an MS pixel, so does the product:
  the grid begins with the whole MS pixel, up to ratio - 1 pixels before.
- Otherwise by cubic convolution, so that Landsat's offset of half a PAN pixel comes out right.

The grid ends with the area both files cover; where MS ends less than one PAN pixel before PAN, with PAN.
Where the two lie is told by `sfiin.runtime.scenes.place`. Without any georeference they begin at one corner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.transform import Affine

from sfiin.runtime.errors import MismatchError, SceneError
from sfiin.runtime.scenes.cubic import cubic
from sfiin.runtime.scenes.place import NOWHERE, Relief, between, horizontal, relation
from sfiin.runtime.scenes.raster import is_located

__all__ = ["Axis", "Grid", "Span", "common_grid", "is_located", "moved"]

# In PAN pixels, unless said otherwise.
_ON_GRID = 0.05
_CENTRES = 0.45
_RATIO_ERROR = 0.02  # relative
_TURNED = 0.5  # of MS against PAN, over its size


@dataclass(frozen=True)
class Axis:
    """Where the grid's `count` pixels lie along one axis of a file of `size` pixels.

    Grid pixel i reaches from `origin + step * i` to `origin + step * (i + 1)`, in the file's pixels.
    """

    origin: float
    step: float
    count: int
    size: int

    @property
    def resampled(self) -> bool:
        """Whether grid pixels are other than the file's."""
        return self.step != 1 or self.origin != int(self.origin)

    @property
    def outside(self) -> int:
        """Whole pixels of the file that lie outside the grid."""
        first, last = max(0.0, self.origin), min(float(self.size), self.origin + self.step * self.count)
        return math.floor(first + _ON_GRID) + math.floor(self.size - last + _ON_GRID)

    def taps(self, start: int, length: int) -> list[tuple[NDArray[np.intp], NDArray[np.float32]]]:
        """File pixels and weights for grid pixels from `start`: one tap on the file's pixels, or cubic's
        four.

        Outside the grid, and outside the file, the outermost pixel repeats.
        """
        if not self.resampled:
            return [(self.nearest(start, length), np.ones(length, np.float32))]
        centre = self.centres(start, length)
        nearest = np.floor(centre)
        return [
            (
                np.clip(nearest + k, 0, self.size - 1).astype(np.intp),
                cubic(centre - nearest - k).astype(np.float32),
            )
            for k in (-1, 0, 1, 2)
        ]

    def nearest(self, start: int, length: int) -> NDArray[np.intp]:
        """The file pixels in which the centres of the grid pixels from `start` lie; on an edge, the later
        one."""
        return np.clip(np.floor(self.centres(start, length) + 0.5), 0, self.size - 1).astype(np.intp)

    def centres(self, start: int, length: int) -> NDArray[np.float64]:
        """The grid pixels' centres in units where file pixel i has its centre at i."""
        pixel = np.clip(np.arange(start, start + length), 0, self.count - 1)
        centres: NDArray[np.float64] = (
            np.clip(self.origin + self.step * (pixel + 0.5), 0.5, self.size - 0.5) - 0.5
        )
        return centres


@dataclass(frozen=True)
class Span:
    """One axis of the common grid: `count` PAN pixels from PAN's pixel `start`, MS' pixels `ms` on it.

    `lead` is how many pixels of the grid lie before PAN's first, so that it begins with a whole MS pixel.
    `ends` is where MS begins and ends by the georeferences, in PAN pixels.
    """

    start: int
    count: int
    ms: Axis
    ends: tuple[float, float]
    lead: int = 0


@dataclass(frozen=True)
class Grid:
    """The common grid of PAN and MS, and what is to be said about it, a sentence each."""

    rows: Span
    cols: Span
    notes: tuple[str, ...]


def common_grid(
    pan: Any, files: Sequence[Any], ratio: int, any_ratio: bool = False, relief: Relief = NOWHERE
) -> Grid:
    """The common grid of open rasters: PAN's, and those of the MS bands, which must share one grid.

    With `any_ratio` MS is resampled to the ratio; RPCs meet the ground at `relief`. Raises SceneError when
    they cannot be aligned, MismatchError when their pixel sizes have another ratio.
    """
    ms = files[0]
    for file in files[1:]:
        _check_same_grid(ms, file)
    matrix, told = relation(pan, ms, ratio, relief)
    (col_step, _, col), (_, row_step, row), _ = matrix
    if max(abs(matrix[0, 1]) * ms.height, abs(matrix[1, 0]) * ms.width) > _TURNED:
        raise SceneError(f"{ms.name}: MS is rotated or sheared against PAN; warp both onto parallel grids")
    if max(row_step, col_step) < 1:
        raise SceneError(f"{ms.name}: MS is finer than PAN; are PAN and MS swapped?")
    for step in (row_step, col_step):
        if not any_ratio and abs(step / ratio - 1) > _RATIO_ERROR:
            raise MismatchError(f"ratio: MS' pixels are {step:.3g} times PAN's, the model wants {ratio}")
    rows = _align(row, row_step, pan.height, ms.height, ratio)
    cols = _align(col, col_step, pan.width, ms.width, ratio)
    if rows.count < 1 or cols.count < 1:
        raise SceneError(f"{ms.name}: MS and PAN have no common area; are they of one acquisition?")
    return Grid(rows, cols, (*told, *_notes(pan, rows, cols)))


def moved(transform: Affine, row: int, col: int) -> Affine:
    """The transform of the part of an image that begins at (row, col)."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return Affine(a, b, c + a * col + b * row, d, e, f + d * col + e * row)


def _check_same_grid(first: Any, other: Any) -> None:
    corners = np.array([(0, 0, 1), (first.width, first.height, 1)]).T
    apart = np.abs(between(first, other) @ corners - corners).max()
    if first.shape != other.shape or horizontal(first.crs) != horizontal(other.crs) or apart > _ON_GRID:
        raise SceneError(f"{other.name}: not on the grid of {first.name}; MS bands must share one grid")


def _align(offset: float, step: float, pan: int, ms: int, ratio: int) -> Span:
    """One axis, along which MS begins at PAN coordinate `offset` and has pixels of `step`."""
    end = offset + step * ms
    whole, lead = _whole_offset(offset, end, pan, ms, ratio), 0
    if whole is not None:
        start, lead = max(whole, 0), max(-whole, 0) % ratio
        count = min(pan, whole + ratio * ms) - start
        origin, scale = float((start - lead - whole) // ratio), 1.0
    else:
        start = 0 if offset < 1 else math.ceil(offset - _ON_GRID)
        count = (pan if end > pan - 1 else math.floor(end + _ON_GRID)) - start
        origin, scale = (start - offset) / step, ratio / step
    return Span(start, count, Axis(origin, scale, -(-(lead + count) // ratio), ms), (offset, end), lead)


def _whole_offset(offset: float, end: float, pan: int, ms: int, ratio: int) -> int | None:
    """The PAN pixel at which MS' pixels begin if they can be used as they are, else None."""
    whole = round(offset)
    if max(abs(offset - whole), abs(end - whole - ratio * ms)) <= _ON_GRID:
        return whole
    low, high = offset, end - pan
    same_ends = max(abs(low), abs(high)) <= (ratio - 1) / 2 + _ON_GRID
    return 0 if pan == ratio * ms and abs(low + high) / 2 < _CENTRES and same_ends else None


def _notes(pan: Any, rows: Span, cols: Span) -> list[str]:
    notes = []
    lies = "by the georeferences MS lies at PAN's rows {:.2f} to {:.2f}, columns {:.2f} to {:.2f}"
    lies = lies.format(*rows.ends, *cols.ends)
    if rows.ms.resampled or cols.ms.resampled:
        notes.append(f"{lies}: it is interpolated onto PAN's grid by cubic convolution")
    elif max(abs(end - round(end)) for end in rows.ends + cols.ends) > _ON_GRID:
        notes.append(f"{lies}: its pixels are taken as they are, as the sizes are in the exact ratio")
    for one, other, lost in (
        ("PAN", "MS", (pan.height - rows.count, pan.width - cols.count)),
        ("MS", "PAN", (rows.ms.outside, cols.ms.outside)),
    ):
        if any(lost):
            notes.append(
                f"{one} covers more than {other}: {lost[0]} rows and {lost[1]} columns of {one} are left out"
            )
    return notes

"""Do the tiles' borders show in a product? Steps across them, beside steps where there is no border.

Along each axis, lines are where a tile begins or ends inside the scene. Across each, the mean square
difference of the two pixels is held against that of the lines a few pixels to either side, which see the same
ground. Their ratio, over all lines, is 1 where nothing shows, but for chance: its standard error comes from
the lines' spread. A product has seams where the ratio is above `LIMIT` and by more than three standard errors
above 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from sfiin.runtime.scenes.raster import open_raster
from sfiin.runtime.scenes.tiles import TilePlan

LIMIT = 1.1
ERRORS = 3.0

LINES = 200
"""Lines looked at per axis, evenly over all; more add nothing but time."""

_BESIDE = 6  # lines to either side that a border is held against
_FREE = 1  # pixels next to a border that are not: a step has a width
_LENGTH = 4096  # pixels of a line that are looked at in one piece

Axis = Literal["rows", "columns"]


@dataclass(frozen=True)
class Seams:
    """Along one axis: the ratio of energies at borders and beside them, its standard error, and how many
    lines.

    `ratio` is NaN where there is no line, or nothing but nodata or one value around them.
    """

    axis: Axis
    ratio: float
    error: float
    lines: int

    @property
    def shows(self) -> bool:
        """Whether there are seams."""
        return self.ratio > LIMIT and self.ratio - 1 > ERRORS * self.error


def measure(path: Path, tiles: TilePlan, lead: tuple[int, ...] = (0, 0)) -> tuple[Seams, Seams]:
    """The seam meter of a product that was made with these tiles: borders between rows of tiles, and columns.

    The tiles begin `lead` rows and columns before the product.
    Pixels without data are left out. Memory is bounded by some thousand pixels along a line. Raises
    SceneError.
    """
    with open_raster(path) as file:
        found = []
        for axis, starts, side, length, before in (
            ("rows", tiles.rows, tiles.tile.height, file.height, lead[0]),
            ("columns", tiles.cols, tiles.tile.width, file.width, lead[1]),
        ):
            lines = borders([start - before for start in starts], side, length)
            chosen = [
                lines[i]
                for i in np.unique(np.linspace(0, len(lines) - 1, min(LINES, len(lines))).astype(int))
            ]
            found.append(
                _judged("rows" if axis == "rows" else "columns", list(_energies(file, axis, chosen)))
            )
    return found[0], found[1]


def borders(starts: Sequence[int], side: int, length: int) -> list[int]:
    """Pixels at which a tile begins or has ended, far enough inside an axis of `length` to look beside
    them."""
    inside = {line for start in starts for line in (start, start + side)}
    return sorted(line for line in inside if _BESIDE < line < length - _BESIDE)


def _energies(file: Any, axis: str, lines: Sequence[int]) -> Iterator[tuple[float, float]]:
    """For each line, the sum of squared steps across it, and the mean of those across the lines beside it."""
    length = file.width if axis == "rows" else file.height
    for line in lines:
        first = line - _BESIDE - 1
        sums = np.zeros(2 * _BESIDE + 1)
        for at in range(0, length, _LENGTH):
            along = min(_LENGTH, length - at)
            across = 2 * _BESIDE + 2
            window = Window(at, first, along, across) if axis == "rows" else Window(first, at, across, along)
            sums += _steps(file, window, axis)
        control = [*range(_BESIDE - _FREE), *range(_BESIDE + _FREE + 1, 2 * _BESIDE + 1)]
        yield float(sums[_BESIDE]), float(sums[control].mean())


def _steps(file: Any, window: Window, axis: str) -> NDArray[np.float64]:
    """Sums of squared differences between neighbouring lines of a window, over bands and valid pixels."""
    image = file.read(window=window).astype(np.float64)
    valid = (file.dataset_mask(window=window) > 0) & np.isfinite(image).all(0)
    if axis == "columns":
        image, valid = image.swapaxes(1, 2), valid.T
    everywhere = valid.all(0)
    sums: NDArray[np.float64] = (np.diff(image[:, :, everywhere], axis=1) ** 2).sum((0, 2))
    return sums


def _judged(axis: Axis, energies: Sequence[tuple[float, float]]) -> Seams:
    at, beside = (
        (np.array(column) for column in zip(*energies, strict=True))
        if energies
        else (np.zeros(0), np.zeros(0))
    )
    if not beside.sum():
        return Seams(axis, math.nan, math.nan, len(energies))
    ratio = at.sum() / beside.sum()
    # The error of a ratio of sums (Cochran, Sampling Techniques, 1977, section 6.4).
    spread = at - ratio * beside
    count = len(energies)
    error = math.sqrt(count * (spread**2).sum() / max(count - 1, 1)) / beside.sum() if count > 1 else math.inf
    return Seams(axis, float(ratio), float(error), count)

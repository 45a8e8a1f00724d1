"""Where do the tiles of a scene lie, and how are they blended?

Along each axis, tile i hands over to tile i + 1 on a linear ramp R_i over the pixels the two share: 0 before
tile i + 1 begins, 1 from where tile i ends. Tile i weighs R_(i-1) - R_i, with R_(-1) = 1 and the last ramp 0.
The sum telescopes to one whatever the tiles share, also where the last tile, shifted back into the scene,
overlaps more than one other.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import ContractError

# Ramps take steps of 2**-11, so that products of two, and their sums up to one, are exact in float32's 24
# bits.
_STEPS = 1 << 11


@dataclass(frozen=True, eq=False)
class TilePlan:
    """Tiles of equal size over a scene of `height` x `width` PAN pixels.

    `rows` and `cols` are the tiles' first PAN pixels along each axis, ascending multiples of the ratio; every
    pair of them is a tile. `row_weights` (len(rows), tile.height) and `col_weights` (len(cols), tile.width),
    float32, multiply to a tile's blending weights, which sum to one at each pixel of the scene. Only a scene
    smaller than the tile, or one that is no multiple of the ratio, has tiles that reach beyond it, at the
    bottom and on the right.
    """

    height: int
    width: int
    tile: Tile
    rows: tuple[int, ...]
    cols: tuple[int, ...]
    row_weights: NDArray[np.float32]
    col_weights: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.rows) * len(self.cols)

    def weights(self, i: int, j: int) -> NDArray[np.float32]:
        """Blending weights (tile.height, tile.width), float32, of the tile at `rows[i]`, `cols[j]`."""
        product: NDArray[np.float32] = np.multiply.outer(self.row_weights[i], self.col_weights[j])
        return product


def plan(height: int, width: int, tile: Tile, ratio: int) -> TilePlan:
    """Lay tiles over a scene of `height` x `width` PAN pixels; neighbours share at least `tile.overlap`.

    The tile's sides must be multiples of `ratio`. Raises ContractError when the overlap leaves no room to
    advance.
    """
    rows = _starts(height, tile.height, tile.overlap, ratio)
    cols = _starts(width, tile.width, tile.overlap, ratio)
    return TilePlan(height, width, tile, rows, cols, _weights(rows, tile.height), _weights(cols, tile.width))


def _starts(length: int, side: int, overlap: int, ratio: int) -> tuple[int, ...]:
    step = (side - overlap) // ratio * ratio
    if step == 0:
        raise ContractError(
            f"tile.overlap: {overlap} of {side} pixels leaves less than one MS pixel to advance"
        )
    last = max(0, -(-length // ratio) * ratio - side)
    return (*range(0, last, step), last)


def _weights(starts: tuple[int, ...], side: int) -> NDArray[np.float32]:
    weights = np.ones((len(starts), side), np.float32)
    for i, (start, following) in enumerate(pairwise(starts)):
        ramp = _ramp(following - start, side)
        weights[i] -= ramp
        # The next tile rises where this one falls; on its further pixels the ramp is 1.
        weights[i + 1, : side - (following - start)] -= 1 - ramp[following - start :]
    return weights


def _ramp(step: int, side: int) -> NDArray[np.float32]:
    """The ramp from a tile to the one `step` pixels on, on the pixels of the former."""
    position = (np.arange(side) - step + 0.5) / max(side - step, 1)
    rising = np.rint(np.clip(position, 0, 1) * _STEPS) / _STEPS
    return rising.astype(np.float32)

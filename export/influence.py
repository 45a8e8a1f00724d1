"""How far into a tile does its border show, and how far does one pixel reach? From these comes the overlap.

A Fourier branch sees the whole tile, so no distance is safe to the last digit. What makes seams is measured
directly: two tiles of one simulated scene, half a tile apart, and how much they differ at each distance from
the nearer border. That falls from tens of DN at the border to a floor, which is the tile's own share in every
amplitude and is the same everywhere. `edge` is the distance from which on the difference stays within a
quarter of that floor. Neighbours that share twice as many pixels hand over where neither sees its border.

`reach` is what one PAN pixel does: how far from it, along an axis, the output changes by more than
`threshold` DN when the pixel is brighter by a twentieth of the peak. It is given for people; where it is the
whole tile it is the Fourier branch at work, which blending does not need to hide.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sfiin.data.simulate import simulate
from sfiin.runtime.contract import SensorProfile, Tile

Fuse = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.floating]]
"""MS (1, B, h, w) and PAN (1, 1, H, W) to HRMS (1, B, H, W), DN."""

SEED = 7
PAIRS = 2
PERTURBATION = 0.05  # of the peak
THRESHOLD = 0.001  # of the peak
SPREAD = 1.1


def measure(fuse: Fuse, tile: Tile, sensor: SensorProfile) -> dict[str, float]:
    """`edge` and `reach` in PAN pixels, `floor` (RMS) and `threshold` in DN, of a model on its tile."""
    threshold = THRESHOLD * sensor.peak
    edges, floors = zip(*(edge(across(fuse, tile, sensor, axis)) for axis in (-2, -1)), strict=True)
    return {
        "edge": float(max(edges)),
        "floor": round(max(floors), 3),
        "reach": float(reach(fuse, tile, sensor, threshold)),
        "threshold": threshold,
    }


def edge(profile: NDArray[np.float64]) -> tuple[int, float]:
    """Where a profile of differences by distance from the border settles, and the floor on which it does.

    The floor is the median of its inner half. Settled is a distance from which on none is above that half's
    largest by more than `SPREAD`.
    """
    inner = profile[len(profile) // 2 :]
    above = np.flatnonzero(profile > SPREAD * max(float(inner.max()), 1e-3))
    return (int(above[-1]) + 1 if above.size else 0), float(np.median(inner))


def across(fuse: Fuse, tile: Tile, sensor: SensorProfile, axis: int) -> NDArray[np.float64]:
    """RMS difference, DN, of two tiles half a tile apart along an axis, by distance from the nearer border.

    The distances are 0 to a quarter of the tile's side, over `PAIRS` places and all bands.
    """
    ratio, side = sensor.ratio, (tile.height, tile.width)[axis]
    half = side // 2 // ratio * ratio
    shift = (half, 0) if axis == -2 else (0, half)
    squares = np.zeros(side - half)
    for seed in range(SEED, SEED + PAIRS):
        scene = _scene(tile, sensor, shift, seed)
        first, second = (fuse(*_cut(*scene, at, tile))[0].astype(np.float64) for at in ((0, 0), shift))
        common = np.take(first, range(half, side), axis) - np.take(second, range(side - half), axis)
        squares += (np.moveaxis(common, axis, -1).reshape(-1, side - half) ** 2).mean(0)
    both = np.maximum(squares, squares[::-1])[: max(1, (side - half) // 2)]  # the border of either tile
    return np.sqrt(both / PAIRS)


def reach(fuse: Fuse, tile: Tile, sensor: SensorProfile, threshold: float) -> int:
    """How far one brighter PAN pixel in the middle of a tile changes the output by more than a threshold,
    DN."""
    ms, pan = _scene(tile, sensor, (0, 0), SEED)
    row, col = tile.height // 2, tile.width // 2
    brighter = pan.copy()
    brighter[0, row, col] += PERTURBATION * sensor.peak
    change = np.abs(fuse(ms[None], brighter[None])[0] - fuse(ms[None], pan[None])[0]).max(0)
    rows, cols = np.nonzero(change > threshold)
    return int(max(np.abs(rows - row).max(initial=0), np.abs(cols - col).max(initial=0)))


def _scene(
    tile: Tile, sensor: SensorProfile, more: tuple[int, int], seed: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """MS (B, h, w) and PAN (1, H, W) of a simulated scene, larger than the tile by `more`."""
    height, width = tile.height + more[0], tile.width + more[1]
    least = 64  # the simulator's structures want room
    pair = simulate(max(height, least), max(width, least), seed, sensor.bits, sensor.ratio)
    bands = np.arange(len(sensor.bands)) % len(pair.ms)
    ms = pair.ms[bands, : height // sensor.ratio, : width // sensor.ratio]
    return ms.astype(np.float32), pair.pan[None, :height, :width].astype(np.float32)


def _cut(
    ms: NDArray[np.float32], pan: NDArray[np.float32], at: tuple[int, int], tile: Tile
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """The tile at (row, column), as a batch of one."""
    (row, col), ratio = at, pan.shape[-1] // ms.shape[-1]
    coarse = np.s_[
        None, :, row // ratio : (row + tile.height) // ratio, col // ratio : (col + tile.width) // ratio
    ]
    return ms[coarse], pan[None, :, row : row + tile.height, col : col + tile.width]

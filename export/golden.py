"""On which tiles is every artefact checked against the network it was made from? The golden tiles.

They are simulated, never imagery, and hold what breaks a Fourier branch elsewhere: a natural tile, the same
half without data, a constant, zeros, and a saturated checkerboard at the Nyquist frequency. Inputs are whole
DN; the expected outputs are PyTorch's in float64.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray

from sfiin.data.simulate import simulate
from sfiin.model.network import SFIIN
from sfiin.runtime.golden import GoldenTiles

SEED = 2022


def make(network: SFIIN, tile: tuple[int, int]) -> GoldenTiles:
    """Golden tiles of (height, width) PAN pixels for a network."""
    ratio, bands = network.config.ratio, network.config.bands
    scene = simulate(_up(tile[0], ratio), _up(tile[1], ratio), SEED, network.sensor.bits, ratio)
    pans = _pans(np.maximum(scene.pan[: tile[0], : tile[1]], 1), ratio, network.sensor.peak)
    colours = scene.ms[np.arange(bands) % len(scene.ms), : tile[0] // ratio, : tile[1] // ratio].astype(
        np.float64
    )
    ms = []
    for name, pan in pans.items():
        coarse = pan.reshape(tile[0] // ratio, ratio, tile[1] // ratio, ratio).mean((1, 3))
        ms.append(
            np.where(coarse > 0, colours, 0)
            if name in {"natural", "half"}
            else np.broadcast_to(coarse, colours.shape)
        )
    inputs = np.rint(np.stack(ms)).astype(np.uint16), np.stack(list(pans.values()))[:, None].astype(np.uint16)
    return GoldenTiles(tuple(pans), *inputs, reference(network, *inputs, torch.float64))


def reference(
    network: SFIIN, ms: NDArray[np.uint16], pan: NDArray[np.uint16], dtype: torch.dtype
) -> NDArray[np.floating]:
    """What PyTorch makes of golden inputs in `dtype`, one tile at a time: (K, B, H, W)."""
    exact = copy.deepcopy(network).to(dtype).eval()
    with torch.no_grad():
        tiles = [
            exact(*(torch.from_numpy(a[None].astype(np.float64)).to(dtype) for a in pair))
            for pair in zip(ms, pan, strict=True)
        ]
    result: NDArray[np.floating] = torch.cat(tiles).numpy()
    return result


def fuser(network: SFIIN) -> Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]:
    """A network in PyTorch float32 as a function of tiles (N, B, h, w) and (N, 1, H, W), DN."""
    exact = copy.deepcopy(network).float().eval()

    def fuse(ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            result: NDArray[np.float32] = exact(
                torch.from_numpy(ms.copy()), torch.from_numpy(pan.copy())
            ).numpy()
        return result

    return fuse


def _pans(natural: NDArray[np.uint16], ratio: int, peak: int) -> dict[str, NDArray[np.float64]]:
    height, width = natural.shape
    rows, cols = np.mgrid[:height, :width]
    return {
        "natural": natural.astype(np.float64),
        "half": np.where(cols < width // ratio // 2 * ratio, 0.0, natural),
        "constant": np.full(natural.shape, float(peak // 4)),
        "zero": np.zeros(natural.shape),
        "checkerboard": (rows + cols) % 2 * float(peak),
    }


def _up(side: int, ratio: int) -> int:
    """A side the simulator takes: a whole number of MS pixels, and not too small for its structures."""
    return -(-max(side, 64) // ratio) * ratio

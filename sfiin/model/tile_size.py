"""What becomes of a network on tiles of another size than it was trained on?

Its amplitudes are those of an unnormalised transform, which grow with the tile: a texture's as the square
root of the area, for its waves add up out of step, and a mean's as the area. Nearly all bins are texture, so
amplitudes are brought back by the square root. The amplitude network is homogeneous but for its biases: a
gain on what enters it and the inverse on what leaves it is a gain on those biases, and costs nothing.

By `benchmarks/tiles.json` the shipped network, trained on 128 x 128, then loses at most 0.025 dB on any tile
from 48 x 48 to 384 x 384, against 0.099 uncorrected and 0.103 with the area itself. So every tile is
corrected and none is refused.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from sfiin.model.network import FrequencyBranch, PanSharpener

_Network = TypeVar("_Network", bound=PanSharpener)

TEXTURE = 0.5
"""The power of the tile's area with which a texture's amplitudes grow."""


def trained_side(training: Mapping[str, Any]) -> int | None:
    """The side of the square tile, in PAN pixels, that a checkpoint's record of training names; None
    without."""
    side = training.get("patch")
    return side if isinstance(side, int) and side > 0 else None


def for_tile(network: _Network, training: Mapping[str, Any], tile: tuple[int, int]) -> _Network:
    """A checkpoint's network as it is to be run on tiles of (height, width) PAN pixels, by its record of
    training.

    Without a record of the tile it was trained on, and on the tile it was trained on, the network is as it
    was.
    """
    side = trained_side(training)
    return network if side is None else fitted(network, (side, side), tile)


def fitted(
    network: _Network, trained: tuple[int, int], tile: tuple[int, int], power: float = TEXTURE
) -> _Network:
    """A copy for `tile` (height, width) of a network that was trained on tiles of `trained`, in PAN pixels.

    Amplitudes count as grown by the ratio of the areas to the `power`. A baseline, which has none, is only
    copied.
    """
    gain = (math.prod(tile) / math.prod(trained)) ** power
    network = copy.deepcopy(network)
    with torch.no_grad():
        for part in network.modules():
            if isinstance(part, FrequencyBranch):
                for layer in (part.amplitude[0], part.amplitude[2]):
                    layer.bias *= gain
    return network

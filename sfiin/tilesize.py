"""What becomes of a network on tiles of another size than it was trained on?

Its amplitudes are those of an unnormalised transform, which grow with the tile: a texture's as the square root of the
area, for its waves add up out of step, and the mean's as the area. The amplitude network is homogeneous but for its
biases, so a gain on what enters it and the inverse on what leaves it is a gain on those biases alone.
"""

from __future__ import annotations

import copy
import math

import torch

from sfiin.network import SFIIN, CoreBlock


def fitted(network: SFIIN, trained: tuple[int, int], tile: tuple[int, int], power: float) -> SFIIN:
    """A copy for `tile` (height, width) of a network that was trained on tiles of `trained`, in PAN pixels.

    Amplitudes count as grown by the ratio of the areas to the `power`: 0.5 for textures, 1 for means, 0 for nothing.
    """
    gain = (math.prod(tile) / math.prod(trained)) ** power
    network = copy.deepcopy(network)
    with torch.no_grad():
        for block in network.blocks:
            assert isinstance(block, CoreBlock)
            for layer in (block.frequency.amplitude[0], block.frequency.amplitude[2]):
                layer.bias *= gain  # type: ignore[operator]
    return network

"""What do the network's branches see? The feature maps inside its core blocks, taken by hooks as a tile
passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sfiin.model.network import SFIIN

Maps = NDArray[np.float32]

MODULES = {"frequency": "frequency branch (global)", "spatial": "spatial branch (local)", "merge": "fused"}
"""The modules of a core block whose outputs are taken, and what they are."""


def shown_blocks(count: int) -> list[int]:
    """The first, the middle and the last of `count` core blocks, from 0; fewer where these coincide."""
    return sorted({0, (count - 1) // 2, count - 1})


def block_features(network: SFIIN, ms: Maps, pan: Maps, blocks: Sequence[int]) -> dict[int, dict[str, Maps]]:
    """The outputs of the `MODULES` of these blocks, by block and module, (C, H, W) float32 each.

    `ms` (B, h, w) and `pan` (1, H, W) are one tile, DN. A module that the network's configuration leaves out
    is not among them.
    """
    found: dict[int, dict[str, Maps]] = {index: {} for index in blocks}
    with ExitStack() as stack:
        for index in blocks:
            for name in MODULES:
                module = getattr(network.blocks[index], name, None)
                if isinstance(module, nn.Module):
                    handle = module.register_forward_hook(_keeper(found[index], name))
                    stack.callback(handle.remove)
        with torch.no_grad():
            network(
                torch.from_numpy(np.ascontiguousarray(ms[None])),
                torch.from_numpy(np.ascontiguousarray(pan[None])),
            )
    return found


def activity(maps: Maps) -> NDArray[np.float64]:
    """Feature maps (C, H, W) as one picture (H, W): the mean over channels of the distance from the
    channel's mean."""
    deep = maps.astype(np.float64)
    return np.asarray(np.abs(deep - deep.mean((1, 2), keepdims=True)).mean(0))


def _keeper(into: dict[str, Maps], name: str) -> Callable[[nn.Module, Any, Tensor], None]:
    def keep(_: nn.Module, __: Any, output: Tensor) -> None:
        into[name] = cast(Maps, output[0].float().cpu().numpy())

    return keep

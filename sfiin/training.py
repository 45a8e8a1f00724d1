"""How are the weights found? Adam on random patches, the best checkpoint kept by ERGAS on held-out pairs."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from runtime.errors import SfiinError
from sfiin.checkpoint import Checkpoint, fuser
from sfiin.loss import fusion_loss
from sfiin.metrics import ergas
from sfiin.network import SFIIN
from sfiin.pairs import Image, Pair, draw


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. `rate` is Adam's, falling to zero along a cosine; `weight` is the loss's lambda; `patch` in PAN
    pixels.

    As published: Adam (0.9, 0.999), rate 5e-4 to 8e-4, batch 4, patch 128 at ratio 4, lambda 0.1.
    """

    steps: int = 20000
    batch: int = 4
    patch: int = 128
    rate: float = 8e-4
    weight: float = 0.1
    seed: int = 0
    validate_every: int = 250


@dataclass(frozen=True)
class Progress:
    """Where training stands after a step; `ergas` is the validation's, infinite before the first."""

    step: int
    loss: float
    ergas: float


def train(
    network: SFIIN,
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    config: TrainingConfig,
    watch: Callable[[Progress], None] = lambda _: None,
) -> Checkpoint:
    """Train in place; return the best checkpoint. The same seed, machine and threads give the same weights.

    Raises SfiinError, naming the step, when the loss is no longer finite.
    """
    optimiser = torch.optim.Adam(network.parameters(), config.rate)
    best, best_ergas, latest = copy.deepcopy(network), math.inf, math.inf
    for step in range(1, config.steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = config.rate * 0.5 * (1 + math.cos(math.pi * (step - 1) / config.steps))
        loss = _step(network, optimiser, pairs, config, step)
        if step % config.validate_every == 0 or step == config.steps:
            latest = validate(network, held_out, config.patch)
            if latest < best_ergas:
                best, best_ergas = copy.deepcopy(network), latest
        watch(Progress(step, loss, latest))
    record = asdict(config) | {
        "pairs": [pair.name for pair in pairs],
        "held_out": [pair.name for pair in held_out],
        "validation_ergas": best_ergas,
        "torch": torch.__version__,
    }
    return Checkpoint(best.eval(), record)


def validate(network: SFIIN, pairs: Sequence[Pair], tile: int) -> float:
    """Mean ERGAS over pairs with truth, each fused in tiles of the trained size."""
    return float(np.mean([ergas(_fuse(network, pair, tile), _truth(pair, tile), pair.ratio) for pair in pairs]))


def _step(
    network: SFIIN, optimiser: torch.optim.Optimizer, pairs: Sequence[Pair], config: TrainingConfig, step: int
) -> float:
    ms, pan, truth = (torch.from_numpy(a) for a in draw(pairs, config.patch, config.batch, (config.seed, step)))
    scale = network.sensor.scale
    loss = fusion_loss(network(ms, pan) / scale, truth / scale, config.weight)
    if not loss.isfinite():
        raise SfiinError(f"training diverged: the loss is {loss.item()} at step {step}; lower --rate or change --seed")
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    return loss.item()


def _fuse(network: SFIIN, pair: Pair, tile: int) -> Image:
    """Edge to edge in whole tiles, (B, H', W'): what lies beyond the last whole tile is left out."""
    ratio, fuse = pair.ratio, fuser(network)
    side = tile // ratio
    rows = []
    for row in range(pair.pan.shape[1] // tile):
        cols = range(pair.pan.shape[2] // tile)
        pan = np.stack([pair.pan[:, row * tile : (row + 1) * tile, col * tile : (col + 1) * tile] for col in cols])
        ms = np.stack([pair.ms[:, row * side : (row + 1) * side, col * side : (col + 1) * side] for col in cols])
        rows.append(np.concatenate(list(fuse(ms, pan)), -1))
    return np.concatenate(rows, -2)


def _truth(pair: Pair, tile: int) -> Image:
    assert pair.truth is not None
    height, width = (side // tile * tile for side in pair.pan.shape[1:])
    return pair.truth[:, :height, :width]

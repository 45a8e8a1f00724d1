"""How good is a model on pairs with known truth, and how much better than doing without a network?"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from runtime.contract import SensorProfile, Tile
from runtime.session import OnnxSession
from runtime.tiles import plan
from sfiin import checkpoint, classical
from sfiin.metrics import Quality, reference_quality
from sfiin.pairs import Image, Pair

Fuse = Callable[[Image, Image], Image]
"""A batch of tiles, ms (N, B, h, w) and pan (N, 1, H, W) in DN, to (N, B, H, W) in DN."""

MEASURES = ("psnr", "ssim", "sam", "ergas", "scc", "q2n")
"""What is averaged and shown: PSNR in dB, SAM in degrees, the others without a unit."""

BASELINES = ("bicubic", "brovey")


@dataclass(frozen=True)
class Model:
    """Something that fuses tiles: a checkpoint in PyTorch or an exported model in ONNX Runtime."""

    name: str
    sensor: SensorProfile
    tile: Tile
    fuse: Fuse


@dataclass(frozen=True)
class Score:
    """One method on one pair."""

    pair: str
    sensor: str
    method: str
    quality: Quality


def open_model(path: Path, tile: Tile) -> Model:
    """Open a checkpoint, to be run on `tile`, or an exported model, which knows its own.

    Raises CheckpointError, InputError or ContractError for a file that is neither.
    """
    if path.suffix == ".onnx":
        session = OnnxSession(path)
        return Model("sfiin", session.contract.sensor, session.contract.tile, session.run)
    network = checkpoint.load(path).network
    return Model(checkpoint.architecture(network), network.sensor, tile, checkpoint.fuser(network))


def fuse_whole(model: Model, ms: Image, pan: Image) -> Image:
    """Fuse an image in memory in blended tiles: ms (B, h, w), pan (1, H, W), DN, to (B, H, W), DN."""
    ratio, tile = model.sensor.ratio, model.tile
    height, width = pan.shape[1:]
    tiles = plan(height, width, tile, ratio)
    below, right = max(0, tile.height - height), max(0, tile.width - width)
    ms = np.pad(ms, [(0, 0), (0, below // ratio), (0, right // ratio)], mode="edge")
    pan = np.pad(pan, [(0, 0), (0, below), (0, right)], mode="edge")
    total = np.zeros((len(ms), *pan.shape[1:]), np.float32)
    for i, row in enumerate(tiles.rows):
        for j, col in enumerate(tiles.cols):
            inside = np.s_[:, row : row + tile.height, col : col + tile.width]
            coarse = np.s_[:, row // ratio : (row + tile.height) // ratio, col // ratio : (col + tile.width) // ratio]
            total[inside] += model.fuse(ms[coarse][None], pan[inside][None])[0] * tiles.weights(i, j)
    return total[:, :height, :width]


def evaluate(model: Model, pairs: Sequence[Pair]) -> Iterator[Score]:
    """Score the model and the baselines on pairs with truth, one score at a time."""
    for pair in pairs:
        if pair.truth is None:
            raise ValueError(f"{pair.name} has no truth; reduce it first")
        sensor = str(pair.meta.get("sensor", "unknown"))
        for name in BASELINES:
            baseline = classical.METHODS[name](pair.ms, pair.pan, pair.ratio)
            yield Score(pair.name, sensor, name, _quality(baseline, pair.truth, model.sensor))
        yield score(model, pair)


def score(model: Model, pair: Pair) -> Score:
    """Score one model on one pair with truth. Raises ValueError for a pair without."""
    if pair.truth is None:
        raise ValueError(f"{pair.name} has no truth; reduce it first")
    fused = fuse_whole(model, pair.ms, pair.pan)
    sensor = str(pair.meta.get("sensor", "unknown"))
    return Score(pair.name, sensor, model.name, _quality(fused, pair.truth, model.sensor))


def means(scores: Sequence[Score]) -> list[tuple[str, str, int, dict[str, float]]]:
    """Mean PSNR (dB), SAM (degrees) and ERGAS by sensor and method: (sensor, method, number of pairs, means)."""
    groups: dict[tuple[str, str], list[Quality]] = {}
    for score in scores:
        groups.setdefault((score.sensor, score.method), []).append(score.quality)
    return [
        (sensor, method, len(found), {key: fmean(getattr(q, key) for q in found) for key in ("psnr", "sam", "ergas")})
        for (sensor, method), found in groups.items()
    ]


def _quality(fused: NDArray[np.floating], truth: Image, sensor: SensorProfile) -> Quality:
    """Judged as a product is: whole DN within the sensor's range."""
    product = np.clip(np.rint(fused.astype(np.float64)), 0, sensor.peak)
    return reference_quality(product, truth, sensor.ratio, float(sensor.peak))

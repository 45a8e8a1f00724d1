"""How good is a method on pairs with known truth, how good without, and how much better than doing without a
network?

A method's product is judged as it would be delivered: whole DN within the sensor's range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

import numpy as np
from numpy.typing import NDArray

from sfiin.data import dataset, fitting
from sfiin.data.pairs import Image, Pair, gains
from sfiin.runtime.backends import plan as plans
from sfiin.runtime.backends.select import open_session
from sfiin.runtime.contract import SensorProfile, Tile
from sfiin.runtime.errors import InputError
from sfiin.runtime.quality import classical
from sfiin.runtime.quality.metrics import Quality, d_lambda, d_lambda_k, d_s, reference_quality
from sfiin.runtime.scenes.tiles import plan

Fuse = Callable[[Image, Image], Image]
"""A batch of tiles, ms (N, B, h, w) and pan (N, 1, H, W) in DN, to (N, B, H, W) in DN."""

Product = NDArray[np.float64]
"""What is delivered: (B, H, W), whole DN in 0..peak."""

Method = Callable[[Pair], NDArray[np.floating]]
"""A pair to HRMS (B, H, W) in DN, neither rounded nor clipped."""

MEASURES = ("psnr", "ssim", "sam", "ergas", "scc", "q2n")
"""What is averaged and shown: PSNR in dB, SAM in degrees, the others without a unit."""

BASELINES = ("bicubic", "brovey")


@dataclass(frozen=True)
class JudgedModel:
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


@dataclass(frozen=True)
class FullResolutionQuality:
    """A product without a reference: distortions (0 is best), and HQNR and QNR (1 is best); see
    `sfiin.runtime.quality.metrics`."""

    d_lambda_k: float
    d_s: float
    hqnr: float
    d_lambda: float
    qnr: float


@dataclass(frozen=True)
class FullResolutionScore:
    """One method on one pair without truth."""

    pair: str
    sensor: str
    method: str
    quality: FullResolutionQuality


@dataclass(frozen=True)
class Spread:
    """Mean, sample standard deviation (None where there is none: one value, an infinite one), number of
    values."""

    mean: float
    deviation: float | None
    count: int


def open_model(path: Path, tile: Tile) -> JudgedModel:
    """Open a checkpoint, to be run on `tile` (see `sfiin.model.tile_size`), or an exported model or a plan,
    which know their own.

    Raises CheckpointError, InputError or ContractError for a file that is neither.
    """
    if not path.exists():
        raise InputError(f"{path}: no such checkpoint or model")
    if path.suffix == ".onnx" or plans.is_plan(path):
        session = open_session(path, "auto" if plans.is_plan(path) else "cpu")
        return JudgedModel("sfiin", session.contract.sensor, session.contract.tile, session.run)
    from sfiin.model import checkpoint  # with torch, which a machine that runs models need not have
    from sfiin.model.tile_size import for_tile

    loaded = checkpoint.load(path)
    network = for_tile(loaded.network, loaded.training, (tile.height, tile.width))
    return JudgedModel(checkpoint.architecture(network), network.sensor, tile, checkpoint.fuser(network))


def fuse_whole(model: JudgedModel, ms: Image, pan: Image) -> Image:
    """Fuse an image in memory in blended tiles: ms (B, h, w), pan (1, H, W), DN, to (B, H, W), DN.

    One smaller than a tile is mirrored, so that a network that looks at the whole tile finds the like there.
    """
    ratio, tile = model.sensor.ratio, model.tile
    height, width = pan.shape[1:]
    tiles = plan(height, width, tile, ratio)
    below, right = max(0, tile.height - height), max(0, tile.width - width)
    ms = np.pad(ms, [(0, 0), (0, below // ratio), (0, right // ratio)], mode="symmetric")
    pan = np.pad(pan, [(0, 0), (0, below), (0, right)], mode="symmetric")
    total = np.zeros((len(ms), *pan.shape[1:]), np.float32)
    for i, row in enumerate(tiles.rows):
        for j, col in enumerate(tiles.cols):
            inside = np.s_[:, row : row + tile.height, col : col + tile.width]
            coarse = np.s_[
                :, row // ratio : (row + tile.height) // ratio, col // ratio : (col + tile.width) // ratio
            ]
            total[inside] += model.fuse(ms[coarse][None], pan[inside][None])[0] * tiles.weights(i, j)
    return total[:, :height, :width]


def by_model(model: JudgedModel) -> Method:
    """The model as a method."""
    return lambda pair: fuse_whole(model, pair.ms, pair.pan)


def without_network(name: str) -> Method:
    """The method of `classical.METHODS`, with the MTF gains of the pair's sensor where it takes any.
    KeyError else."""
    if name == "mtf_glp_hpm":
        return lambda pair: classical.mtf_glp_hpm(pair.ms, pair.pan, pair.ratio, gains(pair)[0])
    method = classical.METHODS[name]
    return lambda pair: method(pair.ms, pair.pan, pair.ratio)


def evaluate(model: JudgedModel, pairs: Sequence[Pair]) -> Iterator[Score]:
    """Score the model and the baselines on pairs with truth, one score at a time. Raises as
    `reference_scores`."""
    methods = {name: without_network(name) for name in BASELINES} | {model.name: by_model(model)}
    for pair in pairs:
        yield from reference_scores(methods, pair, model.sensor)


def score(model: JudgedModel, pair: Pair) -> Score:
    """Score one model on one pair with truth. Raises as `reference_scores`."""
    return next(reference_scores({model.name: by_model(model)}, pair, model.sensor))


def reference_scores(methods: Mapping[str, Method], pair: Pair, sensor: SensorProfile) -> Iterator[Score]:
    """Score the methods on a pair with truth, one after another.

    The peak of PSNR is the pair's own, or `sensor`'s where the pair has none; a pair of a far other range is
    scaled to the sensor's, fused, and brought back.

    Raises ValueError for a pair without truth, InputError for one that cannot be measured (too small, an
    empty band).
    """
    for name, method in methods.items():
        yield judge(pair, name, product_of(method, pair, sensor), sensor)


def product_of(method: Method, pair: Pair, sensor: SensorProfile) -> Product:
    """What a method delivers of a pair: in the range that `sensor` has, and back in the pair's own."""
    factor = dataset.scale_of(pair, sensor)
    return as_delivered(method(dataset.fitted(pair, sensor)) / factor, fitting.peak(pair, sensor.peak))


def judge(pair: Pair, method: str, product: Product, sensor: SensorProfile) -> Score:
    """The score of a product of the pair with truth. Raises as `reference_scores`."""
    if pair.truth is None:
        raise ValueError(f"{pair.name} has no truth; reduce it first")
    try:
        peak = float(fitting.peak(pair, sensor.peak))
        quality = reference_quality(product, pair.truth, pair.ratio, peak)
    except ValueError as error:
        raise InputError(f"{pair.name}: cannot be judged: {error}") from None
    return Score(pair.name, sensor_of(pair), method, quality)


def full_resolution_scores(
    methods: Mapping[str, Method], pair: Pair, sensor: SensorProfile
) -> Iterator[FullResolutionScore]:
    """Score the methods on a pair as it was delivered, without truth, one after another.

    A pair of another bit depth is scaled to `sensor`'s by the ratio of both peaks, fused, and brought back
    before the product is rounded, clipped and judged. MTF gains are those of the pair's sensor. Raises
    InputError for a pair that cannot be measured (below 32 PAN pixels, one band).
    """
    own_peak = fitting.peak(pair, sensor.peak)
    factor = sensor.peak / own_peak
    fitted = pair if factor == 1 else fitting.scaled(pair, factor)
    for name, method in methods.items():
        product = as_delivered(method(fitted) / factor, own_peak)
        try:
            quality = _without_reference(product, pair)
        except ValueError as error:
            raise InputError(f"{pair.name}: cannot be judged: {error}") from None
        yield FullResolutionScore(pair.name, sensor_of(pair), name, quality)


def as_delivered(fused: NDArray[np.floating], peak: int) -> Product:
    """Whole DN in 0..peak."""
    return np.clip(np.rint(fused.astype(np.float64)), 0, peak)


def sensor_of(pair: Pair) -> str:
    """The name of the pair's sensor, as its `meta` spells it."""
    return str(pair.meta.get("sensor", "unknown"))


def spread(values: Sequence[float]) -> Spread:
    """Mean and spread of one value or more."""
    finite = len(values) > 1 and all(map(math.isfinite, values))
    return Spread(fmean(values), stdev(values) if finite else None, len(values))


def means(
    scores: Sequence[Score], measures: Sequence[str] = ("psnr", "sam", "ergas")
) -> list[tuple[str, str, int, dict[str, float]]]:
    """Mean measures by sensor and method: (sensor, method, number of pairs, means)."""
    groups: dict[tuple[str, str], list[Quality]] = {}
    for score in scores:
        groups.setdefault((score.sensor, score.method), []).append(score.quality)
    return [
        (sensor, method, len(found), {key: fmean(getattr(q, key) for q in found) for key in measures})
        for (sensor, method), found in groups.items()
    ]


def _without_reference(product: Product, pair: Pair) -> FullResolutionQuality:
    ms_gains, pan_gain = gains(pair)
    spectral, spatial = d_lambda(product, pair.ms), d_s(product, pair.ms, pair.pan, gain=pan_gain)
    consistency = d_lambda_k(product, pair.ms, ms_gains)
    return FullResolutionQuality(
        consistency, spatial, (1 - consistency) * (1 - spatial), spectral, (1 - spectral) * (1 - spatial)
    )

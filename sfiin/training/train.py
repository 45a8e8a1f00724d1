"""How are the weights found? Adam on random patches, the best checkpoint kept by ERGAS on held-out pairs.

Everything random is determined by the seed and the step: the patches of step n are the same whatever came
before. So training that was stopped and resumed gives, on a CPU with the same number of threads, the same
weights to the bit.
"""

from __future__ import annotations

import copy
import csv
import io
import math
import pickle
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

import numpy as np
import torch

from sfiin.data import fitting
from sfiin.data.pairs import Image, Pair, Source, draw, drawn_from
from sfiin.model.checkpoint import Checkpoint, fuser
from sfiin.model.network import PanSharpener
from sfiin.model.resample import Upsample
from sfiin.runtime.documents import LATER
from sfiin.runtime.errors import InputError, SfiinError
from sfiin.runtime.files import publish
from sfiin.runtime.quality import ground
from sfiin.runtime.quality.metrics import ergas, psnr, sam
from sfiin.training.loss import faintness, fine, fusion_loss, missing
from sfiin.training.stopping import stoppable

Precision = Literal["fp32", "mixed"]
Unit = Literal["scale", "detail"]


EVERY = 60.0
"""Seconds after which a training is saved between two validations."""


@dataclass(frozen=True)
class TrainingConfig:
    """How to train. `rate` is Adam's, falling to zero along a cosine; `weight` is the loss's lambda; `patch`
    in PAN pixels. With precision `mixed`, convolutions run in half precision and spectra, loss and weights in
    float32. The loss is in units of the sensor's scale, or of each patch's own missing `detail`; `crisp` is
    the weight of `loss.faintness` in it. The fine detail that is aimed at is the truth's, raised by the share
    `sharpen`.

    As published: Adam (0.9, 0.999), rate 5e-4 to 8e-4, batch 4, patch 128 at ratio 4, lambda 0.1.
    """

    steps: int = 20000
    batch: int = 4
    patch: int = 128
    rate: float = 8e-4
    weight: float = 0.1
    seed: int = 0
    validate_every: int = 250
    precision: Precision = field(default="fp32", metadata=LATER)
    unit: Unit = field(default="scale", metadata=LATER)
    crisp: float = field(default=0.0, metadata=LATER)
    sharpen: float = field(default=0.0, metadata=LATER)


@dataclass(frozen=True)
class Validation:
    """A point of the learning curve: the rate and the mean loss since the last, and quality on the
    held-out pairs."""

    step: int
    rate: float
    loss: float
    psnr: float
    sam: float
    ergas: float


@dataclass(frozen=True)
class Progress:
    """Where training stands after a step; `ergas` is the latest validation's, infinite before the first."""

    step: int
    loss: float
    ergas: float


@dataclass
class _State:
    """All that training needs to go on; saved after every validation."""

    network: PanSharpener
    optimiser: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    best: dict[str, torch.Tensor]
    upsample: Upsample
    step: int = 0
    losses: list[float] = field(default_factory=list)
    curve: list[Validation] = field(default_factory=list)

    @property
    def best_ergas(self) -> float:
        return min((point.ergas for point in self.curve), default=math.inf)


def train(
    network: PanSharpener,
    pairs: Sequence[Source],
    held_out: Sequence[Pair],
    config: TrainingConfig,
    watch: Callable[[Progress], None] = lambda _: None,
    *,
    state_file: Path | None = None,
    origin: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Train in place, on the device that the network is on; return the best checkpoint, on the CPU.

    With a `state_file`, training is saved there after every validation, each minute, and when it is told to
    stop (Ctrl-C, SIGTERM; then KeyboardInterrupt is raised), and goes on from there if the file exists and
    is of the same network, configuration, pairs and `origin`: what else determines the result,
    such as a reduction. Raises SfiinError, naming the step and the patches of its batch, when loss or
    gradient are no longer finite, or the pair whose validation is not; InputError for pairs too small for a
    patch or not fit to judge by, or a state file of another training.
    """
    _check_sizes([*pairs, *held_out], config.patch)
    _check_truth(held_out, config.patch)
    sources = {"pairs": [p.name for p in pairs], "held_out": [p.name for p in held_out]}
    identity = {
        "network": _description(network),
        "config": asdict(config),
        "origin": dict(origin or {}),
        **sources,
    }
    state = _fresh(network, config)
    if state_file is not None and state_file.exists():
        _restore(state, state_file, identity)
    keeper = _Keeper(state, state_file, identity)
    with stoppable() as told:
        while state.step < config.steps:
            loss = _step(state, pairs, config)
            if state.step % config.validate_every == 0 or state.step == config.steps:
                _validate(state, held_out, config)
                keeper.keep()
            keeper.keep_now_and_then()
            watch(Progress(state.step, loss, state.curve[-1].ergas if state.curve else math.inf))
            if told() and state.step < config.steps:
                keeper.keep()
                raise KeyboardInterrupt
    network.load_state_dict(state.best)
    record = asdict(config) | sources
    record |= {"validation_ergas": state.best_ergas, "curve": [asdict(point) for point in state.curve]}
    record |= {"device": _device_name(network), "torch": torch.__version__}
    record |= {"home": home_of(pairs, config.patch, network.sensor.scale)}
    return Checkpoint(network.cpu().eval(), record)


class _Keeper:
    """Saves a training where there is a place for it, and at least each `EVERY` seconds."""

    def __init__(self, state: _State, path: Path | None, identity: Mapping[str, Any]) -> None:
        self._state, self._path, self._identity = state, path, identity
        self._last = time.monotonic()

    def keep(self) -> None:
        """Save it."""
        if self._path is not None:
            _save(self._state, self._path, self._identity)
            self._last = time.monotonic()

    def keep_now_and_then(self) -> None:
        """Save it, if that was long ago."""
        if time.monotonic() - self._last > EVERY:
            self.keep()


def validate(network: PanSharpener, pairs: Sequence[Pair], tile: int) -> tuple[float, float, float]:
    """Mean PSNR (dB), SAM (degrees) and ERGAS over pairs with truth, each fused in tiles of the trained size.

    Raises SfiinError when the network's output is not finite.
    """
    scores = []
    for pair in pairs:
        fused, truth = _fuse(network, pair, tile), _truth(pair, tile)
        if not np.isfinite(fused).all():
            raise SfiinError(
                f"training diverged: the output for the held-out pair {pair.name} is not finite; "
                "lower --rate or change --seed"
            )
        peak = float(fitting.peak(pair, network.sensor.peak))
        scores.append((psnr(fused, truth, peak), sam(fused, truth), ergas(fused, truth, pair.ratio)))
    first, second, third = (fmean(column) for column in zip(*scores, strict=True))
    return first, second, third


def home_of(sources: Sequence[Source], patch: int, scale: float) -> dict[str, list[float]]:
    """The home ground of what is trained on: of at most 16 patches of each source, evenly over it."""
    found = []
    for source in sources:
        side = patch // source.ratio
        rows, cols = (
            np.unique(np.linspace(0, size - side, min(4, size // side)).astype(int)) for size in source.size
        )
        parts = (source.patch(int(row), int(col), side) for row in rows for col in cols)
        measured = (ground.measure(ms, pan, scale) for ms, pan, _ in parts)
        found += [figures for figures in measured if figures is not None]
    return {name: list(bounds) for name, bounds in ground.home(found).items()}


def write_curve(path: Path, curve: Sequence[Mapping[str, Any]]) -> None:
    """Write a training record's `curve` as CSV, a column for each field of `Validation`. Raises
    OutputError."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(Validation.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(curve)
    with publish(path) as part:
        part.write_text(text.getvalue(), encoding="utf-8")


def _fresh(network: PanSharpener, config: TrainingConfig) -> _State:
    device = next(network.parameters()).device
    scaled = config.precision == "mixed" and device.type == "cuda"
    optimiser = torch.optim.Adam(network.parameters(), config.rate)
    scaler = torch.amp.GradScaler(device.type, enabled=scaled)
    upsample = Upsample(len(network.sensor.bands), network.sensor.ratio).to(device)
    return _State(network.train(), optimiser, scaler, copy.deepcopy(network.state_dict()), upsample)


def _step(state: _State, pairs: Sequence[Source], config: TrainingConfig) -> float:
    network, seed = state.network, (config.seed, state.step + 1)
    device = next(network.parameters()).device
    for group in state.optimiser.param_groups:
        group["lr"] = _rate(config, state.step)
    ms, pan, truth = (torch.from_numpy(a).to(device) for a in draw(pairs, config.patch, config.batch, seed))
    scale = network.sensor.scale
    half = torch.float16 if device.type == "cuda" else torch.bfloat16
    with torch.autocast(device.type, half, enabled=config.precision == "mixed"):
        fused = network(ms, pan)
    unit = missing(state.upsample(ms) / scale, truth / scale) if config.unit == "detail" else None
    product, truth = fused.float() / scale, truth / scale
    if config.sharpen:
        truth = truth + config.sharpen * fine(truth)
    loss = fusion_loss(product, truth, config.weight, unit=unit)
    if config.crisp:
        loss = loss + config.crisp * faintness(product, truth, 1.0 if unit is None else unit)
    state.optimiser.zero_grad()
    state.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
    state.scaler.unscale_(state.optimiser)
    norm = torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    # A scaler meets infinite gradients by design, skips the step and scales less.
    if not (loss.isfinite() and (norm.isfinite() or state.scaler.is_enabled())):
        what = f"the loss is {loss.item()}" if not loss.isfinite() else "a gradient is not finite"
        places = "; ".join(drawn_from(pairs, config.patch, config.batch, seed))
        raise SfiinError(
            f"training diverged: {what} at step {seed[1]}, whose batch is {places}. "
            "Look at these patches; lower --rate or change --seed"
        )
    state.scaler.step(state.optimiser)
    state.scaler.update()
    state.step += 1
    state.losses.append(loss.item())
    return state.losses[-1]


def _rate(config: TrainingConfig, done: int) -> float:
    return config.rate * 0.5 * (1 + math.cos(math.pi * done / config.steps))


def _validate(state: _State, held_out: Sequence[Pair], config: TrainingConfig) -> None:
    quality = validate(state.network, held_out, config.patch)
    if quality[2] < state.best_ergas:
        state.best = copy.deepcopy(state.network.state_dict())
    state.curve.append(Validation(state.step, _rate(config, state.step - 1), fmean(state.losses), *quality))
    state.losses = []


def _save(state: _State, path: Path, identity: Mapping[str, Any]) -> None:
    document = {
        "identity": dict(identity),
        "step": state.step,
        "curve": [asdict(point) for point in state.curve],
        "best": state.best,
        "network": state.network.state_dict(),
        "optimiser": state.optimiser.state_dict(),
        "scaler": state.scaler.state_dict(),
        "losses": state.losses,
    }
    with publish(path) as part:
        torch.save(document, part)


def _restore(state: _State, path: Path, identity: Mapping[str, Any]) -> None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what damage makes torch think of
            document = torch.load(path, map_location="cpu", weights_only=True)
        was, now = _flat(document["identity"]), _flat(identity)
        differing = [key for key in now | was if was.get(key) != now.get(key)]
        if not differing:
            _fill(state, document)
    except _UNREADABLE as error:
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: not the state of a training ({reason}); remove it to begin anew") from None
    if differing:
        key = differing[0]
        raise InputError(
            f"{path}: the state of another training: {key} was {was.get(key)}, now {now.get(key)}; "
            "give the same options to go on, or remove it to begin anew"
        )


# What the restricted unpickler raises over a file that is no state, and what is raised over one that lacks a
# part.
_UNREADABLE = (
    pickle.UnpicklingError,
    OSError,
    RuntimeError,
    ValueError,
    LookupError,
    EOFError,
    TypeError,
    AttributeError,
)


def _fill(state: _State, document: Mapping[str, Any]) -> None:
    state.network.load_state_dict(document["best"])  # only to see that it fits
    state.network.load_state_dict(document["network"])
    state.optimiser.load_state_dict(document["optimiser"])
    if document["scaler"]:  # empty where nothing was scaled, such as on a CPU
        state.scaler.load_state_dict(document["scaler"])
    state.best = document["best"]
    state.step = document["step"]
    state.losses = list(document.get("losses", ()))
    state.curve = [Validation(**point) for point in document["curve"]]


def _flat(identity: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that make a training what it is, each by the name of its field."""
    flat: dict[str, Any] = {}
    for key, value in identity.items():
        flat |= value if isinstance(value, dict) else {key: value}
    return flat


def _description(network: PanSharpener) -> dict[str, Any]:
    sensor = {f"sensor.{key}": value for key, value in asdict(network.sensor).items()}
    return {"architecture": type(network).__name__, **asdict(network.config), **sensor}


def _check_sizes(sources: Sequence[Source], patch: int) -> None:
    for source in sources:
        if patch % source.ratio or min(source.size) * source.ratio < patch:
            height, width = (side * source.ratio for side in source.size)
            raise InputError(
                f"{source.name}: {height}x{width} PAN pixels with truth do not hold a patch of {patch}, "
                f"a multiple of the ratio {source.ratio}; choose another --patch"
            )


def _check_truth(held_out: Sequence[Pair], patch: int) -> None:
    for pair in held_out:
        if not all(np.isfinite(image).all() for image in (pair.ms, pair.pan, _truth(pair, patch))):
            raise InputError(
                f"{pair.name}: held out to judge by, but some values are not finite; mend or remove it"
            )
        if not _truth(pair, patch).mean((1, 2)).all():
            raise InputError(
                f"{pair.name}: held out to judge by, but a band of its truth is empty; remove it"
            )


def _fuse(network: PanSharpener, pair: Pair, tile: int) -> Image:
    """Edge to edge in whole tiles, (B, H', W'): what lies beyond the last whole tile is left out."""
    ratio, fuse = pair.ratio, fuser(network)
    side = tile // ratio
    rows = []
    for row in range(pair.pan.shape[1] // tile):
        cols = range(pair.pan.shape[2] // tile)
        pan = np.stack(
            [pair.pan[:, row * tile : (row + 1) * tile, col * tile : (col + 1) * tile] for col in cols]
        )
        ms = np.stack(
            [pair.ms[:, row * side : (row + 1) * side, col * side : (col + 1) * side] for col in cols]
        )
        rows.append(np.concatenate(list(fuse(ms, pan)), -1))
    return np.concatenate(rows, -2)


def _truth(pair: Pair, tile: int) -> Image:
    assert pair.truth is not None
    height, width = (side // tile * tile for side in pair.pan.shape[1:])
    return pair.truth[:, :height, :width]


def _device_name(network: PanSharpener) -> str:
    device = next(network.parameters()).device
    return (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"cpu, {torch.get_num_threads()} threads"
    )

"""What does lower precision cost? Its distance from FP32 on golden tiles, and its quality beside FP32's
against truth.

Both are measured on a typed graph with every value rounded (`sfiin.export.precision.rounded`), because ONNX
Runtime on a CPU does not round between operators; the graph itself must be within the same distance, as it
runs there.

The distance that is allowed follows from the loss that is: an error independent of the network's own adds to
its mean square, so one of 65 dB takes 0.05 dB from a network of 45.6 dB; likewise for SAM and ERGAS at 1.3
degrees and 1.3.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import onnx
from numpy.typing import NDArray

from sfiin.data.pairs import Pair
from sfiin.evaluation.judging import Fuse, JudgedModel, as_delivered, fuse_whole, judge
from sfiin.export.ranges import open_model
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import CheckFailedError
from sfiin.runtime.golden import GoldenTiles
from sfiin.runtime.quality.metrics import bias, ergas, psnr, sam

REMEDY = "not published; try --precision mixed or fp32, or --calibration with pairs like the scenes to come"


@dataclass(frozen=True)
class DistanceGate:
    """How far from FP32: PSNR (dB) at least; SAM (degrees), ERGAS and any band's shift (DN) at most."""

    psnr: float = 65.0
    sam: float = 0.15
    ergas: float = 0.15
    shift: float = 0.1


@dataclass(frozen=True)
class LossGate:
    """What may be lost against truth: PSNR (dB), SAM (degrees), ERGAS (a share), and any band's shift
    (DN)."""

    psnr: float = 0.05
    sam: float = 0.01
    ergas: float = 0.01
    shift: float = 0.1


@dataclass(frozen=True)
class Distance:
    """From FP32 on the golden tiles: PSNR over all, SAM and ERGAS on the natural one, shift and largest DN on
    any.

    A dark or constant tile has neither a spectral angle nor a mean to relate an error to.
    """

    psnr: float
    sam: float
    ergas: float
    shift: float
    largest: float

    def require(self, what: str, gate: DistanceGate) -> None:
        """Raise CheckFailedError with the figures unless within the gate."""
        beyond = (self.sam <= gate.sam, self.ergas <= gate.ergas, self.shift <= gate.shift)
        if not (self.psnr >= gate.psnr and all(beyond)):
            raise CheckFailedError(
                f"{what} against FP32 on the golden tiles: PSNR {self.psnr:.2f} dB (gate {gate.psnr:g}), "
                f"SAM {self.sam:.4f} deg (gate {gate.sam:g}), ERGAS {self.ergas:.4f} (gate "
                f"{gate.ergas:g}), shift {self.shift:.3f} DN (gate {gate.shift:g}), largest difference "
                f"{self.largest:.1f} DN; {REMEDY}"
            )


@dataclass(frozen=True)
class Figures:
    """Means over pairs with truth: PSNR (dB), SAM (degrees), ERGAS, and the mean magnitude of the bands'
    bias (DN)."""

    psnr: float
    sam: float
    ergas: float
    bias: float


@dataclass(frozen=True)
class Loss:
    """Against truth: figures of FP32 and of the lower precision, and between them a band's shift and the
    most, DN."""

    pairs: int
    single: Figures
    lower: Figures
    shift: float
    largest: float

    def share(self, gate: LossGate) -> float:
        """The largest of the losses as a share of what the gate, all of it above 0, allows; NaN where a
        result is not finite.
        """
        a, b = self.single, self.lower
        relative = b.ergas / a.ergas - 1 if a.ergas else 0.0
        shares = (
            (a.psnr - b.psnr) / gate.psnr,
            (b.sam - a.sam) / gate.sam,
            relative / gate.ergas,
            self.shift / gate.shift,
        )
        return float(np.max(shares))

    def require(self, what: str, gate: LossGate, remedy: str = REMEDY) -> None:
        """Raise CheckFailedError with the figures unless within the gate; better than FP32 is within it,
        too."""
        a, b = self.single, self.lower
        relative = b.ergas / a.ergas - 1 if a.ergas else 0.0
        within = (a.psnr - b.psnr <= gate.psnr, b.sam - a.sam <= gate.sam, relative <= gate.ergas)
        if not (all(within) and self.shift <= gate.shift):
            raise CheckFailedError(
                f"{what} against FP32 on {self.pairs} pairs with truth: PSNR {b.psnr:.3f} for {a.psnr:.3f} "
                f"dB (gate -{gate.psnr:g}), SAM {b.sam:.4f} for {a.sam:.4f} deg (gate +{gate.sam:g}), "
                f"ERGAS {b.ergas:.4f} for {a.ergas:.4f} (gate +{gate.ergas:.0%}), shift {self.shift:.3f} "
                f"DN (gate {gate.shift:g}); {remedy}"
            )


def distance(
    names: Sequence[str], output: NDArray[np.floating], reference: NDArray[np.floating], contract: Contract
) -> Distance:
    """Between two outputs (K, B, H, W) in DN on golden tiles of these names."""
    sensor, natural = contract.sensor, list(names).index("natural")
    joined, expected = (np.concatenate(list(a), axis=-1) for a in (output, reference))
    if not np.isfinite(joined).all():
        return Distance(*(float("nan"),) * 5)
    return Distance(
        psnr(joined, expected, float(sensor.peak)),
        sam(output[natural], reference[natural]),
        ergas(output[natural], reference[natural], sensor.ratio),
        max(abs(shift) for pair in zip(output, reference, strict=True) for shift in bias(*pair)),
        float(np.abs(joined - expected).max()),
    )


def on_golden(model: onnx.ModelProto, tiles: GoldenTiles) -> NDArray[np.float32]:
    """What ONNX Runtime makes of the golden tiles, one at a time: (K, B, H, W), DN."""
    return tiles.through(fuser(model))


class Judge:
    """What models lose beside `single` on pairs with truth; `single` itself is computed once.

    Raises ValueError for a pair without truth, InputError for one that cannot be measured.
    """

    def __init__(self, single: onnx.ModelProto, contract: Contract, pairs: Sequence[Pair]) -> None:
        self._contract, self._pairs = contract, pairs
        self._products = list(self.products(single))
        self._single = _mean(
            [_figures(*judged, contract) for judged in zip(pairs, self._products, strict=True)]
        )

    def products(self, model: onnx.ModelProto) -> Iterator[NDArray[np.float32]]:
        """What a model makes of each pair: (B, H, W), DN, neither rounded nor clipped."""
        opened = JudgedModel("", self._contract.sensor, self._contract.tile, fuser(model))
        return (fuse_whole(opened, pair.ms, pair.pan) for pair in self._pairs)

    def __call__(self, lower: onnx.ModelProto) -> Loss:
        """The loss of a model."""
        found, shifts, largest = [], [], []
        for pair, first, second in zip(self._pairs, self._products, self.products(lower), strict=True):
            found.append(_figures(pair, second, self._contract))
            with np.errstate(invalid="ignore"):
                difference = second.astype(np.float64) - first
            shifts.append(float(np.abs(difference.mean((1, 2))).max()))
            largest.append(float(np.abs(difference).max()))
        return Loss(
            len(self._pairs), self._single, _mean(found), float(np.max(shifts)), float(np.max(largest))
        )


def loss(single: onnx.ModelProto, lower: onnx.ModelProto, contract: Contract, pairs: Sequence[Pair]) -> Loss:
    """What `lower` loses beside `single` on pairs with truth. Raises as `Judge`."""
    return Judge(single, contract, pairs)(lower)


def fuser(model: onnx.ModelProto) -> Fuse:
    """A model in ONNX Runtime as a function of tiles."""
    session = open_model(model)

    def fuse(ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        result: NDArray[np.float32] = session.run(["hrms"], {"ms": ms, "pan": pan})[0]
        return result

    return fuse


def _figures(pair: Pair, fused: NDArray[np.floating], contract: Contract) -> Figures:
    if not np.isfinite(fused).all():
        return Figures(*(float("nan"),) * 4)
    quality = judge(pair, "", as_delivered(fused, contract.sensor.peak), contract.sensor).quality
    return Figures(quality.psnr, quality.sam, quality.ergas, fmean(map(abs, quality.bias)))


def _mean(found: Sequence[Figures]) -> Figures:
    return Figures(
        *(fmean(getattr(figures, key) for figures in found) for key in ("psnr", "sam", "ergas", "bias"))
    )

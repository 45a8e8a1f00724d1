"""How do local statistics and proposals look in an ONNX graph? `sfiin.model.injection`, in standard
operators.

Windows' means and resampling are grouped convolutions with constant weights. All of it stays in the scope
`local`, which every lower precision leaves in FP32: it computes with small differences of DN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sfiin.export.graph_builder import GraphBuilder
from sfiin.model.injection import SHARES, SHOWN, Injection
from sfiin.model.resample import Resample
from sfiin.runtime.quality import local

SCOPE = "local"
"""The scope of all nodes that are not the core's."""


@dataclass(frozen=True)
class Ends:
    """Values by name: the heads' inputs, resampled MS, the residual's unit ("" for 1) and the proposals."""

    ms: str
    pan: str
    base: str
    spread: str
    proposals: tuple[str, ...]


@dataclass(frozen=True)
class Moments:
    """As `sfiin.model.injection.Moments`."""

    off: str
    spread: str
    mean: str


@dataclass(frozen=True)
class Views:
    """As `sfiin.model.injection.Views`."""

    ms: str
    up: str
    pan: str
    low: str
    high: str
    fine: str


class LocalGraph:
    """Adds an `Injection` to a graph; each method mirrors one there. `tile` is (height, width), PAN
    pixels."""

    def __init__(self, part: Injection, graph: GraphBuilder, tile: tuple[int, int]) -> None:
        self.part, self.graph, self.op = part, graph, graph.op
        self.size = tile[0] // part.ratio, tile[1] // part.ratio

    def look(self, ms: str, pan: str, scale: float) -> Ends:
        """From the inputs in DN to the ends of the core, in units of the scale."""
        op, part = self.op, self.part
        ms, pan = (op("Mul", x, self.graph.scalar(1 / scale)) for x in (ms, pan))
        levels = self.graph.mean(ms), self.graph.mean(pan)
        ms, pan = op("Sub", ms, levels[0]), op("Sub", pan, levels[1])
        low, mix = self.low_pass(ms, pan)
        high = op("Sub", pan, self.resample(part.cubic_pan, low))
        views = Views(
            ms, self.resample(part.cubic_ms, ms), pan, low, high, self.blocks(op("Mul", high, high))
        )
        wide = self.moments(ms, part.bands, local.WIDE)
        wide_pan = self.moments(low, 1, local.WIDE, views.fine)
        means = self.resample(part.linear_ms, wide.mean)
        pan_means = self.resample(part.linear_pan, wide_pan.mean)
        proposals = self.proposals(views)
        if "modulation" in SHARES[part.inject]:
            below = op("Max", op("Add", pan_means, levels[1]), self.graph.scalar(local.DARK))
            proposals["modulation"] = op("Mul", op("Div", op("Add", means, levels[0]), below), high)
        base = op("Add", views.up, levels[0])
        ends = [proposals[name] for name in SHARES[part.inject]]
        if part.normalise == "local":
            spread = self.resample(part.linear_ms, wide.spread)
            pan_spread = self.resample(part.linear_pan, wide_pan.spread)
            bands = op("Div", op("Sub", views.up, means), spread)
            sharp, high = (op("Div", x, pan_spread) for x in (op("Sub", pan, pan_means), high))
            shown = [op("Div", proposals[name], spread) for name in SHOWN if name in proposals]
        else:
            spread, bands, sharp = "", base, op("Add", pan, levels[1])
            shown = [proposals[name] for name in SHOWN if name in proposals]
        if part.inject != "none":
            # The mix is one number a tile; the head takes it as a map.
            plane = op("Add", op("Mul", pan, self.graph.scalar(0.0)), mix)
            sharp = op("Concat", sharp, high, plane, axis=1)
        return Ends(self.together(bands, *shown), sharp, base, spread, tuple(ends))

    def joined(self, ends: Ends, result: str, scale: float) -> str:
        """HRMS in DN from the core's result: the residual, and a share for each proposal."""
        op, bands = self.op, self.part.bands
        parts = 1 + len(ends.proposals)
        if parts > 1:
            sizes = self.graph.integers([bands] * parts)
            residual, *shares = op("Split", result, sizes, axis=1, outputs=parts)
        else:
            residual, shares = result, []
        total = op("Add", ends.base, op("Mul", ends.spread, residual) if ends.spread else residual)
        first = SHARES[self.part.inject].values()
        for start, share, proposal in zip(first, shares, ends.proposals, strict=True):
            whole = op("Add", share, self.graph.scalar(start))
            total = op("Add", total, op("Mul", whole, proposal))
        return op("Mul", total, self.graph.scalar(scale))

    def low_pass(self, ms: str, pan: str) -> tuple[str, str]:
        """PAN's low-pass at MS scale, and its mix."""
        op, scalar, bands = self.op, self.graph.scalar, self.part.bands
        smooth = self.blurred(pan)
        rest = op("Sub", self.blocks(pan), smooth)
        off = self.deviation(ms, bands, local.WIDE)
        off_smooth, off_rest = (self.deviation(x, 1, local.WIDE) for x in (smooth, rest))
        floor = scalar(local.CONTRAST**2)
        power = op("Add", self.box(op("Mul", off, off), bands, local.WIDE), floor)
        mix = ""
        for _ in range(local.STEPS):
            low = op("Add", off_smooth, op("Mul", mix, off_rest)) if mix else off_smooth
            spread = op("Add", self.box(op("Mul", low, low), 1, local.WIDE), floor)
            gain = op("Div", self.box(op("Mul", off, low), bands, local.WIDE), spread)
            taken = op("Div", self.box(op("Mul", off_rest, low), 1, local.WIDE), spread)
            free = op("Sub", off_rest, op("Mul", taken, low))
            weight = op("Div", gain, power)
            slope = self.overall(op("Mul", op("Mul", weight, free), op("Sub", off, op("Mul", gain, low))))
            pull = op("Mul", gain, free)
            curve = self.overall(op("Mul", op("Div", pull, power), pull))
            step = op("Div", slope, op("Add", curve, scalar(local.DAMPING)))
            mix = op("Clip", op("Add", mix, step) if mix else step, *map(scalar, local.MIX))
        mix = self.decided(mix)
        return op("Add", smooth, op("Mul", mix, rest)), mix

    def decided(self, mix: str) -> str:
        """What is kept of t."""
        op, scalar = self.op, self.graph.scalar
        above = op("Mul", op("Sub", mix, scalar(local.MTF)), scalar(1 / (local.BLOCKS - local.MTF)))
        above = op("Clip", above, scalar(0.0), scalar(1.0))
        below = op("Mul", op("Clip", mix, scalar(local.MIX[0]), scalar(local.MTF)), scalar(local.TRUST))
        ramp = op("Mul", above, scalar(local.MEANS - local.TRUST * local.MTF))
        return op("Add", below, ramp)

    def proposals(self, views: Views) -> dict[str, str]:
        """Local regression and local GSA, as far as they are asked for."""
        op, part, wanted = self.op, self.part, SHARES[self.part.inject]
        found: dict[str, str] = {}
        if not wanted:
            return found
        bands = self.moments(views.ms, part.bands, local.WINDOW)
        more = op("Mul", views.fine, self.graph.scalar(local.FINE))
        sharp = self.moments(views.low, 1, local.WINDOW, more)
        related = self.box(op("Mul", bands.off, sharp.off), part.bands, local.WINDOW)
        related = op("Div", related, op("Mul", bands.spread, sharp.spread))
        quotient = op("Div", bands.spread, sharp.spread)
        if "regression" in wanted:
            gains = self.resample(part.linear_ms, op("Mul", related, quotient))
            found["regression"] = op("Mul", gains, views.high)
        if "gsa" in wanted:
            weights = self.solve(bands, related)
            gains = op("Mul", self.shares(weights, related), quotient)
            mixing = self.resample(part.linear_ms, op("Div", weights, quotient))
            off = op("Sub", views.up, self.resample(part.linear_ms, bands.mean))
            level = self.resample(part.linear_pan, sharp.mean)
            intensity = op("Add", self.over_bands(op("Mul", mixing, off)), level)
            rest = op("Sub", views.pan, intensity)
            found["gsa"] = op("Mul", self.resample(part.linear_ms, gains), rest)
        return found

    def shares(self, weights: str, related: str) -> str:
        """The bands' gains on the intensity, in units of both spreads."""
        op, scalar = self.op, self.graph.scalar
        shared = op("Sub", related, op("Mul", weights, scalar(local.RIDGE)))
        explained = op("Max", self.over_bands(op("Mul", weights, shared)), scalar(0.0))
        below = op("Add", explained, scalar(local.UNEXPLAINED))
        return op("Div", op("Mul", shared, scalar(1 + local.UNEXPLAINED)), below)

    def solve(self, bands: Moments, target: str) -> str:
        """Gauss-Jordan elimination of the bands' correlations, as maps (N, B, B + 1, h, w)."""
        op, count, size = self.op, self.part.bands, self.size
        across, down = ((0, count, 1, *size), (0, 1, count, *size))
        product = self.outer(bands.off, across, down)
        product = op("Reshape", product, self.shape(0, count * count, *size))
        product = self.box(product, count * count, local.WINDOW)
        product = op("Reshape", product, self.shape(0, count, count, *size))
        matrix = op("Div", product, self.outer(bands.spread, across, down))
        unit = np.eye(count)[None, :, :, None, None]
        matrix = op("Add", matrix, self.graph.constant(f"{SCOPE}.ridge", local.RIDGE * unit))
        system = op("Concat", matrix, op("Reshape", target, self.shape(*across)), axis=2)
        for row in range(count):
            own = self.slice(system, row, 1)
            pivot = op("Div", own, self.slice(own, row, 2))
            one = self.graph.constant(f"{SCOPE}.unit{row}", unit[:, :, row : row + 1])
            system = op("Sub", system, op("Mul", op("Sub", self.slice(system, row, 2), one), pivot))
        return op("Reshape", self.slice(system, count, 2), self.shape(0, count, *size))

    def outer(self, x: str, across: Sequence[int], down: Sequence[int]) -> str:
        """Each band times each."""
        first, second = (self.op("Reshape", x, self.shape(*shape)) for shape in (across, down))
        return self.op("Mul", first, second)

    def moments(self, x: str, channels: int, window: int, more: str = "") -> Moments:
        """Deviations, spread and means in windows; `more` adds to the variance."""
        op = self.op
        mean = self.box(x, channels, window)
        off = op("Sub", x, mean)
        square = op("Mul", off, off)
        square = op("Add", square, more) if more else square
        variance = op("Add", self.box(square, channels, window), self.graph.scalar(local.CONTRAST**2))
        return Moments(off, op("Sqrt", variance), mean)

    def deviation(self, x: str, channels: int, window: int) -> str:
        """What deviates from the window's mean."""
        return self.op("Sub", x, self.box(x, channels, window))

    def blurred(self, pan: str) -> str:
        """By rows, then by columns."""
        ratio, taps = self.part.ratio, self.part.mtf.double().numpy()
        count = len(taps)
        margin = count // 2 - ratio // 2
        x = self.padded(pan, margin)
        for name, shape, strides in (("rows", (count, 1), (ratio, 1)), ("columns", (1, count), (1, ratio))):
            weight = self.graph.constant(f"{SCOPE}.mtf.{name}", taps.reshape(1, 1, *shape))
            x = self.op("Conv", x, weight, kernel_shape=shape, strides=strides)
        return x

    def blocks(self, pan: str) -> str:
        """The mean of each block of PAN pixels."""
        ratio = self.part.ratio
        weight = self.graph.constant(f"{SCOPE}.block", np.full((1, 1, ratio, ratio), 1 / ratio**2))
        window: dict[str, Any] = {"kernel_shape": (ratio, ratio), "strides": (ratio, ratio)}
        return self.op("Conv", pan, weight, **window)  # type: ignore[no-any-return]

    def box(self, x: str, channels: int, window: int) -> str:
        """The mean over an odd window."""
        weights = np.full((channels, 1, window, window), window**-2)
        weight = self.graph.constant(f"{SCOPE}.box{window}x{channels}", weights)
        padded, shape = self.padded(x, window // 2), (window, window)
        return self.op("Conv", padded, weight, group=channels, kernel_shape=shape)

    def resample(self, part: Resample, x: str) -> str:
        """By the name of the kind and its bands, which say all of the weights."""
        name = f"{SCOPE}.{type(part).__name__}{part.bands}"
        weight = self.graph.constant(name, part.weight.double().numpy())
        padded, shape = self.padded(x, part.window // 2), (part.window, part.window)
        phases = self.op("Conv", padded, weight, group=part.bands, kernel_shape=shape)
        return self.op("DepthToSpace", phases, blocksize=part.ratio, mode="CRD")

    def padded(self, x: str, margin: int) -> str:
        """With edges replicated."""
        return self.op("Pad", x, self.graph.integers((0, 0, margin, margin) * 2), mode="edge")

    def overall(self, x: str) -> str:
        """The mean over bands and pixels, (N, 1, 1, 1)."""
        return self.graph.reduce("ReduceMean", self.graph.mean(x), (1,))

    def over_bands(self, x: str) -> str:
        """The sum over bands, (N, 1, H, W)."""
        weight = self.graph.constant(f"{SCOPE}.sum", np.ones((1, self.part.bands, 1, 1)))
        return self.op("Conv", x, weight, kernel_shape=(1, 1))

    def slice(self, x: str, first: int, axis: int) -> str:
        """One element along an axis, which stays."""
        ends = ((first,), (first + 1,), (axis,))
        return self.op("Slice", x, *(self.graph.integers(end) for end in ends))

    def shape(self, *sides: int) -> str:
        """A shape as a value; 0 stands for what is there."""
        return self.graph.integers(sides)

    def together(self, *values: str) -> str:
        """Maps joined along their channels."""
        return self.op("Concat", *values, axis=1) if len(values) > 1 else values[0]

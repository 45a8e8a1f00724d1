"""What does a network know of a pixel's neighbourhood before it looks? Local contrast, and local proposals.

`normalise` brings each band, and PAN, to mean 0 and deviation 1 of its neighbourhood, and the network's
result back: a scene of another gain, offset, haze or contrast is the same to it. `inject` hands it what a
classical method would add from PAN, as inputs, and has it weigh that instead of making detail from nothing:
each proposal is added with the share that the network gives it, pixel by pixel and band by band.

The formulas, their reasons and their constants are those of `sfiin.runtime.quality.local`, in standard
operators that every runtime has. What is windowed here sees the tile only; the mix t of PAN's low-pass is of
the tile.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfiin.model.resample import Linear, Upsample, single_precision
from sfiin.runtime.quality import local
from sfiin.runtime.quality.degradation import mtf_taps

Inject = Literal["none", "regression", "gsa", "mixed"]
Normalise = Literal["none", "local"]

SHARES: Mapping[Inject, Mapping[str, float]] = {
    "none": {},
    "regression": {"regression": 1.0},
    "gsa": {"gsa": 1.0},
    "mixed": {"regression": 0.4, "gsa": 0.5, "modulation": 0.1},
}
"""The proposals of each choice, and the share of each before training."""

SHOWN = ("regression", "gsa")
"""The proposals that are inputs too; modulation is PAN's detail times something smooth, which PAN shows."""


@dataclass(frozen=True)
class Surroundings:
    """What the network starts from, on the PAN grid, in units of the sensor's scale.

    `ms` and `pan` are the inputs of the two heads; `base` (N, B, H, W) is resampled MS, `spread` what one
    unit of the network's residual is there, and `proposals` what may be added, in the order of `SHARES`.
    """

    ms: Tensor
    pan: Tensor
    base: Tensor
    spread: Tensor
    proposals: tuple[Tensor, ...]


@dataclass(frozen=True)
class Moments:
    """At MS scale: deviations from the window's mean, their spread, and the means, of bands or of PAN."""

    off: Tensor
    spread: Tensor
    mean: Tensor


@dataclass(frozen=True)
class Views:
    """MS and its resampling; PAN, its low-pass at MS scale, what that leaves of it, and the power of that per
    block."""

    ms: Tensor
    up: Tensor
    pan: Tensor
    low: Tensor
    high: Tensor
    fine: Tensor


class Injection(nn.Module):
    """From MS (N, B, h, w) and PAN (N, 1, H, W), in units of the scale, to `Surroundings`. It learns
    nothing."""

    mtf: Tensor

    def __init__(self, bands: int, ratio: int, inject: Inject, normalise: Normalise) -> None:
        super().__init__()
        self.bands, self.ratio, self.inject, self.normalise = bands, ratio, inject, normalise
        self.cubic_ms, self.cubic_pan = Upsample(bands, ratio), Upsample(1, ratio)
        self.linear_ms, self.linear_pan = Linear(bands, ratio), Linear(1, ratio)
        taps = torch.from_numpy(mtf_taps(local.GAIN, ratio, ratio % 2 == 1))
        self.register_buffer("mtf", taps.float(), persistent=False)

    @property
    def channels(self) -> tuple[int, int]:
        """Of the inputs of the MS head and of the PAN head."""
        shown = sum(name in SHOWN for name in SHARES[self.inject])
        return self.bands * (1 + shown), 1 if self.inject == "none" else 3

    @torch.no_grad()
    def forward(self, ms: Tensor, pan: Tensor) -> Surroundings:
        """See the class. Under autocast it stays in float32."""
        with single_precision(ms.device):
            return self.look(ms, pan)

    def look(self, ms: Tensor, pan: Tensor) -> Surroundings:
        """Bands and PAN without their levels, so that nothing small is lost beside something large."""
        levels = ms.mean((2, 3), keepdim=True), pan.mean((2, 3), keepdim=True)
        ms, pan = ms - levels[0], pan - levels[1]
        low, mix = self.low_pass(ms, pan)
        high = pan - self.cubic_pan(low)
        views = Views(ms, self.cubic_ms(ms), pan, low, high, functional.avg_pool2d(high * high, self.ratio))
        wide, wide_pan = moments(ms, local.WIDE), moments(low, local.WIDE, views.fine)
        means, pan_means = self.linear_ms(wide.mean), self.linear_pan(wide_pan.mean)
        proposals = self.proposals(views)
        if "modulation" in SHARES[self.inject]:
            below = (pan_means + levels[1]).clamp_min(local.DARK)
            proposals["modulation"] = (means + levels[0]) / below * high
        if self.normalise == "local":
            spread, pan_spread = self.linear_ms(wide.spread), self.linear_pan(wide_pan.spread)
            bands, sharp = (views.up - means) / spread, (pan - pan_means) / pan_spread
        else:
            spread, pan_spread = torch.ones_like(views.up), torch.ones_like(pan)
            bands, sharp = views.up + levels[0], pan + levels[1]
        shown = [detail / spread for name, detail in proposals.items() if name in SHOWN]
        details = [] if self.inject == "none" else [high / pan_spread, mix.expand_as(pan)]
        ordered = tuple(proposals[name] for name in SHARES[self.inject])
        heads = torch.cat([bands, *shown], 1), torch.cat([sharp, *details], 1)
        return Surroundings(*heads, views.up + levels[0], spread, ordered)

    def low_pass(self, ms: Tensor, pan: Tensor) -> tuple[Tensor, Tensor]:
        """PAN as the MS sensor would have seen it (N, 1, h, w), and its mix t (N, 1, 1, 1)."""
        smooth = self.blurred(pan)
        rest = functional.avg_pool2d(pan, self.ratio) - smooth
        off, off_smooth, off_rest = (deviation(x, local.WIDE) for x in (ms, smooth, rest))
        power, floor = box(off * off, local.WIDE) + local.CONTRAST**2, local.CONTRAST**2
        mix = torch.zeros_like(pan[:, :, :1, :1])
        for _ in range(local.STEPS):
            low = off_smooth + mix * off_rest
            spread = box(low * low, local.WIDE) + floor
            gain = box(off * low, local.WIDE) / spread
            free = off_rest - box(off_rest * low, local.WIDE) / spread * low
            weight = gain / power
            slope = (weight * free * (off - gain * low)).mean((1, 2, 3), keepdim=True)
            curve = (weight * gain * free * free).mean((1, 2, 3), keepdim=True)
            mix = (mix + slope / (curve + local.DAMPING)).clamp(*local.MIX)
        above = ((mix - local.MTF) / (local.BLOCKS - local.MTF)).clamp(0, 1)
        mix = local.TRUST * mix.clamp(max=local.MTF) + (local.MEANS - local.TRUST * local.MTF) * above
        return smooth + mix * rest, mix

    def blurred(self, pan: Tensor) -> Tensor:
        """PAN through the MTF, one pixel of each block: (N, 1, H, W) to (N, 1, h, w)."""
        ratio, count = self.ratio, len(self.mtf)
        margin = count // 2 - ratio // 2
        padded = functional.pad(pan, [margin] * 4, mode="replicate")
        rows = functional.conv2d(padded, self.mtf.view(1, 1, count, 1), stride=(ratio, 1))
        return functional.conv2d(rows, self.mtf.view(1, 1, 1, count), stride=(1, ratio))

    def proposals(self, views: Views) -> dict[str, Tensor]:
        """What local regression and local GSA would add, as far as they are asked for."""
        wanted, found = SHARES[self.inject], {}
        bands = moments(views.ms, local.WINDOW)
        sharp = moments(views.low, local.WINDOW, local.FINE * views.fine)
        related = box(bands.off * sharp.off, local.WINDOW) / (bands.spread * sharp.spread)
        quotient = bands.spread / sharp.spread
        if "regression" in wanted:
            found["regression"] = self.linear_ms(related * quotient) * views.high
        if "gsa" in wanted:
            weights = solve(correlations(bands, local.WINDOW), related, local.RIDGE)
            shared = related - local.RIDGE * weights
            explained = (weights * shared).sum(1, keepdim=True).clamp_min(0)
            gains = shared / (explained + local.UNEXPLAINED) * (1 + local.UNEXPLAINED) * quotient
            mixing = self.linear_ms(weights / quotient)
            intensity = (mixing * (views.up - self.linear_ms(bands.mean))).sum(1, keepdim=True)
            intensity = intensity + self.linear_pan(sharp.mean)
            found["gsa"] = self.linear_ms(gains) * (views.pan - intensity)
        return found


def moments(x: Tensor, window: int, more: Tensor | float = 0.0) -> Moments:
    """Moments of maps (N, C, h, w) in windows; `more` adds to their variance."""
    mean = box(x, window)
    off = x - mean
    return Moments(off, (box(off * off + more, window) + local.CONTRAST**2).sqrt(), mean)


def deviation(x: Tensor, window: int) -> Tensor:
    """What deviates from the window's mean."""
    return x - box(x, window)


def correlations(bands: Moments, window: int) -> Tensor:
    """The bands' correlations with one another: (N, B, B, h, w)."""
    count, height, width = bands.off.shape[1:]
    products = (bands.off[:, :, None] * bands.off[:, None]).reshape(-1, count * count, height, width)
    scales = bands.spread[:, :, None] * bands.spread[:, None]
    return box(products, window).reshape(-1, count, count, height, width) / scales


def solve(matrix: Tensor, target: Tensor, ridge: float) -> Tensor:
    """x of (matrix + ridge) x = target, pixel by pixel: (N, B, B, h, w) and (N, B, h, w) to (N, B, h, w).

    Gauss-Jordan elimination without pivots, which a correlation matrix with a ridge does not need.
    """
    count = target.shape[1]
    diagonal = torch.eye(count, dtype=target.dtype, device=target.device)[None, :, :, None, None]
    system = torch.cat((matrix + ridge * diagonal, target[:, :, None]), 2)
    for row in range(count):
        pivot = system[:, row : row + 1] / system[:, row : row + 1, row : row + 1]
        # The pivot's own row becomes the pivot: x - (x[row] - 1) pivot.
        system = system - (system[:, :, row : row + 1] - diagonal[:, :, row : row + 1]) * pivot
    return system[:, :, count]


def box(x: Tensor, window: int) -> Tensor:
    """The mean over an odd window of maps (N, C, h, w); edges are replicated."""
    padded = functional.pad(x, [window // 2] * 4, mode="replicate")
    return functional.avg_pool2d(padded, window, 1)

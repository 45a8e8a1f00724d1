"""What may be added to MS from PAN, judged by each pixel's neighbourhood? Local regression and local GSA.

Everything rests on PAN's low-pass P: what the MS sensor would have seen of PAN. Sensors, and the ways in
which MS is reduced, blur differently, so P is the mix G + t (M - G) of a Gaussian MTF's view (gain 0.3) and
of the blocks' means, and the image itself says which t explains MS best: Gauss-Newton steps on the sum of
squares of what local regression on P leaves of the bands, each in units of its local contrast. One tile's t
is uncertain by 0.1 to 0.2, and neighbours must agree, so that only a share of it is kept where it speaks of
an MTF; where it speaks of blocks it is theirs, and between lies a ramp. At MS scale, in windows, d being what
deviates from the window's mean and <> the mean over the window:

- regression: band b gets g_b (PAN - P), with g_b = <d_b d_P> / <d_P^2>;
- GSA: the intensity I is the mix of bands that best explains P in the window (with a ridge), and band b gets
  its regression on I times PAN - I;
- modulation: band b gets PAN - P times the quotient of both means.

Windowed moments are means of products of deviations from the window's own mean: nothing large is subtracted
from anything large, so that float32 is enough. `sfiin.model.injection` computes the same in a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.quality.bicubic import bicubic
from sfiin.runtime.quality.degradation import block_mean, degrade
from sfiin.runtime.quality.filters import correlate

Image = NDArray[np.float64]

WINDOW = 3
"""MS pixels a side of the windows of regression and GSA."""

WIDE = 5
"""MS pixels a side of the windows in which P's blur is judged, and in which a network normalises."""

GAIN = 0.3
"""The Nyquist gain of the MTF that P is seen through where t is 0."""

MIX = (-0.8, 1.3)
"""The range of t while it is sought. Below 0, MS is blurrier than by that MTF; at 1, it is the mean of
blocks."""

MTF, BLOCKS = 0.4, 0.7
"""Up to which t MS was seen through an MTF, and from which on it is the mean of blocks. Tiles of 128 PAN
pixels: pairs reduced by an MTF, and real scenes, have -0.8 to 0.5; pairs reduced by blocks 0.65 and more, but
for one in ten."""

TRUST = 0.1
"""The share of t that is kept up to `MTF`. Neighbouring tiles of a real scene then differ by 3.5 DN (99th
percentile, overlaps of 32 and 96, the shipped network); with 0.35 by 10, with none by 2."""

MEANS = 0.95
"""The t of blocks."""

STEPS = 2
"""Gauss-Newton steps towards t; a third changes nothing."""

DAMPING = 1e-4
"""Added to the curvature of t's sum of squares, a share of explained variance: without contrast t stays 0."""

RIDGE = 1e-2
"""Added to the bands' correlation matrix: bands that are alike share their weight."""

UNEXPLAINED = 0.1
"""Added to the share of P's variance that the intensity explains, by which gains are divided."""

FINE = 0.005
"""The share of PAN's fine contrast that counts as P's: where P has none, no gain grows without bounds."""

CONTRAST = 1e-3
"""The least standard deviation, as a share of the range of DN: below it there is nothing but noise."""

DARK = 1e-2
"""The least mean of PAN, as a share of the range of DN, that modulation divides by."""


@dataclass(frozen=True)
class Neighbourhood:
    """Windowed moments of MS and of PAN's low-pass at MS scale, (B or 1, h, w), and what of PAN is left, (H,
    W).

    `mix` is t; `means` and `spreads` are of the bands, `pan_mean` and `pan_spread` of the low-pass;
    `correlations` (B, h, w) are the bands' with it, `matrix` (h, w, B, B) theirs with one another.
    """

    up: Image
    pan: Image
    high: Image
    mix: float
    means: Image
    spreads: Image
    pan_mean: Image
    pan_spread: Image
    correlations: Image
    matrix: Image
    wide_means: Image
    wide_pan_mean: Image
    ratio: int
    unit: float


def look(ms: NDArray[Any], pan: NDArray[Any], ratio: int, unit: float | None = None) -> Neighbourhood:
    """The moments of MS (B, h, w) and PAN (H, W), DN. `unit` is the range of DN; default: the largest there
    is."""
    coarse, sharp = np.asarray(ms, np.float64), np.asarray(pan, np.float64)
    unit = unit or max(float(np.abs(coarse).max()), float(np.abs(sharp).max())) or 1.0
    floor = (CONTRAST * unit) ** 2
    smooth, mean = degrade(sharp[None], ratio, GAIN), block_mean(sharp[None], ratio)
    mix = blur_mix(coarse, smooth, mean - smooth, floor)
    low = smooth + mix * (mean - smooth)
    high = sharp - bicubic(low, ratio)[0]
    fine = block_mean(high[None] ** 2, ratio)
    off, off_low = deviation(coarse, WINDOW), deviation(low, WINDOW)
    spreads = np.sqrt(box(off**2, WINDOW) + floor)
    pan_spread = np.sqrt(box(off_low**2 + FINE * fine, WINDOW) + floor)
    count = len(coarse)
    products = box((off[:, None] * off[None]).reshape(count * count, *off.shape[1:]), WINDOW)
    matrix = products.reshape(count, count, *off.shape[1:]) / (spreads[:, None] * spreads[None])
    return Neighbourhood(
        bicubic(coarse, ratio),
        sharp,
        high,
        mix,
        box(coarse, WINDOW),
        spreads,
        box(low, WINDOW),
        pan_spread,
        box(off * off_low, WINDOW) / (spreads * pan_spread),
        np.moveaxis(matrix, (0, 1), (2, 3)),
        box(coarse, WIDE),
        box(low, WIDE),
        ratio,
        unit,
    )


def blur_mix(ms: Image, smooth: Image, rest: Image, floor: float) -> float:
    """The t for which local regression on `smooth` + t `rest`, (1, h, w), leaves least of MS, (B, h, w),
    decided."""
    off, off_smooth, off_rest = (deviation(image, WIDE) for image in (ms, smooth, rest))
    power, mix = box(off**2, WIDE) + floor, 0.0
    for _ in range(STEPS):
        low = off_smooth + mix * off_rest
        spread = box(low**2, WIDE) + floor
        gain = box(off * low, WIDE) / spread
        free = off_rest - box(off_rest * low, WIDE) / spread * low  # what regression on `low` cannot take up
        weight = gain / power
        slope = (weight * free * (off - gain * low)).mean()
        mix = float(np.clip(mix + slope / ((weight * gain * free**2).mean() + DAMPING), *MIX))
    return decided(mix)


def decided(mix: float) -> float:
    """What is kept of t: see `TRUST`, `MTF`, `BLOCKS` and `MEANS`."""
    below, above = min(mix, MTF), float(np.clip((mix - MTF) / (BLOCKS - MTF), 0, 1))
    return TRUST * below + above * (MEANS - TRUST * MTF)


def regression(found: Neighbourhood) -> Image:
    """What local regression adds to resampled MS: (B, H, W), DN."""
    gains = found.correlations * found.spreads / found.pan_spread
    return np.asarray(linear(gains, found.ratio) * found.high)


def gsa(found: Neighbourhood) -> Image:
    """What local GSA adds to resampled MS: (B, H, W), DN."""
    ridge = RIDGE * np.eye(len(found.up))
    targets = np.moveaxis(found.correlations, 0, -1)
    weights = np.moveaxis(np.linalg.solve(found.matrix + ridge, targets[..., None])[..., 0], -1, 0)
    # The bands' covariances with the intensity, and its variance, follow from the system that was solved.
    shared = found.correlations - RIDGE * weights
    explained = np.maximum((weights * shared).sum(0), 0.0)
    gains = shared / (explained + UNEXPLAINED) * (1 + UNEXPLAINED) * found.spreads / found.pan_spread
    mixing = linear(weights * found.pan_spread / found.spreads, found.ratio)
    intensity = (mixing * (found.up - linear(found.means, found.ratio))).sum(0)
    intensity += linear(found.pan_mean, found.ratio)[0]
    return np.asarray(linear(gains, found.ratio) * (found.pan - intensity))


def modulation(found: Neighbourhood) -> Image:
    """What modulation by both means' quotient adds to resampled MS: (B, H, W), DN."""
    below = np.maximum(linear(found.wide_pan_mean, found.ratio), DARK * found.unit)
    return np.asarray(linear(found.wide_means, found.ratio) / below * found.high)


DETAILS: Mapping[str, Any] = {"regression": regression, "gsa": gsa, "modulation": modulation}
"""What each way adds to resampled MS."""


def deviation(image: Image, window: int) -> Image:
    """An image less its windowed mean; its own mean is taken off first, so that a constant is exactly
    flat."""
    level = image - image.mean((1, 2), keepdims=True)
    return np.asarray(level - box(level, window))


def box(image: Image, window: int) -> Image:
    """The mean over an odd window: (B, h, w) to (B, h, w); edges are replicated."""
    taps = np.full(window, 1 / window)
    return correlate(correlate(image, taps, 1), taps, 2)


def linear_taps(ratio: int) -> Image:
    """Weights of pixels -1..1 around the one that contains each of `ratio` finer ones: (ratio, 3), rows sum
    to 1."""
    centres = (np.arange(ratio) + 0.5) / ratio - 0.5
    return np.asarray(np.maximum(1 - np.abs(centres[:, None] - np.arange(-1, 2)), 0.0))


def linear(image: Image, ratio: int) -> Image:
    """Resample linearly: (B, h, w) to (B, h * ratio, w * ratio); what is positive stays so; edges are
    replicated."""
    taps = linear_taps(ratio)
    for axis in (1, 2):
        phases = [correlate(image, row, axis) for row in taps]
        shape = [side * ratio if place == axis else side for place, side in enumerate(image.shape)]
        image = np.stack(phases, axis + 1).reshape(shape)
    return image

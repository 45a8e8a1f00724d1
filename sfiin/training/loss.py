"""What is training to minimise? The paper's loss: L1 in space plus lambda times L1 in frequency.

    loss = mean |y - t| + weight * (amplitude term + phase term)

with weight = lambda = 0.1 (ECCV 2022, equation for L_fre).

The scale problem: with an unnormalised ("backward") transform, amplitude differences grow with the patch, and
phase differences in radians do not shrink with the error at all in bins that hold little. At a pixel noise of
0.01 on 128 x 128 the spatial term is 0.008, but the amplitude term 0.7 and the phase term 0.4: the frequency
term dominates. By default both are therefore measured in pixel units: amplitudes of an orthonormal transform,
and phase differences as arcs, |t| * |dphi| with dphi wrapped to (-pi, pi]. `published=True` gives the plain
form.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from sfiin.model import spectrum
from sfiin.runtime.quality import detail

LEAST = 2e-3
"""Added to what is missing, in units of the sensor's scale: below it there is nothing but noise."""


def fusion_loss(
    fused: Tensor,
    truth: Tensor,
    weight: float = 0.1,
    published: bool = False,
    *,
    unit: Tensor | None = None,
) -> Tensor:
    """The loss of a batch: `fused`, `truth` (N, B, H, W), scaled to about 0..1. A scalar with finite
    gradients.

    With a `unit` (N, 1, 1, 1), each patch counts in a unit of its own; see `missing`.
    """
    if unit is not None:
        fused, truth = fused / unit, truth / unit
    spatial = (fused - truth).abs().mean()
    if not weight:
        return spatial
    return spatial + weight * frequency_loss(fused, truth, published)


def missing(ms_up: Tensor, truth: Tensor) -> Tensor:
    """What resampling leaves missing of a truth, root mean square over a patch, (N, 1, 1, 1), and a little.

    In this unit a dim or smooth patch counts as much as a bright and busy one, as decibels do.
    """
    return (truth - ms_up).square().mean((1, 2, 3), keepdim=True).sqrt() + LEAST


def faintness(fused: Tensor, truth: Tensor, unit: Tensor | float = 1.0) -> Tensor:
    """By how much the fine contrast of each patch and band is off the truth's, the mean over both: a scalar.

    L1 prefers detail that is too faint to detail that may lie wrong; this makes up for it. What is fine is as
    in `sfiin.runtime.quality.detail`. `unit` is as in `fusion_loss`.
    """
    return ((fine_contrast(fused / unit) - fine_contrast(truth / unit)).abs()).mean()


def fine_contrast(image: Tensor) -> Tensor:
    """Root mean square of what is fine, (N, B, H, W) to (N, B); its gradient is zero, not NaN, where nothing
    is."""
    return fine(image).square().mean((2, 3)).clamp_min(1e-12).sqrt()


def fine(image: Tensor) -> Tensor:
    """What lies above a Gaussian of `detail.FINE` pixels, (N, B, H, W)."""
    bands, reach = image.shape[1], math.ceil(4 * detail.FINE)
    position = torch.arange(-reach, reach + 1, dtype=image.dtype, device=image.device)
    taps = torch.exp(-0.5 * (position / detail.FINE) ** 2)
    taps = (taps / taps.sum()).repeat(bands, 1, 1, 1)
    padded = functional.pad(image, [reach] * 4, mode="replicate")
    rows = functional.conv2d(padded, taps.transpose(2, 3), groups=bands)
    return image - functional.conv2d(rows, taps, groups=bands)


def frequency_loss(fused: Tensor, truth: Tensor, published: bool = False) -> Tensor:
    """L1 of amplitudes plus L1 of phases of (N, B, H, W) images; see the module for the two forms."""
    amplitude, phase = spectrum.polar(fused)
    true_amplitude, true_phase = spectrum.polar(truth)
    turned = phase - true_phase
    if published:
        return (amplitude - true_amplitude).abs().mean() + turned.abs().mean()
    size = math.sqrt(truth.shape[-2] * truth.shape[-1])
    wrapped = torch.remainder(turned + math.pi, 2 * math.pi) - math.pi
    return ((amplitude - true_amplitude).abs().mean() + (true_amplitude * wrapped.abs()).mean()) / size

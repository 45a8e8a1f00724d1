"""What are the amplitude and the phase of a feature map, and how do they become a map again?

The one definition of the spectrum; the network is trained with it and every lowering must reproduce it.

Forward: the one-sided, unnormalised 2-D transform X = rfft2(x), of H rows and W // 2 + 1 columns. Each map
has a floor, `FLOOR * sqrt(H * W) * ||x||_2`, which for a constant map is `FLOOR * |DC|`. Then:

1. Self-conjugate bins (row 0 or H/2 and column 0 or W/2) of a real map are real; their imaginary part is a
   signed zero or rounding noise, and is set to 0. Left alone, their phase would be +pi in one FFT library and
   -pi in the next.
2. A bin whose modulus is not above the floor is rounding noise: amplitude and phase are 0, and so are their
   gradients. From once to twice the floor both fade in.
3. The phase is continuous. An angle must be cut somewhere, and a bin near the cut would jump by 2 pi on a
   change in its last digit; the jump would spread through all blocks that follow. So the cut lies away from
   the real axis, at -pi + `CUT`, and phases within `FADE` of it are drawn in linearly to the middle of the
   range, `CUT`, from both sides. Negative real bins, noise or none, have phase pi; one bin in thirty has a
   phase other than its angle.

Inverse: complex inverse along the rows' direction (H), then complex-to-real along W, in which the imaginary
parts of column 0 and of column W/2 (W even) do not count. A fused spectrum is not Hermitian there, and
libraries differ on what a two-dimensional complex-to-real transform makes of it; this order is the
definition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOOR = 1e-6
"""Relative amplitude under which a bin counts as rounding noise: some ten times float32's, far under any
texture."""

CUT, FADE = 0.2, 0.1
"""Where the phase is cut, radians above -pi, and how near to the cut it begins to be drawn in."""


def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude and phase (radians) of real maps, as the network sees them.

    `x`: (..., H, W) float32 or float64. Returns two tensors (..., H, W // 2 + 1) of x's dtype, with finite
    gradients everywhere, zeros included.
    """
    amplitude, angle = polar(x)
    share = (amplitude / noise_floor(x).clamp_min(1e-30) - 1).clamp(0, 1)
    return amplitude * share, continuous_phase(angle) * share


def polar(x: Tensor) -> tuple[Tensor, Tensor]:
    """Modulus and angle in [-pi, pi] of the one-sided transform, 0 where the modulus is not above the floor.

    Shapes and gradients as of `analyse`. For a loss, which compares angles on the circle; the network needs
    `analyse`.
    """
    height, width = x.shape[-2:]
    spectrum = torch.fft.rfft2(x)
    real = spectrum.real
    imag = spectrum.imag.masked_fill(self_conjugate(height, width, x.device), 0.0)
    square = real * real + imag * imag
    floor = noise_floor(x)
    lit = square > floor * floor  # elsewhere neither root nor angle has a gradient
    modulus = square.where(lit, 1.0).sqrt().where(lit, 0.0)
    return modulus, torch.atan2(imag.where(lit, 0.0), real.where(lit, 1.0))


def continuous_phase(angle: Tensor) -> Tensor:
    """Angles in [-pi, pi] to phases in (-pi + CUT, pi + CUT), equal up to 2 pi save within FADE of the
    cut."""
    slope = (math.pi - FADE) / FADE
    turned = angle - CUT
    turned = torch.where(turned < -math.pi, turned + 2 * math.pi, turned)
    falling, rising = slope * (math.pi - turned), -slope * (math.pi + turned)
    return torch.maximum(torch.minimum(turned, falling), rising) + CUT


def synthesise(amplitude: Tensor, phase: Tensor, width: int) -> Tensor:
    """Real maps from a one-sided amplitude and phase (radians), which need not be a real map's spectrum.

    `amplitude`, `phase`: (..., H, width // 2 + 1); amplitudes may be negative. Returns (..., H, width).
    """
    columns = torch.fft.ifft(torch.complex(amplitude * phase.cos(), amplitude * phase.sin()), dim=-2)
    imag = columns.imag.masked_fill(real_columns(width, amplitude.device), 0.0)
    maps: Tensor = torch.fft.irfft(torch.complex(columns.real, imag), n=width, dim=-1)
    return maps


def noise_floor(x: Tensor) -> Tensor:
    """The modulus under which a bin of each map is rounding noise: (..., 1, 1), without gradient."""
    height, width = x.shape[-2:]
    norm: Tensor = torch.linalg.vector_norm(x.detach(), dim=(-2, -1), keepdim=True)
    return FLOOR * math.sqrt(height * width) * norm


def self_conjugate(height: int, width: int, device: torch.device | None = None) -> Tensor:
    """Where a one-sided spectrum is its own conjugate: boolean (height, width // 2 + 1)."""
    rows = torch.arange(height, device=device)
    return ((2 * rows) % height == 0)[:, None] & real_columns(width, device)


def real_columns(width: int, device: torch.device | None = None) -> Tensor:
    """The columns of a one-sided row transform that are real: boolean (width // 2 + 1,)."""
    return (2 * torch.arange(width // 2 + 1, device=device)) % width == 0

"""What are the amplitude and the phase of a feature map, and how do they become a map again?

The one definition of the spectrum; the network is trained with it and every lowering must reproduce it.

Forward: the one-sided, unnormalised 2-D transform X = rfft2(x), of H rows and W // 2 + 1 columns. Each map has a floor,
`FLOOR * sqrt(H * W) * ||x||_2`, which for a constant map is `FLOOR * |DC|`. Then:

1. Self-conjugate bins (row 0 or H/2 and column 0 or W/2) of a real map are real; their imaginary part is a signed zero
   or rounding noise, and is set to +0. Left alone, their phase would be +pi in one FFT library and -pi in the next.
2. A bin whose modulus is not above the floor is rounding noise: amplitude and phase are 0, and so are their gradients.
3. The phase lies in (-pi, pi], but its cut runs along im = -floor rather than im = 0: a bin on the negative real axis
   whose imaginary part is only noise (any bin of a map with a mirror symmetry) has phase pi, or a hair more,
   everywhere.

Inverse: complex inverse along the rows' direction (H), then complex-to-real along W, in which the imaginary parts of
column 0 and of column W/2 (W even) do not count. A fused spectrum is not Hermitian there, and libraries differ on what
a two-dimensional complex-to-real transform makes of it; this order is the definition.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOOR = 1e-6
"""Relative amplitude under which a bin counts as rounding noise: some ten times float32's, far under any texture."""


def analyse(x: Tensor) -> tuple[Tensor, Tensor]:
    """Amplitude and phase (radians) of real maps.

    `x`: (..., H, W) float32 or float64. Returns two tensors (..., H, W // 2 + 1) of x's dtype, with finite gradients
    everywhere, zeros included.
    """
    height, width = x.shape[-2:]
    spectrum = torch.fft.rfft2(x)
    real = spectrum.real
    imag = spectrum.imag.masked_fill(self_conjugate(height, width, x.device), 0.0)
    floor = noise_floor(x)
    square = real * real + imag * imag
    kept = square > floor * floor
    amplitude = torch.where(kept, square, 1.0).sqrt().where(kept, 0.0)
    angle = torch.atan2(imag.where(kept, 0.0), real.where(kept, 1.0))
    beyond_cut = (angle < 0) & (real < 0) & (imag >= -floor)
    return amplitude, angle + 2 * math.pi * beyond_cut.to(x.dtype) * kept


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

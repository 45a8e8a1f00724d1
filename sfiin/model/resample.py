"""How does a network bring MS, and what is known at MS scale, onto the PAN grid? By one convolution each."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from sfiin.runtime.quality.bicubic import cubic_taps
from sfiin.runtime.quality.local import linear_taps


class Resample(nn.Module):
    """Resampling by an integer ratio as one convolution to ratio**2 phases and a depth-to-space.

    `taps` (ratio, odd) are the weights of the pixels around the one that contains each finer one; edges are
    replicated.
    """

    weight: Tensor

    def __init__(self, bands: int, taps: NDArray[np.float64]) -> None:
        super().__init__()
        self.bands, (self.ratio, self.window) = bands, taps.shape
        both = torch.einsum("iy,jx->ijyx", *(torch.from_numpy(taps),) * 2)
        phases = both.reshape(self.ratio**2, 1, self.window, self.window)
        self.register_buffer("weight", phases.repeat(bands, 1, 1, 1).float(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(N, B, h, w) to (N, B, h * ratio, w * ratio). Under autocast it stays in float32."""
        padded = functional.pad(x, [self.window // 2] * 4, mode="replicate")
        with single_precision(x.device):
            phases = functional.conv2d(padded, self.weight, groups=self.bands)
        return functional.pixel_shuffle(phases, self.ratio)


class Upsample(Resample):
    """Bicubic: Keys' kernel (a = -0.5), half-pixel centres; exact, and the same in every runtime."""

    def __init__(self, bands: int, ratio: int) -> None:
        super().__init__(bands, cubic_taps(ratio))


class AlignedUpsample(nn.Module):
    """Bicubic as PyTorch does it with `align_corners` (a = -0.75): the outermost pixels' centres stay in
    place.

    The scale is then not the ratio but (H - 1) / (h - 1), and depends on the tile: what a network was trained
    with on one tile it should be run on. It is one matrix for rows and one for columns.
    """

    def __init__(self, bands: int, ratio: int) -> None:
        super().__init__()
        self.bands, self.ratio = bands, ratio

    def forward(self, x: Tensor) -> Tensor:
        """(N, B, h, w) to (N, B, h * ratio, w * ratio). Under autocast it stays in float32."""
        with single_precision(x.device):
            return _aligned(x, x.shape[-2] * self.ratio, x.shape[-1] * self.ratio)

    def matrix(self, side: int) -> Tensor:
        """(side * ratio, side) float64: the weights of a line's pixels in each finer one."""
        lines = torch.eye(side, dtype=torch.float64)[
            None, :, None, :
        ]  # as many bands, each a line with one pixel
        return _aligned(lines, 1, side * self.ratio)[0, :, 0].T


def _aligned(x: Tensor, height: int, width: int) -> Tensor:
    return functional.interpolate(x, (height, width), mode="bicubic", align_corners=True)


class Linear(Resample):
    """Linear: what is positive stays so."""

    def __init__(self, bands: int, ratio: int) -> None:
        super().__init__(bands, linear_taps(ratio))


def single_precision(device: torch.device) -> AbstractContextManager[object]:
    """Where autocast is on, switch it off for a while: a spectrum does not survive half precision."""
    if torch.is_autocast_enabled(device.type):
        return torch.autocast(device.type, enabled=False)
    return nullcontext()

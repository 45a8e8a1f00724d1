"""What would the sensor have seen one scale coarser? Wald's protocol (Wald, Ranchin, Mangolini 1997).

The sensor's modulation transfer function is taken as a Gaussian with a given gain at the coarse grid's
Nyquist frequency (Aiazzi et al., "MTF-tailored multiscale fusion", PE&RS 2006); `sfiin.data.sensors` knows
the gains. SFIIN's paper reduces by bicubic interpolation instead. Coarse pixels are centred on their `ratio`
x `ratio` block, so PAN and MS stay aligned by their corners; edges are replicated.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.quality.filters import correlate
from sfiin.runtime.scenes.cubic import cubic

OTHER_MS_GAIN, OTHER_PAN_GAIN = 0.3, 0.15
"""Gains of a sensor that nothing is known of: the defaults of the toolbox of Vivone et al. (IEEE GRSM
2021)."""

TAPS = 41


def mtf_taps(gain: float, ratio: int, centred: bool = True) -> NDArray[np.float64]:
    """A Gaussian of 41 taps (40 when not `centred` on a pixel) whose response at 1 / (2 ratio) is `gain`;
    sums to 1.

    Raises ValueError unless 0 < gain < 1 and ratio is at least 2.
    """
    if not 0 < gain < 1 or ratio < 2:
        raise ValueError(f"gain must lie between 0 and 1 and ratio be at least 2, not {gain} and {ratio}")
    sigma = ratio / np.pi * np.sqrt(-2 * np.log(gain))
    count = TAPS if centred else TAPS - 1
    position = np.arange(count) - (count - 1) / 2
    taps = np.exp(-0.5 * (position / sigma) ** 2)
    return np.asarray(taps / taps.sum())


def blur(image: NDArray[Any], ratio: int, gains: float | Sequence[float]) -> NDArray[np.float64]:
    """The MTF's low-pass on the same grid: (B, H, W) to (B, H, W) float64; one gain for all bands or one
    each."""
    return np.stack([_filter(band, mtf_taps(gain, ratio)) for band, gain in _by_band(image, gains)])


def degrade(image: NDArray[Any], ratio: int, gains: float | Sequence[float]) -> NDArray[np.float64]:
    """Blur by the MTF and keep one pixel of each block, at its centre: (B, H, W) to (B, H/ratio, W/ratio)
    float64.

    For an even ratio the centre lies between pixels, and so does the filter. Raises ValueError for sides that
    are no multiples of the ratio, or a number of gains that is not the number of bands.
    """
    if image.shape[1] % ratio or image.shape[2] % ratio:
        raise ValueError(f"sides {image.shape[1:]} are no multiples of the ratio {ratio}")
    odd = ratio % 2 == 1
    first = ratio // 2
    filtered = [_filter(band, mtf_taps(gain, ratio, odd)) for band, gain in _by_band(image, gains)]
    return np.stack([band[first::ratio, first::ratio] for band in filtered])


def bicubic_reduce(image: NDArray[Any], ratio: int) -> NDArray[np.float64]:
    """The paper's reduction: (B, H, W) to (B, H/ratio, W/ratio) float64 by cubic interpolation without
    aliasing.

    Keys' kernel (a = -0.5) stretched by the ratio, as image libraries do it; where it reaches over the edge,
    the rest counts for all. Raises ValueError for sides that are no multiples of the ratio.
    """
    if image.shape[1] % ratio or image.shape[2] % ratio:
        raise ValueError(f"sides {image.shape[1:]} are no multiples of the ratio {ratio}")
    rows, cols = (_cubic_matrix(side, ratio) for side in image.shape[1:])
    return np.asarray(rows @ np.asarray(image, np.float64) @ cols.T)


def block_mean(image: NDArray[Any], ratio: int) -> NDArray[np.float64]:
    """The mean of each block: (B, H, W) to (B, H/ratio, W/ratio) float64. Raises ValueError for other
    sides."""
    bands, height, width = image.shape
    if height % ratio or width % ratio:
        raise ValueError(f"sides {image.shape[1:]} are no multiples of the ratio {ratio}")
    blocks = np.asarray(image, np.float64).reshape(bands, height // ratio, ratio, width // ratio, ratio)
    return np.asarray(blocks.mean((2, 4)))


def _cubic_matrix(size: int, ratio: int) -> NDArray[np.float64]:
    """(size / ratio, size): each row the weights of one coarse pixel."""
    centres = (np.arange(size // ratio) + 0.5) * ratio - 0.5
    weights = cubic((np.arange(size) - centres[:, None]) / ratio)
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _by_band(image: NDArray[Any], gains: float | Sequence[float]) -> list[tuple[NDArray[np.float64], float]]:
    each = [gains] * len(image) if isinstance(gains, float) else list(gains)
    if len(each) != len(image):
        raise ValueError(f"{len(each)} gains for {len(image)} bands")
    return list(zip(np.asarray(image, np.float64), each, strict=True))


def _filter(band: NDArray[np.float64], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    # An even number of taps is centred between a pixel and the one before it.
    for axis in (0, 1):
        band = correlate(band, taps, axis)
    return band

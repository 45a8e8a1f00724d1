"""How is MS resampled onto the PAN grid? By cubic convolution (Keys 1981), by an integer ratio.

Pixel centres follow the georeference: the corner of MS pixel (0, 0) is the corner of PAN pixel (0, 0). Edges
are replicated.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.scenes.cubic import cubic


def cubic_taps(ratio: int) -> NDArray[np.float64]:
    """Weights of MS pixels -2..2 around the one that contains each of `ratio` PAN pixels: (ratio, 5), rows
    sum to 1."""
    centres = (np.arange(ratio) + 0.5) / ratio - 0.5
    return cubic(centres[:, None] - np.arange(-2, 3))


def bicubic(ms: NDArray[np.generic], ratio: int) -> NDArray[np.float64]:
    """Resample: (B, h, w) to (B, h * ratio, w * ratio) float64."""
    taps = cubic_taps(ratio)
    rows = _resample_last(np.swapaxes(np.asarray(ms, np.float64), 1, 2), taps)
    return _resample_last(np.swapaxes(rows, 1, 2), taps)


def _resample_last(image: NDArray[np.float64], taps: NDArray[np.float64]) -> NDArray[np.float64]:
    padded = np.pad(image, [(0, 0), (0, 0), (2, 2)], mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 5, axis=-1)
    return (windows @ taps.T).reshape(*image.shape[:2], -1)

"""How is an image filtered along its rows and columns? Separable correlations, in NumPy alone."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float64]


def correlate(image: NDArray[Any], taps: NDArray[np.float64], axis: int) -> Image:
    """Correlate an array with `taps` along one axis, in float64; edges are replicated, the size stays.

    An even number of taps is centred between an element and the one before it, as in SciPy's `correlate1d`.
    """
    before = len(taps) // 2
    widths = [(0, 0)] * image.ndim
    widths[axis] = (before, len(taps) - 1 - before)
    padded = np.moveaxis(np.pad(np.asarray(image, np.float64), widths, mode="edge"), axis, -1)
    size = image.shape[axis]
    result = padded[..., :size] * taps[0]
    for place in range(1, len(taps)):
        result += padded[..., place : place + size] * taps[place]
    return np.moveaxis(result, -1, axis)

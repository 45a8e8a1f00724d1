"""Which weights does cubic convolution give its neighbours? Keys' kernel, in one place.

R. G. Keys, "Cubic convolution interpolation for digital image processing", IEEE Trans. ASSP 29 (1981), with a
= -1/2.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def cubic(distance: NDArray[np.float64]) -> NDArray[np.float64]:
    """Weights at distances in pixels, float64 of the same shape; zero from a distance of 2 on."""
    x = np.abs(distance)
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))

"""Samples as the field keeps them: PAN (H, W), MS (B, h, w), truth (B, H, W), DN of 11 bits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sfiin.data.simulate import simulate

Sample = dict[str, NDArray[np.uint16]]


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Three of 64 x 64 PAN pixels, four bands, ratio 4."""
    found = []
    for seed in range(3):
        scene = simulate(64, 64, seed)
        whole = {"pan": scene.pan, "ms": scene.ms, "gt": scene.truth}
        found.append({name: np.rint(image).astype(np.uint16) for name, image in whole.items()})
    return found

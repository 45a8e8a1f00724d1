"""Samples as the field keeps them: PAN (H, W), MS (B, h, w), truth (B, H, W), DN of 11 bits."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sfiin.data.simulate import simulate

Sample = dict[str, NDArray[np.uint16]]


def simulated(side: int, count: int) -> list[Sample]:
    """So many of `side` x `side` PAN pixels, four bands, ratio 4."""
    found = []
    for seed in range(count):
        scene = simulate(side, side, seed)
        whole = {"pan": scene.pan, "ms": scene.ms, "gt": scene.truth}
        found.append({name: np.rint(image).astype(np.uint16) for name, image in whole.items()})
    return found


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    """Three of 64 x 64 PAN pixels."""
    return simulated(64, 3)


@pytest.fixture
def large() -> list[Sample]:
    """Two of 128 x 128 PAN pixels, whose MS is large enough to tell a shift."""
    return simulated(128, 2)

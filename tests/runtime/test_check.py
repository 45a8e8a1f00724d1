"""The gate: distances against hand-computed ones, and what it lets through."""

from __future__ import annotations

import numpy as np
import pytest

from sfiin.runtime.check import Gate, parity
from sfiin.runtime.errors import CheckFailedError


def test_figures_are_those_of_the_definition() -> None:
    reference = np.zeros((2, 1, 2, 2))
    reference[0] = 3.0
    output = reference.copy()
    output[0, 0, 0, 0] += 0.6
    output[1, 0, 1, 1] -= 0.8
    found = parity(("bright", "dark"), output, reference, 100.0)
    assert found.relative_l2 == pytest.approx(1.0 / 6.0)
    assert found.peak_share == pytest.approx(0.008)
    assert found.tiles[0].relative_l2 == pytest.approx(0.1)
    assert found.tiles[1].peak_share == pytest.approx(0.008)


@pytest.mark.parametrize("flaw", [3e-5, np.nan, np.inf])
def test_what_is_outside_the_gate_is_refused_with_the_worst_tile(flaw: float) -> None:
    reference = np.ones((2, 1, 4, 4))
    output = reference.copy()
    parity(("a", "b"), output, reference, 1.0).require(Gate(), "model", "do something")
    output[1] += flaw
    with pytest.raises(CheckFailedError, match="worst on tile 'b'; do something") as failure:
        parity(("a", "b"), output, reference, 1.0).require(Gate(), "model", "do something")
    assert failure.value.exit_code == 6


def test_a_single_pixel_counts_by_the_peak() -> None:
    reference = np.ones((1, 1, 1000, 1000))
    output = reference.copy()
    output[0, 0, 5, 5] += 2e-4
    with pytest.raises(CheckFailedError):
        parity(("a",), output, reference, 1.0).require(Gate(), "model", "")

"""Images that share ground are found at any offset; others, and even ground, are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfiin.data.duplicates import KEPT, SIDE, overlaps, sketch


@settings(deadline=None, max_examples=20, derandomize=True)
@given(row=st.integers(0, 45), column=st.integers(0, 45))
def test_an_overlap_is_found_and_measured(row: int, column: int) -> None:
    ground = np.random.default_rng(row).integers(0, 2047, (160, 160))
    (found,) = overlaps({"a": ground[:100, :100], "b": ground[row : row + 100, column : column + 100]})
    common = (100 - row - SIDE + 1) * (100 - column - SIDE + 1)
    wanted = common / (2 * (100 - SIDE + 1) ** 2 - common)  # of their union
    assert found.share == pytest.approx(wanted, abs=0.12)


def test_the_same_image_is_all_of_it() -> None:
    image = np.random.default_rng(0).random((64, 64))
    (found,) = overlaps({"a": image, "b": image.copy()})
    assert (found.first, found.second, found.share) == ("a", "b", 1.0)


def test_others_share_nothing() -> None:
    random = np.random.default_rng(1)
    images = {str(i): random.integers(0, 255, (64, 64)) for i in range(10)}
    assert overlaps(images) == []


def test_even_ground_says_nothing() -> None:
    assert overlaps({"a": np.zeros((64, 64)), "b": np.zeros((64, 64))}) == []
    assert len(sketch(np.zeros((64, 64)))) == 0
    assert len(sketch(np.ones((4, 64)))) == 0
    assert len(sketch(np.random.default_rng(2).random((64, 64)))) == KEPT

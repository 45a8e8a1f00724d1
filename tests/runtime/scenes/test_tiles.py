from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import ContractError
from sfiin.runtime.scenes.tiles import TilePlan, plan


class Case(NamedTuple):
    height: int
    width: int
    tile: Tile
    ratio: int

    def plan(self) -> TilePlan:
        return plan(*self)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    ratio = draw(st.integers(2, 6))
    height, width = (ratio * draw(st.integers(2, 12)) for _ in range(2))
    overlap = draw(st.integers(0, min(height, width) - ratio))
    return Case(draw(st.integers(1, 150)), draw(st.integers(1, 150)), Tile(height, width, overlap), ratio)


@given(cases())
def test_positions(case: Case) -> None:
    found = case.plan()
    axes = [(found.rows, case.height, case.tile.height), (found.cols, case.width, case.tile.width)]
    for starts, length, side in axes:
        assert starts[0] == 0
        assert all(start % case.ratio == 0 for start in starts)
        assert all(a < b <= a + side - case.tile.overlap for a, b in pairwise(starts))
        assert starts[-1] + side >= length
        # No tile reaches beyond the scene's last MS pixel, but for one larger than the scene.
        assert starts[-1] + side < max(length + case.ratio, side + 1)
    assert len(found) == len(found.rows) * len(found.cols)


def total_weight(found: TilePlan, order: np.random.Generator) -> np.ndarray:
    tile = found.tile
    total = np.zeros((found.rows[-1] + tile.height, found.cols[-1] + tile.width), np.float32)
    pairs = [(i, j) for i in range(len(found.rows)) for j in range(len(found.cols))]
    order.shuffle(pairs)
    for i, j in pairs:
        weights = found.weights(i, j)
        assert weights.dtype == np.float32
        assert weights.min() >= 0
        total[found.rows[i] :, found.cols[j] :][: tile.height, : tile.width] += weights
    return total


@given(cases(), st.integers(0, 2**32 - 1))
def test_weights_sum_to_exactly_one_in_any_order(case: Case, seed: int) -> None:
    np.testing.assert_array_equal(total_weight(case.plan(), np.random.default_rng(seed)), 1)


def test_ramp_over_the_overlap_and_none_at_the_border() -> None:
    found = plan(12, 8, Tile(8, 8, 4), 4)
    assert (found.rows, found.cols) == ((0, 4), (0,))
    ramp = np.array([1, 3, 5, 7]) / 8
    np.testing.assert_array_equal(found.row_weights, [[1, 1, 1, 1, *ramp[::-1]], [*ramp, 1, 1, 1, 1]])
    np.testing.assert_array_equal(found.weights(0, 0), np.multiply.outer(found.row_weights[0], np.ones(8)))


def test_last_tile_is_shifted_back_over_two_others() -> None:
    found = plan(26, 16, Tile(16, 16, 8), 2)
    assert found.rows == (0, 8, 10)
    contributors = np.sum([(np.arange(26) >= row) & (np.arange(26) < row + 16) for row in found.rows], 0)
    assert contributors.max() == 3
    assert found.row_weights[1].max() < 1


def test_scene_smaller_than_the_tile_is_one_tile() -> None:
    found = plan(5, 7, Tile(16, 32, 4), 4)
    assert (found.rows, found.cols) == ((0,), (0,))
    np.testing.assert_array_equal(found.weights(0, 0), np.ones((16, 32)))


def test_without_overlap_tiles_abut() -> None:
    found = plan(16, 8, Tile(8, 8, 0), 4)
    assert found.rows == (0, 8)
    np.testing.assert_array_equal(found.row_weights, np.ones((2, 8)))


def test_overlap_that_leaves_no_step() -> None:
    with pytest.raises(ContractError, match=r"tile\.overlap: 5 of 8"):
        plan(100, 100, Tile(8, 8, 5), 4)

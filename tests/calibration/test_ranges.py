"""Thresholds against their definitions, on values that are known."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from sfiin.calibration.ranges import LEVELS, METHODS, Method, least_mse, thresholds

SHAPE = (1, 1, 64, 64)


@pytest.fixture(scope="module")
def doubled() -> onnx.ModelProto:
    """x and what is twice as large."""
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, SHAPE) for name in ("x", "y")]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["double"], "double"),
        helper.make_node("Neg", ["double"], ["y"], "y"),
    ]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    return onnx.shape_inference.infer_shapes(model)


def tiles(*arrays: np.ndarray) -> list[dict[str, np.ndarray]]:
    return [{"x": array.reshape(SHAPE).astype(np.float32)} for array in arrays]


def quantised(values: np.ndarray, threshold: float) -> np.ndarray:
    step = threshold / LEVELS
    return np.clip(np.rint(values / step), -LEVELS, LEVELS) * step


def test_minmax_is_the_largest_magnitude_over_all_tiles(doubled: onnx.ModelProto) -> None:
    random = np.random.default_rng(0)
    given_tiles = tiles(random.uniform(-1, 1, SHAPE), random.uniform(-3, 2, SHAPE))
    largest = max(float(np.abs(tile["x"]).max()) for tile in given_tiles)
    assert thresholds(doubled, ["double"], given_tiles, "minmax") == {"double": pytest.approx(2 * largest)}


def test_a_percentile_leaves_a_rare_peak_out(doubled: onnx.ModelProto) -> None:
    """One value of 16,384 is beyond 99.99 % of them."""
    random = np.random.default_rng(1)
    values = random.uniform(-1, 1, (4, *SHAPE))
    values[0, 0, 0, 0, 0] = 50.0
    found = thresholds(doubled, ["double"], tiles(*values), "percentile")["double"]
    assert found == pytest.approx(2, abs=0.1)  # a bin is a twentieth wide


@pytest.mark.parametrize("method", METHODS)
def test_every_method_covers_the_bulk_and_nothing_beyond_the_range(
    doubled: onnx.ModelProto, method: Method
) -> None:
    random = np.random.default_rng(2)
    values = random.laplace(0, 1, (2, *SHAPE))
    found = thresholds(doubled, ["double"], tiles(*values), method)["double"]
    magnitudes = np.abs(2 * values)
    assert np.quantile(magnitudes, 0.9) < found <= magnitudes.max() * 1.01


def test_mse_is_the_best_of_what_it_may_choose(doubled: onnx.ModelProto) -> None:
    random = np.random.default_rng(3)
    values = random.laplace(0, 1, (40, *SHAPE))
    found = thresholds(doubled, ["double"], tiles(*values), "mse")["double"]
    double = (2 * values).ravel()

    def error(threshold: float) -> float:
        return float(((quantised(double, threshold) - double) ** 2).mean())

    least = min(map(error, np.linspace(0.05, 1, 400) * np.abs(double).max()))
    assert error(found) <= 1.02 * least
    assert error(found) < 0.8 * error(float(np.abs(double).max()))


def test_a_value_that_is_always_zero_has_a_threshold_all_the_same(doubled: onnx.ModelProto) -> None:
    for method in METHODS[:2]:
        assert thresholds(doubled, ["double"], tiles(np.zeros(SHAPE)), method)["double"] > 0


def test_nothing_is_printed(doubled: onnx.ModelProto, capsys: pytest.CaptureFixture[str]) -> None:
    thresholds(doubled, ["double"], tiles(np.ones(SHAPE)), "percentile")
    assert capsys.readouterr() == ("", "")


@given(st.integers(0, 2**32 - 1), st.floats(1e-3, 1e3))
def test_the_threshold_of_a_histogram_scales_with_it(seed: int, factor: float) -> None:
    random = np.random.default_rng(seed)
    counts: Any = random.integers(0, 1000, 256)
    counts[0] += 1
    edges = np.linspace(0, 1, 257)
    assert least_mse(counts, edges * factor) == pytest.approx(factor * least_mse(counts, edges))

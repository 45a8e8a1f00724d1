"""Q/DQ as a graph: its numbers against NumPy's, where pairs stand, what stays by which rule, and types."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sfiin.calibration.calibrate import graph_of
from sfiin.calibration.quantize import OPSET, at_opset, candidates, quantized
from sfiin.calibration.ranges import LEVELS
from sfiin.export.precision import rounded, typed
from sfiin.export.precision_loss import on_golden
from sfiin.export.precision_rules import Graph
from sfiin.export.ranges import as_inputs, open_model
from sfiin.export.trt_process import compile_for_rtx, is_available
from sfiin.runtime import golden, models

SHIPPED = models.choose(4, 4)


@pytest.fixture(scope="module")
def shipped() -> tuple[onnx.ModelProto, Graph, golden.GoldenTiles]:
    contract = models.contract(SHIPPED)
    model, tiles = onnx.load(SHIPPED), golden.read(golden.beside(SHIPPED), contract)
    return model, graph_of(model, tiles), tiles


def convolution(weights: np.ndarray, bias: np.ndarray) -> onnx.ModelProto:
    """Two 1x1 convolutions of one input, added."""
    shape = (1, weights.shape[1], 4, 4)
    info = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, (1, c, 4, 4))
        for name, c in (("x", shape[1]), ("y", len(weights)))
    ]
    constants = [
        numpy_helper.from_array(weights.astype(np.float32), "w"),
        numpy_helper.from_array(bias.astype(np.float32), "b"),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w", "b"], ["first"], "first"),
        helper.make_node("Conv", ["x", "w", "b"], ["second"], "second"),
        helper.make_node("Add", ["first", "second"], ["y"], "sum"),
    ]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def rounded_to(values: np.ndarray, scale: Any) -> np.ndarray:
    """QuantizeLinear has one step more below zero; weights never reach it."""
    whole: np.ndarray = np.clip(np.rint(values / scale), -LEVELS - 1, LEVELS) * scale
    return whole


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5), st.floats(0.1, 30))
def test_it_computes_what_numpy_does(seed: int, inputs: int, outputs: int, reach: float) -> None:
    """Activations by one step, weights by one for each output channel, the bias as it is."""
    random = np.random.default_rng(seed)
    weights = random.normal(size=(outputs, inputs, 1, 1)) * 10.0 ** random.integers(-3, 3, (outputs, 1, 1, 1))
    bias, x = random.normal(size=outputs), (random.normal(size=(1, inputs, 4, 4)) * reach).astype(np.float32)
    model = quantized(convolution(weights, bias), {"first"}, {"first": reach})
    found = open_model(model).run(None, {"x": x})[0]
    single = weights.astype(np.float32)
    scale = (np.abs(single.astype(np.float64)).max((1, 2, 3), keepdims=True) / LEVELS).astype(np.float32)
    step = np.float32(reach / LEVELS)
    # A value within rounding of the middle between two steps may go either way.
    near = np.abs(np.abs(x / step) % 1 - 0.5) < 1e-4
    quantised_weights = rounded_to(single, scale)[:, :, 0, 0]

    def product(w: np.ndarray, a: np.ndarray) -> np.ndarray:
        result: np.ndarray = np.einsum("oc,nchw->nohw", w.astype(np.float64), a.astype(np.float64))
        return result + bias.astype(np.float32)[:, None, None]

    expected = product(quantised_weights, rounded_to(x, step)) + product(single[:, :, 0, 0], x)
    sure = ~near.any(axis=1, keepdims=True).repeat(outputs, axis=1)
    np.testing.assert_allclose(found[sure], expected[sure], rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_readers_share_a_pair_and_weights_their_bytes() -> None:
    model = convolution(np.ones((3, 2, 1, 1)), np.zeros(3))
    both = quantized(model, {"first", "second"}, {"first": 2.0, "second": 2.0})
    assert Counter(node.op_type for node in both.graph.node) == {
        "QuantizeLinear": 1,
        "DequantizeLinear": 2,
        "Conv": 2,
        "Add": 1,
    }
    kinds = Counter(tensor.data_type for tensor in both.graph.initializer)
    assert kinds[TensorProto.INT8] == 3  # the weights, and the zero points, which are zero
    assert "w" not in {tensor.name for tensor in both.graph.initializer}
    for tensor in both.graph.initializer:
        if tensor.name.endswith("/zero"):
            assert not numpy_helper.to_array(tensor).any()
    one = quantized(model, {"first"}, {"first": 2.0})
    assert {"w", "w/int8"} <= {tensor.name for tensor in one.graph.initializer}


def test_a_channel_of_zeros_stays_zero() -> None:
    weights = np.array([[[[1.0]]], [[[0.0]]]])
    found = open_model(
        quantized(
            convolution(weights, np.zeros(2)), {"first", "second"}, dict.fromkeys(("first", "second"), 1.0)
        )
    )
    y = found.run(None, {"x": np.ones((1, 1, 4, 4), np.float32)})[0]
    np.testing.assert_allclose(y[0, 0], 2.0, rtol=1e-6)
    assert not y[0, 1].any()


def test_nothing_asked_for_is_the_model(shipped: Any) -> None:
    model, _, tiles = shipped
    np.testing.assert_array_equal(on_golden(quantized(model, set(), {}), tiles), on_golden(model, tiles))


def test_rules_say_what_stays(shipped: Any) -> None:
    _, graph, _ = shipped
    free, held = candidates(graph)
    rules = Counter(node.rule for node in held)
    convolutions = graph.of("Conv")
    assert len(free) + len(held) == len(convolutions)
    local = sum(node.name.startswith("local/") for node in convolutions)
    assert local > 20
    assert rules == {"local": local, "spectrum": 4 * 5, "statistics": 2 * 5 + 2}
    assert all(node.reason for node in held)
    kernels = {node.name: graph.weights[node.input[1]].ndim for node in convolutions}
    assert all(kernels[candidate.node] == 4 for candidate in free)
    assert {candidate.branch for candidate in free} == {
        "trunk",
        "frequency",
        "spatial",
        "compensation",
        "integration",
        "refine",
    }
    assert sum(candidate.macs for candidate in free) > 0.5 * sum(map(graph.macs, graph.nodes))


def test_a_later_opset_gives_the_same_numbers(shipped: Any) -> None:
    model, _, tiles = shipped
    later = at_opset(model)
    assert later.opset_import[0].version == OPSET
    assert not any(node.op_type == "Constant" for node in later.graph.node)
    assert later.metadata_props == model.metadata_props
    np.testing.assert_array_equal(on_golden(later, tiles), on_golden(model, tiles))
    assert at_opset(later) is later


@pytest.mark.parametrize("rest", ["fp32", "fp16"])
def test_the_shipped_network_in_int8(shipped: Any, rest: str, tmp_path: Path) -> None:
    """Scales have the type of what they scale; TensorRT for RTX builds it; the loss is what eight bits
    cost."""
    model, graph, tiles = shipped
    base = at_opset(typed(model, "fp16", as_inputs(tiles.ms, tiles.pan)).model if rest == "fp16" else model)
    free, _ = candidates(graph)
    reach = {candidate.node: float(graph.ranges[candidate.activation].maximum) for candidate in free}
    lower = quantized(base, set(reach), reach)
    types = {info.name: info.type.tensor_type.elem_type for info in lower.graph.value_info}
    types |= {tensor.name: tensor.data_type for tensor in lower.graph.initializer}
    pairs = [node for node in lower.graph.node if node.op_type == "QuantizeLinear"]
    assert all(types[node.input[1]] == types.get(node.input[0], TensorProto.FLOAT) for node in pairs)
    assert all(types[node.output[0]] == TensorProto.INT8 for node in pairs)
    halves = sum(types[node.input[1]] == TensorProto.FLOAT16 for node in pairs)
    assert (halves > 0.9 * len(pairs)) == (rest == "fp16")
    judged = rounded(lower) if rest == "fp16" else lower
    error = on_golden(judged, tiles).astype(np.float64) - tiles.hrms
    relative = float(np.sqrt((error**2).sum() / (tiles.hrms.astype(np.float64) ** 2).sum()))
    assert 1e-3 < relative < 5e-2
    if is_available():
        onnx.save(lower, tmp_path / "int8.onnx")
        done = compile_for_rtx(tmp_path / "int8.onnx")
        assert done.ok, done.errors

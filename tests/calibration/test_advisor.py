"""Estimates against sums by hand, and what speaks against INT8."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sfiin.calibration.advisor import PAYS, Device, advise, devices
from sfiin.calibration.quantize import Candidate
from sfiin.export.precision_rules import Graph

SIDE = 64
DEVICE = Device("a device", int8=100.0, fp16=50.0, bandwidth=200.0, source="a table")
FAST_MEMORY = Device("another", int8=2.0, fp16=1.0, bandwidth=1e6, source="a table")


def chain(channels: int, kernel: int = 3) -> tuple[Graph, list[Candidate]]:
    """Two convolutions with a LeakyRelu between them."""
    shape = (1, channels, SIDE, SIDE)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "a", "b", "y")]
    weights = [
        numpy_helper.from_array(np.ones((channels, channels, kernel, kernel), np.float32), name)
        for name in ("v", "w")
    ]
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Conv", ["x", "v"], ["a"], "first", pads=pads),
        helper.make_node("LeakyRelu", ["a"], ["b"], "between"),
        helper.make_node("Conv", ["b", "w"], ["y"], "second", pads=pads),
    ]
    graph = helper.make_graph(nodes, "g", info[:1], info[3:], weights, value_info=info[1:3])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    onnx.checker.check_model(model)
    return Graph(model, {}), [Candidate("first", "x", 1), Candidate("second", "b", 1)]


def test_eight_channels_move_the_bytes_of_thirty_two() -> None:
    advice = advise(*chain(8), DEVICE)
    first, second = advice.layers
    pixels = SIDE * SIDE
    half, whole = 2 * 8 * pixels, 32 * pixels  # bytes of a map in packs of 8 in FP16 and of 32 in INT8
    assert first.fp16 == pytest.approx(2 * half / 200e3)
    assert first.reformat == pytest.approx((half + whole) / 200e3)
    assert first.int8 == pytest.approx((2 * whole + half + whole) / 200e3)
    assert second.reformat == 0  # the first makes it in INT8
    assert second.int8 == pytest.approx(2 * whole / 200e3)
    assert advice.gain == pytest.approx(4 * half / (5 * whole + half))
    assert not advice.pays
    assert advice.rest == 0
    assert "channels fill no packs of 32 (2 of 2 layers)" in advice.reasons
    assert "its activation needs a layer of its own to be rounded (1 of 2 layers)" in advice.reasons


def test_wide_layers_that_compute_pay() -> None:
    advice = advise(*chain(64), FAST_MEMORY)
    macs = 64 * 64 * 9 * SIDE * SIDE
    assert advice.layers[1].fp16 == pytest.approx(2 * macs / 1e6)
    assert advice.layers[1].int8 == pytest.approx(macs / 1e6)
    assert advice.layers[1].bound == "arithmetic"
    assert advice.layers[1].reasons == ()
    assert advice.gain == pytest.approx(2, rel=0.01)
    assert advice.pays
    assert "INT8 should pay" in advice.summary()


def test_what_is_not_a_candidate_stays_as_it_is() -> None:
    graph, nodes = chain(64)
    advice = advise(graph, nodes[:1], FAST_MEMORY)
    assert len(advice.layers) == 1
    assert advice.rest == pytest.approx(advise(graph, nodes, FAST_MEMORY).layers[1].fp16)
    assert 1 < advice.gain < 2


def test_the_table_has_sources_and_plausible_figures() -> None:
    assert {"orin-agx", "rtx4090"} <= devices().keys()
    for device in devices().values():
        assert device.source
        assert device.int8 >= 2 * device.fp16 > 0
        assert 10 < device.bandwidth < 10_000
    assert PAYS > 1

"""Typed graphs: their types, their Casts, what rounding makes of them, what compiles, and what a large
tile needs."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sfiin.data.sensors import SENSORS
from sfiin.export.fourier import MatMulFourier
from sfiin.export.graph import build_graph
from sfiin.export.graph_builder import GraphBuilder
from sfiin.export.precision import Typed, fewest_casts, rounded, typed
from sfiin.export.precision_rules import Graph
from sfiin.export.preflight import preflight, target
from sfiin.export.ranges import LARGEST, Inputs, audit, open_model
from sfiin.export.trt_process import compile_for_rtx, is_available
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.contract import Lowering, Precision

Model = Callable[..., onnx.ModelProto]
F, H = TensorProto.FLOAT, TensorProto.FLOAT16


def network(**changes: Any) -> SFIIN:
    torch.manual_seed(0)
    return SFIIN(NetworkConfig(**{"blocks": 1} | changes), SENSORS["vhr4"].profile).eval()


def tiles(size: tuple[int, int], count: int = 1) -> list[Inputs]:
    random = np.random.default_rng(0)
    shapes = {"ms": (1, 4, size[0] // 4, size[1] // 4), "pan": (1, 1, *size)}
    return [
        {name: random.uniform(0, 2047, shape).astype(np.float32).round() for name, shape in shapes.items()}
        for _ in range(count)
    ]


def graph_of(
    lowering: Lowering, size: tuple[int, int] = (32, 32), opset: int = 17, **changes: Any
) -> onnx.ModelProto:
    return build_graph(network(**changes), size, lowering, opset)


def run(model: onnx.ModelProto, feeds: Inputs) -> np.ndarray:
    return np.asarray(open_model(model).run(None, dict(feeds))[0])


def types(model: onnx.ModelProto) -> dict[str, int]:
    graph = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    known = {
        info.name: info.type.tensor_type.elem_type
        for info in (*graph.input, *graph.value_info, *graph.output)
    }
    return known | {tensor.name: tensor.data_type for tensor in graph.initializer}


FORMS: list[tuple[Lowering, int, Precision, str]] = [
    ("matmul", 17, "fp16", "convolution"),
    ("matmul", 17, "mixed", "convolution"),
    ("matmul", 21, "fp16", "invertible"),
    ("dft", 17, "fp16", "convolution"),
    ("dft", 20, "mixed", "invertible"),
]


@pytest.fixture(scope="module", params=FORMS, ids=lambda form: "-".join(map(str, form)))
def made(request: pytest.FixtureRequest) -> tuple[onnx.ModelProto, Typed]:
    lowering, opset, precision, spatial = request.param
    model = graph_of(lowering, opset=opset, spatial=spatial, blocks=2)
    return model, typed(model, precision, tiles((32, 32)))


def test_every_node_has_one_type(made: tuple[onnx.ModelProto, Typed]) -> None:
    """What strongly typed TensorRT asks for; and each FP32 node is listed."""
    model, result = made
    known = types(result.model)
    kept = {node.node for node in result.kept}
    for node in result.model.graph.node:
        floats = {known[name] for name in (*node.input, *node.output) if name and known[name] in (F, H)}
        assert floats == {F, H} if node.op_type == "Cast" else floats == {F if node.name in kept else H}, (
            node.name
        )
    assert [node.name for node in model.graph.node] == [
        node.name for node in result.model.graph.node if node.op_type != "Cast"
    ]
    ends = (*result.model.graph.input, *result.model.graph.output)
    assert [(end.name, end.type) for end in ends] == [
        (end.name, end.type) for end in (*model.graph.input, *model.graph.output)
    ]
    assert {end.type.tensor_type.elem_type for end in ends} == {F}


def test_casts_are_shared_and_none_cancels(made: tuple[onnx.ModelProto, Typed]) -> None:
    _, result = made
    casts = [node for node in result.model.graph.node if node.op_type == "Cast"]
    assert len({node.input[0] for node in casts}) == len(casts) == result.casts
    assert not {node.output[0] for node in casts} & {node.input[0] for node in casts}
    read = {name for node in result.model.graph.node for name in node.input}
    assert {node.output[0] for node in casts} <= read


def test_weights_are_there_once_and_in_the_type_they_are_read_in(made: tuple[onnx.ModelProto, Typed]) -> None:
    model, result = made
    originals = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    read = {name for node in result.model.graph.node for name in node.input}
    for tensor in result.model.graph.initializer:
        assert tensor.name in read
        expected = originals[tensor.name.removesuffix("/half")]
        assert (numpy_helper.to_array(tensor) == expected.astype(numpy_helper.to_array(tensor).dtype)).all()
    assert result.model.ByteSize() < model.ByteSize() + 100 * result.casts


def test_shares_are_of_what_they_say(made: tuple[onnx.ModelProto, Typed]) -> None:
    model, result = made
    graph, kept = Graph(model, {}), {node.node for node in result.kept}
    macs = {node.name: graph.macs(node) for node in model.graph.node}
    assert result.node_share == pytest.approx(1 - len(kept) / len(macs))
    assert result.mac_share == pytest.approx(
        sum(n for name, n in macs.items() if name not in kept) / sum(macs.values())
    )
    assert sum(result.rules.values()) == len(result.kept) == len(kept)


def test_the_rounded_twin_is_near_fp32_and_not_it(made: tuple[onnx.ModelProto, Typed]) -> None:
    model, result = made
    feeds = tiles((32, 32))[0]
    exact, rounded_here, here = (run(graph, feeds) for graph in (model, rounded(result.model), result.model))
    for output in (rounded_here, here):
        assert 0 < np.abs(output - exact).max() < 5e-3 * 2047


def test_the_typed_graph_is_the_same_every_time() -> None:
    model = graph_of("matmul")
    first, second = (
        typed(model, "fp16", tiles((32, 32))).model.SerializeToString(deterministic=True) for _ in range(2)
    )
    assert first == second


UNARY: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "Sin": np.sin,
    "Abs": np.abs,
    "Tanh": np.tanh,
    "Atan": np.arctan,
    "Relu": lambda x: np.maximum(x, 0),
}


def chain(model: Model, kinds: Sequence[str], factors: Sequence[float]) -> onnx.ModelProto:
    """x to half, then for each step a function and a product with a constant, then back to float."""
    nodes = [helper.make_node("Cast", ["x"], ["v0"], "in", to=H)]
    for i, kind in enumerate(kinds):
        nodes.append(helper.make_node(kind, [f"v{i}"], [f"u{i}"], f"f{i}"))
        nodes.append(helper.make_node("Mul", [f"u{i}", f"c{i}"], [f"v{i + 1}"], f"m{i}"))
    nodes.append(helper.make_node("Cast", [f"v{len(kinds)}"], ["y"], "out", to=F))
    constants = {f"c{i}": np.float16(factor) for i, factor in enumerate(factors)}
    return model(nodes, {"x": (F, (200,))}, constants)


def by_hand(kinds: Sequence[str], factors: Sequence[float], x: np.ndarray) -> np.ndarray:
    """Each operation in float32, each result rounded by NumPy."""
    value = x.astype(np.float16)
    for kind, factor in zip(kinds, factors, strict=True):
        value = UNARY[kind](value.astype(np.float32)).astype(np.float16)
        value = (value.astype(np.float32) * np.float32(np.float16(factor))).astype(np.float16)
    return value.astype(np.float32)


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(sorted(UNARY)), st.floats(0.1, 9)), min_size=1, max_size=5),
    st.integers(0, 2**32 - 1),
)
def test_rounding_is_that_of_numpy(model: Model, steps: list[tuple[str, float]], seed: int) -> None:
    """To a unit in the eleventh bit: a float32 function of another library may fall on the other side of a
    tie."""
    kinds, factors = zip(*steps, strict=True)
    x = np.random.default_rng(seed).normal(0, 2, 200).astype(np.float32)
    with np.errstate(over="ignore"):
        expected = by_hand(kinds, factors, x)
    assume(np.isfinite(expected).all())  # what overflows has a test of its own
    found = run(rounded(chain(model, kinds, factors)), {"x": x})
    assert np.mean(found != expected) <= 0.03
    assert np.abs(found - expected).max() <= 2.0**-9 * max(np.abs(expected).max(), 1) * 9 ** len(steps)


def test_onnx_runtime_itself_does_not_round(model: Model) -> None:
    """Why the rounded graph is there: as it runs on a CPU the graph keeps float32 between its nodes, on x86
    at least."""
    x = np.random.default_rng(0).normal(0, 2, 200).astype(np.float32)
    graph = chain(model, ["Abs", "Abs", "Abs"], [1.37, 1.21, 0.77])
    expected = by_hand(["Abs", "Abs", "Abs"], [1.37, 1.21, 0.77], x)
    assert (run(rounded(graph), {"x": x}) == expected).all()
    exact = np.abs(x).astype(np.float64) * math.prod(float(np.float16(c)) for c in (1.37, 1.21, 0.77))
    assert np.abs(expected - exact).max() > 1e-3
    if (run(graph, {"x": x}) == expected).all():
        pytest.skip("this ONNX Runtime has FP16 kernels here, and rounds")
    assert np.abs(run(graph, {"x": x}) - exact).max() < np.abs(expected - exact).max()


def test_what_overflows_is_infinite_in_the_twin(model: Model) -> None:
    found = run(rounded(chain(model, ["Abs"], [1.0])), {"x": np.full(200, 70000, np.float32)})
    assert np.isinf(found).all()


@st.composite
def graphs(draw: st.DrawFn) -> tuple[list[list[int]], list[str]]:
    """Up to seven nodes, the inputs of each (-1 is the graph's), and whether it is FP32, FP16 or free."""
    count = draw(st.integers(1, 7))
    inputs = [
        draw(st.lists(st.integers(-1, i - 1), min_size=1, max_size=3, unique=True)) for i in range(count)
    ]
    return inputs, draw(
        st.lists(st.sampled_from(["single", "half", "free", "free"]), min_size=count, max_size=count)
    )


@settings(max_examples=60, deadline=None)
@given(graphs())
def test_casts_are_as_few_as_can_be(model: Model, case: tuple[list[list[int]], list[str]]) -> None:
    """Against all ways to choose."""
    inputs, kinds = case
    nodes = [
        helper.make_node("Sum", [f"v{j}" if j >= 0 else "x" for j in of], [f"v{i}"], f"n{i}")
        for i, of in enumerate(inputs)
    ]
    graph = Graph(model(nodes, {"x": (F, (1,))}), {})

    def casts(single: Sequence[bool]) -> int:
        made = {-1: True} | dict(enumerate(single))
        return len({j for i, of in enumerate(inputs) for j in of if made[j] != single[i]})

    fixed = {
        kind: {f"n{i}" for i, chosen in enumerate(kinds) if chosen == kind} for kind in ("single", "half")
    }
    ways = [[kind == "single"] if kind != "free" else [False, True] for kind in kinds]
    best = min(casts(way) for way in _product(ways))
    chosen = fewest_casts(graph, fixed["single"], fixed["half"])
    assert fixed["single"] <= chosen
    assert not fixed["half"] & chosen
    assert casts([f"n{i}" in chosen for i in range(len(kinds))]) == best


def _product(ways: list[list[bool]]) -> list[list[bool]]:
    return [[first, *rest] for first in ways[0] for rest in _product(ways[1:])] if ways else [[]]


@pytest.mark.parametrize("side", [64, 128, 256, 512, 1024])
def test_no_tile_size_brings_a_constant_near_the_largest_number(side: int) -> None:
    """The transform of a constant feature of 8, by the lowering's own matrices: at most 8 * side, all steps
    included.

    A constant MS at the peak is 1 in network units, and features stay within a few times that.
    """
    builder = GraphBuilder(17)
    fourier = MatMulFourier(side, side)
    real, imag = fourier.forward(builder, "x", 0.2)
    model = builder.model(
        {"x": (1, 1, side, side)},
        ("y", fourier.inverse(builder, real, imag), (1, 1, side, side)),
        "a transform and its inverse",
    )
    feature = np.full((1, 1, side, side), 8 / side, np.float32)  # times 1 / sqrt(H W), as in the graph
    found = audit(model, [{"x": feature}])
    largest = max(values.maximum for values in found.values())
    assert largest == pytest.approx(8 * side * math.cos(0.2), rel=1e-5)
    assert largest < LARGEST / 7
    assert (8 * side) ** 2 > LARGEST  # which is why squares stay in FP32 on any tile


def test_a_bright_tile_of_1024_pixels_does_not_overflow() -> None:
    model = graph_of("matmul", (1024, 1024), channels=4)
    bright: Inputs = {
        "ms": np.full((1, 4, 256, 256), 2047, np.float32),
        "pan": np.full((1, 1, 1024, 1024), 2047, np.float32),
    }
    result = typed(model, "fp16", [bright])
    output, exact = run(rounded(result.model), bright), run(model, bright)
    assert np.isfinite(output).all()
    assert np.abs(output - exact).max() < 1e-3 * 2047
    half = {node.name for node in model.graph.node} - {node.node for node in result.kept}
    within = [
        result.ranges[name].maximum for node in model.graph.node if node.name in half for name in node.output
    ]
    assert max(within) < LARGEST / 8
    squares = [
        result.ranges[name].maximum
        for name in result.ranges
        if name.endswith(("frequency/Mul", "frequency/Add"))
    ]
    assert max(squares) > LARGEST


@pytest.mark.parametrize("precision", ["fp16", "mixed"])
@pytest.mark.parametrize(("size", "blocks"), [((64, 64), 1), ((96, 64), 2)])
def test_targets_read_it(precision: Precision, size: tuple[int, int], blocks: int, tmp_path: Path) -> None:
    """By their tables, and where NVIDIA's compiler is installed, by its word."""
    result = typed(graph_of("matmul", size, blocks=blocks), precision, tiles(size))
    for name in ("rtx", "trt10.3", "trt11.2"):
        assert [
            finding for finding in preflight(result.model, target(name)) if finding.severity == "error"
        ] == []
    if not is_available():
        pytest.skip("tensorrt-rtx-cu13 is not installed (extra 'dev', Linux on x86_64)")
    onnx.save(result.model, tmp_path / "m.onnx")
    compiled = compile_for_rtx(tmp_path / "m.onnx")
    assert compiled.ok, compiled.errors

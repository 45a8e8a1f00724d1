"""The rules: each on a graph small enough to say what it must find, and all of them on SFIIN."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from sfiin.data.sensors import SENSORS
from sfiin.export.graph import build_graph
from sfiin.export.precision_rules import RULES, Graph, KeptNode, kept_nodes
from sfiin.export.ranges import audit
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.contract import Lowering, Precision

Model = Callable[..., onnx.ModelProto]


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), output.split(), output, **attributes)


def found(
    model: Model, nodes: Sequence[onnx.NodeProto], x: np.ndarray, constants: Mapping[str, Any] | None = None
) -> dict[str, KeptNode]:
    """The nodes kept in FP32 of a graph between two convolutions, which keep `first` and `last` away."""
    one = np.ones((1, 1, 1, 1), np.float32)
    around = [node("Conv", "dn one", "x"), *nodes, node("Conv", f"{nodes[-1].output[0]} one", "end")]
    shape = (TensorProto.FLOAT, x.shape)
    graph = model(around, {"dn": shape}, {"one": one, **(constants or {})})
    kept = kept_nodes(Graph(graph, audit(graph, [{"dn": x}])), "fp16")
    return {name: node for name, node in kept.items() if node.rule not in ("first", "last")}


X = np.linspace(-1, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)

CASES: list[tuple[str, list[onnx.NodeProto], dict[str, Any], set[str]]] = [
    (
        "square",
        [node("Mul", "x x", "xx"), node("Add", "xx xx", "s"), node("Sqrt", "s", "r"), node("Relu", "r", "y")],
        {},
        {"xx", "s", "r"},
    ),
    ("floor", [node("Relu", "x", "a"), node("Max", "a c", "y")], {"c": np.float32(1e-30)}, {"y"}),
    (
        "floor",
        [node("Mul", "x c", "a"), node("Clip", "a m c", "y")],
        {"c": np.float32(1e30), "m": np.float32(0)},
        {"a", "y"},
    ),
    ("floor", [node("Relu", "x", "a"), node("Max", "a c", "y")], {"c": np.float32(1e-3)}, set()),
    ("floor", [node("Relu", "x", "a"), node("Max", "a c", "y")], {"c": np.float32(0)}, set()),
    (
        "cut",
        [node("Relu", "x", "a"), node("Atan", "x", "t"), node("Mul", "t a", "p"), node("Conv", "p one", "y")],
        {},
        {"t", "p"},
    ),
    (
        "cut",
        [
            node("Relu", "x", "a"),
            node("Concat", "a x", "c", axis=0),
            node("Div", "c two", "q"),
            node("Atan", "q", "t"),
            node("Conv", "t one", "y"),
        ],
        {"two": np.float32(2)},
        {"q", "t"},
    ),
    ("range-reduction", [node("Relu", "x", "a"), node("Sin", "a", "y")], {}, {"y"}),
    ("range-reduction", [node("Mul", "x c", "a"), node("Cos", "a", "y")], {"c": np.float32(50)}, {"a", "y"}),
    (
        "statistics",
        [node("ReduceMean", "x", "m", axes=[3]), node("Sub", "x m", "d"), node("Conv", "d one", "y")],
        {},
        {"m", "d"},
    ),
    (
        "overflow",
        [node("Mul", "x c", "a"), node("Mul", "a d", "b"), node("Relu", "b", "y")],
        {"c": np.float32(3e4), "d": np.float32(1e-4)},
        {"a", "b"},
    ),
    ("overflow", [node("Mul", "x c", "y")], {"c": np.float32(8000)}, set()),
    (
        "small",
        [node("Mul", "x c", "a"), node("Mul", "a d", "b"), node("Mul", "b e", "y")],
        {"c": np.float32(1e-3), "d": np.float32(1e-2), "e": np.float32(1e4)},
        {"b"},
    ),
    (
        "small",
        [node("Conv", "x w", "a", pads=[1, 1, 1, 1]), node("Mul", "a c", "y")],
        {"w": np.full((1, 1, 3, 3), 1.01e-5, np.float32), "c": np.float32(1e4)},
        {"a"},
    ),
    (
        "transform",
        [
            node("Unsqueeze", "x a", "u"),
            node("DFT", "u", "f", axis=2),
            node("Split", "f", "r i", axis=4),
            node("Squeeze", "r a", "y"),
        ],
        {"a": np.array([4], np.int64)},
        {"f"},
    ),
]


@pytest.mark.parametrize(
    ("rule", "nodes", "constants", "names"), CASES, ids=[f"{i}-{c[0]}" for i, c in enumerate(CASES)]
)
def test_a_rule_finds_what_it_is_for(
    model: Model, rule: str, nodes: list[onnx.NodeProto], constants: dict[str, Any], names: set[str]
) -> None:
    kept = found(model, nodes, X, constants)
    assert {name for name, node in kept.items() if node.rule == rule} == names
    assert all(node.reason and node.operator for node in kept.values())


def test_a_value_that_is_not_finite_overflows(model: Model) -> None:
    kept = found(model, [node("Log", "x", "l"), node("Relu", "l", "y")], X)
    assert kept["l"].rule == "overflow"


def sfiin(
    lowering: Lowering, precision: Precision, without: Sequence[str] = ()
) -> tuple[Graph, dict[str, KeptNode]]:
    torch.manual_seed(0)
    net = SFIIN(NetworkConfig(blocks=2), SENSORS["vhr4"].profile).eval()
    proto = build_graph(net, (32, 32), lowering, 17)
    random = np.random.default_rng(0)
    tile = {"ms": random.uniform(0, 2047, (1, 4, 8, 8)), "pan": random.uniform(0, 2047, (1, 1, 32, 32))}
    graph = Graph(proto, audit(proto, [{name: a.astype(np.float32) for name, a in tile.items()}]))
    return graph, kept_nodes(graph, precision, without)


def by_rule(kept: Mapping[str, KeptNode], rule: str) -> set[str]:
    return {name for name, node in kept.items() if node.rule == rule}


def test_the_ends_of_sfiin_stay_in_fp32() -> None:
    """All that is in DN, and both ways between DN and network units; nothing else."""
    _, kept = sfiin("matmul", "fp16")
    assert by_rule(kept, "last") == {"upsample/Conv", "upsample/DepthToSpace", "refine/Conv_6", "Add", "hrms"}
    assert by_rule(kept, "first") == {"upsample/Pad", "Conv", "Conv_2"}


def test_fp16_keeps_decisions_and_gives_products_away() -> None:
    graph, kept = sfiin("matmul", "fp16")
    for operators in (("Atan",), ("Sqrt",), ("Sin", "Cos"), ("ReduceMean",)):
        assert {node.name for node in graph.of(*operators)} <= set(kept), operators
    assert not {node.name for node in graph.of("MatMul")} & by_rule(kept, "spectrum")
    floors = {node.name for node in graph.of("Max")} | {
        node.name for node in graph.nodes if "scalar_1e+30" in node.input
    }
    assert len(floors) == 2 * (2 + 1 + 1)  # in each block: guards of two quotients, of a root, and a sign
    assert floors <= set(kept)
    heavy = (
        {node.name for node in graph.nodes if graph.macs(node) > 1e5}
        - by_rule(kept, "first")
        - by_rule(kept, "last")
    )
    assert len(heavy - set(kept)) >= 0.9 * len(heavy)


@pytest.mark.parametrize("lowering", ["matmul", "dft"])
def test_mixed_keeps_the_whole_spectrum(lowering: Lowering) -> None:
    """From the first product or DFT to the last; the branch's convolutions over maps are outside."""
    graph, kept = sfiin(lowering, "mixed")
    spectrum = by_rule(kept, "spectrum")
    assert {node.name for node in graph.of("MatMul", "DFT", "Atan", "Sin", "Cos")} <= spectrum
    assert all(name.startswith(("block0/frequency/", "block1/frequency/")) for name in spectrum)
    outside = {node.name for node in graph.nodes if "/frequency/" in node.name} - spectrum
    kinds = [node.op_type for node in graph.nodes if node.name in outside]
    assert sorted(kinds) == ["Concat"] * 2 + ["Conv"] * 6


def test_macs_are_those_of_the_definition() -> None:
    graph, _ = sfiin("matmul", "fp16")
    macs = {node.name: graph.macs(node) for node in graph.nodes}
    assert macs["Conv"] == 32 * 32 * 8 * 4 * 9
    assert macs["upsample/Conv"] == 8 * 8 * 64 * 25
    assert macs["block0/frequency/MatMul"] == 16 * 2 * 32 * 9 * 16  # even columns from half a row
    assert macs["block0/frequency/MatMul_2"] == 16 * 2 * 32 * 8 * 16
    assert macs["block0/frequency/MatMul_3"] == 16 * 8 * 8 * (8 * 17)
    assert macs["Add"] == 0


def test_without_a_rule_its_nodes_go_to_others_or_to_fp16() -> None:
    graph, kept = sfiin("matmul", "fp16")
    assert list(sfiin("matmul", "fp16", tuple(RULES))[1]) == ["hrms"]  # float32 is promised there
    less = sfiin("matmul", "fp16", ["cut"])[1]
    assert not by_rule(less, "cut")
    assert {node.name for node in graph.of("Atan")} <= by_rule(kept, "cut")

"""NVIDIA's compiler on our graphs, and whether the table of its target says the same as it does.

Nothing here needs a GPU. What the table of `rtx` says of operators and types was taken from the same
compiler, so these tests are also what notices a new version that differs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from sfiin.export.graph import build_graph
from sfiin.export.preflight import preflight, target
from sfiin.export.trt_process import Compiled, compile_for_rtx, is_available, parse_for_rtx
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.contract import Lowering, SensorProfile
from sfiin.runtime.errors import InputError

pytestmark = pytest.mark.skipif(
    not is_available(), reason="tensorrt-rtx-cu13 is not installed (extra 'dev', Linux on x86_64)"
)

Model = Callable[..., onnx.ModelProto]
F, H, D, B = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BOOL
I8, I32, I64, U8, U16, S = (
    TensorProto.INT8,
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.STRING,
)
IMAGE = (1, 4, 8, 8)
X = {"x": (F, IMAGE)}
XY = {"x": (F, IMAGE), "y": (F, IMAGE)}


def graph(tile: tuple[int, int], lowering: Lowering = "matmul", **changes: int) -> onnx.ModelProto:
    torch.manual_seed(0)
    config = NetworkConfig(**{"blocks": 1} | changes)  # type: ignore[arg-type]
    sensor = SensorProfile("test", tuple(f"b{i}" for i in range(config.bands)), config.ratio, 11, 2047.0)
    return build_graph(SFIIN(config, sensor).eval(), tile, lowering, 17)


def saved(model: onnx.ModelProto, folder: Path, name: str = "m") -> Path:
    path = folder / f"{name}.onnx"
    onnx.save(model, path)
    return path


def accepted(model: onnx.ModelProto) -> bool:
    return all(finding.severity != "error" for finding in preflight(model, target("rtx")))


def why(result: Compiled) -> str:
    return " ".join(error.text for error in result.errors)


@pytest.mark.parametrize(
    ("tile", "changes"),
    [
        ((64, 64), {}),
        ((96, 64), {"blocks": 2}),
        ((124, 92), {}),
        ((129, 63), {"ratio": 3}),
        ((64, 32), {"bands": 8, "ratio": 2}),
    ],
)
def test_our_graphs_compile(tmp_path: Path, tile: tuple[int, int], changes: dict[str, Any]) -> None:
    """Sides of powers of two or not, odd ones, other sensors; a plan for batches of 1 to 16."""
    model = graph(tile, **changes)
    result = compile_for_rtx(saved(model, tmp_path))
    assert result.ok, why(result)
    assert result.errors == ()
    assert result.layers > 100
    assert result.plan_bytes > 1_000_000
    assert 0 < result.seconds < 60
    assert accepted(model)


def test_dft_is_refused_by_name(tmp_path: Path) -> None:
    model = graph((64, 64), "dft")
    result = compile_for_rtx(saved(model, tmp_path))
    assert not result.ok
    assert (result.plan_bytes, result.layers) == (0, 0)
    first = result.errors[0]
    assert (first.node, first.operator) == ("block0/frequency/DFT", "DFT")
    assert "Plugin not found" in first.text
    found = preflight(model, target("rtx"))[0]
    assert (found.severity, found.node, found.operator, found.count) == ("error", first.node, "DFT", 3)


def test_mixed_types_are_refused_by_name(model: Model, tmp_path: Path) -> None:
    """Float16 and float32 into one Add: what weak typing once forgave."""
    mixed = model([helper.make_node("Add", ["x", "y"], ["z"], "mixed")], {"x": (F, IMAGE), "y": (H, IMAGE)})
    (error,) = compile_for_rtx(saved(mixed, tmp_path)).errors
    assert (error.node, error.operator) == ("mixed", "Add")
    assert "must have same input types. But they are of types Float and Half" in error.text
    (found,) = preflight(mixed, target("rtx"))
    assert (found.node, found.problem) == ("mixed", "mixes inputs of float and float16")


def test_custom_operators_are_refused_unless_their_name_is_taken(model: Model, tmp_path: Path) -> None:
    """There are no plugins; and a domain is not looked at, so that a foreign Add is read as ONNX's."""
    foreign = {
        kind: model(
            [helper.make_node(kind, ["x", "y"], ["z"], "n", domain="com.example")],
            XY,
            domains=["com.example"],
        )
        for kind in ("Atan2", "Add")
    }
    atan2, add = parse_for_rtx([saved(graph, tmp_path, kind) for kind, graph in foreign.items()])
    assert not atan2.ok
    assert (atan2.errors[0].node, atan2.errors[0].operator) == ("n", "Atan2")
    assert "Plugin not found" in why(atan2)
    assert not accepted(foreign["Atan2"])
    assert add.ok
    (found,) = preflight(foreign["Add"], target("rtx"))
    assert (found.severity, found.node) == ("warning", "n")
    assert "reads ONNX's Add" in found.problem


def test_a_build_needs_known_extents(model: Model, tmp_path: Path) -> None:
    """A dynamic side besides the batch parses, and cannot be built by a profile for the batch."""
    free = model([helper.make_node("Relu", ["x"], ["z"], "relu")], {"x": (F, ("n", 4, "h", "w"))})
    path = saved(free, tmp_path)
    assert parse_for_rtx([path])[0].ok
    result = compile_for_rtx(path)
    assert not result.ok
    assert "profile" in why(result).lower()
    assert [finding.severity for finding in preflight(free, target("rtx"))] == ["warning"]


def test_batches_are_for_dynamic_inputs_only(model: Model, tmp_path: Path) -> None:
    """An input of fixed extent beside a dynamic one keeps it."""
    inputs = {"x": (F, ("n", 4)), "y": (F, (1, 4))}
    path = saved(model([helper.make_node("Add", ["x", "y"], ["z"], "add")], inputs), tmp_path)
    result = compile_for_rtx(path, "12.0", (1, 2, 3))
    assert result.ok, why(result)
    assert result.layers == 1


def test_what_is_no_model_or_takes_too_long_is_a_result(tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    good = saved(graph((64, 64)), tmp_path)
    bad, fine = parse_for_rtx([broken, good])
    assert not bad.ok
    assert "parse" in why(bad).lower()
    assert fine.ok
    late = compile_for_rtx(good, timeout=0.01)
    assert (late.ok, why(late)) == (False, "the compiler gave no answer: it took longer than 0.01 s")
    with pytest.raises(InputError, match=r"none\.onnx: no such file"):
        compile_for_rtx(tmp_path / "none.onnx")


def node(kind: str, inputs: str, outputs: str = "z", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, outputs.split(), "n", **attributes)


Case = tuple[onnx.NodeProto, Mapping[str, Any], Mapping[str, Any], bool]

UNARY = (
    "Abs",
    "Atan",
    "Ceil",
    "Cos",
    "Elu",
    "Erf",
    "Exp",
    "Floor",
    "Gelu",
    "HardSwish",
    "LeakyRelu",
    "Mish",
    "Neg",
    "Reciprocal",
    "Relu",
    "Round",
    "Sigmoid",
    "Sign",
    "Sin",
    "Softplus",
    "Sqrt",
    "Swish",
    "Tanh",
)
BINARY = ("Add", "Div", "Max", "Min", "Mul", "Pow", "PRelu", "Sub")
REFUSED = ("Det", "Unique", "Bernoulli")
QUANTISED = {"s": np.float32(0.1)}
ONES = np.ones(4, np.float32)
GRID = {"x": (F, IMAGE), "y": (F, (1, 8, 8, 2))}

CASES: list[Case] = [
    *((node(kind, "x"), X, {}, True) for kind in UNARY),
    *((node(kind, "x y"), XY, {}, True) for kind in BINARY),
    *((node(kind, "x"), X, {}, False) for kind in REFUSED),
    (node("DFT", "x"), {"x": (F, (1, 8, 8, 2))}, {}, False),
    (node("BitShift", "x y", direction="LEFT"), {"x": (U8, (4,)), "y": (U8, (4,))}, {}, False),
    (node("NonZero", "x"), X, {}, False),
    (node("RoiAlign", "x r i"), X, {"r": np.ones((1, 4), np.float32), "i": np.zeros(1, np.int64)}, False),
    (node("DynamicQuantizeLinear", "x", "z s p"), X, {}, False),
    (node("MatMulInteger", "x y"), {"x": (I8, (4, 4)), "y": (I8, (4, 4))}, {}, False),
    (node("Identity", "x"), {"x": (S, (4,))}, {}, False),
    (node("Cast", "x", to=F), {"x": (U16, IMAGE)}, {}, False),
    (node("Cast", "x", to=F), {"x": (U8, IMAGE)}, {}, True),
    (node("Cast", "x", to=U16), X, {}, False),
    (node("Sqrt", "x"), {"x": (D, IMAGE)}, {}, True),
    (node("Add", "x y"), {"x": (U8, IMAGE), "y": (U8, IMAGE)}, {}, False),
    (node("Add", "x y"), {"x": (I64, IMAGE), "y": (I64, IMAGE)}, {}, True),
    (node("Relu", "x"), {"x": (F, (1,) * 9)}, {}, False),
    (node("Where", "c x y"), {"c": (B, IMAGE), **XY}, {}, True),
    (node("Clip", "x a b"), X, {"a": np.float32(0), "b": np.float32(1)}, True),
    (node("Mod", "x y", fmod=1), XY, {}, True),
    (node("Mod", "x y"), {"x": (I32, (4,)), "y": (I32, (4,))}, {}, True),
    *(
        (node("Resize", "x - s", mode=mode), X, {"s": np.array([1, 1, 2, 2], np.float32)}, True)
        for mode in ("nearest", "linear", "cubic")
    ),
    (
        node("Resize", "x - s", mode="linear", coordinate_transformation_mode="half_pixel_symmetric"),
        X,
        {"s": np.array([1, 1, 2, 2], np.float32)},
        False,
    ),
    (
        node("Resize", "x - s", mode="linear", antialias=1),
        X,
        {"s": np.array([1, 1, 0.5, 0.5], np.float32)},
        False,
    ),
    (node("Resize", "x - s"), {**X, "s": (F, (4,))}, {}, False),
    *(
        (node("Pad", "x p", mode=mode), X, {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}, True)
        for mode in ("constant", "reflect", "edge", "wrap")
    ),
    *(
        (node("QuantizeLinear", "x s p"), X, {**QUANTISED, "p": point}, not point)
        for point in (np.int8(0), np.int8(3), np.uint8(128))
    ),
    (
        node("DequantizeLinear", "x s p", axis=1),
        {"x": (I8, IMAGE)},
        {"s": ONES, "p": np.zeros(4, np.int8)},
        True,
    ),
    (node("Einsum", "x y", equation="...ij,...jk->...ik"), XY, {}, True),
    (node("Einsum", "x y", equation="ABij,ABjk->ABik"), XY, {}, False),
    (
        node("ScatterND", "x i u"),
        {"x": (F, (8,)), "u": (F, (2,))},
        {"i": np.array([[1], [2]], np.int64)},
        True,
    ),
    (
        node("ScatterND", "x i u", reduction="add"),
        {"x": (F, (8,)), "u": (F, (2,))},
        {"i": np.array([[1], [2]], np.int64)},
        False,
    ),
    (node("LayerNormalization", "x w"), X, {"w": np.ones(8, np.float32)}, True),
    (node("LayerNormalization", "x w", "z m d"), X, {"w": np.ones(8, np.float32)}, False),
    (node("GroupNormalization", "x w w", num_groups=2), X, {"w": ONES}, True),
    (node("MaxPool", "x", kernel_shape=[2, 2]), X, {}, True),
    (node("MaxPool", "x", kernel_shape=[2, 2], dilations=[2, 2]), X, {}, False),
    (node("MaxPool", "x", "z i", kernel_shape=[2, 2]), X, {}, False),
    (node("ReduceMean", "x a"), X, {"a": np.array([2, 3], np.int64)}, True),
    (node("ReduceMean", "x a"), {**X, "a": (I64, (2,))}, {}, False),
    (node("Squeeze", "x a"), {"x": (F, (1, 4)), "a": (I64, (1,))}, {}, False),
    (
        node("OneHot", "x d v"),
        {"x": (I64, (4,))},
        {"d": np.array([5], np.int64), "v": np.array([0, 1], np.float32)},
        True,
    ),
    (
        node("OneHot", "x d v"),
        {"x": (I64, (4,)), "d": (I64, (1,))},
        {"v": np.array([0, 1], np.float32)},
        True,
    ),
    (node("GridSample", "x y"), GRID, {}, True),
    (node("DepthToSpace", "x", blocksize=2), X, {}, True),
]


def test_the_table_says_what_the_compiler_says(model: Model, tmp_path: Path) -> None:
    """One-operator graphs in opset 20, parsed only: what a GPU's compiler takes, our table takes, and no
    other."""
    models = [model([operator], inputs, constants, 20) for operator, inputs, constants, _ in CASES]
    results = parse_for_rtx([saved(graph, tmp_path, f"{i:03}") for i, graph in enumerate(models)])
    said = [
        (operator.op_type, found.ok, accepted(one))
        for (operator, *_), one, found in zip(CASES, models, results, strict=True)
    ]
    assert said == [(operator.op_type, ok, ok) for operator, _, _, ok in CASES]

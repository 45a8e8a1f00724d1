"""What each target is said to refuse: node, problem and remedy, on graphs of one or two operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from sfiin.export.preflight import Finding, load, preflight, require, target, targets
from sfiin.runtime.errors import CheckFailedError, InputError

Model = Callable[..., onnx.ModelProto]
F, H, D, BF = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16
I32, I64, U8, U16, S = (
    TensorProto.INT32,
    TensorProto.INT64,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.STRING,
)
IMAGE = (1, 4, 8, 8)
X = {"x": (F, IMAGE)}
XY = {"x": (F, IMAGE), "y": (F, IMAGE)}
PADS = {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}
UPDATE = {"x": (F, (8,)), "u": (F, (2,))}
AT = {"i": np.array([[1], [2]], np.int64)}
SCALE = {"s": np.float32(0.1)}
ALL = tuple(targets())
TENSORRT = tuple(name for name in ALL if name != "ort")
EIGHT = ("trt8.5", "trt8.6", "jetpack5", "jetpack6.0")


def node(kind: str, inputs: str, outputs: str = "z", **attributes: Any) -> onnx.NodeProto:
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(kind, names, outputs.split(), "n", **attributes)


def spoken(model: onnx.ModelProto, severity: str, text: str) -> set[str]:
    """The targets that have a finding of this severity with this text in its problem."""
    found = {name: preflight(model, target(name)) for name in ALL}
    return {
        name
        for name, findings in found.items()
        if any(finding.severity == severity and text in finding.problem for finding in findings)
    }


CASES: list[tuple[onnx.NodeProto, Mapping[str, Any], Mapping[str, Any], int, str, str, tuple[str, ...]]] = [
    (
        node("DFT", "x"),
        {"x": (F, (1, 8, 8, 2))},
        {},
        17,
        "error",
        "is not supported",
        (*EIGHT, "trt10.3", "jetpack6", "rtx"),
    ),
    (node("DFT", "x"), {"x": (F, (1, 8, 8, 2))}, {}, 17, "note", "FFTPlugin", ("trt11.2",)),
    (
        node("DFT", "x - a", inverse=1, onesided=1),
        {"x": (F, (1, 8, 5, 2))},
        {"a": np.int64(2)},
        20,
        "note",
        "1.25 and 1.26 silently return a wrong shape",
        ("ort",),
    ),
    (node("Atan", "x"), X, {}, 17, "error", "", ()),
    (
        node("LayerNormalization", "x w"),
        X,
        {"w": np.ones(8, np.float32)},
        17,
        "error",
        "is not supported",
        ("trt8.5", "jetpack5"),
    ),
    (
        node("LayerNormalization", "x w", "z m d"),
        X,
        {"w": np.ones(8, np.float32)},
        17,
        "error",
        "only its first output",
        TENSORRT,
    ),
    (
        node("GroupNormalization", "x w w", num_groups=2),
        X,
        {"w": np.ones(2, np.float32)},
        18,
        "error",
        "is not supported",
        ("trt8.5", "jetpack5"),
    ),
    (
        node("Mod", "x y", fmod=1),
        XY,
        {},
        17,
        "warning",
        "not in the operator matrix of 8.5",
        ("trt8.5", "jetpack5"),
    ),
    (node("Mod", "x y"), XY, {}, 17, "error", "needs fmod = 1", TENSORRT),
    (
        node("Resize", "x - s", mode="cubic"),
        X,
        {"s": np.array([1, 1, 2, 2], np.float32)},
        17,
        "warning",
        "cubic is not in the operator matrix",
        (*EIGHT, "trt10.3", "jetpack6", "trt11.2"),
    ),
    (
        node("Resize", "x - s", mode="linear", coordinate_transformation_mode="tf_crop_and_resize"),
        X,
        {"s": np.array([1, 1, 2, 2], np.float32)},
        17,
        "error",
        "coordinate_transformation_mode",
        TENSORRT,
    ),
    (node("Pad", "x p", mode="wrap"), X, PADS, 17, "error", "its mode is not supported", EIGHT),
    (node("Pad", "x p", mode="edge"), X, PADS, 17, "error", "", ()),
    (node("Pad", "x p", mode="reflect"), X, PADS, 17, "error", "", ()),
    (node("ScatterND", "x i u", reduction="add"), UPDATE, AT, 17, "error", "numbers would be wrong", EIGHT),
    (
        node("ScatterND", "x i u", reduction="add"),
        UPDATE,
        AT,
        17,
        "error",
        "a reduction is not supported",
        ("trt10.3", "jetpack6", "trt11.2", "rtx"),
    ),
    (node("ScatterND", "x i u"), UPDATE, AT, 17, "error", "", ()),
    (node("Einsum", "x y", equation="...ij,...jk->...ik"), XY, {}, 17, "error", "ellipsis", EIGHT),
    (node("Einsum", "x", equation="abii->ab"), X, {}, 17, "error", "diagonal", EIGHT),
    (node("Einsum", "x y", equation="abij,abjk->abik"), XY, {}, 17, "error", "", ()),
    (node("Einsum", "x y", equation="ABij,ABjk->ABik"), XY, {}, 17, "error", "capital letters", TENSORRT),
    (
        node("QuantizeLinear", "x s p"),
        X,
        {**SCALE, "p": np.int8(3)},
        17,
        "error",
        "zero point is not 0",
        TENSORRT,
    ),
    (node("QuantizeLinear", "x s p"), X, {**SCALE, "p": np.int8(0)}, 17, "error", "", ()),
    (
        node("QuantizeLinear", "x s p"),
        X,
        {**SCALE, "p": np.uint8(0)},
        17,
        "error",
        "quantises to uint8",
        EIGHT,
    ),
    (node("QuantizeLinear", "x s"), X, SCALE, 17, "error", "has no zero point", ("trt8.5", "jetpack5")),
    (
        node("QuantizeLinear", "x s p", axis=1),
        X,
        {"s": np.ones(4, np.float32), "p": np.zeros(4, np.int8)},
        17,
        "warning",
        "per axis",
        (*EIGHT, "trt10.3", "jetpack6", "trt11.2"),
    ),
    (
        node("Add", "x y"),
        {"x": (F, IMAGE), "y": (H, IMAGE)},
        {},
        17,
        "error",
        "mixes inputs of float and float16",
        ALL,
    ),
    (node("Sin", "x"), {"x": (I32, IMAGE)}, {}, 17, "error", "ONNX gives it no input of type int32", ALL),
    (node("Cast", "x", to=F), {"x": (U16, IMAGE)}, {}, 17, "error", "is of type uint16", TENSORRT),
    (
        node("Cast", "x", to=F),
        {"x": (U8, IMAGE)},
        {},
        17,
        "error",
        "takes bool, float, float16, int32, int8, not uint8",
        ("trt8.5", "jetpack5"),
    ),
    (node("Identity", "x"), {"x": (S, (4,))}, {}, 17, "error", "is of type string", TENSORRT),
    (
        node("Sqrt", "x"),
        {"x": (D, IMAGE)},
        {},
        17,
        "warning",
        "is of type double, which the target reads as float",
        TENSORRT,
    ),
    (
        node("Neg", "x"),
        {"x": (I64, IMAGE)},
        {},
        17,
        "warning",
        "is of type int64, which the target reads as int32",
        EIGHT,
    ),
    (node("Sqrt", "x"), {"x": (BF, IMAGE)}, {}, 17, "error", "is of type bfloat16", EIGHT),
    (node("Sin", "x"), {"x": (F, (1,) * 9)}, {}, 17, "error", "has 9 dimensions, more than 8", TENSORRT),
    (
        node("Expand", "x s"),
        {"x": (F, (1,))},
        {"s": np.array([2**16, 2**15], np.int64)},
        17,
        "error",
        "has more than 2147483647 elements",
        EIGHT,
    ),
    (
        node("ReduceMean", "x a"),
        X,
        {"a": np.array([2], np.int64)},
        18,
        "error",
        "its form in opset 18 is newer than opset 17",
        EIGHT,
    ),
    (
        node("ReduceSum", "x a"),
        {**X, "a": (I64, (1,))},
        {},
        17,
        "error",
        "axes must be an initializer",
        TENSORRT,
    ),
    (node("Relu", "x"), {"x": (F, ("n", 4, 8, 8))}, {}, 17, "note", "has a dynamic batch", TENSORRT),
    (
        node("Relu", "x"),
        {"x": (F, ("n", 4, "h", "w"))},
        {},
        17,
        "warning",
        "dynamic dimensions besides the batch",
        TENSORRT,
    ),
    (node("Relu", "x"), {"x": (F, None)}, {}, 17, "warning", "has no shape", TENSORRT),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0].op_type}-{case[5][:20]}")
def test_who_says_what(model: Model, case: tuple[Any, ...]) -> None:
    operator, inputs, constants, opset, severity, text, names = case
    assert spoken(model([operator], inputs, constants, opset), severity, text) == set(names)


def test_a_finding_names_node_problem_remedy_and_source(model: Model) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("DFT", ["y"], ["z"], "block0/DFT")]
    (found,) = preflight(model(nodes, {"x": (F, (1, 8, 8, 2))}), target("trt8.6"))
    assert found == Finding(
        "error",
        "block0/DFT",
        "DFT",
        "is not supported",
        "export with --fourier matmul (native DFT needs TensorRT 11.2 or ONNX Runtime 1.27)",
        "https://github.com/onnx/onnx-tensorrt/blob/release/8.6-GA/docs/operators.md",
        1,
    )
    assert str(found).startswith("DFT 'block0/DFT' (node 1): is not supported; export with --fourier matmul")


def test_a_thousand_equal_findings_are_one(model: Model) -> None:
    nodes = [helper.make_node("Det", [f"v{i}"], [f"v{i + 1}"], f"det{i}") for i in range(1000)]
    nodes.append(helper.make_node("Compress", ["v1000", "c"], ["z"], "last"))
    found = preflight(model(nodes, {"v0": (F, (2, 2)), "c": (TensorProto.BOOL, (4,))}), target("jetpack6"))
    assert [(finding.operator, finding.node, finding.index, finding.count) for finding in found] == [
        ("Det", "det0", 0, 1000),
        ("Compress", "last", 1000, 1),
    ]
    assert "Det 'det0' (node 0) and 999 more" in str(found[0])


def test_errors_come_first(model: Model) -> None:
    free = model([node("Sqrt", "x"), node("Bernoulli", "z", "w")], {"x": (D, ("n", 4))})
    assert [finding.severity for finding in preflight(free, target("rtx"))] == ["error", "warning", "note"]


def test_subgraphs_are_looked_into(model: Model) -> None:
    out = [helper.make_tensor_value_info("t", F, (2, 2))]
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node(kind, ["x"], ["t"], kind.lower())], name, [], out
        )
        for name, kind in (("then", "Relu"), ("else", "Bernoulli"))
    }
    inputs = {"c": (TensorProto.BOOL, ()), "x": (F, (2, 2))}
    found = preflight(
        model([helper.make_node("If", ["c"], ["z"], "if", **branches)], inputs), target("trt10.3")
    )
    assert [(finding.severity, finding.operator, finding.node) for finding in found] == [
        ("error", "Bernoulli", "if/else_branch/bernoulli"),
        ("note", "If", "if"),
    ]


def test_custom_domains(model: Model) -> None:
    """A plugin for TensorRT, nothing for TensorRT for RTX, a library for ONNX Runtime, which has
    com.microsoft."""
    custom = model([node("Fourier", "x", domain="sfiin")], X, domains=["sfiin"])
    assert spoken(custom, "warning", "needs a plugin of that name") == {*TENSORRT} - {"rtx"}
    assert spoken(custom, "error", "the target has no plugins") == {"rtx"}
    assert spoken(custom, "error", "is no ONNX operator (domain 'sfiin')") == {"rtx", "ort"}
    shadow = model([node("Atan", "x", domain="sfiin")], X, domains=["sfiin"])
    assert spoken(shadow, "warning", "reads ONNX's Atan") == set(TENSORRT)
    contrib = model([node("FastGelu", "x", domain="com.microsoft")], X, domains=["com.microsoft"])
    assert preflight(contrib, target("ort")) == []


def test_local_functions(model: Model) -> None:
    """Not before TensorRT 9; what is in them is checked all the same."""
    body = [helper.make_node("Relu", ["a"], ["c"]), helper.make_node("Det", ["c"], ["b"])]
    outer = model([node("Local", "x", domain="local")], {"x": (F, (2, 2))}, domains=["local"])
    outer.functions.append(
        helper.make_function("local", "Local", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    assert spoken(outer, "error", "local functions are not read before TensorRT 9.0") == set(EIGHT)
    assert [finding.operator for finding in preflight(outer, target("trt10.3"))] == ["Det"]


def test_versions_over_the_limit(model: Model) -> None:
    relu = model([node("Relu", "x")], X, opset=22)
    assert spoken(relu, "warning", "newer than 17, the last that is documented") == set(EIGHT)
    assert spoken(relu, "warning", "newer than 20") == {"trt10.3", "jetpack6"}
    assert preflight(relu, target("rtx")) == []
    (found,) = preflight(relu, target("jetpack6"))
    assert (found.node, found.remedy) == (
        "opset 22",
        "export with --opset 20 or lower, or convert (onnx.version_converter.convert_version)",
    )
    relu.opset_import[0].version = 99
    assert [finding.severity for finding in preflight(relu, target("ort"))] == ["error"]
    relu.opset_import[0].version, relu.ir_version = 17, 99
    assert spoken(relu, "error", "newer than 13") == {"ort"}
    assert spoken(relu, "warning", "the last that this version knows") == {
        *EIGHT,
        "trt10.3",
        "jetpack6",
        "trt11.2",
    }
    (found,) = preflight(relu, target("ort"))
    assert found.remedy.startswith("set model.ir_version = 13")


def test_uint8_stays_at_the_edge(model: Model) -> None:
    inside = model([node("Cast", "x", "y", to=U8), node("Cast", "y", to=F)], X)
    (found,) = preflight(inside, target("trt10.3"))
    assert found.problem.startswith("makes uint8 inside the graph")
    assert preflight(model([node("Cast", "x", to=U8)], X), target("trt10.3")) == []


def test_weights_in_files(model: Model, tmp_path: Path) -> None:
    graph = model([node("MatMul", "x w")], {"x": (F, (4, 64))}, {"w": np.ones((64, 64), np.float32)})
    path = tmp_path / "m.onnx"
    onnx.save(graph, path, save_as_external_data=True, location="m.bin", size_threshold=0)
    assert preflight(load(path), target("rtx"), tmp_path) == []
    (tmp_path / "m.bin").unlink()
    (found,) = preflight(load(path), target("rtx"), tmp_path)
    assert (found.severity, found.node, found.problem) == (
        "error",
        "w",
        "its data should be in 'm.bin', which is not there",
    )
    assert preflight(load(path), target("rtx")) == []


def test_weights_of_more_than_two_gigabytes(model: Model) -> None:
    """Only what the tensor says of itself: its data would fill the memory."""
    graph = model([node("MatMul", "x w")], {"x": (F, (4, 4))}, {"w": np.ones((4, 4), np.float32)})
    del graph.graph.initializer[0].dims[:]
    graph.graph.initializer[0].dims.extend((4, 2**28))
    assert [found.problem for found in preflight(graph, target("ort"))] == [
        "its weights exceed the 2 GB of a file"
    ]


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    with pytest.raises(InputError, match=r"m\.onnx: cannot be read \(No such file"):
        load(path)
    for content in (b"no model", b"", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(InputError, match="no ONNX model, or a damaged one"):
            load(path)
    with path.open("wb") as file:  # a sparse file, which takes no space
        file.truncate(2**31)
    with pytest.raises(InputError, match="over 2 GB"):
        load(path)


def test_require_raises_the_first_error(model: Model) -> None:
    bad = model([node("DFT", "x", "y"), node("Det", "y")], {"x": (F, (1, 8, 8, 2))})
    with pytest.raises(CheckFailedError) as failure:
        require(bad, target("jetpack5"))
    assert str(failure.value).startswith(
        "JetPack 5 (TensorRT 8.5) will not read this model: DFT 'n' (node 0): is not"
    )
    assert "(and 1 more; 'sfiin preflight' lists them)" in str(failure.value)
    require(model([node("Relu", "x")], {"x": (F, ("n", 4))}), target("jetpack5"))


def test_every_shipped_model_is_read_everywhere() -> None:
    from sfiin.runtime.models import shipped

    for path, _ in shipped():
        for name in ALL:
            assert {finding.severity for finding in preflight(load(path), target(name))} <= {"note"}, name

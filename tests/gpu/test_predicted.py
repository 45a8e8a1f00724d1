"""The prediction: kernels of a small graph, the plugin's traffic, and the figures in the documentation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def predicted(script: Callable[[Path], Any]) -> Any:
    return script(ROOT / "benchmarks" / "predicted.py")


def small() -> onnx.ModelProto:
    """A product, its absolute value and the root of that; the absolute value is also given out."""
    shape = (8, 8)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["y"]),
        helper.make_node("Reshape", ["y", "s"], ["z"]),
        helper.make_node("Abs", ["z"], ["a"]),
        helper.make_node("Sqrt", ["a"], ["r"]),
    ]
    values = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in "xwyzar"}
    inputs = [values["x"], values["w"], helper.make_tensor_value_info("s", TensorProto.INT64, (2,))]
    inside = [values["y"], values["z"]]
    graph = helper.make_graph(nodes, "g", inputs, [values["a"], values["r"]], value_info=inside)
    return helper.make_model(graph)


def test_pointwise_layers_join_what_made_their_input(predicted: Any) -> None:
    model = small()
    shapes = predicted.shapes_of(model, 1)
    single = predicted.kernels(model, shapes, predicted.GPUS[0], fused=False)
    assert [kernel.kind for kernel in single] == ["MatMul", "Abs", "Sqrt"]
    (joined,) = predicted.kernels(model, shapes, predicted.GPUS[0], fused=True)
    image = 8 * 8 * 4
    assert joined.moved == 4 * image  # x and w in, a and r out
    assert joined.operations == 2 * 8**3 + 8 * 8 + 8 * 8
    assert joined.seconds(predicted.GPUS[0]) == predicted.LAUNCH


def test_the_plugins_traffic_is_its_readmes(predicted: Any) -> None:
    maps = 4 * 8 * 128 * 128
    for gpu in predicted.GPUS:
        kernels = predicted.plugin_kernels((1, 8, 128, 128), gpu)
        assert sum(kernel.moved for kernel in kernels) == 11 * maps
        assert (
            sum(kernel.moved for kernel in predicted.plugin_kernels((1, 32, 512, 512), gpu))
            == 17 * 16 * 4 * maps
        )


def test_the_documentation_has_the_records_figures(predicted: Any) -> None:
    record = json.loads((ROOT / "benchmarks" / "predicted.json").read_text(encoding="utf-8"))
    text = (ROOT / "docs" / "benchmarks.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in predicted.table(record).splitlines()[2:]]
    told = [line for line in text.splitlines() if line.endswith("not yet |")]
    known = {" | ".join((*row[:4], *row[5:])) for row in rows}
    assert len(told) > 8
    assert set(told) <= known

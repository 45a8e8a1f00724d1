"""The graph builder: names, sharing, and the forms of operators that changed with the opset."""

from __future__ import annotations

import numpy as np
import pytest

from sfiin.export.graph_builder import GraphBuilder


def test_names_carry_the_scope_and_never_clash() -> None:
    graph = GraphBuilder(17)
    with graph.scope("block0"), graph.scope("frequency"):
        names = [graph.op("Abs", "x"), graph.op("Abs", "x")]
    assert names == ["block0/frequency/Abs", "block0/frequency/Abs_2"]
    assert graph.op("Split", "x", outputs=2) == ("Split:0", "Split:1")


def test_constants_are_shared_by_name_and_never_redefined() -> None:
    graph = GraphBuilder(17)
    assert graph.scalar(0.5) == graph.scalar(0.5)
    graph.constant("w", [1.0, 2.0])
    graph.constant("w", [1.0, 2.0])
    with pytest.raises(ValueError, match="'w' already"):
        graph.constant("w", [1.0, 3.0])


@pytest.mark.parametrize("opset", [17, 18, 20])
def test_reductions_are_valid_in_every_opset(opset: int) -> None:
    graph = GraphBuilder(opset)
    value = graph.reduce("ReduceL2", "x", (2, 3))
    model = graph.model({"x": (1, 2, 4, 4)}, ("y", value, (1, 2, 1, 1)), "test")
    assert model.opset_import[0].version == opset
    assert model.graph.input[0].name == "x"


def test_scalars_are_float32_without_dimensions() -> None:
    graph = GraphBuilder(17)
    graph.model({"x": (1,)}, ("y", graph.op("Mul", "x", graph.scalar(np.pi)), (1,)), "test")

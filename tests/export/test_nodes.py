"""Walking a model: names, indices, subgraphs, and what is known of values."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper

from sfiin.export.nodes import Value, array, inferred, places, weights

Model = Callable[..., onnx.ModelProto]
F = TensorProto.FLOAT


def branching(model: Model) -> onnx.ModelProto:
    """If(c): Relu of an outer value, else a Constant; the branches see the outer scope."""
    shape = (2, 3)
    out = [helper.make_tensor_value_info("t", F, shape)]
    relu = helper.make_graph([helper.make_node("Relu", ["x"], ["t"], "relu")], "then", [], out)
    tensor = helper.make_tensor("", F, shape, np.ones(6, np.float32))
    constant = helper.make_graph([helper.make_node("Constant", [], ["t"], value=tensor)], "else", [], out)
    node = helper.make_node("If", ["c"], ["z"], "if", then_branch=relu, else_branch=constant)
    return model([node], {"c": (TensorProto.BOOL, ()), "x": (F, shape)})


def test_subgraphs_follow_their_node(model: Model) -> None:
    found = list(places(inferred(branching(model))))
    assert [place.name for place in found] == ["if", "if/else_branch/-> t", "if/then_branch/relu"]
    assert {place.index for place in found} == {0}
    assert found[1].scope.value("x") == Value("float", (2, 3))
    assert found[1].scope.value("nothing") == Value()
    assert [tensor.dims[:] for tensor in weights(branching(model))] == [[2, 3]]


def test_what_follows_from_constants_is_foldable(model: Model) -> None:
    nodes = [
        helper.make_node("Shape", ["x"], ["static"]),
        helper.make_node("Add", ["static", "one"], ["more"]),
        helper.make_node("Shape", ["free"], ["dynamic"]),
        helper.make_node("Add", ["dynamic", "more"], ["z"]),
    ]
    graph = model(nodes, {"x": (F, (2, 3)), "free": (F, ("n", 3))}, {"one": np.array([1, 1], np.int64)})
    scope = next(places(inferred(graph))).scope
    known = [name for name in ("x", "one", "static", "more", "dynamic", "z") if scope.is_foldable(name)]
    assert known == ["one", "static", "more"]
    tensor = scope.constant("one")
    assert tensor is not None
    numbers = array(tensor)
    assert numbers is not None
    assert numbers.tolist() == [1, 1]


def test_inference_keeps_small_constants_and_drops_weights(model: Model) -> None:
    """A shape must be known to infer what comes of it; a weight's type and shape are enough."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"]), helper.make_node("Reshape", ["y", "s"], ["z"])]
    graph = model(
        nodes, {"x": (F, (4, 64))}, {"w": np.ones((64, 64), np.float32), "s": np.array([16, 16], np.int64)}
    )
    light = inferred(graph)
    assert light.ByteSize() < 1000 < graph.ByteSize()
    scope = next(places(light)).scope
    assert scope.value("z") == Value("float", (16, 16))
    assert scope.value("w") == Value("float", (64, 64))
    assert (scope.value("w").elements, Value("float", (None, 2)).elements) == (4096, None)

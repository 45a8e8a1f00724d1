"""What are a model's nodes, subgraphs included, and what is known of their values beforehand?"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Shape = tuple[int | None, ...]

# Shape inference reads small constants (axes, shapes, pads); weights are more than it needs, and may be
# gigabytes.
_SMALL = 1024


@dataclass(frozen=True)
class Value:
    """A tensor's ONNX type name ("float"; "" if unknown; "sequence" for no tensor) and its shape (None:
    dynamic)."""

    type: str = ""
    shape: Shape | None = None

    @property
    def elements(self) -> int | None:
        """How many there are; None when that is not known."""
        return (
            None if self.shape is None or None in self.shape else math.prod(side or 0 for side in self.shape)
        )


@dataclass
class Scope:
    """What is known of the values of a graph and of those around it."""

    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    foldable: set[str] = field(default_factory=set)
    outer: Scope | None = None

    def value(self, name: str) -> Value:
        """What is known of a value; nothing is a `Value` of type ""."""
        return self.values.get(name) or (self.outer.value(name) if self.outer else Value())

    def is_foldable(self, name: str) -> bool:
        """Whether a value depends on constants and static shapes only, so that it can be computed
        beforehand."""
        return name in self.foldable or (self.outer is not None and self.outer.is_foldable(name))

    def constant(self, name: str) -> TensorProto | None:
        """The tensor of an initializer or a Constant."""
        if name in self.constants or self.outer is None:
            return self.constants.get(name)
        return self.outer.constant(name)


@dataclass(frozen=True)
class Place:
    """A node, its index in its graph, and its scope; `path` leads to a subgraph, as in
    "If_3/then_branch/"."""

    node: onnx.NodeProto
    index: int
    path: str
    scope: Scope
    graph_outputs: frozenset[str]

    @property
    def name(self) -> str:
        """The node's name, or its first output's when it has none, behind the path of its subgraph."""
        return self.path + (
            self.node.name or next((f"-> {name}" for name in self.node.output if name), "unnamed")
        )

    def input(self, index: int) -> str:
        """The name of an input; "" when it is left out."""
        return self.node.input[index] if index < len(self.node.input) else ""

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute's value, text as str, or the default."""
        for attribute in self.node.attribute:
            if attribute.name == name:
                value = helper.get_attribute_value(attribute)
                return value.decode(errors="replace") if isinstance(value, bytes) else value
        return default


def inferred(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with inferred types and shapes and without its large weights.

    Raises onnx.shape_inference.InferenceError when ONNX finds the graph contradictory.
    """
    light = onnx.ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph = light.graph
    graph.name = model.graph.name
    graph.node.extend(model.graph.node)
    graph.input.extend(model.graph.input)
    graph.output.extend(model.graph.output)
    graph.value_info.extend(model.graph.value_info)
    graph.initializer.extend(_light(tensor) for tensor in model.graph.initializer)
    return onnx.shape_inference.infer_shapes(light, strict_mode=False, data_prop=True)


def places(model: onnx.ModelProto) -> Iterator[Place]:
    """Every node of a model with inferred shapes, those of subgraphs behind the node that owns them."""
    yield from _places(model.graph, "", None)


def weights(model: onnx.ModelProto) -> Iterator[TensorProto]:
    """Every initializer, and every tensor in an attribute, subgraphs included."""
    yield from _weights(model.graph)


def array(tensor: TensorProto) -> NDArray[Any] | None:
    """A constant's numbers; None when they are not in the file or of a type that NumPy does not have."""
    if tensor.data_location == TensorProto.EXTERNAL:
        return None
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError, KeyError):
        return None


def type_name(data_type: int) -> str:
    """ONNX's name of a data type, in small letters: "float", "int64", "string"."""
    return (
        TensorProto.DataType.Name(data_type).lower()
        if data_type in TensorProto.DataType.values()
        else "unknown"
    )


def described(info: onnx.ValueInfoProto) -> Value:
    """Type and shape of a graph's input, output or inner value."""
    kind = info.type.WhichOneof("value")
    if kind != "tensor_type":
        return Value((kind or "").replace("_type", ""))
    tensor = info.type.tensor_type
    name = type_name(tensor.elem_type) if tensor.elem_type else ""
    if not tensor.HasField("shape"):
        return Value(name)
    return Value(
        name, tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in tensor.shape.dim)
    )


def _places(graph: onnx.GraphProto, path: str, outer: Scope | None) -> Iterator[Place]:
    scope = _scope(graph, outer)
    outputs = frozenset(value.name for value in graph.output) if outer is None else frozenset[str]()
    for index, node in enumerate(graph.node):
        place = Place(node, index, path, scope, outputs)
        yield place
        for attribute, subgraph in _subgraphs(node):
            yield from _places(subgraph, f"{place.name}/{attribute}/", scope)


def _scope(graph: onnx.GraphProto, outer: Scope | None) -> Scope:
    constants = {tensor.name: tensor for tensor in graph.initializer}
    made = ((node, entry) for node in graph.node if node.op_type == "Constant" for entry in node.attribute)
    constants.update((node.output[0], entry.t) for node, entry in made if entry.name == "value")
    values = {
        name: Value(type_name(tensor.data_type), tuple(tensor.dims)) for name, tensor in constants.items()
    }
    infos: Iterable[onnx.ValueInfoProto] = (*graph.value_info, *graph.output, *graph.input)
    scope = Scope(
        {**values, **{info.name: described(info) for info in infos}}, constants, set(constants), outer
    )
    for node in graph.node:
        if _is_foldable(node, scope):
            scope.foldable.update(node.output)
    return scope


def _is_foldable(node: onnx.NodeProto, scope: Scope) -> bool:
    if node.op_type in ("Shape", "Size"):
        return scope.value(node.input[0]).elements is not None
    return node.op_type == "Constant" or (
        any(node.input) and all(scope.is_foldable(name) for name in node.input if name)
    )


def _subgraphs(node: onnx.NodeProto) -> Iterator[tuple[str, onnx.GraphProto]]:
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.name, attribute.g
        yield from ((attribute.name, graph) for graph in attribute.graphs)


def _weights(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.HasField("t"))
        for _, subgraph in _subgraphs(node):
            yield from _weights(subgraph)


def _light(tensor: TensorProto) -> TensorProto:
    if tensor.data_location != TensorProto.EXTERNAL and math.prod(tensor.dims) <= _SMALL:
        return tensor
    return TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)

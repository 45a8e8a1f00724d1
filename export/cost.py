"""What does a graph cost? Multiply-adds and bytes, node by node, from its shapes."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx
from onnx import numpy_helper


@dataclass(frozen=True)
class Cost:
    """`macs`: multiply-adds of convolutions and matrix products; `moved`: bytes that all nodes read and
    write, each by itself, weights included: an upper bound, as a runtime that fuses nodes moves less.
    """

    macs: int
    moved: int


def cost(model: onnx.ModelProto, batch: int = 1) -> dict[str, Cost]:
    """Cost by operator, of a model with inferred shapes whose free dimensions, if any, are the batch's."""
    shapes = shapes_of(model, batch)
    macs: dict[str, int] = defaultdict(int)
    moved: dict[str, int] = defaultdict(int)
    for node in model.graph.node:
        macs[node.op_type] += macs_of(node, shapes)
        moved[node.op_type] += sum(
            4 * math.prod(shapes.get(name, ())) for name in {*node.input, *node.output} if name
        )
    return {kind: Cost(macs[kind], moved[kind]) for kind in moved if kind not in _FREE}


def total(costs: Mapping[str, Cost]) -> Cost:
    """The sum over operators."""
    return Cost(sum(one.macs for one in costs.values()), sum(one.moved for one in costs.values()))


_FREE = {"Reshape", "Unsqueeze", "Squeeze", "Identity"}
"""What changes a shape only moves nothing."""


def shapes_of(model: onnx.ModelProto, batch: int) -> dict[str, tuple[int, ...]]:
    """The shapes of all values of a model whose shapes are inferred; free dimensions are the batch's."""
    return dict(_shapes(model, batch))


def _shapes(model: onnx.ModelProto, batch: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    graph = model.graph
    for tensor in graph.initializer:
        yield tensor.name, numpy_helper.to_array(tensor).shape
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        yield value.name, tuple(dim.dim_value if dim.HasField("dim_value") else batch for dim in dims)


def macs_of(node: onnx.NodeProto, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """Multiply-adds of a convolution or a matrix product, given the shapes of all values; 0 for other
    nodes."""
    if node.op_type == "Conv":
        return math.prod(shapes[node.output[0]]) * math.prod(shapes[node.input[1]][1:])
    if node.op_type == "MatMul":
        return math.prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]
    return 0

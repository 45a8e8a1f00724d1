"""How does a graph become FP16? Every node is given one type, and Casts stand only where types meet.

The result is strongly typed: it means the same in ONNX Runtime and in TensorRT, whose builder flags for half
precision are gone. Inputs and output stay float32. `sfiin.export.precision_rules` says what must be FP32;
products of any size are FP16; all that is cheap goes where the fewest Casts are needed, which is a minimum
cut of the graph.

ONNX Runtime has no FP16 kernels for most operators on a CPU: it computes those in FP32 and drops the rounding
between them, the graph's own Casts included, at any level of optimisation. `rounded` is the graph to judge
by: float32 throughout, with every value that would be FP16 rounded to it. Sums inside an operator stay in
float32, as in tensor cores that accumulate in FP32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from scipy.sparse import csr_array
from scipy.sparse.csgraph import breadth_first_order, maximum_flow

from sfiin.export.precision_rules import Graph, KeptNode, kept_nodes
from sfiin.export.ranges import Inputs, Range, audit
from sfiin.runtime.contract import Precision

PRODUCT = 1e-3
"""From which share of the network's multiply-adds a product is worth its Casts."""

_ENOUGH = 1 << 20  # a capacity that no minimum cut crosses
_MOVES = frozenset({"Concat", "DepthToSpace", "Identity", "Pad", "Reshape", "Split", "Squeeze", "Unsqueeze"})


@dataclass(frozen=True)
class Typed:
    """A graph in another precision, its nodes kept in FP32, and the shares of nodes and of multiply-adds
    in FP16."""

    model: onnx.ModelProto
    kept: tuple[KeptNode, ...]
    ranges: Mapping[str, Range]
    casts: int
    node_share: float
    mac_share: float

    @property
    def rules(self) -> dict[str, int]:
        """How many nodes each rule keeps in FP32."""
        return dict(Counter(node.rule for node in self.kept))


def typed(
    model: onnx.ModelProto, precision: Precision, tiles: Sequence[Inputs], without: Collection[str] = ()
) -> Typed:
    """A float32 graph of `build_graph` in `fp16` or `mixed` precision, judged by its values on the tiles.

    `without` names rules of `sfiin.export.precision_rules` to leave out, for experiments.
    """
    ranges = audit(model, tiles)
    graph = Graph(model, ranges)
    kept = kept_nodes(graph, precision, without)
    total = sum(map(graph.macs, graph.nodes))
    products = {node.name for node in graph.nodes if graph.macs(node) >= max(1, PRODUCT * total)} - set(kept)
    single = fewest_casts(graph, set(kept), products)
    for node in graph.nodes:
        if node.name in single:
            kept.setdefault(
                node.name, KeptNode(node.name, node.op_type, "between", "would need more Casts in FP16")
            )
    result = _cast(model, graph, set(kept))
    half = [node for node in graph.nodes if node.name not in kept]
    return Typed(
        result,
        tuple(kept[node.name] for node in graph.nodes if node.name in kept),
        ranges,
        sum(node.op_type == "Cast" for node in result.graph.node),
        len(half) / len(graph.nodes),
        sum(map(graph.macs, half)) / max(total, 1),
    )


def fewest_casts(graph: Graph, single: Collection[str], half: Collection[str]) -> set[str]:
    """The nodes to put in FP32 so that the fewest values need a Cast: `single` must be, `half` must not.

    A value needs one Cast where any reader's type is not its maker's. The least set of nodes of all that do
    as well.
    """
    places = {node.name: i for i, node in enumerate(graph.nodes, 2)}  # 0: FP32, 1: FP16
    edges: dict[tuple[int, int], int] = {}
    edges.update(((0, places[name]), _ENOUGH) for name in single)
    edges.update(((places[name], 1), _ENOUGH) for name in half)
    free = len(places) + 2
    for value, readers in graph.readers.items():
        if value in graph.maker or value in graph.inputs:
            maker = places[graph.maker[value].name] if value in graph.maker else 0
            down, up, free = free, free + 1, free + 2
            edges[maker, down] = edges[up, maker] = 1
            for reader in readers:
                edges[down, places[reader.name]] = edges[places[reader.name], up] = _ENOUGH
    rows, columns = zip(*edges, strict=True)
    capacity = csr_array((np.array(list(edges.values()), np.int32), (rows, columns)), shape=(free, free))
    rest = csr_array(capacity - maximum_flow(capacity, 0, 1).flow)
    rest.eliminate_zeros()
    reached = set(breadth_first_order(rest, 0, return_predecessors=False).tolist())
    return {name for name, place in places.items() if place in reached}


def _cast(model: onnx.ModelProto, graph: Graph, single: Collection[str]) -> onnx.ModelProto:
    """The model with its nodes in FP16 but for `single`, and one Cast for each value that is read in the
    other type."""
    made_half = {name for node in graph.nodes if node.name not in single for name in node.output}
    nodes: list[onnx.NodeProto] = []
    weights: dict[str, onnx.TensorProto] = {}
    cast: set[str] = set()
    originals = {tensor.name: tensor for tensor in model.graph.initializer}
    for node in graph.nodes:
        half = node.name not in single
        typed_node = onnx.NodeProto()
        typed_node.CopyFrom(node)
        for i, name in enumerate(node.input):
            if name in originals:
                weight = _weight(originals[name], half and name in graph.weights)
                weights[weight.name] = weight
                typed_node.input[i] = weight.name
            elif name and (name in made_half) != half:
                other = _suffixed(name, half)
                typed_node.input[i] = other
                if other not in cast:
                    to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
                    nodes.append(helper.make_node("Cast", [name], [other], other, to=to))
                    cast.add(other)
        nodes.append(typed_node)
    return rewritten(model, nodes, list(weights.values()))


def _weight(tensor: onnx.TensorProto, half: bool) -> onnx.TensorProto:
    if not half:
        return tensor
    return numpy_helper.from_array(
        numpy_helper.to_array(tensor).astype(np.float16), _suffixed(tensor.name, True)
    )


def _suffixed(name: str, half: bool) -> str:
    return f"{name}/{'half' if half else 'single'}"


def rewritten(
    model: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], weights: Sequence[onnx.TensorProto]
) -> onnx.ModelProto:
    """A copy of the model with other nodes and weights, checked, with inferred types and shapes."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for field, items in (("node", nodes), ("initializer", weights), ("value_info", ())):
        result.graph.ClearField(field)
        getattr(result.graph, field).extend(items)
    onnx.checker.check_model(result, full_check=True)
    return onnx.shape_inference.infer_shapes(result, strict_mode=True)


def rounded(model: onnx.ModelProto) -> onnx.ModelProto:
    """What a typed graph computes in FP16, as a float32 graph that any runtime computes in that way.

    Weights are float32 with FP16's values; each FP16 value is rounded by a pair of Casts as soon as it is
    made, save where an operator only moves what is rounded already.
    """
    half = {tensor.name for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT16}
    half |= {
        info.name for info in model.graph.value_info if info.type.tensor_type.elem_type == TensorProto.FLOAT16
    }
    names: dict[str, str] = {}  # a value of the typed graph, and what it is here
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        inputs = [names.get(name, name) for name in node.input]
        copied = onnx.NodeProto()
        copied.CopyFrom(
            helper.make_node("Identity", [], node.output, node.name) if node.op_type == "Cast" else node
        )
        copied.input[:] = inputs
        nodes.append(copied)
        if node.op_type not in _MOVES:
            names.update((name, _rounding(nodes, name)) for name in node.output if name in half)
    weights = [
        numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
        if tensor.name in half
        else tensor
        for tensor in model.graph.initializer
    ]
    return rewritten(model, nodes, weights)


def _rounding(nodes: list[onnx.NodeProto], name: str) -> str:
    there, back = f"{name}/to_half", f"{name}/rounded"
    nodes.append(helper.make_node("Cast", [name], [there], there, to=TensorProto.FLOAT16))
    nodes.append(helper.make_node("Cast", [there], [back], back, to=TensorProto.FLOAT))
    return back

"""Which nodes must stay in FP32, and why? Named rules, by what a node computes and by the range of its
values.

FP16 has eleven bits, nothing above 65504 and nothing below 6e-8. A rule sees the graph and the audit of
`sfiin.export.ranges` and gives a node its reason. The first rule that holds is the one reported. A further
one, `between`, comes with the types: what is cheap and lies between such nodes joins them if it saves Casts
(`sfiin.export.precision`).

| rule            | nodes                                          | because in FP16                         |
|-----------------|------------------------------------------------|-----------------------------------------|
| last            | what makes the DN that the output sums         | from 1024 DN on there are only whole DN |
| first           | what reads DN, with 1 / scale in its weights   | its weights are as small as subnormals  |
| local           | statistics, proposals of neighbourhoods, sums  | they are small differences, and squares |
| spectrum        | `mixed`: all from the transform to its inverse |                                         |
| transform       | the DFT operator                               | half: powers of two only, if at all     |
| square          | x * x, and on to the square root               | the range is halved, at both ends       |
| floor           | what has a constant zero or infinite there     | a guard against dividing by zero is 0   |
| cut             | Atan, the quotient before, the angle after     | errors are multiplied where phases jump |
| range-reduction | Sin and Cos, the layer that makes their angle  | an angle of many turns has coarse steps |
| statistics      | means and standard deviations of a tile        | their rounding shifts every pixel       |
| overflow        | values above the largest number / `HEADROOM`   | may become infinite on another tile     |
| small           | what rounding moves by over `LOSS`             | many are subnormal: few bits are left   |
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from sfiin.export.cost import macs_of
from sfiin.export.local_graph import SCOPE
from sfiin.export.nodes import Value
from sfiin.export.ranges import LARGEST, LEAST_NORMAL, Range, measured, values
from sfiin.runtime.contract import Precision

HEADROOM = 8.0
"""How many times brighter than the audit's tiles an image may be before anything overflows."""

LOSS = 2.0**-10
"""Relative L2 distance that rounding may bring to a value or to weights: one unit in the last of eleven
bits, four times what it is where all eleven are left. A share of subnormal elements alone says little:
beside larger ones they count for little."""

STEP = 2.0**-8
"""The coarsest step, radians, in which an angle may be given to a sine."""

POINTWISE = frozenset(
    {
        "Abs",
        "Add",
        "Atan",
        "Clip",
        "Cos",
        "Div",
        "Exp",
        "LeakyRelu",
        "Max",
        "Mul",
        "Relu",
        "Sigmoid",
        "Sin",
        "Sqrt",
        "Sub",
        "Tanh",
    }
)


@dataclass(frozen=True)
class KeptNode:
    """One node that stays in FP32: its name and operator, the rule that keeps it, and the rule's reason."""

    node: str
    operator: str
    rule: str
    reason: str


Nodes = Iterable[onnx.NodeProto]


class Graph:
    """A model's nodes with who makes and who reads a value, the weights, and the audit."""

    def __init__(self, model: onnx.ModelProto, ranges: Mapping[str, Range]) -> None:
        self.nodes = list(model.graph.node)
        self.ranges = ranges
        self.values: dict[str, Value] = values(model)
        self.weights = {
            tensor.name: numpy_helper.to_array(tensor)
            for tensor in model.graph.initializer
            if tensor.data_type == TensorProto.FLOAT
        }
        self._shapes = {
            name: tuple(side or 1 for side in value.shape or ()) for name, value in self.values.items()
        }
        self._shapes |= {name: array.shape for name, array in self.weights.items()}
        self.inputs = {info.name for info in model.graph.input}
        self.outputs = {info.name for info in model.graph.output}
        self.maker = {name: node for node in self.nodes for name in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in self.nodes:
            for name in dict.fromkeys(node.input):
                self.readers.setdefault(name, []).append(node)

    def upstream(self, starts: Iterable[onnx.NodeProto], through: Collection[str]) -> list[onnx.NodeProto]:
        """The nodes whose operator is in `through` and from which a start is reached by such nodes alone."""
        return self._reached(starts, through, self.makers_for)

    def downstream(self, starts: Iterable[onnx.NodeProto], through: Collection[str]) -> list[onnx.NodeProto]:
        """The nodes whose operator is in `through` and which are reached from a start by such nodes alone."""
        return self._reached(
            starts, through, lambda node: [reader for name in node.output for reader in self.readers_of(name)]
        )

    def makers_for(self, node: onnx.NodeProto) -> list[onnx.NodeProto]:
        """The nodes that make a node's inputs."""
        return [self.maker[name] for name in node.input if name in self.maker]

    def readers_of(self, value: str) -> list[onnx.NodeProto]:
        """The nodes that take a value as input."""
        return self.readers.get(value, [])

    def of(self, *operators: str) -> list[onnx.NodeProto]:
        """All nodes of these operators."""
        return [node for node in self.nodes if node.op_type in operators]

    def macs(self, node: onnx.NodeProto) -> int:
        """Multiply-adds of a convolution or a matrix product on one tile; 0 for other nodes."""
        return macs_of(node, self._shapes)

    def _reached(
        self,
        starts: Iterable[onnx.NodeProto],
        through: Collection[str],
        step: Callable[[onnx.NodeProto], Nodes],
    ) -> list[onnx.NodeProto]:
        found: dict[str, onnx.NodeProto] = {}
        pending = list(starts)
        while pending:
            for node in step(pending.pop()):
                if node.op_type in through and node.name not in found:
                    found[node.name] = node
                    pending.append(node)
        return list(found.values())


Reasons = Iterable[tuple[onnx.NodeProto, str]]


def kept_nodes(graph: Graph, precision: Precision, without: Collection[str] = ()) -> dict[str, KeptNode]:
    """The nodes of a graph that stay in FP32, by name; `without` leaves rules out, to see what they are
    worth."""
    found: dict[str, KeptNode] = {}
    for rule, reasons in RULES.items():
        if rule in without or (rule == "spectrum" and precision != "mixed"):
            continue
        for node, reason in reasons(graph):
            found.setdefault(node.name, KeptNode(node.name, node.op_type, rule, reason))
    for node in (graph.maker[name] for name in graph.outputs):
        found.setdefault(
            node.name, KeptNode(node.name, node.op_type, "last", "makes the output, which is float32")
        )
    return found


def _last(graph: Graph) -> Reasons:
    sums = {"Add", "DepthToSpace", "Identity"}
    end = [graph.maker[name] for name in graph.outputs]
    summed = [node for node in end if node.op_type in sums]
    summed += graph.upstream(summed, sums)
    makers = [maker for node in summed for maker in graph.makers_for(node)]
    for node in {node.name: node for node in (*end, *summed, *makers)}.values():
        peak = max(graph.ranges[name].maximum for name in node.output)
        yield node, f"the output in DN, up to {peak:.0f}, where FP16 has steps of {_step(peak):g}"


def _first(graph: Graph) -> Reasons:
    last = {node.name for node, _ in _last(graph)}
    in_dn = graph.inputs | {name for node in graph.nodes if node.name in last for name in node.output}
    for node in graph.nodes:
        if in_dn & set(node.input):
            weight = next((graph.weights[name] for name in node.input if name in graph.weights), None)
            scaled = "" if weight is None else f", so that its weights are {_smallness(measured([weight]))}"
            yield node, f"reads DN{scaled}"


def _local(graph: Graph) -> Reasons:
    for node in graph.nodes:
        if node.name.split("/")[0] == SCOPE:
            yield node, "computes with small differences of DN, and with their squares"


def _spectrum(graph: Graph) -> Reasons:
    """The frequency branch without its convolutions over maps and what only joins their outputs."""
    convolved = {name for node in graph.of("Conv") if len(_kernel(node)) == 2 for name in node.output}
    for node in graph.nodes:
        joins = node.op_type == "Concat" and convolved >= set(node.input)
        if "frequency" in node.name.split("/")[:-1] and not joins and not convolved & set(node.output):
            yield node, "between the transform and its inverse"


def _transform(graph: Graph) -> Reasons:
    return ((node, "runtimes take half only for powers of two, if at all") for node in graph.of("DFT"))


def _square(graph: Graph) -> Reasons:
    squares = [node for node in graph.of("Mul") if node.input[0] == node.input[1]]
    sums = [*squares, *graph.downstream(squares, {"Add", "ReduceMean", "Max"})]
    made = {name for node in sums for name in node.output}
    for node in [*sums, *(node for node in graph.of("Sqrt") if made & set(node.input))]:
        largest = max(
            (graph.ranges[name].maximum for name in node.input if name in graph.ranges), default=math.nan
        )
        yield node, f"squares, or what is made of them, of values up to {largest:.3g}"


def _floor(graph: Graph) -> Reasons:
    for node in graph.nodes:
        for name in node.input:
            constant = graph.weights.get(name)
            if constant is None or constant.size != 1 or not constant.item():
                continue
            if not LEAST_NORMAL <= abs(constant.item()) <= LARGEST:
                with np.errstate(over="ignore"):
                    half = np.float16(constant.item())
                yield node, f"its constant {constant.item():.3g} is {half:.3g} in FP16"


def _cut(graph: Graph) -> Reasons:
    decisions = graph.of("Atan")
    for node in [*decisions, *graph.upstream(decisions, POINTWISE), *graph.downstream(decisions, POINTWISE)]:
        yield node, "decides on which side of the cut a phase lies"


def _range_reduction(graph: Graph) -> Reasons:
    for node in graph.of("Sin", "Cos"):
        angle = node.input[0]
        largest = graph.ranges[angle].maximum if angle in graph.ranges else math.inf
        step = _step(largest)
        reason = f"an angle of up to {largest:.1f} rad, which FP16 gives in steps of {step:.2g}"
        yield node, reason
        if step > STEP and angle in graph.maker:
            yield graph.maker[angle], reason


def _statistics(graph: Graph) -> Reasons:
    means = graph.of("ReduceMean")
    for node in means:
        shapes = (graph.values[name].shape or () for name in (node.input[0], node.output[0]))
        whole, left = (math.prod(side or 1 for side in shape) for shape in shapes)
        yield node, f"means of {whole // left} values"
    for node in graph.downstream(means, POINTWISE | {"ReduceMean"}):
        yield node, "computes with the means of a tile"


def _overflow(graph: Graph) -> Reasons:
    for node in graph.nodes:
        for name in (*node.input, *node.output):
            if name in graph.ranges and not graph.ranges[name].maximum <= LARGEST / HEADROOM:
                yield node, f"'{name}' reaches {graph.ranges[name].maximum:.3g}, too near to {LARGEST:.0f}"


def _small(graph: Graph) -> Reasons:
    for node in graph.nodes:
        for name in node.output:
            if name in graph.ranges and graph.ranges[name].loss > LOSS:
                yield node, f"'{name}' is {_smallness(graph.ranges[name])}"
        for name in node.input:
            if name in graph.weights and (found := measured([graph.weights[name]])).loss > LOSS:
                yield node, f"'{name}' is {_smallness(found)}"


RULES: dict[str, Callable[[Graph], Reasons]] = {
    "last": _last,
    "first": _first,
    "local": _local,
    "spectrum": _spectrum,
    "transform": _transform,
    "square": _square,
    "floor": _floor,
    "cut": _cut,
    "range-reduction": _range_reduction,
    "statistics": _statistics,
    "overflow": _overflow,
    "small": _small,
}


def _step(magnitude: float) -> float:
    """The distance of FP16 numbers of this magnitude."""
    with np.errstate(all="ignore"):
        return float(np.spacing(np.float16(magnitude)))


def _smallness(found: Range) -> str:
    return f"{found.subnormal:.0%} subnormal, {found.flushed:.0%} zero; rounding moves it by {found.loss:.1e}"


def _kernel(node: onnx.NodeProto) -> list[int]:
    """A convolution's `kernel_shape`; two-dimensional where it is left to the weights."""
    shapes = (list(attribute.ints) for attribute in node.attribute if attribute.name == "kernel_shape")
    return next(shapes, [0, 0])

"""Which convolutions become INT8, and what does the graph then look like? Explicit Q/DQ, and names for what
stays.

A quantised convolution reads its activation through QuantizeLinear and DequantizeLinear, one pair for all
readers of a value, with one symmetric scale, and its weights, stored as INT8, through DequantizeLinear with a
scale for each output channel. TensorRT 10 and 11 fuse that into an INT8 kernel, which adds the bias, as it
is, and what follows; ONNX Runtime computes what it says. Both inputs of a residual sum stay as they are: the
sum is made before the next activation is rounded, not after.

| rule       | convolutions that stay                    | because                                       |
|------------|-------------------------------------------|-----------------------------------------------|
| last       | what makes the DN that the output sums    | a step of INT8 is tens of DN                  |
| first      | what reads DN                             | 11 bits of DN do not fit into 8               |
| local      | what resamples and measures around the core | it works in DN                              |
| spectrum   | between the transform and its inverse     | amplitudes span decades, digits decide phases |
| statistics | attention over means of a tile            | one error shifts every pixel; next to no work |
| gate       | what `calibration.sensitivity` holds back | quantising it costs more than was asked       |
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper, version_converter

from sfiin.calibration.ranges import LEVELS
from sfiin.export.precision import rewritten
from sfiin.export.precision_rules import Graph, KeptNode, kept_nodes
from sfiin.export.ranges import LEAST_NORMAL

OPSET = 19
"""The first in which QuantizeLinear and DequantizeLinear take FP16."""

_WHY = {
    "last": "makes the DN of which the output is the sum, where a step of INT8 is tens of DN",
    "first": "reads DN, of which INT8 holds 8 bits",
    "local": "resamples DN, or measures the neighbourhood that the network is given and put back into",
    "spectrum": "between the transform and its inverse: amplitudes span decades, and digits decide on phases",
    "statistics": "attention over means of a tile, where one error shifts every pixel",
}
_NUMERIC = ("transform", "square", "floor", "cut", "range-reduction", "overflow", "small")
"""Rules of `sfiin.export.precision_rules` that are about FP16's range, and of nodes that INT8 is not asked
of."""


@dataclass(frozen=True)
class Candidate:
    """A convolution that may become INT8: its node, the value it reads, and its multiply-adds on one tile."""

    node: str
    activation: str
    macs: int

    @property
    def branch(self) -> str:
        """The part of the network that it is in, over all blocks: "spatial", "frequency", "refine" and so
        on."""
        parts = [part for part in self.node.split("/")[:-1] if not part.startswith("block")]
        return parts[-1] if parts else "trunk"


def candidates(graph: Graph) -> tuple[list[Candidate], list[KeptNode]]:
    """The convolutions of a float32 graph that may become INT8, and those that a rule keeps, with its
    reason."""
    kept = kept_nodes(graph, "mixed", without=_NUMERIC)
    free, held = [], []
    for node in graph.of("Conv"):
        known = _local(node) or kept.get(node.name) or _attention(graph, node)
        if known and known.rule in _WHY:
            held.append(KeptNode(node.name, node.op_type, known.rule, _WHY[known.rule]))
        else:
            free.append(Candidate(node.name, node.input[0], graph.macs(node)))
    return free, held


def _local(node: onnx.NodeProto) -> KeptNode | None:
    """What stands around the network's core (`sfiin.model.injection`)."""
    return KeptNode(node.name, node.op_type, "local", "") if node.name.startswith("local/") else None


def _attention(graph: Graph, node: onnx.NodeProto) -> KeptNode | None:
    shape = graph.values[node.output[0]].shape or ()
    if math.prod(side or 1 for side in shape[2:]) > 1:
        return None
    return KeptNode(node.name, node.op_type, "statistics", "")


def at_opset(model: onnx.ModelProto, opset: int = OPSET) -> onnx.ModelProto:
    """The model in a later opset, to the same numbers; one that is there already as it is."""
    if next(opset_import.version for opset_import in model.opset_import if not opset_import.domain) >= opset:
        return model
    later = version_converter.convert_version(model, opset)
    constants = [node for node in later.graph.node if node.op_type == "Constant"]
    for node in constants:  # axes of means, attributes before
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        later.graph.initializer.append(tensor)
        later.graph.node.remove(node)
    del later.metadata_props[:]
    later.metadata_props.extend(model.metadata_props)
    return later


def quantized(model: onnx.ModelProto, nodes: Collection[str], reach: Mapping[str, float]) -> onnx.ModelProto:
    """The model with the named convolutions in INT8; `reach` gives the threshold of each one's activation, by
    node.

    Scales are of the type of what they scale, so in FP16 the model must be of opset 19 or later.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    made: dict[str, str] = {}
    nodes_now: list[onnx.NodeProto] = []
    for node in model.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        if node.name in nodes:
            weight = weights[node.input[1]]
            for i, pair in (
                (
                    0,
                    lambda node=node, weight=weight: _activation(
                        node.input[0], reach[node.name], weight.data_type
                    ),
                ),
                (1, lambda weight=weight: _weight(weight)),
            ):
                if node.input[i] not in made:
                    inserted, constants = pair()
                    nodes_now += inserted
                    weights.update((tensor.name, tensor) for tensor in constants)
                    made[node.input[i]] = inserted[-1].output[0]
                copied.input[i] = made[node.input[i]]
        nodes_now.append(copied)
    used = {name for node in nodes_now for name in node.input}
    return rewritten(model, nodes_now, [tensor for name, tensor in weights.items() if name in used])


def _activation(name: str, reach: float, kind: int) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    scale = numpy_helper.from_array(_scale(np.float64(reach), kind), f"{name}/scale")
    zero = numpy_helper.from_array(np.zeros((), np.int8), f"{name}/zero")
    inputs = [scale.name, zero.name]
    there = helper.make_node("QuantizeLinear", [name, *inputs], [f"{name}/int8"], f"{name}/QuantizeLinear")
    back = helper.make_node(
        "DequantizeLinear", [f"{name}/int8", *inputs], [f"{name}/quantised"], f"{name}/DequantizeLinear"
    )
    return [there, back], [scale, zero]


def _weight(tensor: onnx.TensorProto) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """The weights (O, ...) as INT8, with a scale for each of the O channels."""
    values = numpy_helper.to_array(tensor).astype(np.float64)
    scale = _scale(np.abs(values).reshape(len(values), -1).max(1), tensor.data_type)
    shaped = scale.astype(np.float64).reshape(-1, *(1,) * (values.ndim - 1))
    whole = np.clip(np.rint(values / shaped), -LEVELS, LEVELS).astype(np.int8)
    name = tensor.name
    constants = [
        numpy_helper.from_array(whole, f"{name}/int8"),
        numpy_helper.from_array(scale, f"{name}/scale"),
        numpy_helper.from_array(np.zeros(len(scale), np.int8), f"{name}/zero"),
    ]
    node = helper.make_node(
        "DequantizeLinear",
        [constant.name for constant in constants],
        [f"{name}/quantised"],
        f"{name}/DequantizeLinear",
        axis=0,
    )
    return [node], constants


def _scale(reach: NDArray[np.float64] | np.float64, kind: int) -> NDArray[np.floating]:
    """One step, of the type `kind`; in FP16 at least its least number with eleven bits, and never zero."""
    half = kind == TensorProto.FLOAT16
    least = LEAST_NORMAL if half else np.finfo(np.float32).tiny
    return np.asarray(np.maximum(reach / LEVELS, least), np.float16 if half else np.float32)

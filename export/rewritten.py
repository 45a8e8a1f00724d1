"""How is a graph read that another tool has rewritten? Weights behind Casts become weights, shapes are
inferred.

Converters keep weights in FP16 and cast each before its use, and most of them drop what was known of inner
values' shapes. What is to be counted and calibrated are convolutions with float32 weights of known shapes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from sfiin.runtime.errors import InputError, MismatchError


def as_exported(model: onnx.ModelProto, path: Path) -> onnx.ModelProto:
    """The graph with float32 weights in their places and with inferred shapes.

    Raises InputError for a graph whose shapes cannot be inferred, MismatchError for one that computes
    convolutions in another type than float32; both name `path`.
    """
    folded = _without_casts_of_weights(model)
    try:
        inferred = onnx.shape_inference.infer_shapes(folded, strict_mode=True)
    except (onnx.shape_inference.InferenceError, ValueError) as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
        raise InputError(f"{path}: the shapes in its graph cannot be inferred: {reason}") from None
    _require_known(inferred, path)
    return inferred


def _without_casts_of_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    folded = onnx.ModelProto()
    folded.CopyFrom(model)
    nodes = []
    for node in model.graph.node:
        if node.op_type == "Cast" and node.input[0] in weights and _to(node) == TensorProto.FLOAT:
            values = numpy_helper.to_array(weights[node.input[0]]).astype(np.float32)
            folded.graph.initializer.append(numpy_helper.from_array(values, node.output[0]))
        else:
            nodes.append(node)
    del folded.graph.node[:]
    folded.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input} | {value.name for value in model.graph.output}
    kept = [tensor for tensor in folded.graph.initializer if tensor.name in read]
    del folded.graph.initializer[:]
    folded.graph.initializer.extend(kept)
    return folded


def _to(node: onnx.NodeProto) -> int:
    return next((attribute.i for attribute in node.attribute if attribute.name == "to"), 0)


def _require_known(model: onnx.ModelProto, path: Path) -> None:
    weights = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    known = {value.name for value in (*model.graph.input, *model.graph.value_info, *model.graph.output)}
    for value in model.graph.input:
        if value.name not in weights and value.type.tensor_type.elem_type != TensorProto.FLOAT:
            raise MismatchError(
                f"{path}: its input '{value.name[:80]}' is not float32; calibrate the fp32 model it was "
                "made from"
            )
    for node in model.graph.node:
        unknown = [
            name for name in (*node.input, *node.output) if name and name not in known and name not in weights
        ]
        if unknown:
            raise InputError(
                f"{path}: nothing is known of the shape of '{unknown[0][:80]}'; export the model again"
            )
        if node.op_type == "Conv" and weights.get(node.input[1]) != TensorProto.FLOAT:
            raise MismatchError(
                f"{path}: the weights of '{node.name[:80]}' are not float32; calibrate the fp32 model it "
                "was made from"
            )

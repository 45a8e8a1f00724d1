"""How does a typed graph keep its types in TensorRT 8, which knows none? By builder flags and a precision per
layer.

Later versions are strongly typed: a layer computes in its tensors' type. TensorRT 8 chooses for itself, among
the types that flags allow, unless every layer is told and the builder is told to obey. This is the one place
that knows the difference. It has been run against a recording of the API only, never in TensorRT 8 itself.
"""

from __future__ import annotations

from typing import Any

# Their outputs are no result of arithmetic, or of another type than they compute in.
_FREE = (
    "CAST",
    "CONSTANT",
    "IDENTITY",
    "QUANTIZE",
    "DEQUANTIZE",
    "SHAPE",
    "SHUFFLE",
    "CONCATENATION",
    "SLICE",
)


def constrain(trt: Any, network: Any, config: Any) -> None:
    """Set flags on `config`, and on every layer that computes the type of its outputs as the parser left
    it."""
    computed = {trt.float32, trt.float16}
    types = {layer.type for layer in _layers(network)}
    free = {getattr(trt.LayerType, name) for name in _FREE if hasattr(trt.LayerType, name)}
    half = False
    for layer in _layers(network):
        outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
        half |= any(output.dtype == trt.float16 for output in outputs)
        if layer.type in free or not outputs or not computed.issuperset(output.dtype for output in outputs):
            continue
        layer.precision = outputs[0].dtype
        for i, output in enumerate(outputs):
            layer.set_output_type(i, output.dtype)
    config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
    if half:
        config.set_flag(trt.BuilderFlag.FP16)
    if trt.LayerType.QUANTIZE in types:
        config.set_flag(trt.BuilderFlag.INT8)


def _layers(network: Any) -> list[Any]:
    return [network.get_layer(i) for i in range(network.num_layers)]

"""Types for TensorRT 8: what a network of it would be told, on a recording of its API.

TensorRT 8 makes no network without a GPU, so that this is all that can be seen here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

from sfiin.export import trt_worker
from sfiin.export.weak_typing import constrain

TRT8 = SimpleNamespace(
    float32="float32",
    float16="float16",
    int32="int32",
    int8="int8",
    LayerType=SimpleNamespace(
        **{
            name: name
            for name in (
                "CAST",
                "CONSTANT",
                "IDENTITY",
                "QUANTIZE",
                "DEQUANTIZE",
                "SHAPE",
                "SHUFFLE",
                "CONCATENATION",
                "SLICE",
                "CONVOLUTION",
                "ELEMENTWISE",
            )
        }
    ),
    BuilderFlag=SimpleNamespace(OBEY_PRECISION_CONSTRAINTS="obey", FP16="fp16", INT8="int8", TF32="tf32"),
    NetworkDefinitionCreationFlag=SimpleNamespace(EXPLICIT_BATCH=0),
)


@dataclass
class Layer:
    """A layer that remembers what it was told."""

    type: str
    outputs: tuple[str, ...]
    precision: str | None = None
    told: dict[int, str] = field(default_factory=dict)

    @property
    def num_outputs(self) -> int:
        return len(self.outputs)

    def get_output(self, index: int) -> Any:
        return SimpleNamespace(dtype=self.outputs[index])

    def set_output_type(self, index: int, dtype: str) -> None:
        self.told[index] = dtype


class Config:
    """A configuration that remembers its flags; TF32 is on to begin with, as in the library."""

    def __init__(self) -> None:
        self.flags = {"tf32"}
        self.num_inputs = 0

    def set_flag(self, flag: str) -> None:
        self.flags.add(flag)

    def clear_flag(self, flag: str) -> None:
        self.flags.discard(flag)


def network(*layers: Layer) -> Any:
    return SimpleNamespace(num_layers=len(layers), get_layer=lambda i: layers[i], num_inputs=0)


def test_every_layer_that_computes_keeps_its_type() -> None:
    half, single = Layer("CONVOLUTION", ("float16",)), Layer("ELEMENTWISE", ("float32", "float32"))
    config = Config()
    constrain(TRT8, network(half, single), config)
    assert (half.precision, half.told) == ("float16", {0: "float16"})
    assert (single.precision, single.told) == ("float32", {0: "float32", 1: "float32"})
    assert config.flags == {"obey", "fp16", "tf32"}


@pytest.mark.parametrize(
    "layer",
    [Layer(kind, ("float16",)) for kind in ("CAST", "CONSTANT", "SHUFFLE", "QUANTIZE")]
    + [Layer("ELEMENTWISE", ("int32",)), Layer("ELEMENTWISE", ())],
    ids=lambda layer: f"{layer.type}-{layer.outputs}",
)
def test_what_does_not_compute_in_a_float_type_is_left_alone(layer: Layer) -> None:
    constrain(TRT8, network(layer), Config())
    assert (layer.precision, layer.told) == (None, {})


def test_flags_follow_from_what_is_there() -> None:
    for layers, flags in (
        ([Layer("CONVOLUTION", ("float32",))], {"obey", "tf32"}),
        ([Layer("QUANTIZE", ("int8",))], {"obey", "int8", "tf32"}),
    ):
        config = Config()
        constrain(TRT8, network(*layers), config)
        assert config.flags == flags


def test_the_configuration_of_8_is_weakly_typed_and_without_tf32() -> None:
    config, layer = Config(), Layer("CONVOLUTION", ("float16",))
    builder = SimpleNamespace(create_builder_config=lambda: config)
    assert trt_worker.network_flags(TRT8) == 1
    trt_worker.configured(TRT8, builder, network(layer), {"batch": (1, 1, 1)})
    assert config.flags == {"obey", "fp16"}
    assert layer.precision == "float16"

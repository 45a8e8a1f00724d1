"""The custom node: its reference in NumPy against the network's own branch, and what ONNX makes of its
schema."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.shape_inference import InferenceError

from sfiin.export import spectral_fusion
from sfiin.export.preflight import preflight, targets
from sfiin.export.spectral_fusion import ATTRIBUTES, DOMAIN, NAME, WEIGHTS
from sfiin.model.network import FrequencyBranch

SIZES = [(8, 8), (16, 12), (7, 9), (10, 5), (1, 6), (5, 1), (1, 1)]
Array = np.ndarray[Any, np.dtype[Any]]


def branch(channels: int = 4, seed: int = 0) -> FrequencyBranch:
    torch.manual_seed(seed)
    return FrequencyBranch(channels).eval()


def weights(part: FrequencyBranch, size: tuple[int, int], dtype: type = np.float64) -> list[Array]:
    """The branch's weights as the operator takes them: biases of the amplitude network in orthonormal
    units."""
    layers = (part.ms, part.pan, part.amplitude[0], part.amplitude[2], part.phase[0], part.phase[2], part.out)
    arrays = []
    for layer in layers:
        assert isinstance(layer, torch.nn.Conv2d)
        assert layer.bias is not None
        unit = 1 / np.sqrt(size[0] * size[1]) if layer in (part.amplitude[0], part.amplitude[2]) else 1.0
        arrays += [
            layer.weight.detach().double().numpy()[:, :, 0, 0],
            layer.bias.detach().double().numpy() * unit,
        ]
    return [array.astype(dtype) for array in arrays]


def exact(part: FrequencyBranch, m: Array, p: Array) -> Array:
    with torch.no_grad():
        tensors = (torch.from_numpy(x.astype(np.float64)) for x in (m, p))
        return np.asarray(copy.deepcopy(part).double()(*tensors).numpy())


def distance(a: Array, b: Array) -> float:
    return float(np.linalg.norm(a - b) / max(float(np.linalg.norm(b)), 1e-300))


def maps(kind: str, size: tuple[int, int]) -> tuple[Array, Array]:
    random = np.random.default_rng(size[0] * 31 + size[1])
    shape = (2, 4, *size)
    noise = random.normal(0.3, 1, (2, *shape))
    rows, cols = np.indices(size)
    images = {
        "noise": noise,
        "zeros": 0 * noise,
        "constant": 0 * noise + 0.7,
        "negative": 0 * noise - 0.3,
        "checkerboard": 0 * noise + (rows + cols) % 2,
        "half": noise * (cols < size[1] // 2),
        "tone": 0 * noise + np.cos(2 * np.pi * (rows / size[0] + cols / size[1])),
    }
    m, p = images[kind]
    return m, p


@pytest.mark.parametrize("kind", ["noise", "zeros", "constant", "negative", "checkerboard", "half", "tone"])
@pytest.mark.parametrize("size", SIZES)
def test_float64_is_the_branch_in_float64(kind: str, size: tuple[int, int]) -> None:
    part, (m, p) = branch(), maps(kind, size)
    result = spectral_fusion.spectral_fusion(m, p, *weights(part, size))
    assert result.dtype == np.float64
    assert distance(result, exact(part, m, p)) <= 1e-10


@pytest.mark.parametrize("kind", ["noise", "zeros", "constant", "checkerboard", "half"])
@pytest.mark.parametrize("size", [(32, 32), (28, 44), (7, 9)])
def test_float32_is_near_it_and_stays_float32(kind: str, size: tuple[int, int]) -> None:
    part = branch()
    m, p = (x.astype(np.float32) for x in maps(kind, size))
    result = spectral_fusion.spectral_fusion(m, p, *weights(part, size, np.float32))
    assert result.dtype == np.float32
    assert distance(result, exact(part, m, p)) <= 2e-5


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 20), st.integers(1, 20), st.integers(0, 2**16), st.floats(1e-4, 1e4), st.floats(-3, 3))
def test_any_size_scale_and_mean(h: int, w: int, seed: int, gain: float, mean: float) -> None:
    part = branch(4 + 4 * (seed % 2), seed)
    random = np.random.default_rng(seed)
    m, p = gain * random.normal(mean, 1, (2, 1, part.out.out_channels, h, w))
    result = spectral_fusion.spectral_fusion(m, p, *weights(part, (h, w)))
    assert distance(result, exact(part, m, p)) <= 1e-8


def test_the_attributes_count() -> None:
    part, size = branch(), (8, 12)
    m, p = maps("noise", size)
    arrays = weights(part, size)
    plain = spectral_fusion.spectral_fusion(m, p, *arrays)
    for change in ({"cut": 0.5}, {"fade": 0.4}, {"slope": 0.3}, {"floor": 0.1}):
        assert distance(spectral_fusion.spectral_fusion(m, p, *arrays, **change), plain) > 1e-4, change


# --- in ONNX ---


def one_node(
    size: tuple[int, int],
    kind: int = TensorProto.FLOAT,
    attributes: dict[str, Any] | None = None,
    **changed: Array,
) -> onnx.ModelProto:
    """A model of one node on (batch, 4, H, W); `changed` replaces weights by name."""
    spectral_fusion.register()
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    arrays = dict(zip(WEIGHTS, weights(branch(), size), strict=True)) | changed
    node = helper.make_node(
        NAME,
        ["ms", "pan", *WEIGHTS],
        ["hrms"],
        domain=DOMAIN,
        **(ATTRIBUTES if attributes is None else attributes),
    )
    shape: list[str | int] = ["batch", 4, *size]
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info(name, kind, shape) for name in ("ms", "pan")],
        [helper.make_tensor_value_info("hrms", kind, ["batch", None, None, None])],
        [numpy_helper.from_array(array.astype(dtype), name) for name, array in arrays.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(DOMAIN, 1)]
    )


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE])
def test_the_output_has_the_shape_and_type_of_m(kind: int) -> None:
    model = one_node((10, 7), kind)
    onnx.checker.check_model(model, full_check=True)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    found = inferred.graph.output[0].type.tensor_type
    assert found.elem_type == kind
    assert [side.dim_param or side.dim_value for side in found.shape.dim] == ["batch", 4, 10, 7]


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("ms_weight", np.zeros((4, 5))),
        ("ms_bias", np.zeros(3)),
        ("amplitude_first_weight", np.zeros((4, 4))),
        ("phase_second_weight", np.zeros((4, 8))),
        ("out_weight", np.zeros((4, 4, 1, 1))),
    ],
)
def test_weights_that_do_not_fit_are_an_error(name: str, array: Array) -> None:
    changed: dict[str, Any] = {name: array}
    with pytest.raises(InferenceError, match=f"input '{name}'"):
        onnx.shape_inference.infer_shapes(one_node((8, 8), **changed), strict_mode=True)


def test_a_node_with_inputs_missing_or_of_unknown_shape() -> None:
    short = one_node((8, 8))
    del short.graph.node[0].input[-1]
    with pytest.raises(InferenceError, match="15 inputs, not 16"):
        onnx.shape_inference.infer_shapes(short, strict_mode=True)
    vague = one_node((8, 8))
    for value in vague.graph.input:
        value.type.tensor_type.ClearField("shape")
    onnx.shape_inference.infer_shapes(vague, strict_mode=True)
    del vague.graph.input[:]
    onnx.shape_inference.infer_shapes(vague, strict_mode=True)


def test_preflight_knows_the_node() -> None:
    model = one_node((8, 8))
    found = {
        name: [finding for finding in preflight(model, targets()[name]) if finding.operator == NAME]
        for name in targets()
    }
    assert {name for name, (finding,) in found.items() if finding.severity == "error"} == {"rtx", "ort"}
    assert {finding.problem.split(",")[0] for (finding,) in found.values()} == {
        "is a frequency branch as one node"
    }
    assert all("export with --fourier matmul" in finding.remedy for (finding,) in found.values())


def test_all_attributes_are_wanted() -> None:
    for name in ATTRIBUTES:
        rest = {key: value for key, value in ATTRIBUTES.items() if key != name}
        with pytest.raises(onnx.checker.ValidationError, match=name):
            onnx.checker.check_model(one_node((8, 8), attributes=rest))


def test_registering_again_changes_nothing() -> None:
    spectral_fusion.register()
    spectral_fusion.register()
    schema = onnx.defs.get_schema(NAME, 1, DOMAIN)
    assert [formal.name for formal in schema.inputs] == ["m", "p", *WEIGHTS]
    assert "orthonormal" in (schema.doc or "")


@pytest.mark.parametrize("size", [(16, 16), (9, 14)])
def test_the_reference_session_runs_the_node_with_its_attributes(size: tuple[int, int]) -> None:
    m, p = (x.astype(np.float32) for x in maps("noise", size))
    result = spectral_fusion.ReferenceSession(one_node(size)).run(m, p)
    assert result.dtype == np.float32
    assert distance(result, exact(branch(), m, p)) <= 2e-5
    other = spectral_fusion.ReferenceSession(one_node(size, attributes={**ATTRIBUTES, "cut": 0.6})).run(m, p)
    assert distance(other, result) > 1e-4

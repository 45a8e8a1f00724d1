"""What does the custom node `sfiin::SpectralFusion` compute? Its schema for ONNX, and a reference in NumPy.

One node stands for the frequency branch of a core block (`sfiin.model.network.FrequencyBranch`), for runtimes
that have a kernel for it: TensorRT with sfiin's plugin. This file is the operator's definition, version 1.

Inputs, all of one type T (float, float16 or double), for C channels:

| 0, 1   | `m`, `p`                              | (N, C, H, W) | features of MS and of PAN              |
| 2-5    | `ms_weight`, `ms_bias`, `pan_...`     | (C, C), (C)  | leading 1x1 convolutions of m and of p |
| 6-9    | `amplitude_first_weight`, `..._bias`, | (C, 2C), (C) | amplitude network, bin by bin          |
|        | `amplitude_second_weight`, `..._bias` | (C, C), (C)  |                                        |
| 10-13  | `phase_...`, likewise                 |              | phase network                          |
| 14, 15 | `out_weight`, `out_bias`              | (C, C), (C)  | trailing 1x1 convolution               |

A weight's rows are output channels. Output: `f` (N, C, H, W) of type T. Any H and W of at least 1.

1. x = [ms(m), pan(p)], 2C maps; X = rfft2(x) / sqrt(H W), of H rows and F = W // 2 + 1 columns: orthonormal,
   so that half precision does not overflow. What `sfiin.model.spectrum` says of its unnormalised transform
   holds here in these units.
2. Bins of rows 0 and H/2 in columns 0 and W/2 are real: their imaginary part is 0.
3. Amplitude |X| and continuous phase (`sfiin.model.spectrum.continuous_phase`, attributes `cut`, `fade`),
   both times clip(|X| / t - 1, 0, 1) with t = max(`floor` * ||x||_2, 1e-30) for each map: what is not above t
   is 0.
4. A = amplitude network, Q = phase network: two layers with a leaky rectifier (`slope`) between.
5. y = the inverse of A exp(iQ), orthonormal: complex along H, then complex to real along W, in which the
   imaginary parts of column 0 and, with W even, of column W/2 do not count. A may be negative.
6. f = out(|y|).

Attributes: `floor`, `cut`, `fade`, `slope` (float) and what TensorRT's parser looks a plugin up by beside the
node's name, `plugin_version` ("1") and `plugin_namespace` ("sfiin"). All are always given.

A kernel computes steps 1 to 5 in float32 at least, whatever T: a phase does not survive half precision.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import defs
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun
from onnx.shape_inference import InferenceContext, InferenceError

from sfiin.model.network import SLOPE
from sfiin.model.spectrum import CUT, FADE, FLOOR
from sfiin.runtime.contract import PLUGIN

Array = NDArray[np.floating]

DOMAIN, NAME = PLUGIN
VERSION = 1

WEIGHTS = tuple(
    f"{layer}_{kind}"
    for layer in ("ms", "pan", "amplitude_first", "amplitude_second", "phase_first", "phase_second", "out")
    for kind in ("weight", "bias")
)
"""The inputs behind `m` and `p`, in order."""

ATTRIBUTES: Mapping[str, float | str] = {
    "floor": FLOOR,
    "cut": CUT,
    "fade": FADE,
    "slope": SLOPE,
    "plugin_version": str(VERSION),
    "plugin_namespace": DOMAIN,
}
"""The attributes of every node that sfiin writes."""


# --- the reference ---


def spectral_fusion(
    m: Array,
    p: Array,
    *weights: Array,
    floor: float = FLOOR,
    cut: float = CUT,
    fade: float = FADE,
    slope: float = SLOPE,
) -> Array:
    """The operator on float32 or float64, in the type of `m`; `weights` as in `WEIGHTS`."""
    ms, pan, *networks, out = zip(weights[::2], weights[1::2], strict=True)
    maps = np.concatenate((_layer(m, *ms), _layer(p, *pan)), 1)
    amplitude, phase = _analyse(maps, floor, cut, fade)
    amplitude, phase = _two_layers(amplitude, networks[:2], slope), _two_layers(phase, networks[2:], slope)
    return _layer(np.abs(_synthesise(amplitude, phase, m.shape[3])), *out).astype(m.dtype, copy=False)


def _layer(x: Array, weight: Array, bias: Array) -> Array:
    """A 1x1 convolution of (N, C, H, W)."""
    n, _, height, width = x.shape
    mixed: Array = weight @ x.reshape(n, x.shape[1], -1) + bias[:, None]
    return mixed.reshape(n, len(bias), height, width)


def _two_layers(x: Array, layers: Sequence[tuple[Array, Array]], slope: float) -> Array:
    hidden = _layer(x, *layers[0])
    return _layer(np.where(hidden < 0, hidden * hidden.dtype.type(slope), hidden), *layers[1])


def _analyse(x: Array, floor: float, cut: float, fade: float) -> tuple[Array, Array]:
    """Steps 1 to 3 for maps (N, 2C, H, W). Older versions of NumPy transform in float64 only."""
    kind = x.dtype.type
    height, width = x.shape[2:]
    bins = np.fft.rfft2(x, norm="ortho")
    real, imag = bins.real.astype(kind), bins.imag.astype(kind)
    rows, columns = (2 * np.arange(height)) % height == 0, (2 * np.arange(width // 2 + 1)) % width == 0
    imag[..., rows[:, None] & columns] = 0
    amplitude = np.hypot(real, imag)
    norm = np.sqrt(np.square(x).sum((2, 3), keepdims=True))
    share = np.clip(amplitude / np.maximum(kind(floor) * norm, kind(1e-30)) - 1, 0, 1)
    return amplitude * share, _continuous(np.arctan2(imag, real), kind(cut), kind(fade)) * share


def _continuous(angle: Array, cut: np.floating, fade: np.floating) -> Array:
    """Angles cut at -pi + `cut`, and drawn in linearly to `cut` within `fade` of it."""
    pi = angle.dtype.type(math.pi)
    turned = angle - cut
    turned = np.where(turned < -pi, turned + 2 * pi, turned)
    slope = (pi - fade) / fade
    drawn: Array = np.maximum(np.minimum(turned, slope * (pi - turned)), -slope * (pi + turned)) + cut
    return drawn


def _synthesise(amplitude: Array, phase: Array, width: int) -> Array:
    """Step 5. NumPy's inverse along W ignores the imaginary parts that do not count."""
    bins = amplitude * np.cos(phase) + 1j * (amplitude * np.sin(phase))
    columns = np.fft.ifft(bins, axis=2, norm="ortho").astype(bins.dtype)
    maps: Array = np.fft.irfft(columns, width, axis=3, norm="ortho").astype(amplitude.dtype)
    return maps


# --- the operator in ONNX ---


def register() -> None:
    """Make the operator known to onnx's checker and shape inference in this process; once is enough."""
    if not defs.has(NAME, VERSION, DOMAIN):
        defs.register_schema(_schema())


def _schema() -> defs.OpSchema:
    floats = ["tensor(float)", "tensor(float16)", "tensor(double)"]
    texts = ("plugin_version", "plugin_namespace")
    kinds = {
        name: defs.OpSchema.AttrType.STRING if name in texts else defs.OpSchema.AttrType.FLOAT
        for name in ATTRIBUTES
    }
    schema = defs.OpSchema(
        NAME,
        DOMAIN,
        VERSION,
        __doc__ or "",
        inputs=[defs.OpSchema.FormalParameter(name, "T") for name in ("m", "p", *WEIGHTS)],
        outputs=[defs.OpSchema.FormalParameter("f", "T")],
        type_constraints=[("T", floats, "Features and weights.")],
        attributes=[
            defs.OpSchema.Attribute(name, kind, "See above.", required=True) for name, kind in kinds.items()
        ],
    )
    schema.set_type_and_shape_inference_function(_infer)
    return schema


def _infer(context: InferenceContext) -> None:
    """f is as m, and m as p; weights that do not fit the number of channels are an error."""
    names = ("m", "p", *WEIGHTS)
    if context.get_num_inputs() != len(names):
        raise InferenceError(f"{NAME}: has {context.get_num_inputs()} inputs, not {len(names)}")
    kinds: list[onnx.TypeProto | None] = [context.get_input_type(i) for i in range(len(names))]
    shapes = [_dimensions(kind) for kind in kinds]
    channels = shapes[0][1] if shapes[0] is not None and len(shapes[0]) == 4 else None
    for name, found in zip(names, shapes, strict=True):
        wanted = _wanted(name, channels)
        if found is not None and not _fits(found, wanted):
            raise InferenceError(f"{NAME}: input '{name}' is {found}, not {wanted}")
    if kinds[0] is not None:
        context.set_output_type(0, kinds[0])


def _dimensions(kind: onnx.TypeProto | None) -> tuple[int | None, ...] | None:
    if kind is None or not kind.tensor_type.HasField("shape"):
        return None
    return tuple(
        side.dim_value if side.HasField("dim_value") else None for side in kind.tensor_type.shape.dim
    )


def _wanted(name: str, channels: int | None) -> tuple[int | None, ...]:
    if name in ("m", "p"):
        return (None, channels, None, None)
    if name.endswith("_bias"):
        return (channels,)
    inner = channels * 2 if channels and name.endswith("_first_weight") else channels
    return (channels, None if name.endswith("_first_weight") and channels is None else inner)


def _fits(found: tuple[int | None, ...], wanted: tuple[int | None, ...]) -> bool:
    return len(found) == len(wanted) and all(
        None in pair or pair[0] == pair[1] for pair in zip(found, wanted, strict=True)
    )


class _Kernel(OpRun):  # type: ignore[misc, unused-ignore]
    """The reference, for onnx's own evaluator."""

    op_domain = DOMAIN

    def _run(self, *inputs: Array, **attributes: Any) -> tuple[Array]:
        numbers = {
            name: value for name, value in attributes.items() if name in ("floor", "cut", "fade", "slope")
        }
        return (spectral_fusion(*inputs, **numbers),)


_Kernel.__name__ = NAME


class ReferenceSession:
    """A model with SpectralFusion nodes in onnx's reference evaluator: exact, slow, and with nothing left
    out."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._evaluator = ReferenceEvaluator(model, new_ops=[_Kernel])

    def __enter__(self) -> ReferenceSession:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def run(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fuse a batch of tiles; shapes and units as in `sfiin.runtime.backends.session.Session.run`."""
        outputs: Any = self._evaluator.run(["hrms"], {"ms": ms, "pan": pan})
        result: NDArray[np.float32] = outputs[0]
        return result

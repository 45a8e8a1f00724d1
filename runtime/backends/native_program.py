"""How does an ONNX graph of sfiin become a program of the native library?

A value is an array of planes: its axes between the batch and the pixels index it, so joining, splitting and
reshaping channels move numbers, not pixels. What follows a convolution or goes into it point by point is done
with it, and chains of pointwise operators become one sweep. A frequency branch is known by its scope, layers
and constants (`sfiin.runtime.backends.native_branch`), or it is one node, `sfiin::SpectralFusion`.

Whatever is not understood raises UnknownGraphError. That a program computes what its model does is proved on
golden tiles where it is opened (`sfiin.runtime.backends.native`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.backends import native_branch
from sfiin.runtime.backends.native_branch import CUT, FADE, FLOOR, SLOPE, Branch
from sfiin.runtime.backends.native_steps import (
    OPERATIONS,
    Convolution,
    DepthToSpace,
    Instruction,
    Load,
    Operand,
    Pad,
    Pointwise,
    Product,
    Program,
    Size,
    Spectrum,
    Step,
    Store,
)
from sfiin.runtime.backends.onnx_graph import Graph, Node, UnknownGraphError

_MARGIN, _MOST = 2, 64  # what the library pads itself; registers of a sweep
_ONE: Size = (1, 1)


@dataclass(frozen=True)
class Maps:
    """A value: planes of one size."""

    planes: NDArray[np.intp]
    size: Size

    @property
    def flat(self) -> list[int]:
        """The planes in order."""
        return [int(plane) for plane in self.planes.ravel()]


def compile_graph(graph: Graph) -> Program:
    """The program of a graph from `ms` and `pan` to `hrms`. Raises UnknownGraphError."""
    try:
        return _Compiler(graph).program
    except (IndexError, TypeError, ValueError) as error:  # shapes that do not fit, inputs that are not there
        raise UnknownGraphError(str(error)) from None


class _Compiler:
    def __init__(self, graph: Graph) -> None:
        self._graph, self.program = graph, Program()
        self._values: dict[str, Maps] = {}
        self._row_means: dict[str, str] = {}
        self._uses = Counter(name for node in graph.nodes for name in node.inputs)
        self._uses.update(graph.outputs)
        self._source: dict[int, Step] = {}  # of each plane
        self._shared: set[int] = set()  # planes that more than one operator reads
        if set(graph.inputs) != {"ms", "pan"} or graph.outputs != ("hrms",):
            raise UnknownGraphError("its inputs and outputs are not ms, pan and hrms")
        for number, name in enumerate(("ms", "pan")):
            channels, height, width = graph.inputs[name]
            out = self.program.maps((height, width), channels)
            self._add(Load(number, (height, width), out), name)
        branches = native_branch.branches(graph)
        done: set[str] = set()
        for node in graph.nodes:
            scope = native_branch.scope(node)
            if scope not in branches or node.op == "SpectralFusion":
                self._node(node)
            elif scope not in done:
                done.add(scope)
                self._branch(branches[scope])
        result = self._maps("hrms")
        self.program.steps.append(Store(result.size, result.flat))

    # --- values ---

    def _maps(self, name: str) -> Maps:
        if name in self._values:
            return self._values[name]
        if name in self._graph.constants:
            raise UnknownGraphError(f"constant '{name}' where maps are wanted")
        raise UnknownGraphError(f"value '{name}' is none that this backend can hold")

    def _channels(self, name: str) -> Maps:
        maps = self._maps(name)
        if maps.planes.ndim != 1:
            raise UnknownGraphError(f"value '{name}' has more axes than channels and pixels")
        return maps

    def _constant(self, name: str) -> NDArray[Any]:
        if name not in self._graph.constants:
            raise UnknownGraphError(f"value '{name}' is no constant")
        return self._graph.constants[name]

    def _new(self, size: Size, lead: tuple[int, ...]) -> Maps:
        planes = self.program.maps(size, math.prod(lead))
        return Maps(np.array(planes, np.intp).reshape(lead), size)

    def _add(self, step: Any, name: str, maps: Maps | None = None) -> None:
        """Append a step whose result is the value `name`."""
        self.program.steps.append(step)
        for plane in step.out:
            self._source[plane] = step
        if maps is None:
            maps = Maps(np.array(step.out, np.intp), step.size)
        self._name(name, maps)

    def _name(self, name: str, maps: Maps) -> None:
        """A value of these planes; planes of a value that is read twice cannot be taken into their reader."""
        self._values[name] = maps
        if self._uses[name] != 1:
            self._shared.update(maps.flat)

    def _own(self, maps: Maps, kind: type) -> Any:
        """The step of this kind that makes just these maps for one reader only, or None."""
        planes = maps.flat
        step = self._source.get(planes[0])
        if not isinstance(step, kind) or self._shared.intersection(planes):
            return None
        return step if getattr(step, "out", None) == planes else None

    # --- operators ---

    def _node(self, node: Node) -> None:
        handlers: dict[str, Callable[[Node], None]] = {
            "Conv": self._conv,
            "Concat": self._concat,
            "Split": self._split,
            "Identity": self._identity,
            "Pad": self._pad,
            "DepthToSpace": self._depth_to_space,
            "ReduceMean": self._mean,
            "Reshape": self._reshape,
            "Slice": self._slice,
            "MatMul": self._product,
            "SpectralFusion": self._spectral_fusion,
        }
        if node.domain not in ("", "ai.onnx") and (node.domain, node.op) != ("sfiin", "SpectralFusion"):
            raise UnknownGraphError(f"operator {node.domain}::{node.op}")
        if node.op in handlers:
            handlers[node.op](node)
        elif node.op in OPERATIONS or node.op == "Clip":
            self._pointwise(node)
        else:
            raise UnknownGraphError(f"operator {node.op}")

    def _identity(self, node: Node) -> None:
        self._name(node.outputs[0], self._maps(node.inputs[0]))

    def _concat(self, node: Node) -> None:
        parts, axis = [self._maps(name) for name in node.inputs], node.attributes.get("axis")
        if len({part.size for part in parts}) != 1 or not isinstance(axis, int) or axis < 1:
            raise UnknownGraphError("Concat of maps of several sizes, or along pixels")
        if axis > parts[0].planes.ndim:
            raise UnknownGraphError("Concat along pixels")
        joined = np.concatenate([part.planes for part in parts], axis - 1)
        self._name(node.outputs[0], Maps(joined, parts[0].size))

    def _split(self, node: Node) -> None:
        maps, axis = self._maps(node.inputs[0]), node.attributes.get("axis", 0)
        if not isinstance(axis, int) or not 1 <= axis <= maps.planes.ndim:
            raise UnknownGraphError("Split along pixels or the batch")
        sizes = self._constant(node.inputs[1]) if len(node.inputs) > 1 else node.attributes.get("split")
        if sizes is None:
            raise UnknownGraphError("Split without sizes")
        ends = np.cumsum(np.asarray(sizes))
        for name, part in zip(node.outputs, np.split(maps.planes, ends[:-1], axis - 1), strict=True):
            if self._uses[node.inputs[0]] != 1:
                self._shared.update(maps.flat)
            self._name(name, Maps(part, maps.size))

    def _slice(self, node: Node) -> None:
        """Planes of axes between the batch and the pixels."""
        maps = self._maps(node.inputs[0])
        starts, ends, axes, *steps = (self._constant(name).tolist() for name in node.inputs[1:])
        if steps and set(steps[0]) != {1}:
            raise UnknownGraphError("Slice with steps")
        planes = maps.planes
        for start, end, axis in zip(starts, ends, axes, strict=True):
            if not 1 <= axis <= planes.ndim:
                raise UnknownGraphError("Slice of pixels or the batch")
            planes = planes[(slice(None),) * (axis - 1) + (slice(start, end),)]
        if not planes.size:
            raise UnknownGraphError("Slice of nothing")
        if self._uses[node.inputs[0]] != 1:
            self._shared.update(maps.flat)
        self._name(node.outputs[0], Maps(planes, maps.size))

    def _product(self, node: Node) -> None:
        """Maps and a constant matrix, from the left or from the right."""
        left = node.inputs[0] in self._graph.constants
        maps, matrix = (
            self._channels(node.inputs[1 if left else 0]),
            self._constant(node.inputs[0 if left else 1]),
        )
        (height, width), inner = maps.size, matrix.shape[1 if left else 0]
        if matrix.ndim != 2 or inner != (height if left else width):
            raise UnknownGraphError("MatMul other than of pixels and a matrix")
        size = (matrix.shape[0], width) if left else (height, matrix.shape[1])
        result = self._new(size, maps.planes.shape)
        self._add(Product(maps.size, left, matrix, maps.flat, result.flat), node.outputs[0], result)

    def _reshape(self, node: Node) -> None:
        """Of what lies between batch and pixels."""
        maps, shape = self._maps(node.inputs[0]), [int(side) for side in self._constant(node.inputs[1])]
        if shape[-2:] != list(maps.size) or shape[0] != 0 or len(shape) < 3:
            raise UnknownGraphError("Reshape of pixels")
        self._name(node.outputs[0], Maps(maps.planes.reshape(shape[1:-2]), maps.size))

    def _pad(self, node: Node) -> None:
        maps, pads = self._channels(node.inputs[0]), [int(side) for side in self._constant(node.inputs[1])]
        if (
            node.attributes.get("mode") != "edge"
            or len(pads) != 8
            or pads[:2] + pads[4:6] != [0] * 4
            or min(pads) < 0
        ):
            raise UnknownGraphError("Pad other than of edges")
        (height, width), (top, left, bottom, right) = maps.size, (*pads[2:4], *pads[6:])
        size = height + top + bottom, width + left + right
        result = self._new(size, maps.planes.shape)
        self._add(Pad(maps.size, size, top, left, maps.flat, result.flat), node.outputs[0], result)

    def _depth_to_space(self, node: Node) -> None:
        maps, block = self._channels(node.inputs[0]), node.attributes.get("blocksize")
        if not isinstance(block, int) or maps.planes.size % (block * block):
            raise UnknownGraphError("DepthToSpace")
        (height, width), mode = maps.size, node.attributes.get("mode", "DCR")
        result = self._new((height * block, width * block), (maps.planes.size // block**2,))
        step = DepthToSpace(maps.size, block, mode == "CRD", maps.flat, result.flat)
        self._add(step, node.outputs[0], result)

    def _conv(self, node: Node) -> None:
        maps, weight = self._channels(node.inputs[0]), self._constant(node.inputs[1])
        attributes = dict(node.attributes)
        attributes.pop("kernel_shape", None)
        groups, pads = attributes.pop("group", 1), attributes.pop("pads", (0, 0, 0, 0))
        strides = attributes.pop("strides", (1, 1))
        if (
            attributes
            or weight.ndim != 4
            or not isinstance(groups, int)
            or not isinstance(pads, tuple)
            or not isinstance(strides, tuple)
        ):
            raise UnknownGraphError(f"Conv with {', '.join(attributes) or 'other than two axes'}")
        bias = self._constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(len(weight), np.float32)
        above, left, below, right = pads
        if (
            (above, left) != (below, right)
            or max(pads) > _MARGIN
            or weight.shape[1] * groups != maps.planes.size
        ):
            raise UnknownGraphError("Conv with this padding or number of channels")
        sides = tuple(
            (side + 2 * pad - kernel) // stride + 1
            for side, pad, kernel, stride in zip(
                maps.size, (above, left), weight.shape[2:], strides, strict=True
            )
        )
        if min(sides) < 1 or len(weight) % groups:
            raise UnknownGraphError("Conv of maps smaller than its kernel")
        result = self._new((sides[0], sides[1]), (len(weight),))
        step = Convolution(
            maps.size, maps.flat, result.flat, weight, bias, (above, left), groups, (strides[0], strides[1])
        )
        self._take_scale(step, maps)
        self._add(step, node.outputs[0], result)

    def _take_scale(self, step: Convolution, maps: Maps) -> None:
        """What only multiplies each channel of the convolution's input goes into its weights."""
        product = self._own(maps, Pointwise)
        if product is None or product.mean or len(product.code) != 1 or product.code[0].operation != "Mul":
            return
        first, second = product.operands if len(product.operands) == 2 else (None, None)
        if first is not None and second is not None and first.single and second.planes and not second.single:
            first, second = second, first
        if first is None or second is None or first.single or not first.planes or not second.single:
            return
        step.inputs, step.scale = first.planes, second.planes
        self._remove(product)

    def _mean(self, node: Node) -> None:
        """Over all pixels, in one step or in two: along rows, then of these; or of all channels' means."""
        axes = node.attributes.get("axes")
        if axes is None and len(node.inputs) > 1:
            axes = tuple(int(axis) for axis in self._constant(node.inputs[1]))
        name, keeps = node.inputs[0], node.attributes.get("keepdims", 1)
        if keeps == 1 and axes == (3,) and name in self._values and self._values[name].planes.ndim == 1:
            self._row_means[node.outputs[0]] = name
            return
        if keeps == 1 and axes == (1,) and name in self._values and self._values[name].size == _ONE:
            self._mean_of_channels(name, node.outputs[0])
            return
        if keeps == 1 and axes == (2,) and name in self._row_means:
            if self._uses[name] != 1:
                raise UnknownGraphError("ReduceMean along rows alone")
            name = self._row_means.pop(name)
        elif keeps != 1 or axes != (2, 3):
            raise UnknownGraphError("ReduceMean other than over all pixels")
        maps = self._channels(name)
        result = self._new(_ONE, maps.planes.shape)
        step = self._own(maps, Pointwise)
        if step is not None and not step.mean:
            self._remove(step)
            step = Pointwise(step.size, result.flat, step.operands, step.code, mean=True)
        else:
            step = Pointwise(maps.size, result.flat, [Operand(maps.flat)], [], mean=True)
        self._add(step, node.outputs[0], result)

    def _mean_of_channels(self, name: str, output: str) -> None:
        """Of one value each, as a convolution."""
        maps = self._channels(name)
        count = maps.planes.size
        result = self._new(_ONE, (1,))
        weight, bias = np.full((1, count, 1, 1), 1 / count, np.float32), np.zeros(1, np.float32)
        self._add(Convolution(_ONE, maps.flat, result.flat, weight, bias), output, result)

    def _remove(self, step: Step) -> None:
        self.program.steps = [other for other in self.program.steps if other is not step]

    # --- pointwise operators ---

    def _pointwise(self, node: Node) -> None:
        if node.op in ("LeakyRelu", "Relu", "Sigmoid") and self._activate(node):
            return
        if node.op == "Add" and self._take_residual(node):
            return
        parts = [self._operand(name) for name in node.inputs if name]
        lead = np.broadcast_shapes(*(part.shape for part, _ in parts))
        sizes = {size for _, size in parts if size is not None}
        if len(sizes - {_ONE}) > 1 or not sizes:
            raise UnknownGraphError(f"{node.op} of maps of several sizes")
        size = max(sizes)
        result = self._new(size, lead)
        step = Pointwise(size, result.flat, [], [])
        registers = [self._register(step, part, own, lead) for part, own in parts]
        _emit(step, node, registers)
        self._add(_renumbered(step), node.outputs[0], result)

    def _operand(self, name: str) -> tuple[NDArray[Any], Size | None]:
        """Planes and their size, or constants, whose size is None; axes between batch and pixels only."""
        if name in self._graph.constants:
            value = self._graph.constants[name]
            if value.size == 1:
                return value.astype(np.float32).reshape(()), None
            if value.ndim < 3 or value.shape[0] != 1 or value.shape[-2:] != _ONE or value.dtype != np.float32:
                raise UnknownGraphError(f"constant '{name}' with pixels or a batch")
            return value[0, ..., 0, 0], None
        maps = self._maps(name)
        return maps.planes, maps.size

    def _register(self, step: Pointwise, part: NDArray[Any], size: Size | None, lead: tuple[int, ...]) -> int:
        """The register of an operand: its own, or the last one of an earlier sweep, which then is part of
        this. Until all operands are known, instruction k's register is -1 - k."""
        spread = np.broadcast_to(part, lead)
        if size is None:
            step.operands.append(Operand(constants=np.ascontiguousarray(spread, np.float32).ravel()))
            return len(step.operands) - 1
        maps = Maps(spread, size)
        earlier = self._own(maps, Pointwise) if size == step.size else None
        room = len(step.operands) + len(step.code)
        if earlier is None or earlier.mean or room + len(earlier.operands) + len(earlier.code) > _MOST - 4:
            step.operands.append(Operand(maps.flat, single=size == _ONE and step.size != _ONE))
            return len(step.operands) - 1
        self._remove(earlier)
        shift, behind = len(step.operands), len(step.code)
        step.operands += earlier.operands
        for one in earlier.code:
            first, second = (
                shift + register
                if register < len(earlier.operands)
                else -1 - (behind + register - len(earlier.operands))
                for register in (one.first, one.second)
            )
            step.code.append(Instruction(one.operation, first, second, one.value))
        return -len(step.code)

    def _activate(self, node: Node) -> bool:
        """An activation after a convolution is done with it."""
        maps = self._maps(node.inputs[0])
        step = self._own(maps, Convolution)
        if step is None or step.activation or step.residual:
            return False
        step.activation, step.slope = node.op, _slope(node)
        self._name(node.outputs[0], maps)
        return True

    def _take_residual(self, node: Node) -> bool:
        """What is added to a convolution is added with it; the convolution waits until it is there."""
        if any(name in self._graph.constants for name in node.inputs):
            return False
        first, second = (self._maps(name) for name in node.inputs)
        for maps, other in ((first, second), (second, first)):
            step = self._own(maps, Convolution)
            fits = maps.size == other.size and maps.planes.shape == other.planes.shape
            if step is not None and fits and not step.residual:
                step.residual = other.flat
                self._remove(step)
                self._add(step, node.outputs[0], maps)
                return True
        return False

    # --- frequency branches ---

    def _branch(self, branch: Branch) -> None:
        made = []
        for layer in branch.leading:
            self._conv(layer)
            made.append(self._maps(layer.outputs[0]))
        pixels = math.prod(made[0].size)
        native_branch.require_definition(self._graph, branch, pixels)
        weights = native_branch.weights(self._graph, branch)
        rule, factors = (FLOOR, CUT, FADE, SLOPE), (1.0, 1 / pixels)
        self._core(made, weights, rule, factors, branch.trailing.inputs[0])
        self._conv(branch.trailing)

    def _spectral_fusion(self, node: Node) -> None:
        rule = [node.attributes.get(name) for name in ("floor", "cut", "fade", "slope")]
        if not all(isinstance(value, float) for value in rule) or len(node.inputs) != 16:
            raise UnknownGraphError("SpectralFusion without its attributes or inputs")
        weights = [self._constant(name) for name in node.inputs[6:14]]
        made = []
        for value, first in ((node.inputs[0], 2), (node.inputs[1], 4)):
            made.append(self._conv_1x1(node, self._channels(value), first, f"{node.name}/{first}"))
        height, width = made[0].size
        unit = 1 / math.sqrt(height * width)
        maps = self._core(made, weights, tuple(rule), (unit, unit), f"{node.name}/core")
        self._conv_1x1(node, maps, 14, node.outputs[0])

    def _conv_1x1(self, node: Node, maps: Maps, first: int, name: str) -> Maps:
        weight, bias = self._constant(node.inputs[first]), self._constant(node.inputs[first + 1])
        result = self._new(maps.size, (len(weight),))
        self._add(
            Convolution(maps.size, maps.flat, result.flat, weight[:, :, None, None], bias), name, result
        )
        return result

    def _core(
        self, made: list[Maps], weights: list[NDArray[np.float32]], rule: Any, factors: Any, name: str
    ) -> Maps:
        channels, size = made[0].planes.size, made[0].size
        shapes = [(channels, 2 * channels), (channels,), (channels, channels), (channels,)] * 2
        if [weight.shape for weight in weights] != shapes or made[1].planes.size != channels or channels > 64:
            raise UnknownGraphError("a frequency branch of other numbers of channels")
        if made[1].size != size:
            raise UnknownGraphError("a frequency branch of maps of two sizes")
        result = self._new(size, (channels,))
        inputs = made[0].flat + made[1].flat
        step = Spectrum(size, channels, rule, factors, inputs, result.flat, tuple(weights))
        self._add(step, name, result)
        return result


def _emit(step: Pointwise, node: Node, registers: list[int]) -> None:
    if node.op == "Clip":
        if len(registers) != 3:
            raise UnknownGraphError("Clip without both bounds")
        step.code.append(Instruction("Max", registers[0], registers[1]))
        step.code.append(Instruction("Min", -len(step.code), registers[2]))
        return
    if len(registers) > 2:
        raise UnknownGraphError(f"{node.op} of more than two values")
    step.code.append(Instruction(node.op, registers[0], registers[-1], _slope(node)))


def _renumbered(step: Pointwise) -> Pointwise:
    """Registers by number, now that it is known how many operands there are."""
    operands = len(step.operands)
    for one in step.code:
        one.first, one.second = (
            operands - 1 - register if register < 0 else register for register in (one.first, one.second)
        )
    return step


def _slope(node: Node) -> float:
    slope = node.attributes.get("alpha", 0.01)
    if node.op != "LeakyRelu":
        return 0.0
    if not isinstance(slope, float):
        raise UnknownGraphError("LeakyRelu without a slope")
    return slope

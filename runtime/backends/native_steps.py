"""What does the native library run? Steps on planes of maps, and how they are written down for it.

export/native/program.hpp says what each step means; the order of its fields there is the order here. Every
step makes new maps; `encode` then lets maps share memory as soon as no later step reads them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

VERSION = 2
"""The version of the program's form."""

Size = tuple[int, int]
Planes = list[int]
"""Planes by their number in `Program.planes`."""

OPERATIONS = (
    *("Add", "Sub", "Mul", "Div", "Max", "Min"),
    *("Sigmoid", "LeakyRelu", "Relu", "Exp", "Tanh", "Sqrt", "Abs", "Neg"),
)
"""ONNX's names of pointwise operators, by the library's number."""

ACTIVATIONS = ("", "LeakyRelu", "Relu", "Sigmoid")
"""ONNX's names of what may follow a convolution, by the library's number."""


@dataclass
class Load:
    """The input `number` (0: ms, 1: pan) as maps."""

    number: int
    size: Size
    out: Planes

    def reads(self) -> Planes:
        """No planes."""
        return []


@dataclass
class Store:
    """Maps as the output."""

    size: Size
    inputs: Planes

    def reads(self) -> Planes:
        """The maps."""
        return self.inputs

    out: Planes = field(default_factory=list)


@dataclass
class Convolution:
    """`weight`: (outputs, inputs / groups, height, width). `scale` multiplies inputs, `residual` is added
    last."""

    size: Size
    inputs: Planes
    out: Planes
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]
    padding: tuple[int, int] = (0, 0)
    groups: int = 1
    strides: tuple[int, int] = (1, 1)
    activation: str = ""
    slope: float = 0.0
    residual: Planes = field(default_factory=list)
    scale: Planes = field(default_factory=list)

    def reads(self) -> Planes:
        """All planes that go in."""
        return [*self.inputs, *self.residual, *self.scale]


@dataclass
class Spectrum:
    """2C maps to C magnitudes, by amplitude and phase networks."""

    size: Size
    channels: int
    rule: tuple[float, float, float, float]
    factors: tuple[float, float]
    inputs: Planes
    out: Planes
    networks: tuple[NDArray[np.float32], ...]

    def reads(self) -> Planes:
        """The maps."""
        return self.inputs


@dataclass
class Operand:
    """Maps, or one value for each channel: planes of 1 x 1, or constants."""

    planes: Planes = field(default_factory=list)
    single: bool = False
    constants: NDArray[np.float32] | None = None


@dataclass
class Instruction:
    """An operator on registers: operands come first, then one for each instruction."""

    operation: str
    first: int
    second: int
    value: float = 0.0


@dataclass
class Pointwise:
    """A chain of pointwise operators; the last one's result, or its mean over the map, goes out."""

    size: Size
    out: Planes
    operands: list[Operand]
    code: list[Instruction]
    mean: bool = False

    def reads(self) -> Planes:
        """The planes of all operands."""
        return [plane for operand in self.operands for plane in operand.planes]


@dataclass
class Pad:
    """Maps larger by a repetition of their edges."""

    size: Size
    to: Size
    above: int
    left: int
    inputs: Planes
    out: Planes

    def reads(self) -> Planes:
        """The maps."""
        return self.inputs


@dataclass
class DepthToSpace:
    """Channels to pixels."""

    size: Size
    block: int
    column_row_depth: bool
    inputs: Planes
    out: Planes

    def reads(self) -> Planes:
        """The maps."""
        return self.inputs


@dataclass
class Product:
    """A matrix (rows made, height) times each map, or, not `left`, each map times a matrix (width, columns
    made)."""

    size: Size
    left: bool
    matrix: NDArray[np.float32]
    inputs: Planes
    out: Planes

    def reads(self) -> Planes:
        """The maps."""
        return self.inputs


Step = Load | Store | Convolution | Spectrum | Pointwise | Pad | DepthToSpace | Product
_KINDS = (Load, Convolution, Spectrum, Pointwise, Pad, DepthToSpace, Product, Store)


@dataclass
class Program:
    """Steps, and of each plane the buffer and channel; of each buffer its size and channels."""

    steps: list[Step] = field(default_factory=list)
    planes: list[tuple[int, int]] = field(default_factory=list)
    buffers: list[tuple[Size, int]] = field(default_factory=list)

    def maps(self, size: Size, channels: int) -> Planes:
        """New maps."""
        self.buffers.append((size, channels))
        first = len(self.planes)
        self.planes += [(len(self.buffers) - 1, channel) for channel in range(channels)]
        return list(range(first, first + channels))


def encode(program: Program) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The program as the library reads it, and its constants."""
    memory, kinds = _shared(program)
    writer = _Writer(program, memory)
    code = [VERSION, len(kinds)]
    for (height, width), channels in kinds:
        code += [height, width, channels]
    for step in program.steps:
        code += [1 + _KINDS.index(type(step)), *writer.step(step)]
    return np.array(code, np.int32), np.concatenate([np.zeros(1, np.float32), *writer.constants])


def _shared(program: Program) -> tuple[list[int], list[tuple[Size, int]]]:
    """For each buffer the memory that it lies in, and these memories' sizes and channels."""
    last: dict[int, int] = {}
    for number, step in enumerate(program.steps):
        for plane in (*step.reads(), *step.out):
            last[program.planes[plane][0]] = number
    memory, kinds = [-1] * len(program.buffers), []
    free: dict[tuple[Size, int], list[int]] = {}
    for number, step in enumerate(program.steps):
        used = sorted({program.planes[plane][0] for plane in (*step.reads(), *step.out)})
        for buffer in (buffer for buffer in used if memory[buffer] < 0):
            kind = program.buffers[buffer]
            if not free.get(kind):
                kinds.append(kind)
                free.setdefault(kind, []).append(len(kinds) - 1)
            memory[buffer] = free[kind].pop()
        for buffer in used:
            if last[buffer] == number:
                free[program.buffers[buffer]].append(memory[buffer])
    return memory, kinds


class _Writer:
    def __init__(self, program: Program, memory: Sequence[int]) -> None:
        self.constants: list[NDArray[np.float32]] = []
        self._program, self._memory = program, memory
        self._size = 1

    def step(self, step: Step) -> Iterator[int]:
        if isinstance(step, Load):
            yield from (*step.size, step.number, *self._planes(step.out))
        elif isinstance(step, Store):
            yield from (*step.size, *self._planes(step.inputs))
        elif isinstance(step, Convolution):
            yield from self._convolution(step)
        elif isinstance(step, Spectrum):
            yield from (*step.size, step.channels, *map(_bits, (*step.rule, *step.factors)))
            yield from (*self._planes(step.inputs), *self._planes(step.out))
            yield from map(self._constant, step.networks)
        elif isinstance(step, Pointwise):
            yield from self._pointwise(step)
        elif isinstance(step, Pad):
            yield from (*step.size, *step.to, step.above, step.left)
            yield from (*self._planes(step.inputs), *self._planes(step.out))
        elif isinstance(step, Product):
            yield from (*step.size, int(step.left), step.matrix.shape[0 if step.left else 1])
            yield from (*self._planes(step.inputs), *self._planes(step.out), self._constant(step.matrix))
        else:
            yield from (*step.size, step.block, int(step.column_row_depth))
            yield from (*self._planes(step.inputs), *self._planes(step.out))

    def _convolution(self, step: Convolution) -> Iterator[int]:
        yield from (*step.size, *step.weight.shape[2:], *step.padding, step.groups, *step.strides)
        yield from (ACTIVATIONS.index(step.activation), _bits(step.slope))
        for planes in (step.inputs, step.out, step.residual, step.scale):
            yield from self._planes(planes)
        yield from (self._constant(step.weight), self._constant(step.bias))

    def _pointwise(self, step: Pointwise) -> Iterator[int]:
        yield from (*step.size, int(step.mean), *self._planes(step.out), len(step.operands))
        for operand in step.operands:
            if operand.constants is not None:
                yield from (2, self._constant(operand.constants))
            else:
                yield from (1 if operand.single else 0, *self._planes(operand.planes))
        yield len(step.code)
        for one in step.code:
            yield from (OPERATIONS.index(one.operation), one.first, one.second, _bits(one.value))

    def _planes(self, planes: Planes) -> Iterator[int]:
        yield len(planes)
        for plane in planes:
            buffer, channel = self._program.planes[plane]
            yield from (self._memory[buffer], channel)

    def _constant(self, values: NDArray[np.float32]) -> int:
        """Where the values begin among the constants."""
        begin = self._size
        self.constants.append(np.ascontiguousarray(values, np.float32).ravel())
        self._size += self.constants[-1].size
        return begin


def _bits(value: float) -> int:
    return int(struct.unpack("<i", struct.pack("<f", value))[0])

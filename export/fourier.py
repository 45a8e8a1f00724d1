"""How does a Fourier transform get into ONNX? Two lowerings of `sfiin.spectrum`'s transforms.

A lowering turns real maps (N, C, H, W) into the real and imaginary parts of their one-sided spectrum
(N, C, H, F), with F = W // 2 + 1, and a spectrum that need not be Hermitian back into maps. What lies between,
amplitude, phase and the rules at their edges, is `amplitude_and_phase`, the same for both.

| lowering | nodes                   | multiply-adds a map, each way  | limits                                        |
|----------|-------------------------|--------------------------------|-----------------------------------------------|
| matmul   | MatMul, Reshape, Split  | 2 H W F + 4 H**2 F             | tile fixed at export; constants of 8 H**2     |
| dft      | DFT, opset 17 or 20     | the runtime's, O(H W log H W)  | onnxruntime >= 1.27; TensorRT >= 11.2; powers |
|          |                         |                                | of two, other axes as by matmul               |
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from export.builder import GraphBuilder
from runtime.contract import Lowering
from sfiin.spectrum import CUT, FADE, FLOOR

Matrix = NDArray[np.float64]


class Fourier(Protocol):
    """A lowering for tiles of one size; its methods add nodes to a graph and return values' names."""

    def forward(self, graph: GraphBuilder, x: str) -> tuple[str, str]:
        """(N, C, H, W) to real and imaginary part, each (N, C, H, F), unnormalised."""
        ...

    def inverse(self, graph: GraphBuilder, real: str, imag: str) -> str:
        """Real and imaginary part, each (N, C, H, F), to (N, C, H, W): along H, then complex to real along W."""
        ...


class MatMulFourier:
    """Transforms as matrix products: right factors along W, a left factor along H for real and imaginary rows at once.

    A row transform leaves each row as [real | imaginary]; read as (2 H, F), a mere Reshape, that is the two parts in
    turn, and one (2 H, 2 H) matrix with its columns ordered to match does the complex transform along H.
    """

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width, self._columns = height, width, width // 2 + 1

    def forward(self, graph: GraphBuilder, x: str) -> tuple[str, str]:
        """As `Fourier.forward`."""
        rows = graph.op("MatMul", x, graph.constant("dft_rows", row_matrix(self._width)))
        rows = graph.op("Reshape", rows, graph.integers((0, 0, 2 * self._height, self._columns)))
        both = graph.op("MatMul", graph.constant("dft_columns", column_matrix(self._height)), rows)
        real, imag = graph.op("Split", both, graph.integers((self._height,) * 2), axis=2, outputs=2)
        return real, imag

    def inverse(self, graph: GraphBuilder, real: str, imag: str) -> str:
        """As `Fourier.inverse`."""
        both = graph.op("Concat", real, imag, axis=2)
        rows = graph.op("MatMul", graph.constant("idft_columns", column_matrix(self._height).T / self._height), both)
        rows = graph.op("Reshape", rows, graph.integers((0, 0, self._height, 2 * self._columns)))
        return graph.op("MatMul", rows, graph.constant("idft_rows", inverse_row_matrix(self._width)))  # type: ignore[no-any-return]


class DftFourier:
    """Transforms by the DFT operator, along each axis whose length is a power of two; along others by a matrix.

    Off powers of two ONNX Runtime's operator errs by 1e-6 of the largest bin and more, as much as separates a weak bin
    from noise, and takes longer than the matrix. Before opset 20 the operator has no one-sided inverse; the last step,
    complex to real along W, is then the matrix, too.
    """

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width, self._columns = height, width, width // 2 + 1

    def forward(self, graph: GraphBuilder, x: str) -> tuple[str, str]:
        """As `Fourier.forward`."""
        if _is_power_of_two(self._width):
            rows = _dft(graph, graph.op("Unsqueeze", x, graph.integers((4,))), axis=3, onesided=1)
        else:
            matrix = graph.constant("dft_rows", _pairs_together(row_matrix(self._width), 1))
            shape = graph.integers((0, 0, self._height, self._columns, 2))
            rows = graph.op("Reshape", graph.op("MatMul", x, matrix), shape)
        if _is_power_of_two(self._height):
            return _parts(graph, _dft(graph, rows, axis=2))
        return self._along_columns(
            graph, "dft_columns", _halves_apart(column_matrix(self._height)), *_parts(graph, rows)
        )

    def inverse(self, graph: GraphBuilder, real: str, imag: str) -> str:
        """As `Fourier.inverse`."""
        if _is_power_of_two(self._height):
            columns = _dft(graph, _complex(graph, real, imag), axis=2, inverse=1)
        else:
            matrix = _halves_apart(column_matrix(self._height)).T / self._height
            columns = _complex(graph, *self._along_columns(graph, "idft_columns", matrix, real, imag))
        if graph.opset < 20 or not _is_power_of_two(self._width):
            rows = graph.op("Reshape", columns, graph.integers((0, 0, self._height, 2 * self._columns)))
            matrix = _pairs_together(inverse_row_matrix(self._width), 0)
            return graph.op("MatMul", rows, graph.constant("idft_rows", matrix))  # type: ignore[no-any-return]
        length = graph.constant("dft_width", self._width, np.int64)
        result = graph.op("DFT", columns, length, graph.constant("axis_3", 3, np.int64), inverse=1, onesided=1)
        return graph.op("Squeeze", result, graph.integers((4,)))  # type: ignore[no-any-return]

    def _along_columns(self, graph: GraphBuilder, name: str, matrix: Matrix, real: str, imag: str) -> tuple[str, str]:
        both = graph.op("MatMul", graph.constant(name, matrix), graph.op("Concat", real, imag, axis=2))
        parts: tuple[str, str] = graph.op("Split", both, graph.integers((self._height,) * 2), axis=2, outputs=2)
        return parts


LOWERINGS: dict[Lowering, type[MatMulFourier] | type[DftFourier]] = {"matmul": MatMulFourier, "dft": DftFourier}


def amplitude_and_phase(graph: GraphBuilder, x: str, fourier: Fourier, size: tuple[int, int]) -> tuple[str, str]:
    """`sfiin.spectrum.analyse` as nodes: (N, C, H, W) to amplitude and phase, each (N, C, H, F).

    The phase comes from Atan alone, which every runtime has: a = atan(im / |re|) lies in the right half-plane, and the
    sign of re and a's side of the cut put it into its quadrant. -0 counts as +0.
    """
    op, scalar = graph.op, graph.scalar
    real, imag = fourier.forward(graph, x)
    amplitude = op("Sqrt", op("Add", op("Mul", real, real), op("Mul", imag, imag)))
    floor = op("Mul", graph.reduce("ReduceL2", x, (2, 3)), scalar(FLOOR * math.sqrt(size[0] * size[1])))
    above = op("Sub", op("Div", amplitude, op("Max", floor, scalar(1e-30))), scalar(1.0))
    share = op("Clip", above, scalar(0.0), scalar(1.0))
    slope = op("Atan", op("Div", imag, op("Max", op("Abs", real), scalar(1e-37))))
    left = op("Cast", op("Less", real, scalar(0.0)), to=TensorProto.FLOAT)
    beyond = op("Cast", op("Less", slope, scalar(-CUT)), to=TensorProto.FLOAT)
    mirrored = op("Mul", slope, op("Sub", scalar(1.0), op("Mul", left, scalar(2.0))))
    half_turn = op("Mul", left, op("Sub", scalar(math.pi), op("Mul", beyond, scalar(2 * math.pi))))
    phase = _drawn_in(graph, op("Add", mirrored, half_turn))
    return op("Mul", amplitude, share), op("Mul", phase, share)


def _drawn_in(graph: GraphBuilder, angle: str) -> str:
    """The phase of an angle that lies between the cuts; `sfiin.spectrum.continuous_phase` after its wrapping."""
    op, scalar = graph.op, graph.scalar
    steepness = (math.pi - FADE) / FADE
    turned = op("Sub", angle, scalar(CUT))
    steep = op("Mul", turned, scalar(-steepness))
    falling, rising = (op("Add", steep, scalar(sign * steepness * math.pi)) for sign in (1, -1))
    return op("Add", op("Max", op("Min", turned, falling), rising), scalar(CUT))  # type: ignore[no-any-return]


def maps_from(graph: GraphBuilder, amplitude: str, phase: str, fourier: Fourier) -> str:
    """`sfiin.spectrum.synthesise` as nodes: amplitude and phase (N, C, H, F) to maps (N, C, H, W)."""
    real = graph.op("Mul", amplitude, graph.op("Cos", phase))
    imag = graph.op("Mul", amplitude, graph.op("Sin", phase))
    return fourier.inverse(graph, real, imag)


def row_matrix(width: int) -> Matrix:
    """(W, 2 F): rows times this are [real | imaginary] of their one-sided transform."""
    cosine, sine = _turns(width, width // 2 + 1)
    return np.concatenate((cosine, -sine), 1)


def column_matrix(height: int) -> Matrix:
    """(2 H, 2 H): this times (real, imaginary) rows in turn is the transform along H, all real rows before the
    imaginary.

    Its transpose, divided by H, is the inverse, with the two orders exchanged.
    """
    cosine, sine = _turns(height, height)
    real = np.stack((cosine, sine), -1).reshape(height, -1)
    imag = np.stack((-sine, cosine), -1).reshape(height, -1)
    return np.concatenate((real, imag))


def inverse_row_matrix(width: int) -> Matrix:
    """(2 F, W): [real | imaginary] one-sided rows times this are real rows; columns 0 and W/2 ignore the imaginary."""
    cosine, sine = _turns(width, width // 2 + 1)
    mirrored = np.where(2 * np.arange(width // 2 + 1) % width == 0, 1.0, 2.0) / width
    return np.concatenate((mirrored[:, None] * cosine.T, -mirrored[:, None] * sine.T))


def _turns(size: int, frequencies: int) -> tuple[Matrix, Matrix]:
    """Cosine and sine of 2 pi n k / size, (size, frequencies); exact zeros are exact, so real bins come out real."""
    angle = 2 * math.pi * (np.outer(np.arange(size), np.arange(frequencies)) % size) / size
    cosine, sine = np.cos(angle), np.sin(angle)
    cosine[np.abs(cosine) < 1e-12] = 0
    sine[np.abs(sine) < 1e-12] = 0
    return cosine, sine


def _is_power_of_two(size: int) -> bool:
    return size & (size - 1) == 0


def _pairs_together(matrix: Matrix, axis: int) -> Matrix:
    """Reorder [all real | all imaginary] along an axis to (real, imaginary) in turn."""
    size = matrix.shape[axis]
    return matrix.take(np.arange(size).reshape(2, -1).T.ravel(), axis)


def _halves_apart(matrix: Matrix) -> Matrix:
    """Reorder the columns of `column_matrix` from (real, imaginary) in turn to [all real | all imaginary]."""
    return matrix.take(np.arange(matrix.shape[1]).reshape(-1, 2).T.ravel(), 1)


def _complex(graph: GraphBuilder, real: str, imag: str) -> str:
    parts = [graph.op("Unsqueeze", part, graph.integers((4,))) for part in (real, imag)]
    return graph.op("Concat", *parts, axis=4)  # type: ignore[no-any-return]


def _parts(graph: GraphBuilder, z: str) -> tuple[str, str]:
    parts = graph.op("Split", z, graph.integers((1, 1)), axis=4, outputs=2)
    real, imag = (graph.op("Squeeze", part, graph.integers((4,))) for part in parts)
    return real, imag


def _dft(graph: GraphBuilder, x: str, axis: int, inverse: int = 0, onesided: int = 0) -> str:
    if graph.opset < 20:
        return graph.op("DFT", x, axis=axis, inverse=inverse, onesided=onesided)  # type: ignore[no-any-return]
    at = graph.constant(f"axis_{axis}", axis, np.int64)
    return graph.op("DFT", x, "", at, inverse=inverse, onesided=onesided)  # type: ignore[no-any-return]

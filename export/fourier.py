"""How does a Fourier transform get into ONNX? Lowerings of `sfiin.model.spectrum`'s transforms.

A lowering turns real maps (N, C, H, W) into the real and imaginary parts of their one-sided spectrum, each
(N, C, P) with P = H * F bins and F = W // 2 + 1, and a spectrum that need not be Hermitian back into maps.
What lies between is pointwise, so the order of the bins is the lowering's own; `bins` tells it. Amplitude,
phase and the rules at their edges are `amplitude_and_phase`, the same for all.

| lowering | nodes             | multiply-adds a map, each way | limits                                  |
|----------|-------------------|-------------------------------|-----------------------------------------|
| matmul   | MatMul, Reshape   | see below                     | fixed tile; constants of 8 W F + 8 H H2 |
| dft      | DFT, opset 17, 20 | the runtime's, O(H W log H W) | onnxruntime >= 1.27; TensorRT >= 11.2;  |
|          |                   |                               | powers of two, other axes as by matmul  |

matmul: 4 H F (H1 + H2) along H, where H1 * H2 = H are the factors with the smallest sum (1 and H for a
prime); along W 2 H W F, forward of an even W half of it.

The third lowering, `plugin`, leaves the whole frequency branch to one custom node:
`export/spectral_fusion.py`.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sfiin.export.graph_builder import GraphBuilder
from sfiin.model.spectrum import CUT, FADE, FLOOR
from sfiin.runtime.contract import Lowering

Matrix = NDArray[np.float64]


class Fourier(Protocol):
    """A lowering for tiles of one size; its methods add nodes to a graph and return values' names."""

    @property
    def bins(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """The order of the P bins: H rows of F, the vertical frequency of each row and the horizontal of each
        column."""
        ...

    def forward(self, graph: GraphBuilder, x: str, turn: float = 0.0) -> tuple[str, str]:
        """(N, C, H, W) to real and imaginary part, each (N, C, P), unnormalised, times exp(-i * turn)."""
        ...

    def inverse(self, graph: GraphBuilder, real: str, imag: str) -> str:
        """Real and imaginary part, each (N, C, P), to (N, C, H, W): along H, then complex to real along W."""
        ...


class MatMulFourier:
    """Transforms as matrix products: along W, and in two factors along H, without a Transpose.

    Along W, a product gives real and imaginary rows as two planes. Even frequencies need only the sum of a
    row's halves, odd ones only their difference, which halves the products' work. Along H, a transform of H =
    H1 * H2 points is, as Cooley and Tukey have it (Math. Comp. 19, 1965), one of H1 points on every H2-th
    row, for which one (2 H1, 2 H1) matrix serves, and then one of H2 points, for which each of the first's H1
    frequencies has its own matrix with the twiddles in it. The bins stay in the order that this leaves: row
    k1 * H2 + k2 holds frequency k1 + H1 * k2, and even columns come before odd ones.
    """

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width, self._columns = height, width, width // 2 + 1
        self._first, self._second = factors(height)

    @property
    def bins(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """As `Fourier.bins`."""
        columns = np.arange(self._columns)
        if self._width % 2 == 0:
            columns = np.concatenate((columns[::2], columns[1::2]))
        return np.arange(self._height).reshape(self._second, self._first).T.ravel(), columns

    def forward(self, graph: GraphBuilder, x: str, turn: float = 0.0) -> tuple[str, str]:
        """As `Fourier.forward`."""
        first, second, columns = self._first, self._second, self._columns
        planes = self._along_rows(graph, x)
        if first > 1:
            planes = graph.op("Reshape", planes, graph.integers((0, 0, 2 * first, second * columns)))
            planes = graph.op("MatMul", graph.constant("dft_columns_1", first_matrix(first)), planes)
        groups = graph.op("Reshape", planes, graph.integers((0, 0, first, 2 * second, columns)))
        matrix = graph.constant(f"dft_columns_2_{turn:g}", second_matrices(first, second, turn))
        groups = graph.op("MatMul", matrix, groups)
        parts = graph.op("Split", groups, graph.integers((second, second)), axis=3, outputs=2)
        real, imag = (graph.op("Reshape", part, graph.integers((0, 0, -1))) for part in parts)
        return real, imag

    def _along_rows(self, graph: GraphBuilder, x: str) -> str:
        """(N, C, H, W) to the planes of real and imaginary rows, (N, C, 2, H, F)."""
        matrix, half = np.stack(row_matrices(self._width)), self._width // 2
        if self._width % 2:
            x = graph.op("Unsqueeze", x, graph.integers((2,)))
            return graph.op("MatMul", x, graph.constant("dft_rows", matrix))
        left, right = graph.op("Split", x, graph.integers((half, half)), axis=3, outputs=2)
        planes = []
        for parity, (name, kind) in enumerate((("even", "Add"), ("odd", "Sub"))):
            folded = graph.op("Unsqueeze", graph.op(kind, left, right), graph.integers((2,)))
            planes.append(
                graph.op("MatMul", folded, graph.constant(f"dft_rows_{name}", matrix[:, :half, parity::2]))
            )
        return graph.op("Concat", *planes, axis=4)

    def inverse(self, graph: GraphBuilder, real: str, imag: str) -> str:
        """As `Fourier.inverse`."""
        first, second, columns = self._first, self._second, self._columns
        shape = graph.integers((0, 0, first, second, columns))
        parts = [graph.op("Reshape", part, shape) for part in (real, imag)]
        groups = graph.op("Concat", *parts, axis=3)
        back = second_matrices(first, second).swapaxes(1, 2) / self._height
        groups = graph.op("MatMul", graph.constant("idft_columns_2", back), groups)
        rows = graph.op("Reshape", groups, graph.integers((0, 0, 2 * first, second * columns)))
        maps = []
        for part, matrix, rows_matrix in zip(
            "ri", first_matrix(first).T.reshape(2, first, -1), inverse_row_matrices(self._width), strict=True
        ):
            plane = graph.op("MatMul", graph.constant(f"idft_columns_1{part}", matrix), rows)
            plane = graph.op("Reshape", plane, graph.integers((0, 0, self._height, columns)))
            maps.append(
                graph.op("MatMul", plane, graph.constant(f"idft_rows_{part}", rows_matrix[self.bins[1]]))
            )
        return graph.op("Add", *maps)


class DftFourier:
    """Transforms by the DFT operator, along each axis whose length is a power of two; along others by a
    matrix.

    Off powers of two ONNX Runtime's operator errs by 1e-6 of the largest bin and more, as much as separates a
    weak bin from noise, and takes longer than the matrix. Before opset 20 the operator has no one-sided
    inverse; the last step, complex to real along W, is then the matrix, too. Bins are in their natural order.
    """

    def __init__(self, height: int, width: int) -> None:
        self._height, self._width, self._columns = height, width, width // 2 + 1

    @property
    def bins(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """As `Fourier.bins`."""
        return np.arange(self._height), np.arange(self._columns)

    def forward(self, graph: GraphBuilder, x: str, turn: float = 0.0) -> tuple[str, str]:
        """As `Fourier.forward`."""
        if _is_power_of_two(self._width):
            rows = _dft(graph, graph.op("Unsqueeze", x, graph.integers((4,))), axis=3, onesided=1)
        else:
            matrix = graph.constant(
                "dft_rows", np.stack(row_matrices(self._width), -1).reshape(self._width, -1)
            )
            shape = graph.integers((0, 0, self._height, self._columns, 2))
            rows = graph.op("Reshape", graph.op("MatMul", x, matrix), shape)
        if _is_power_of_two(self._height):
            real, imag = _parts(graph, _dft(graph, rows, axis=2))
        else:
            real, imag = self._along_columns(
                graph, "dft_columns", column_matrix(self._height), *_parts(graph, rows)
            )
        real, imag = (graph.op("Reshape", part, graph.integers((0, 0, -1))) for part in (real, imag))
        return _turned(graph, real, imag, turn) if turn else (real, imag)

    def inverse(self, graph: GraphBuilder, real: str, imag: str) -> str:
        """As `Fourier.inverse`."""
        shape = graph.integers((0, 0, self._height, self._columns))
        real, imag = (graph.op("Reshape", part, shape) for part in (real, imag))
        if _is_power_of_two(self._height):
            columns = _dft(graph, _complex(graph, real, imag), axis=2, inverse=1)
        else:
            matrix = column_matrix(self._height).T / self._height
            columns = _complex(graph, *self._along_columns(graph, "idft_columns", matrix, real, imag))
        if graph.opset < 20 or not _is_power_of_two(self._width):
            rows = graph.op("Reshape", columns, graph.integers((0, 0, self._height, 2 * self._columns)))
            matrix = np.stack(inverse_row_matrices(self._width), 1).reshape(-1, self._width)
            return graph.op("MatMul", rows, graph.constant("idft_rows", matrix))
        length = graph.constant("dft_width", self._width, np.int64)
        result = graph.op(
            "DFT", columns, length, graph.constant("axis_3", 3, np.int64), inverse=1, onesided=1
        )
        return graph.op("Squeeze", result, graph.integers((4,)))

    def _along_columns(
        self, graph: GraphBuilder, name: str, matrix: Matrix, real: str, imag: str
    ) -> tuple[str, str]:
        both = graph.op("MatMul", graph.constant(name, matrix), graph.op("Concat", real, imag, axis=2))
        real, imag = graph.op("Split", both, graph.integers((self._height,) * 2), axis=2, outputs=2)
        return real, imag


LOWERINGS: dict[Lowering, type[MatMulFourier] | type[DftFourier]] = {
    "matmul": MatMulFourier,
    "dft": DftFourier,
}


def amplitude_and_phase(
    graph: GraphBuilder, x: str, fourier: Fourier, size: tuple[int, int]
) -> tuple[str, str]:
    """`sfiin.model.spectrum.analyse` as nodes: (N, C, H, W) to amplitude and phase, each (N, C, P).

    The spectrum is turned by the angle of the cut, so that the phase jumps on the negative real axis, where
    plain angles do. An angle is sign(im) * (pi / 2 - atan(re / |im|)): right in all quadrants with Atan
    alone, which every runtime has; with im = 0 it is 0 on the cut, where the continuous phase passes through
    0.
    """
    op, scalar = graph.op, graph.scalar
    real, imag = fourier.forward(graph, x, CUT)
    amplitude = op("Sqrt", op("Add", op("Mul", real, real), op("Mul", imag, imag)))
    norm = op("Sqrt", graph.mean(op("Mul", x, x)))  # over sqrt(H W)
    floor = op("Mul", op("Reshape", norm, graph.integers((0, 0, 1))), scalar(FLOOR * size[0] * size[1]))
    floor = op("Max", floor, scalar(1e-30))
    share = op("Clip", op("Sub", op("Div", amplitude, floor), scalar(1.0)), scalar(0.0), scalar(1.0))
    slope = op("Atan", op("Div", real, op("Max", op("Abs", imag), scalar(1e-30))))
    sign = op("Clip", op("Mul", imag, scalar(1e30)), scalar(-1.0), scalar(1.0))  # half the time of Sign
    angle = op("Mul", sign, op("Sub", scalar(math.pi / 2), slope))
    phase = op("Add", _drawn_in(graph, angle), scalar(CUT))
    return op("Mul", amplitude, share), op("Mul", phase, share)


def _drawn_in(graph: GraphBuilder, angle: str) -> str:
    """`sfiin.model.spectrum.continuous_phase` after its turn: what is within FADE of the cut falls to 0 as
    a line."""
    op, scalar = graph.op, graph.scalar
    limit = math.pi - FADE
    excess = op("Sub", angle, op("Clip", angle, scalar(-limit), scalar(limit)))
    return op("Sub", angle, op("Mul", excess, scalar(math.pi / FADE)))


def maps_from(graph: GraphBuilder, amplitude: str, phase: str, fourier: Fourier) -> str:
    """`sfiin.model.spectrum.synthesise` as nodes: amplitude and phase (N, C, P) to maps (N, C, H, W)."""
    real = graph.op("Mul", amplitude, graph.op("Cos", phase))
    imag = graph.op("Mul", amplitude, graph.op("Sin", phase))
    return fourier.inverse(graph, real, imag)


def factors(size: int) -> tuple[int, int]:
    """The pair whose product is `size` with the smallest sum, the smaller first."""
    first = max(factor for factor in range(1, math.isqrt(size) + 1) if size % factor == 0)
    return first, size // first


def row_matrices(width: int) -> tuple[Matrix, Matrix]:
    """(W, F) twice: rows times these are the real and the imaginary part of their one-sided transform."""
    cosine, sine = _turns(width, width // 2 + 1)
    return cosine, -sine


def inverse_row_matrices(width: int) -> tuple[Matrix, Matrix]:
    """(F, W) twice: real rows are real parts times the first plus imaginary parts times the second.

    In columns 0 and W/2 imaginary parts do not count.
    """
    cosine, sine = _turns(width, width // 2 + 1)
    mirrored = np.where(2 * np.arange(width // 2 + 1) % width == 0, 1.0, 2.0)[:, None] / width
    return mirrored * cosine.T, -mirrored * sine.T


def column_matrix(height: int) -> Matrix:
    """(2 H, 2 H): this times [real rows; imaginary rows] is their transform; its transpose / H is the
    inverse."""
    return np.asarray(second_matrices(1, height)[0])


def first_matrix(first: int) -> Matrix:
    """(2 H1, 2 H1): from rows (part, h1) to rows (k1, part), a transform of H1 points; its transpose goes
    back."""
    whole = column_matrix(first).reshape(2, first, 2 * first)
    return whole.swapaxes(0, 1).reshape(2 * first, 2 * first)


def second_matrices(first: int, second: int, turn: float = 0.0) -> Matrix:
    """(H1, 2 H2, 2 H2): for each k1, from rows (part, h2) to rows (part, k2), twiddles and exp(-i * turn)
    included."""
    size = first * second
    frequency = np.arange(first)[:, None, None] + first * np.arange(second)[:, None]
    cosine, sine = _cosine_and_sine(frequency * np.arange(second), size)
    if turn:
        cosine, sine = (
            cosine * math.cos(turn) - sine * math.sin(turn),
            sine * math.cos(turn) + cosine * math.sin(turn),
        )
    return np.block([[cosine, sine], [-sine, cosine]])


def _turns(size: int, frequencies: int) -> tuple[Matrix, Matrix]:
    """Cosine and sine of 2 pi n k / size, (size, frequencies)."""
    return _cosine_and_sine(np.outer(np.arange(size), np.arange(frequencies)), size)


def _cosine_and_sine(steps: NDArray[np.intp], size: int) -> tuple[Matrix, Matrix]:
    """Of 2 pi steps / size; exact zeros are exact, so real bins come out real."""
    angle = 2 * math.pi * (steps % size) / size
    cosine, sine = np.cos(angle), np.sin(angle)
    cosine[np.abs(cosine) < 1e-12] = 0
    sine[np.abs(sine) < 1e-12] = 0
    return cosine, sine


def _turned(graph: GraphBuilder, real: str, imag: str, turn: float) -> tuple[str, str]:
    op, cosine, sine = graph.op, graph.scalar(math.cos(turn)), graph.scalar(math.sin(turn))
    return (
        op("Add", op("Mul", real, cosine), op("Mul", imag, sine)),
        op("Sub", op("Mul", imag, cosine), op("Mul", real, sine)),
    )


def _is_power_of_two(size: int) -> bool:
    return size & (size - 1) == 0


def _complex(graph: GraphBuilder, real: str, imag: str) -> str:
    parts = [graph.op("Unsqueeze", part, graph.integers((4,))) for part in (real, imag)]
    return graph.op("Concat", *parts, axis=4)


def _parts(graph: GraphBuilder, z: str) -> tuple[str, str]:
    parts = graph.op("Split", z, graph.integers((1, 1)), axis=4, outputs=2)
    real, imag = (graph.op("Squeeze", part, graph.integers((4,))) for part in parts)
    return real, imag


def _dft(graph: GraphBuilder, x: str, axis: int, inverse: int = 0, onesided: int = 0) -> str:
    if graph.opset < 20:
        return graph.op("DFT", x, axis=axis, inverse=inverse, onesided=onesided)
    at = graph.constant(f"axis_{axis}", axis, np.int64)
    return graph.op("DFT", x, "", at, inverse=inverse, onesided=onesided)

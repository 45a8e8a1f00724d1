"""Each lowering, run in ONNX Runtime, against NumPy's float64 transform and the one definition of the
spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfiin.export.fourier import (
    LOWERINGS,
    amplitude_and_phase,
    column_matrix,
    factors,
    first_matrix,
    inverse_row_matrices,
    maps_from,
    row_matrices,
    second_matrices,
)
from sfiin.export.graph_builder import GraphBuilder
from sfiin.model import spectrum

FORMS = [("matmul", 17), ("matmul", 20), ("dft", 17), ("dft", 20)]
SIZES = [(8, 8), (16, 32), (7, 9), (10, 6), (9, 4), (6, 25), (1, 8), (60, 100)]


def natural(bins: np.ndarray, fourier: Any) -> np.ndarray:
    """A lowering's (N, C, P) bins as (N, C, H, F) in natural order."""
    rows, columns = (np.argsort(order) for order in fourier.bins)
    return bins.reshape(*bins.shape[:2], len(rows), len(columns))[:, :, rows][..., columns]


def ordered(bins: np.ndarray, fourier: Any) -> np.ndarray:
    """The other way round."""
    rows, columns = fourier.bins
    return bins[:, :, rows][..., columns].reshape(*bins.shape[:2], -1)


def run(
    graph: GraphBuilder, values: list[str], shapes: list[list[Any]], feeds: dict[str, np.ndarray]
) -> list[Any]:
    """Run a built graph; every value asked for is passed through one joined output."""
    flat = [graph.op("Reshape", value, graph.integers((-1,))) for value in values]
    joined = graph.op("Concat", *flat, axis=0)
    model = graph.model({name: list(a.shape) for name, a in feeds.items()}, ("y", joined, ["n"]), "test")
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    result = session.run(None, {name: a.astype(np.float32) for name, a in feeds.items()})[0]
    ends = np.cumsum([math.prod(shape) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(result, ends[:-1]), shapes, strict=True)]


def forward(lowering: str, opset: int, x: np.ndarray, turn: float = 0.0) -> np.ndarray:
    graph = GraphBuilder(opset)
    fourier = LOWERINGS[lowering](*x.shape[2:])  # type: ignore[index]
    parts = fourier.forward(graph, "x", turn)
    shape = [*x.shape[:2], x.shape[2] * (x.shape[3] // 2 + 1)]
    real, imag = run(graph, list(parts), [shape, shape], {"x": x})
    return natural(real + 1j * imag, fourier)


def analysed(lowering: str, opset: int, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    graph = GraphBuilder(opset)
    size = x.shape[2:]
    fourier = LOWERINGS[lowering](*size)  # type: ignore[index]
    parts = amplitude_and_phase(graph, "x", fourier, size)
    shape = [*x.shape[:2], size[0] * (size[1] // 2 + 1)]
    amplitude, phase = run(graph, list(parts), [shape, shape], {"x": x})
    return natural(amplitude, fourier), natural(phase, fourier)


IMAGES: dict[str, Callable[[int, int], np.ndarray]] = {
    "zeros": lambda h, w: np.zeros((h, w)),
    "constant": lambda h, w: np.full((h, w), 700.0),
    "negative": lambda h, w: np.full((h, w), -0.3),
    "impulse": lambda h, w: np.pad(np.ones((1, 1)), ((h // 2, h - h // 2 - 1), (w // 3, w - w // 3 - 1))),
    "nyquist": lambda h, w: (np.add.outer(np.arange(h), np.arange(w)) % 2) * 2.0 - 1,
    "on-grid tone": lambda h, w: np.cos(2 * np.pi * np.add.outer(np.arange(h) / h, np.arange(w) / w)) + 2,
    "off-grid tone": lambda h, w: np.cos(0.7 * np.arange(w) + 0.3 * np.arange(h)[:, None]),
    "noise": lambda h, w: np.random.default_rng(h * w).normal(size=(h, w)),
    "full range": lambda h, w: np.random.default_rng(h * w + 1).uniform(-65504, 65504, (h, w)),
    "bright noise": lambda h, w: np.random.default_rng(h + w).normal(1000, 30, (h, w)),
}


@pytest.mark.parametrize(("lowering", "opset"), FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_forward_is_the_one_sided_transform(lowering: str, opset: int, size: tuple[int, int]) -> None:
    x = np.stack([make(*size) for make in IMAGES.values()])[None].astype(np.float32)
    expected = np.fft.rfft2(x.astype(np.float64))
    error = np.abs(forward(lowering, opset, x) - expected)
    scale = np.sqrt(x.shape[2] * x.shape[3]) * np.linalg.norm(
        x.astype(np.float64), axis=(2, 3), keepdims=True
    )
    # A strong bin may err by what a sum in float32 loses; what leaks into others must stay far under the
    # floor.
    worst = (error / np.maximum(2.5e-7 * scale + 1.5e-6 * np.abs(expected), 1e-30)).max((2, 3))
    assert (worst <= 1).all(), dict(zip(IMAGES, worst[0], strict=True))


@pytest.mark.parametrize(("lowering", "opset"), FORMS)
@pytest.mark.parametrize("size", SIZES)
def test_inverse_of_any_spectrum_is_columns_first(lowering: str, opset: int, size: tuple[int, int]) -> None:
    height, width = size
    random = np.random.default_rng(0)
    shape = (1, 3, height, width // 2 + 1)
    amplitude, phase = (
        a.astype(np.float32) for a in (random.normal(size=shape), random.uniform(-9, 9, shape))
    )
    graph = GraphBuilder(opset)
    fourier = LOWERINGS[lowering](height, width)  # type: ignore[index]
    feeds = {name: ordered(a, fourier) for name, a in (("a", amplitude), ("p", phase))}
    value = maps_from(graph, "a", "p", fourier)
    (result,) = run(graph, [value], [[1, 3, height, width]], feeds)
    exact = spectrum.synthesise(
        torch.from_numpy(amplitude).double(), torch.from_numpy(phase).double(), width
    ).numpy()
    assert np.linalg.norm(result - exact) <= 1e-6 * np.linalg.norm(exact)


@pytest.mark.parametrize(("lowering", "opset"), FORMS)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("kind", ["zeros", "constant", "negative", "impulse", "nyquist", "on-grid tone"])
def test_amplitude_and_phase_follow_the_definition(
    lowering: str, opset: int, size: tuple[int, int], kind: str
) -> None:
    """Images whose spectra have exact zeros, real bins and mirror symmetries: where a plain angle is
    undecided."""
    x = IMAGES[kind](*size)[None, None].astype(np.float32)
    amplitude, phase = analysed(lowering, opset, x)
    exact_amplitude, exact_phase = (t.numpy() for t in spectrum.analyse(torch.from_numpy(x).double()))
    scale = max(float(exact_amplitude.max()), 1e-30)
    assert np.abs(amplitude - exact_amplitude).max() <= 1e-6 * scale
    clear = exact_amplitude > 1e-4 * scale
    assert np.abs(phase - exact_phase)[clear].max(initial=0) <= 1e-3
    assert (phase[amplitude == 0] == 0).all()


@pytest.mark.parametrize(("lowering", "opset"), FORMS)
@pytest.mark.parametrize("size", [(8, 8), (7, 9), (60, 100)])
def test_denormal_maps_have_no_spectrum(lowering: str, opset: int, size: tuple[int, int]) -> None:
    """Whether a runtime flushes denormal numbers or not: all is under the floor, in the definition, too."""
    x = (np.random.default_rng(3).normal(size=(1, 2, *size)) * 1e-40).astype(np.float32)
    assert 0 < np.abs(x).max() < np.finfo(np.float32).tiny
    for found in (*analysed(lowering, opset, x), *(t.numpy() for t in spectrum.analyse(torch.from_numpy(x)))):
        assert (found == 0).all()


@pytest.mark.parametrize(("lowering", "opset"), FORMS)
def test_phase_is_right_in_all_quadrants(lowering: str, opset: int) -> None:
    x = np.random.default_rng(5).normal(size=(1, 4, 32, 32)).astype(np.float32)
    amplitude, phase = analysed(lowering, opset, x)
    z = np.fft.rfft2(x.astype(np.float64))
    angle = np.angle(z)
    assert all((angle // (np.pi / 2) == quadrant).any() for quadrant in (-2, -1, 0, 1))
    expected = spectrum.analyse(torch.from_numpy(x).double())[1].numpy()
    assert np.abs(phase - expected).max() < 1e-3
    assert (np.abs(np.exp(1j * phase) - np.exp(1j * angle)) < 1e-4).mean() > 0.95
    assert np.abs(amplitude / np.abs(z) - 1).max() < 1e-4


@settings(deadline=None, max_examples=25)
@given(
    st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1), st.floats(1e-6, 1e4), st.floats(-3, 3)
)
def test_matmul_agrees_with_the_definition_on_any_size(
    h: int, w: int, seed: int, gain: float, mean: float
) -> None:
    x = (gain * np.random.default_rng(seed).normal(mean, 1, (1, 1, h, w))).astype(np.float32)
    amplitude, phase = analysed("matmul", 17, x)
    exact_amplitude, exact_phase = (t.numpy() for t in spectrum.analyse(torch.from_numpy(x).double()))
    error = np.abs(amplitude * np.exp(1j * phase) - exact_amplitude * np.exp(1j * exact_phase)).max()
    # Near the cut the phase is 30 times as steep as the angle.
    assert error <= 3e-5 * np.sqrt(h * w) * np.linalg.norm(x)


def test_real_bins_come_out_exactly_real() -> None:
    x = np.random.default_rng(1).normal(size=(1, 2, 12, 10)).astype(np.float32)
    z = forward("matmul", 17, x)
    assert (z.imag[..., spectrum.self_conjugate(12, 10).numpy()] == 0).all()


@pytest.mark.parametrize(("lowering", "opset"), FORMS)
def test_forward_turns_by_an_angle(lowering: str, opset: int) -> None:
    x = np.random.default_rng(2).normal(size=(1, 2, 12, 16)).astype(np.float32)
    np.testing.assert_allclose(
        forward(lowering, opset, x, 0.7), np.fft.rfft2(x.astype(np.float64)) * np.exp(-0.7j), atol=1e-4
    )


@pytest.mark.parametrize("size", [1, 2, 5, 8, 12])
def test_dense_matrices_are_the_transforms(size: int) -> None:
    x = np.random.default_rng(size).normal(size=(size, size))
    real, imag = (x @ matrix for matrix in row_matrices(size))
    np.testing.assert_allclose(real + 1j * imag, np.fft.rfft(x), atol=1e-12)
    both = column_matrix(size) @ np.concatenate((real, imag))
    np.testing.assert_allclose(both[:size] + 1j * both[size:], np.fft.rfft2(x), atol=1e-11)
    back = (column_matrix(size).T / size @ both).reshape(2, size, -1)
    np.testing.assert_allclose(
        sum(part @ matrix for part, matrix in zip(back, inverse_row_matrices(size), strict=True)),
        x,
        atol=1e-12,
    )


@pytest.mark.parametrize("size", [1, 2, 4, 7, 12, 15, 16, 60])
def test_two_factors_are_one_transform(size: int) -> None:
    first, second = factors(size)
    assert first * second == size
    z = np.random.default_rng(size).normal(size=(2, size))
    groups = first_matrix(first) @ z.reshape(2 * first, second)
    groups = second_matrices(first, second) @ groups.reshape(first, 2 * second, 1)
    real, imag = groups.reshape(first, 2, second).swapaxes(0, 1).reshape(2, size)
    frequency = (np.arange(first)[:, None] + first * np.arange(second)).ravel()
    np.testing.assert_allclose(real + 1j * imag, np.fft.fft(z[0] + 1j * z[1])[frequency], atol=1e-11)


@pytest.mark.parametrize(
    ("size", "pair"), [(1, (1, 1)), (2, (1, 2)), (7, (1, 7)), (12, (3, 4)), (128, (8, 16)), (256, (16, 16))]
)
def test_factors_have_the_smallest_sum(size: int, pair: tuple[int, int]) -> None:
    assert factors(size) == pair

"""The kernels' own source on this machine's CPU, against the node's reference in float64."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sfiin.export import spectral_fusion
from sfiin.export.plugin import host
from sfiin.runtime.errors import MismatchError, SfiinError, UnavailableError

pytestmark = pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed")

SMALL, LARGE = 0, 227 << 10
"""Limits of shared memory under which no column, and every column that is tried here, is computed as a
whole."""


def weights(channels: int, seed: int = 0) -> list[np.ndarray]:
    random, arrays = np.random.default_rng(seed), []
    for inputs in (1, 1, 2, 1, 2, 1, 1):
        arrays.append(random.normal(size=(channels, inputs * channels)) / np.sqrt(inputs * channels))
        arrays.append(random.normal(size=channels) * 0.1)
    return arrays


def error(m: np.ndarray, p: np.ndarray, dtype: type, limit: int, threads: int = 1, seed: int = 0) -> float:
    """Relative L2 distance from the reference, which gets what is left of the inputs in that type."""
    inputs: list[np.ndarray] = [array.astype(dtype) for array in (m, p, *weights(m.shape[1], seed))]
    found = host.spectral_fusion(*inputs, limit=limit, threads=threads).astype(np.float64)
    expected = spectral_fusion.spectral_fusion(*(array.astype(np.float64) for array in inputs))
    return float(np.linalg.norm(found - expected) / max(float(np.linalg.norm(expected)), 1e-12))


SHAPES = [
    (1, 4, 64, 64),
    (3, 4, 64, 80),
    (2, 8, 90, 96),
    (1, 8, 128, 128),
    (1, 8, 100, 150),
    (1, 12, 72, 120),
    (1, 16, 160, 64),
    (1, 32, 64, 96),
    (2, 28, 64, 64),
    (1, 4, 512, 64),
    (1, 4, 64, 512),
    (1, 8, 256, 256),
    (1, 4, 486, 500),
]


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))
@pytest.mark.parametrize("limit", [SMALL, LARGE])
def test_noise_of_every_size(shape: tuple[int, ...], limit: int) -> None:
    m, p = np.random.default_rng(1).normal(size=(2, *shape))
    assert error(m, p, np.float32, limit) <= 1e-5
    assert error(m, p, np.float16, limit) <= 2e-3


def test_the_largest_tile_and_the_most_channels() -> None:
    m, p = np.random.default_rng(1).normal(size=(2, 1, 32, 160, 512))
    assert error(m, p, np.float32, LARGE, threads=2) <= 1e-5


rows, cols = np.mgrid[:96, :120]
IMAGES = {
    "zeros": np.zeros((96, 120)),
    "constant": np.full((96, 120), 700.0),
    "negative": np.full((96, 120), -0.3),
    "impulse": np.pad(np.ones((1, 1)), ((40, 55), (0, 119))),
    "checkerboard": (rows + cols) % 2 * 2.0 - 1,
    "on-grid tone": np.cos(2 * np.pi * (rows / 96 * 5 + cols / 120 * 3)),
    "off-grid tone": np.cos(0.7 * cols + 0.3 * rows),
    "bright": np.random.default_rng(3).normal(1000, 30, (96, 120)),
    "tiny": np.random.default_rng(4).normal(0, 1e-20, (96, 120)),
    "full range": np.random.default_rng(5).uniform(-60000, 60000, (96, 120)),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("limit", [SMALL, LARGE])
def test_images_with_edges_of_the_phase_rule(name: str, limit: int) -> None:
    """All channels alike, beside PAN features of noise: exact zeros, real bins, energy in one bin, large
    numbers."""
    m = np.broadcast_to(IMAGES[name], (1, 4, 96, 120))
    p = np.random.default_rng(2).normal(size=m.shape)
    assert error(m, p, np.float32, limit) <= 1e-5


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    channels=st.sampled_from([4, 8, 12]),
    height=st.sampled_from([64, 72, 90, 100]),
    width=st.sampled_from([64, 80, 108, 128]),
    limit=st.sampled_from([SMALL, 40 << 10, LARGE]),
    threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
def test_any_block_any_way(
    channels: int, height: int, width: int, limit: int, threads: int, seed: int
) -> None:
    """Near the cut the phase is steep and multiplies a bin's rounding by 31, so that a network of random
    weights may be badly conditioned; how badly, float32 in NumPy shows (of ten seeds two were off by 4e-6,
    the others by 1e-6).
    """
    m, p = np.random.default_rng(seed).normal(size=(2, 1, channels, height, width)) * 10.0 ** (seed % 5 - 2)
    single = [array.astype(np.float32) for array in (m, p, *weights(channels, seed))]
    exact = spectral_fusion.spectral_fusion(*(array.astype(np.float64) for array in single))
    lost = spectral_fusion.spectral_fusion(*single) - exact
    rounding = float(np.linalg.norm(lost) / np.linalg.norm(exact))
    assert error(m, p, np.float32, limit, threads, seed) <= max(1e-5, 10 * rounding)


KIB = 1 << 10


@pytest.mark.parametrize(
    ("gpu", "channels", "side", "block", "every", "width", "together"),
    [
        ("Orin, sm_87", 8, 128, 163, 164, 2, 2),  # of 4 columns, 134 KiB, one block alone would run
        ("Orin, sm_87", 8, 256, 163, 164, 2, 1),  # two of one column would, but read 8 bytes at a time
        ("RTX 4090, sm_89", 8, 128, 99, 100, 2, 1),
        ("RTX 4090, sm_89", 4, 128, 99, 100, 2, 2),
        ("RTX 4090, sm_89", 8, 512, 99, 100, 0, 0),
        ("H100, sm_90", 8, 128, 227, 228, 2, 3),
        ("H100, sm_90", 4, 64, 227, 228, 4, 6),
        ("a GPU that tells nothing", 8, 128, 48, 48, 1, 1),
    ],
)
def test_two_blocks_run_together_where_columns_are_few_enough(
    gpu: str, channels: int, side: int, block: int, every: int, width: int, together: int
) -> None:
    assert host.columns(channels, side, block * KIB, every * KIB) == (width, together), gpu


def test_both_ways_give_the_same_to_the_bit() -> None:
    m, p = np.random.default_rng(6).normal(size=(2, 2, 8, 80, 96)).astype(np.float32)
    inputs = [m, p, *(array.astype(np.float32) for array in weights(8))]
    first, *others = (
        host.spectral_fusion(*inputs, limit=limit) for limit in (SMALL, 30 << 10, 60 << 10, LARGE)
    )
    for other in others:
        np.testing.assert_array_equal(first, other)


@pytest.mark.parametrize(
    ("shape", "why"),
    [
        ((1, 6, 64, 64), "channels must be 4 to 32, in steps of 4"),
        ((1, 36, 64, 64), "channels"),
        ((0, 8, 64, 64), "the batch"),
        ((1, 8, 60, 64), "sides must be 64 to 512"),
        ((1, 8, 64, 520), "sides must be 64 to 512"),
        ((1, 8, 64, 75), "must be even"),
        ((1, 8, 98, 64), "products of 2, 3 and 5"),
    ],
)
def test_sizes_that_are_not_computed_are_refused(shape: tuple[int, ...], why: str) -> None:
    assert why in host.unsupported(shape)
    arrays = [np.zeros(shape, np.float32)] * 2
    with pytest.raises(MismatchError, match=why):
        host.spectral_fusion(*arrays, *weights(8))


def test_types_that_are_not_computed_are_refused() -> None:
    m = np.zeros((1, 8, 64, 64))
    with pytest.raises(MismatchError, match="all float32 or all float16"):
        host.spectral_fusion(m, m, *weights(8))
    m = m.astype(np.float32)
    with pytest.raises(MismatchError, match="14 weights"):
        host.spectral_fusion(m, m, *weights(8)[:-1])


@pytest.mark.parametrize(
    ("flags", "threads"),
    [(("-fsanitize=address,undefined", "-fno-sanitize-recover=all"), 1), (("-fsanitize=thread",), 3)],
)
def test_sanitizers_find_nothing(tmp_path: Path, flags: tuple[str, ...], threads: int) -> None:
    """What lies beyond a buffer, what C++ leaves undefined, and what threads of a block do to each other."""
    program = tmp_path / "check"
    try:
        host.compiled(program, "-g", *flags, sources=("host.cpp", "check.cpp"))
    except SfiinError as failure:
        if "cannot find" in str(failure):
            pytest.skip(f"no runtime for {flags[0]}")
        raise
    done = subprocess.run([program, str(threads)], capture_output=True, text=True, check=False)
    if "unexpected memory mapping" in done.stderr:
        pytest.skip("this kernel's address space is laid out in a way that the sanitizer does not know")
    assert (done.returncode, done.stdout.strip()) == (0, "20"), done.stderr[:2000]


def test_without_a_compiler_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda _name: None)
    with pytest.raises(UnavailableError, match=r"g\+\+ is not installed"):
        host.compiled(tmp_path / "x.so")

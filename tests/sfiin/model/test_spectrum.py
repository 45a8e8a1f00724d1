"""The spectrum against its definition in NumPy float64, its rules one by one, and its gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfiin.model import spectrum

SIZES = [(8, 8), (7, 8), (8, 7), (9, 15), (1, 6), (6, 1), (32, 20)]


def maps(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(1.0, 0.5, (2, 3, height, width))


def phase_of(angle: np.ndarray) -> np.ndarray:
    """The definition, said differently: the angle from the cut, on a triangle wave."""
    from_cut = np.mod(angle - spectrum.CUT + math.pi, 2 * math.pi)
    points = [0, spectrum.FADE, 2 * math.pi - spectrum.FADE, 2 * math.pi]
    half = math.pi - spectrum.FADE
    return spectrum.CUT + np.interp(from_cut, points, [0, -half, half, 0])


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_analyse_is_modulus_and_phase_of_the_one_sided_transform(height: int, width: int) -> None:
    x = maps(height, width)
    amplitude, phase = (t.numpy() for t in spectrum.analyse(torch.from_numpy(x)))
    expected = np.fft.rfft2(x)
    real = spectrum.self_conjugate(height, width).numpy()
    angle = np.where(real, np.where(expected.real < 0, np.pi, 0), np.angle(expected))
    np.testing.assert_allclose(amplitude, np.abs(expected), rtol=1e-10, atol=1e-9)
    np.testing.assert_allclose(phase, phase_of(angle), rtol=0, atol=1e-9)


def test_phase_is_the_angle_but_near_the_cut_and_continuous_everywhere() -> None:
    angle = np.linspace(-math.pi, math.pi, 200_001)
    phase = spectrum.continuous_phase(torch.from_numpy(angle)).numpy()
    same = np.abs(np.exp(1j * phase) - np.exp(1j * angle)) < 1e-9
    assert 1 - same.mean() == pytest.approx(spectrum.FADE / math.pi, rel=1e-3)
    assert phase[0] == pytest.approx(math.pi)
    assert phase[-1] == pytest.approx(math.pi)
    steepest = (math.pi - spectrum.FADE) / spectrum.FADE
    assert np.abs(np.diff(phase)).max() <= 1.001 * steepest * (angle[1] - angle[0])


def test_amplitudes_fade_in_above_the_floor() -> None:
    """A bin of known relative amplitude beside a large DC: gone at the floor, whole at twice the floor."""
    n = np.arange(64)
    for relative, share in ((0.5, 0.0), (1.5, 0.5), (3.0, 1.0)):
        wave = 2 * relative * spectrum.FLOOR * np.cos(2 * np.pi * 5 * n / 64)
        amplitude, phase = spectrum.analyse(torch.from_numpy(1 + np.broadcast_to(wave, (64, 64)).copy()))
        assert amplitude[0, 5].item() == pytest.approx(
            share * relative * spectrum.FLOOR * 4096, rel=1e-4, abs=1e-12
        )
        assert phase[0, 5].item() == pytest.approx(0, abs=1e-4)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_synthesise_inverts_the_plain_transform(height: int, width: int) -> None:
    x = maps(height, width)
    z = np.fft.rfft2(x)
    result = spectrum.synthesise(torch.from_numpy(np.abs(z)), torch.from_numpy(np.angle(z)), width).numpy()
    np.testing.assert_allclose(result, x, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_synthesise_of_a_spectrum_that_is_not_hermitian_is_columns_first(height: int, width: int) -> None:
    random = np.random.default_rng(1)
    shape = (2, height, width // 2 + 1)
    amplitude, phase = random.normal(size=shape), random.uniform(-7, 7, shape)
    columns = np.fft.ifft(amplitude * np.exp(1j * phase), axis=-2)
    n = np.arange(width)
    expected = np.zeros((2, height, width))
    for k in range(width // 2 + 1):
        both_sides = 1 if (2 * k) % width == 0 else 2
        turn = np.exp(2j * np.pi * k * n / width)
        imag = 0 if both_sides == 1 else columns[..., k].imag
        expected += both_sides / width * ((columns[..., k].real + 1j * imag)[..., None] * turn).real
    result = spectrum.synthesise(torch.from_numpy(amplitude), torch.from_numpy(phase), width).numpy()
    np.testing.assert_allclose(result, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_self_conjugate_bins_have_phase_zero_or_pi(height: int, width: int) -> None:
    _, phase = spectrum.analyse(torch.from_numpy(maps(height, width) - 1.2).float())
    at = phase[..., spectrum.self_conjugate(height, width)]
    assert ((at == 0) | (at.sub(math.pi).abs() < 1e-6)).all()


def test_self_conjugate_bins_are_where_index_and_mirror_coincide() -> None:
    for height, width in SIZES:
        mask = spectrum.self_conjugate(height, width)
        for u in range(height):
            for v in range(width // 2 + 1):
                assert mask[u, v] == ((-u) % height == u and (-v) % width == v)


@pytest.mark.parametrize("value", [0.0, -0.0, 1.0, -3.5, 1e-30, 2000.0])
def test_a_constant_map_has_only_dc(value: float) -> None:
    amplitude, phase = spectrum.analyse(torch.full((1, 1, 60, 100), value))
    assert amplitude.count_nonzero() <= 1
    assert amplitude[0, 0, 0, 0].item() == pytest.approx(abs(value) * 6000, rel=1e-5)
    assert phase[0, 0, 0, 0].item() == pytest.approx(math.pi if value < 0 else 0, abs=1e-6)
    assert phase.count_nonzero() == (value < 0)


def test_noise_on_the_negative_real_axis_does_not_choose_the_sign_of_pi() -> None:
    """A mirror-symmetric map's spectrum is real; its phase must not depend on how the zero was rounded."""
    x = np.random.default_rng(2).normal(size=(16, 16))
    symmetric = x + np.roll(x[::-1, ::-1], (1, 1), (0, 1))
    _, exact = spectrum.analyse(torch.from_numpy(symmetric))
    _, single = spectrum.analyse(torch.from_numpy(symmetric).float())
    _, noisy = spectrum.analyse(
        torch.from_numpy(symmetric + 1e-9 * np.random.default_rng(3).normal(size=x.shape))
    )
    assert (exact.abs().sub(math.pi).abs() < 1e-6).sum() > 30
    torch.testing.assert_close(single.double(), exact, rtol=0, atol=1e-4)
    torch.testing.assert_close(noisy, exact, rtol=0, atol=1e-5)


def test_the_plain_angle_does_depend_on_it() -> None:
    """Why the rule is there: without it the same symmetric map flips by 2 pi."""
    x = np.random.default_rng(2).normal(size=(16, 16))
    symmetric = x + np.roll(x[::-1, ::-1], (1, 1), (0, 1))
    noisy = symmetric + 1e-9 * np.random.default_rng(3).normal(size=x.shape)
    assert np.abs(np.angle(np.fft.rfft2(symmetric)) - np.angle(np.fft.rfft2(noisy))).max() > 6


@pytest.mark.parametrize("kind", ["zeros", "constant", "stripes", "impulse", "noise"])
def test_gradients_are_finite_everywhere(kind: str) -> None:
    x = {
        "zeros": torch.zeros(1, 2, 8, 8),
        "constant": torch.full((1, 2, 8, 8), 3.0),
        "stripes": (torch.arange(8) % 2).float().expand(1, 2, 8, 8).clone(),
        "impulse": torch.nn.functional.pad(torch.ones(1, 2, 1, 1), (3, 4, 3, 4)),
        "noise": torch.from_numpy(maps(8, 8)).float(),
    }[kind].requires_grad_()
    amplitude, phase = spectrum.analyse(x)
    (spectrum.synthesise(amplitude, 1.1 * phase, 8).abs().sum() + amplitude.sum() + phase.sum()).backward()
    assert x.grad is not None
    assert x.grad.isfinite().all()


def test_gradients_are_right() -> None:
    x = torch.from_numpy(maps(5, 6)[:1, :1]).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: spectrum.synthesise(*spectrum.analyse(t), 6), (x,))
    assert torch.autograd.gradcheck(lambda t: torch.stack([part.sum() for part in spectrum.analyse(t)]), (x,))


@settings(deadline=None, max_examples=50)
@given(st.integers(1, 12), st.integers(1, 12), st.integers(0, 2**32 - 1), st.floats(1e-3, 1e4))
def test_phase_does_not_depend_on_brightness_and_amplitude_scales(
    h: int, w: int, seed: int, gain: float
) -> None:
    x = torch.from_numpy(maps(h, w, seed))
    amplitude, phase = spectrum.analyse(x)
    brighter, same = spectrum.analyse(gain * x)
    torch.testing.assert_close(brighter, gain * amplitude, rtol=1e-9, atol=1e-9 * gain)
    torch.testing.assert_close(same, phase, rtol=0, atol=1e-5)
    assert (phase.sub(spectrum.CUT).abs() < math.pi).all()

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sfiin.runtime.quality import metrics
from sfiin.runtime.quality.degradation import block_mean
from sfiin.runtime.quality.metrics import Quality, reference_quality


def vector(bands: int = 4) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    y, x, c = np.mgrid[0:128, 0:128, 0:bands]
    truth = np.floor(
        120 + 50 * np.sin(2 * np.pi * x * (c + 1) / 64) * np.cos(2 * np.pi * y / 32) + 12 * c + 0.5
    )
    fused = np.clip(truth + (7 * x + 13 * y + 29 * c) % 11 - 5, 0, 255)
    truth, fused = np.moveaxis(truth, 2, 0), np.moveaxis(fused, 2, 0)
    return fused, truth, np.floor(truth.mean(0) + 0.5), np.floor(block_mean(truth, 4) + 0.5)


FUSED, TRUTH, PAN, MS = vector()
REFERENCED = [
    ("psnr", (255,), 38.13065119),
    ("ssim", (255,), 0.96070240),
    ("sam", (), 1.21246088),
    ("ergas", (4,), 0.58116456),
    ("correlation", (), 0.99211664),
    ("scc", (), 0.99706197),
    ("q2n", (), 0.99208555),
]
UNREFERENCED = [("d_lambda", ()), ("d_s", (PAN,)), ("qnr", (PAN,)), ("d_lambda_k", ()), ("hqnr", (PAN,))]
IDS = [case[0] for case in REFERENCED]
SPECTRA = arrays(np.float64, (3, 12, 12), elements=st.integers(1, 2047).map(float))
fast = settings(max_examples=25, deadline=None)


def test_check_vector_images() -> None:
    assert [image.sum() for image in (TRUTH, FUSED, PAN, MS)] == [9043968, 9043969, 2262704, 565504]


@pytest.mark.parametrize(("name", "arguments", "expected"), REFERENCED, ids=IDS)
def test_check_vector(name: str, arguments: tuple[Any, ...], expected: float) -> None:
    assert getattr(metrics, name)(FUSED, TRUTH, *arguments) == pytest.approx(expected, abs=1e-6)


def test_check_vector_of_eight_bands() -> None:
    assert metrics.q2n(*vector(8)[:2]) == pytest.approx(0.99209318, abs=1e-6)


def test_check_vector_without_reference() -> None:
    assert metrics.d_lambda(FUSED, MS) == pytest.approx(0.00531596, abs=1e-6)


@pytest.mark.parametrize(("name", "arguments", "expected"), REFERENCED, ids=IDS)
def test_type_does_not_matter(name: str, arguments: tuple[Any, ...], expected: float) -> None:
    images = FUSED.astype(np.uint16), TRUTH.astype(np.uint16)
    assert getattr(metrics, name)(*images, *arguments) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("name", "arguments", "expected"), REFERENCED, ids=IDS)
def test_whatever_is_not_valid_does_not_matter(
    name: str, arguments: tuple[Any, ...], expected: float
) -> None:
    valid = np.ones((128, 128), bool)
    valid[:, 60:] = False
    spoilt = np.where(valid, FUSED, np.nan)
    cut = FUSED.copy()
    cut[:, :, 60:] = 1e4
    value = getattr(metrics, name)(spoilt, TRUTH, *arguments, valid=valid)
    assert np.isfinite(value)
    assert value == getattr(metrics, name)(cut, TRUTH, *arguments, valid=valid)


@pytest.mark.parametrize("name", ["psnr", "sam", "ergas", "correlation", "ssim", "q2n", "bias"])
def test_a_mask_equals_a_crop(name: str) -> None:
    valid = np.zeros((128, 128), bool)
    valid[:64, :64] = True
    arguments = {"psnr": (255,), "ssim": (255,), "ergas": (4,)}.get(name, ())
    measure = getattr(metrics, name)
    cropped = measure(FUSED[:, :64, :64], TRUTH[:, :64, :64], *arguments)
    assert measure(FUSED, TRUTH, *arguments, valid=valid) == pytest.approx(cropped, abs=1e-12)


@pytest.mark.parametrize(("name", "arguments"), UNREFERENCED)
def test_unreferenced_ignore_what_is_not_valid(name: str, arguments: tuple[Any, ...]) -> None:
    valid = np.ones((128, 128), bool)
    valid[70:, 70:] = False
    measure = getattr(metrics, name)
    values = [
        measure(np.where(valid, FUSED, filler), MS, *arguments, valid=valid) for filler in (np.nan, 0, 1e5)
    ]
    assert values[0] == values[1] == values[2]
    assert 0 <= values[0] <= 1


@fast
@given(SPECTRA)
def test_identity(image: np.ndarray) -> None:
    assert metrics.psnr(image, image, 2047) == float("inf")
    assert metrics.ssim(image, image, 2047) == pytest.approx(1)
    assert metrics.sam(image, image) == pytest.approx(0, abs=1e-9)
    assert metrics.ergas(image, image, 4) == 0
    assert metrics.scc(image, image) == pytest.approx(1)
    assert metrics.q2n(image, image, block=4) == pytest.approx(1)
    assert metrics.bias(image, image) == (0, 0, 0)


@fast
@given(SPECTRA, SPECTRA)
def test_bounds_and_symmetry(a: np.ndarray, b: np.ndarray) -> None:
    for value in (metrics.ssim(a, b, 2047), metrics.q2n(a, b, block=4), metrics.scc(a, b)):
        assert -1 - 1e-9 <= value <= 1 + 1e-9
    assert 0 <= metrics.sam(a, b) <= 90
    for measure in (metrics.sam, metrics.scc):
        assert measure(a, b) == pytest.approx(measure(b, a))


@fast
@given(SPECTRA, SPECTRA, st.floats(0.1, 10))
def test_sam_ignores_brightness(a: np.ndarray, b: np.ndarray, gain: float) -> None:
    assert metrics.sam(gain * a, b) == pytest.approx(metrics.sam(a, b), abs=1e-9)


@fast
@given(SPECTRA, SPECTRA, st.permutations(range(3)), st.sampled_from([0.5, 2.0, 4.0]))
def test_common_gain_and_order_of_bands(a: np.ndarray, b: np.ndarray, order: list[int], gain: float) -> None:
    for measure in (
        lambda p, q: metrics.ergas(p, q, 4),
        lambda p, q: metrics.q2n(p, q, block=4),
        metrics.scc,
    ):
        assert measure(gain * a, gain * b) == pytest.approx(measure(a, b))
    assert metrics.ergas(a[order], b[order], 4) == pytest.approx(metrics.ergas(a, b, 4))


@pytest.mark.parametrize("bands", [1, 2, 3, 5, 8, 11])
def test_q2n_takes_any_number_of_bands(bands: int) -> None:
    random = np.random.default_rng(bands)
    image = random.uniform(1, 2, (bands, 32, 32))
    assert metrics.q2n(image, image) == pytest.approx(1)
    assert metrics.q2n(image + random.normal(0, 0.1, image.shape), image) < 0.999


def test_q2n_of_one_band_is_the_universal_index() -> None:
    a, b = FUSED[:1, :32, :32], TRUTH[:1, :32, :32]
    (x, y), covariance = (a.ravel(), b.ravel()), np.cov(a.ravel(), b.ravel(), bias=True)
    expected = (
        4 * covariance[0, 1] * x.mean() * y.mean() / (np.trace(covariance) * (x.mean() ** 2 + y.mean() ** 2))
    )
    assert metrics.q2n(a, b) == pytest.approx(expected)


def test_quaternions_multiply_as_hamilton_has_it() -> None:
    basis = np.eye(4)[:, :, None]
    one, i, j, k = (basis[:, n] for n in range(4))
    for a, b, product in [(i, j, k), (j, k, i), (k, i, j), (j, i, -k), (i, i, -one), (one, k, k)]:
        np.testing.assert_array_equal(metrics._multiply(a, b), product)


@pytest.mark.parametrize("bands", [2, 4, 8])
def test_hypercomplex_norms_multiply(bands: int) -> None:
    a, b = np.random.default_rng(0).normal(size=(2, bands, 5))
    norms = [np.linalg.norm(number, axis=0) for number in (a, b, metrics._multiply(a, b))]
    np.testing.assert_allclose(norms[2], norms[0] * norms[1])


def test_constant_blocks_are_judged_by_their_means() -> None:
    one, two = np.full((4, 32, 32), 0.1), np.full((4, 32, 32), 0.3)
    assert metrics.q2n(one, one) == 1
    assert metrics.q2n(two, one) == pytest.approx(2 * 0.03 / 0.1)
    assert metrics.q2n(0 * one, 0 * one) == 1


def test_sam_skips_pixels_without_a_spectrum() -> None:
    a, b = np.ones((2, 1, 2)), np.ones((2, 1, 2))
    a[:, 0, 0], b[0, 0, 1] = 0, 0
    assert metrics.sam(a, b) == pytest.approx(45)


def test_bias_is_fused_minus_truth() -> None:
    assert metrics.bias(TRUTH + np.array([1, -2, 0, 3])[:, None, None], TRUTH) == (1, -2, 0, 3)


def test_reference_quality_collects() -> None:
    quality = reference_quality(FUSED, TRUTH, 4, 255)
    assert quality == Quality(
        metrics.psnr(FUSED, TRUTH, 255),
        metrics.ssim(FUSED, TRUTH, 255),
        metrics.sam(FUSED, TRUTH),
        metrics.ergas(FUSED, TRUTH, 4),
        metrics.scc(FUSED, TRUTH),
        metrics.q2n(FUSED, TRUTH),
        metrics.bias(FUSED, TRUTH),
    )


def test_unreferenced_compose() -> None:
    replicated = MS.repeat(4, 1).repeat(4, 2)
    assert metrics.d_lambda(replicated, MS) == pytest.approx(0, abs=1e-12)
    assert metrics.qnr(TRUTH, MS, PAN) == (1 - metrics.d_lambda(TRUTH, MS)) * (
        1 - metrics.d_s(TRUTH, MS, PAN)
    )
    assert metrics.hqnr(TRUTH, MS, PAN) == (1 - metrics.d_lambda_k(TRUTH, MS)) * (
        1 - metrics.d_s(TRUTH, MS, PAN)
    )
    assert metrics.d_s(TRUTH, MS, PAN[None]) == metrics.d_s(TRUTH, MS, PAN)


def test_consistency_sees_a_changed_colour() -> None:
    assert metrics.d_lambda_k(TRUTH, MS) < 0.05
    assert metrics.d_lambda_k(TRUTH[::-1], MS) > 2 * metrics.d_lambda_k(TRUTH, MS)


@pytest.mark.parametrize(("name", "arguments"), [case[:2] for case in REFERENCED], ids=IDS)
@pytest.mark.parametrize(
    ("fused", "valid", "message"),
    [
        (FUSED[0], None, "one shape"),
        (FUSED[:3], None, "one shape"),
        (np.where(np.equal(FUSED, FUSED[0, 0, 0]), np.nan, FUSED), None, "not finite"),
        (FUSED, np.ones((4, 4), bool), "expected boolean"),
        (FUSED, np.ones((128, 128)), "expected boolean"),
        (FUSED, np.zeros((128, 128), bool), "no pixel is left"),
    ],
)
def test_unusable_input(
    name: str, arguments: tuple[Any, ...], fused: np.ndarray, valid: np.ndarray, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        getattr(metrics, name)(fused, TRUTH, *arguments, valid=valid)


FLAT = np.ones((4, 32, 32))
CHECKERED = np.indices((128, 128)).sum(0) % 2 == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: metrics.psnr(FUSED, TRUTH, 0), "peak: must be positive"),
        (lambda: metrics.ssim(FUSED, TRUTH, -1), "peak: must be positive"),
        (lambda: metrics.ssim(FLAT[:, :10], FLAT[:, :10], 255), "smaller than SSIM's 11x11"),
        (lambda: metrics.ssim(FUSED, TRUTH, 255, CHECKERED), "no 11x11 window"),
        (lambda: metrics.sam(FLAT, 0 * FLAT), "no pixel with a spectrum"),
        (lambda: metrics.ergas(FLAT, FLAT, 0), "ratio of 1 or more"),
        (lambda: metrics.ergas(FLAT, 0 * FLAT, 4), "non-zero mean"),
        (lambda: metrics.scc(FLAT[:, :2], FLAT[:, :2]), "no 3x3 neighbourhood"),
        (lambda: metrics.scc(FUSED, TRUTH, CHECKERED), "no 3x3 neighbourhood"),
        (lambda: metrics.scc(0 * FLAT, 0 * FLAT), "without any gradient"),
        (lambda: metrics.correlation(FLAT, FLAT), "constant band"),
        (lambda: metrics.q2n(FLAT, FLAT, block=33), "does not hold a block"),
        (lambda: metrics.q2n(FUSED, TRUTH, valid=CHECKERED), "no 32x32 block"),
        (lambda: metrics.d_lambda(FUSED[:1], MS[:1]), "pairs of bands"),
        (lambda: metrics.d_lambda(FUSED, MS, block=30), "no multiple of the ratio"),
        (lambda: metrics.d_lambda(FUSED, MS[:, 1:]), "no whole multiple of MS"),
        (lambda: metrics.d_lambda(FUSED, MS[0]), "no whole multiple of MS"),
        (lambda: metrics.d_s(FUSED, MS, PAN[1:]), "pan: expected"),
        (lambda: metrics.d_lambda_k(FUSED, MS, [0.3, 0.3]), "2 gains for 4 bands"),
    ],
)
def test_refusals(call: Callable[[], object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()

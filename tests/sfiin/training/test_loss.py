"""The loss against NumPy, and its gradients where spectra are zero."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfiin.runtime.quality.detail import fine
from sfiin.training.loss import faintness, frequency_loss, fusion_loss


def images(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    truth = random.random((2, 4, 16, 16)) * 0.3
    return torch.from_numpy(truth + random.normal(0, 0.01, truth.shape)), torch.from_numpy(truth)


def test_published_form_is_plain_l1_of_amplitude_and_angle() -> None:
    fused, truth = images()
    a, b = np.fft.rfft2(fused.numpy()), np.fft.rfft2(truth.numpy())
    real = np.zeros(a.shape, bool)
    real[..., [[0], [8]], [[0, 8]]] = True
    angle_a, angle_b = (np.where(real, np.where(z.real < 0, np.pi, 0), np.angle(z)) for z in (a, b))
    expected = np.abs(np.abs(a) - np.abs(b)).mean() + np.abs(angle_a - angle_b).mean()
    assert frequency_loss(fused, truth, published=True).item() == pytest.approx(expected, rel=1e-9)


def test_default_form_is_in_pixel_units() -> None:
    """Its arcs and radii are lengths in an orthonormal spectrum: about the pixel noise, whatever the
    patch."""
    for side in (16, 64):
        truth = torch.rand(1, 4, side, side, dtype=torch.float64) * 0.3
        fused = truth + 0.01 * torch.randn_like(truth)
        assert 0.005 < frequency_loss(fused, truth).item() < 0.03


def test_loss_is_spatial_plus_weighted_frequency() -> None:
    fused, truth = images()
    spatial = (fused - truth).abs().mean().item()
    assert fusion_loss(fused, truth, 0.0).item() == pytest.approx(spatial)
    assert fusion_loss(fused, truth, 0.1).item() == pytest.approx(
        spatial + 0.1 * frequency_loss(fused, truth).item()
    )


def test_phases_on_either_side_of_the_cut_are_near_each_other() -> None:
    x = torch.arange(16, dtype=torch.float64) * 2 * torch.pi / 16
    first, second = ((x + shift).cos().expand(1, 1, 16, 16) for shift in (torch.pi - 0.01, torch.pi + 0.01))
    assert frequency_loss(first, second).item() < frequency_loss(first, second, published=True).item() / 10


@pytest.mark.parametrize("published", [False, True])
def test_gradients_are_finite_on_black_and_constant_patches(published: bool) -> None:
    for value in (0.0, 0.5):
        fused = torch.full((1, 4, 16, 16), value, requires_grad=True)
        fusion_loss(fused, torch.zeros(1, 4, 16, 16), published=published).backward()
        assert fused.grad is not None
        assert fused.grad.isfinite().all()


def test_faintness_is_the_difference_of_fine_contrast_by_the_runtimes_measure() -> None:
    fused, truth = images()
    contrast = [np.sqrt((fine(image) ** 2).mean((1, 2))) for pair in (fused, truth) for image in pair.numpy()]
    expected = np.abs(np.stack(contrast[:2]) - np.stack(contrast[2:])).mean()
    assert faintness(fused, truth).item() == pytest.approx(expected, rel=1e-9)
    assert faintness(fused, truth, 2.0).item() == pytest.approx(expected / 2, rel=1e-9)


def test_faintness_does_not_mind_where_detail_lies_and_has_finite_gradients() -> None:
    _, truth = images()
    assert faintness(truth.flip(2, 3), truth).item() == pytest.approx(0, abs=1e-12)
    flat = torch.full((1, 4, 16, 16), 0.5, requires_grad=True)
    faintness(flat, truth[:1].float()).backward()
    assert flat.grad is not None
    assert flat.grad.isfinite().all()

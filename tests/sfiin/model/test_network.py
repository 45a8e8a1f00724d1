"""The network: its size against the published counts, its parts against closed forms, its gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfiin.model.network import SFIIN, InvertibleMix, NetworkConfig, contrast
from sfiin.model.resample import Upsample
from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.quality.bicubic import bicubic


def sensor(bands: int = 4, ratio: int = 4) -> SensorProfile:
    return SensorProfile("test", tuple(f"b{i}" for i in range(bands)), ratio, 11, 2047.0)


def network(**changes: int | str) -> SFIIN:
    config = NetworkConfig(**changes)  # type: ignore[arg-type]
    torch.manual_seed(0)
    return SFIIN(config, sensor(config.bands, config.ratio)).eval()


@pytest.mark.parametrize(
    ("bands", "channels", "count"),
    [(4, 4, 49117), (4, 8, 85270), (4, 16, 201496), (4, 32, 609628), (8, 8, 85850)],
)
def test_parameter_counts_of_the_invertible_variant(bands: int, channels: int, count: int) -> None:
    net = network(bands=bands, channels=channels, spatial="invertible")
    assert sum(p.numel() for p in net.parameters()) == count


@pytest.mark.parametrize("spatial", ["convolution", "invertible"])
@pytest.mark.parametrize(
    ("bands", "ratio", "h", "w"), [(4, 4, 8, 8), (8, 4, 5, 7), (3, 2, 9, 6), (1, 3, 4, 5)]
)
def test_shapes_types_and_finite_gradients(spatial: str, bands: int, ratio: int, h: int, w: int) -> None:
    net = network(bands=bands, ratio=ratio, spatial=spatial, blocks=2)
    for ms, pan in (
        (torch.rand(2, bands, h, w) * 2000, torch.rand(2, 1, h * ratio, w * ratio) * 2000),
        (torch.zeros(2, bands, h, w), torch.zeros(2, 1, h * ratio, w * ratio)),
        (torch.full((2, bands, h, w), 700.0), torch.full((2, 1, h * ratio, w * ratio), 700.0)),
    ):
        net.zero_grad()
        result = net(ms, pan)
        assert result.shape == (2, bands, h * ratio, w * ratio)
        result.abs().mean().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.refine.parameters())
        assert all(p.grad.isfinite().all() for p in net.parameters() if p.grad is not None)


def test_every_parameter_is_connected() -> None:
    for spatial in ("convolution", "invertible"):
        net = network(spatial=spatial, blocks=2)
        net(torch.rand(1, 4, 8, 8) * 2000, torch.rand(1, 1, 32, 32) * 2000).square().mean().backward()
        idle = [name for name, p in net.named_parameters() if p.grad is None]
        assert not idle


def test_tiles_of_a_batch_do_not_mix() -> None:
    net = network(blocks=2)
    ms, pan = torch.rand(3, 4, 8, 8) * 2000, torch.rand(3, 1, 32, 32) * 2000
    torch.testing.assert_close(net(ms, pan)[1:2], net(ms[1:2], pan[1:2]), rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_upsample_is_the_bicubic_of_the_baselines(ratio: int) -> None:
    ms = np.random.default_rng(0).random((3, 6, 9))
    result = Upsample(3, ratio).double()(torch.from_numpy(ms)[None])[0].numpy()
    np.testing.assert_allclose(result, bicubic(ms, ratio), rtol=0, atol=1e-6)


def test_bicubic_keeps_constants_and_ramps_and_centres() -> None:
    ramp = np.broadcast_to(np.arange(12.0), (1, 9, 12))
    fine = bicubic(ramp, 4)
    centres = (np.arange(48) + 0.5) / 4 - 0.5
    np.testing.assert_allclose(fine[0, :, 8:-8], np.broadcast_to(centres[8:-8], (36, 32)), atol=1e-12)
    np.testing.assert_allclose(bicubic(np.full((2, 3, 3), 7.0), 5), 7.0)


def test_invertible_mix_starts_as_a_rotation_and_is_invertible() -> None:
    matrix = InvertibleMix(16).matrix().detach()
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(16), rtol=0, atol=1e-5)


def test_contrast_is_the_population_standard_deviation() -> None:
    x = torch.rand(2, 3, 5, 7, dtype=torch.float64)
    torch.testing.assert_close(contrast(x), x.std((2, 3), correction=0, keepdim=True))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"channels": 6}, "multiple of 4"),
        ({"blocks": 0}, "at least 1"),
        ({"ratio": 1}, "ratio"),
        ({"spatial": "x"}, "spatial"),
    ],
)
def test_a_configuration_that_makes_no_sense_is_refused(changes: dict[str, int], text: str) -> None:
    with pytest.raises(ValueError, match=text):
        NetworkConfig(**changes)  # type: ignore[arg-type]


def test_a_network_and_a_sensor_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="8 bands"):
        SFIIN(NetworkConfig(bands=4), sensor(8))

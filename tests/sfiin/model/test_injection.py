"""Local contrast and proposals in the network: against the classical code, and what they make it indifferent
to."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sfiin.data.simulate import simulate
from sfiin.model.injection import SHARES, Injection, solve
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.quality import local
from sfiin.runtime.quality.bicubic import bicubic


def scene(bands: int = 4, ratio: int = 4, side: int = 96) -> tuple[torch.Tensor, torch.Tensor]:
    scene = simulate(side, side, 3, ratio=ratio)
    ms = scene.ms[np.arange(bands) % len(scene.ms)]
    return torch.from_numpy(ms[None] / 2047.0), torch.from_numpy(scene.pan[None, None] / 2047.0)


def network(**changes: Any) -> SFIIN:
    torch.manual_seed(0)
    fields: dict[str, Any] = {"blocks": 1, "normalise": "local", "inject": "mixed"}
    config = NetworkConfig(**fields | changes)
    bands = tuple(f"b{i}" for i in range(config.bands))
    return SFIIN(config, SensorProfile("test", bands, config.ratio, 11, 2047.0)).eval()


@pytest.mark.parametrize(("bands", "ratio", "side"), [(4, 4, 96), (8, 4, 64), (1, 3, 96), (3, 2, 64)])
def test_proposals_are_the_classical_ones(bands: int, ratio: int, side: int) -> None:
    ms, pan = scene(bands, ratio, side)
    seen = Injection(bands, ratio, "mixed", "local").double()(ms, pan)
    found = local.look(ms[0].numpy(), pan[0, 0].numpy(), ratio, 1.0)
    for name, proposal in zip(SHARES["mixed"], seen.proposals, strict=True):
        np.testing.assert_allclose(proposal[0].numpy(), local.DETAILS[name](found), atol=2e-7)
    assert seen.pan[0, 2].numpy() == pytest.approx(found.mix, abs=1e-5)
    np.testing.assert_allclose(seen.base[0].numpy(), bicubic(ms[0].numpy(), ratio), atol=2e-7)


def test_single_precision_is_enough() -> None:
    ms, pan = scene()
    part = Injection(4, 4, "mixed", "local")
    exact, single = part.double()(ms, pan), part.float()(ms.float(), pan.float())
    for first, second in zip(exact.proposals, single.proposals, strict=True):
        assert float((first - second).abs().max()) < 2e-6


def test_elimination_solves() -> None:
    random = np.random.default_rng(0)
    factor = random.normal(size=(2, 6, 6, 3, 5))
    matrix = np.einsum("nikhw,njkhw->nijhw", factor, factor)
    target = random.normal(size=(2, 6, 3, 5))
    found = solve(torch.from_numpy(matrix), torch.from_numpy(target), 0.5).numpy()
    whole = matrix + 0.5 * np.eye(6)[None, :, :, None, None]
    np.testing.assert_allclose(np.einsum("nijhw,njhw->nihw", whole, found), target, atol=1e-9)


@pytest.mark.parametrize(
    ("inject", "channels"), [("none", (4, 1)), ("regression", (8, 3)), ("mixed", (12, 3))]
)
def test_heads_have_as_many_channels_as_they_are_given(inject: str, channels: tuple[int, int]) -> None:
    part = Injection(4, 4, inject, "local")  # type: ignore[arg-type]
    seen = part(*(x.float() for x in scene()))
    assert (seen.ms.shape[1], seen.pan.shape[1]) == channels == part.channels


def test_bands_of_another_gain_and_offset_are_the_same_to_it() -> None:
    """Without modulation, which knows of an absolute zero; up to the floor of contrast."""
    net = network(inject="gsa").double()
    ms, pan = (2047 * x for x in scene())
    gain, offset = torch.tensor([2.0, 1.5, 1.2, 3.0]).double()[:, None, None], 100.0
    with torch.no_grad():
        plain, changed = net(ms, pan), net(gain * ms + offset, 1.5 * pan + 40)
    back = (changed - offset) / gain
    assert float((back - plain).abs().mean()) < 0.02 * float(plain.std())


def test_it_begins_near_its_proposals() -> None:
    ms, pan = (2047 * x for x in scene())
    net = network().double()
    seen = net.injection(ms / 2047, pan / 2047)
    start = seen.base
    for share, proposal in zip(SHARES["mixed"].values(), seen.proposals, strict=True):
        start = start + share * proposal
    with torch.no_grad():
        apart = (net(ms, pan) / 2047 - start).std()
    assert float(apart) < 0.3 * float((start - seen.base).std())


@pytest.mark.parametrize("fill", [0.0, 500.0])
def test_a_flat_scene_stays_finite_and_nearly_flat(fill: float) -> None:
    with torch.no_grad():
        fused = network()(torch.full((1, 4, 16, 16), fill), torch.full((1, 1, 64, 64), fill))
    assert float((fused - fill).abs().max()) < 5


def test_a_plain_network_has_no_such_part() -> None:
    plain = network(normalise="none", inject="none")
    assert not hasattr(plain, "injection")
    assert sum(p.numel() for p in plain.parameters()) == sum(
        p.numel() for p in SFIIN(NetworkConfig(blocks=1), plain.sensor).parameters()
    )


@pytest.mark.parametrize("field", ["normalise", "inject"])
def test_unknown_choices_are_refused(field: str) -> None:
    with pytest.raises(ValueError, match=f"{field} must be one of"):
        NetworkConfig(**{field: "something"})  # type: ignore[arg-type]


def test_gradients_reach_all_weights() -> None:
    net = network().train()
    ms, pan = (2047 * x.float() for x in scene())
    net(ms, pan).square().mean().backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in net.parameters())

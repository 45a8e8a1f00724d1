"""The last convolution by least squares: against a network whose weights are known."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from sfiin.data.pairs import Pair
from sfiin.data.simulate import simulate
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.contract import SensorProfile
from sfiin.training import last_layer
from sfiin.training.drawing import Group

SENSOR = SensorProfile("test", ("blue", "green", "red", "nir"), 4, 11, 2047.0)


def pair(seed: int = 3) -> Pair:
    scene = simulate(64, 64, seed)
    pan, ms, truth = (image.astype(np.float32) for image in (scene.pan[None], scene.ms, scene.truth))
    return Pair("p", pan, ms, truth, {"sensor": "simulated"})


def network(seed: int = 0, **options: Any) -> SFIIN:
    torch.manual_seed(seed)
    return SFIIN(NetworkConfig(blocks=1, **options), SENSOR).eval()


@torch.no_grad()
def fused(net: SFIIN, of: Pair) -> np.ndarray:
    return np.asarray(net(torch.from_numpy(of.ms[None]), torch.from_numpy(of.pan[None]))[0].numpy())


@pytest.mark.parametrize("options", [{}, {"normalise": "local", "inject": "mixed"}])
def test_it_finds_the_last_layer_that_made_the_truth(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_layer, "RIDGE", 1e-9)
    monkeypatch.setattr(last_layer, "STEP", 1)
    source, net = pair(), network(**options)
    known = copy.deepcopy(net)
    with torch.no_grad():
        known.refine.tail.weight += 0.05 * torch.randn_like(known.refine.tail.weight)
        assert known.refine.tail.bias is not None
        known.refine.tail.bias += 0.05
    made = dataclasses.replace(source, truth=fused(known, source))
    assert made.truth is not None
    before = np.abs(fused(net, made) - made.truth).mean()
    images = made.ms[None], made.pan[None], made.truth[None]
    monkeypatch.setattr(last_layer, "draw", lambda *_: images)  # else turned, which no network is blind to
    last_layer.fit(net, [Group("a", 1.0, [made])], patch=64, patches=1, seed=0)
    assert np.abs(fused(net, made) - made.truth).mean() < 0.02 * before


def test_all_but_the_last_layer_stays_and_a_ridge_holds_it() -> None:
    net = network(normalise="local", inject="mixed")
    before = copy.deepcopy(net.state_dict())
    last_layer.fit(net, [Group("a", 1.0, [pair()])], patch=32, patches=2, seed=0)
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"refine.tail.weight", "refine.tail.bias"}
    again = network(normalise="local", inject="mixed")
    last_layer.fit(again, [Group("a", 1.0, [pair()])], patch=32, patches=2, seed=0)
    torch.testing.assert_close(again.refine.tail.weight, net.refine.tail.weight, rtol=0, atol=0)


def test_the_moments_tell_the_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_layer, "STEP", 1)
    net, source = network(normalise="local", inject="mixed"), pair()
    assert source.truth is not None
    moments = last_layer._moments(net, source.ms[None], source.pan[None], source.truth[None])
    weights = last_layer._rows(net.refine.tail, 4)
    seen = net.injection(torch.from_numpy(source.ms[None]) / 2047, torch.from_numpy(source.pan[None]) / 2047)
    unit = np.sqrt(((source.truth / 2047 - seen.base[0].numpy()) ** 2).mean()) + 2e-3
    actual = (((fused(net, source) - source.truth) / 2047 / unit) ** 2).mean((1, 2))
    np.testing.assert_allclose(moments.error(weights), actual, rtol=1e-3)

"""Feature maps: what the hooks take is what the blocks compute, and nothing stays behind in the network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from sfiin.data.sensors import SENSORS
from sfiin.evaluation.features import activity, block_features, shown_blocks
from sfiin.model.network import SFIIN, CoreBlock, NetworkConfig


def network(**changes: Any) -> SFIIN:
    torch.manual_seed(0)
    return SFIIN(NetworkConfig(blocks=3, **changes), SENSORS["vhr4"].profile).eval()


RNG = np.random.default_rng(2)
MS = RNG.uniform(100, 900, (4, 8, 8)).astype(np.float32)
PAN = RNG.uniform(100, 900, (1, 32, 32)).astype(np.float32)


def test_features_are_what_the_block_computes() -> None:
    net = network()
    found = block_features(net, MS, PAN, [0])
    block = net.blocks[0]
    assert isinstance(block, CoreBlock)
    with torch.no_grad():
        scale = net.sensor.scale
        m = net.ms_head(net.upsample(torch.from_numpy(MS[None]) / scale))
        p = block.project(block.pan(net.pan_head(torch.from_numpy(PAN[None]) / scale)))
        spatial, frequency = block.spatial(m, p), block.frequency(m, p)
    np.testing.assert_allclose(found[0]["spatial"], spatial[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[0]["frequency"], frequency[0], rtol=1e-4, atol=1e-5)
    assert found[0]["merge"].shape == (8, 32, 32)
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.parametrize(
    ("changes", "names"),
    [({"branches": "spatial"}, ["merge", "spatial"]), ({"branches": "frequency"}, ["frequency", "merge"])],
)
def test_a_branch_that_is_not_there_is_not_found(changes: dict[str, Any], names: list[str]) -> None:
    found = block_features(network(**changes), MS, PAN, [0, 2])
    assert {index: sorted(maps) for index, maps in found.items()} == {0: names, 2: names}


def test_activity_is_the_mean_distance_from_each_channels_mean() -> None:
    maps = np.array([[[1, 3], [1, 3]], [[10, 10], [10, 14]]], np.float32)
    np.testing.assert_allclose(activity(maps), [[1.0, 1.0], [1.0, 2.0]])


@pytest.mark.parametrize(
    ("count", "shown"), [(1, [0]), (2, [0, 1]), (3, [0, 1, 2]), (5, [0, 2, 4]), (6, [0, 2, 5])]
)
def test_first_middle_and_last_block_are_shown(count: int, shown: list[int]) -> None:
    assert shown_blocks(count) == shown

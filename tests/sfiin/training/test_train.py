"""Training: it learns, it repeats itself bit by bit, it keeps the best, and it stops on NaN."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sfiin.data.pairs import Pair
from sfiin.data.sensors import SENSORS
from sfiin.data.simulate import simulate
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.errors import SfiinError
from sfiin.runtime.quality.bicubic import bicubic
from sfiin.runtime.quality.metrics import ergas
from sfiin.training.train import Progress, TrainingConfig, train, validate

CONFIG = TrainingConfig(steps=12, batch=2, patch=32, rate=3e-3, validate_every=4)


def pair(seed: int) -> Pair:
    scene = simulate(64, 64, seed)
    pan, ms, truth = (a.astype(np.float32) for a in (scene.pan[None], scene.ms, scene.truth))
    return Pair(f"s{seed}", pan, ms, truth, {})


def fresh() -> SFIIN:
    torch.manual_seed(0)
    return SFIIN(NetworkConfig(channels=4, blocks=1), SENSORS["vhr4"].profile)


def test_training_learns_and_keeps_the_best() -> None:
    seen: list[Progress] = []
    used, held = [pair(1), pair(2)], [pair(3)]
    before = validate(fresh(), held, 32)[2]
    result = train(
        fresh(),
        used,
        held,
        TrainingConfig(steps=60, batch=2, patch=32, rate=3e-3, validate_every=10),
        seen.append,
    )
    best = result.training["validation_ergas"]
    assert [progress.step for progress in seen] == list(range(1, 61))
    assert best == min(progress.ergas for progress in seen)
    assert best == validate(result.network, held, 32)[2]
    assert best < before
    assert result.training["held_out"] == ["s3"]
    assert result.training["steps"] == 60


def test_training_repeats_itself_bit_by_bit() -> None:
    results = [train(fresh(), [pair(1)], [pair(3)], CONFIG).network.state_dict() for _ in range(2)]
    assert all(torch.equal(results[0][name], results[1][name]) for name in results[0])
    other = train(
        fresh(), [pair(1)], [pair(3)], TrainingConfig(**CONFIG.__dict__ | {"seed": 1})
    ).network.state_dict()
    assert any(not torch.equal(results[0][name], other[name]) for name in other)


def test_validation_is_the_ergas_of_whole_tiles() -> None:
    net, held = fresh(), pair(3)
    with torch.no_grad():
        for parameter in net.refine.tail.parameters():
            parameter.zero_()  # what is left of the network is its bicubic
    assert held.truth is not None
    tiles = [
        bicubic(held.ms[:, r // 4 : r // 4 + 8, c // 4 : c // 4 + 8], 4) for r in (0, 32) for c in (0, 32)
    ]
    whole = np.concatenate([np.concatenate(tiles[:2], -1), np.concatenate(tiles[2:], -1)], -2)
    assert validate(net, [held], 32)[2] == pytest.approx(ergas(whole, held.truth, 4), rel=1e-5)


def test_training_stops_when_the_loss_is_no_longer_finite() -> None:
    broken = pair(1)
    broken.pan[...] = np.nan
    with pytest.raises(SfiinError, match=r"diverged.*step 1"):
        train(fresh(), [broken], [pair(3)], CONFIG)

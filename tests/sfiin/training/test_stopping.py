"""A loop that is told to stop."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import numpy as np
import pytest
import torch

from sfiin.data.pairs import Pair
from sfiin.data.sensors import SENSORS
from sfiin.data.simulate import simulate
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.training.stopping import stoppable
from sfiin.training.train import Progress, TrainingConfig, train


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_is_noted_once_and_then_counts_as_before(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with stoppable() as told:
        assert not told()
        os.kill(os.getpid(), number)
        assert told()
        assert signal.getsignal(number) == before
    assert signal.getsignal(number) == before


def test_elsewhere_than_in_the_main_thread_nothing_comes() -> None:
    seen = []

    def look() -> None:
        with stoppable() as told:
            seen.append(told())

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert seen == [False]


def network() -> SFIIN:
    torch.manual_seed(0)
    return SFIIN(NetworkConfig(channels=4, blocks=1), SENSORS["vhr4"].profile)


def pair(seed: int) -> Pair:
    scene = simulate(32, 32, seed)
    pan, ms, truth = (a.astype(np.float32) for a in (scene.pan[None], scene.ms, scene.truth))
    return Pair(f"s{seed}", pan, ms, truth, {})


def test_a_training_that_is_told_to_stop_before_it_was_validated_goes_on_to_the_same(tmp_path: Path) -> None:
    config = TrainingConfig(steps=5, batch=2, patch=16, rate=3e-3, validate_every=4)
    used, held, state = [pair(1), pair(2)], [pair(3)], tmp_path / "t.state"
    whole = train(network(), used, held, config)

    def interrupt(at: Progress) -> None:
        if at.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        train(network(), used, held, config, interrupt, state_file=state)
    resumed = train(network(), used, held, config, state_file=state)
    assert resumed.training == whole.training
    first, second = whole.network.state_dict(), resumed.network.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)

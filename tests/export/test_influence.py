"""Influence of models whose influence is known, and of the shipped one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from sfiin.data.sensors import SENSORS
from sfiin.export import golden, influence
from sfiin.export.influence import SPREAD, across, edge, measure, reach
from sfiin.model import checkpoint
from sfiin.runtime import models
from sfiin.runtime.contract import Tile

SENSOR = SENSORS["vhr4"].profile
TILE = Tile(64, 96, 16)


def enlarged(ms: np.ndarray) -> np.ndarray:
    return ms.repeat(4, -1).repeat(4, -2)


def blurred(size: int) -> influence.Fuse:
    """Means over so many PAN pixels a side, with the border repeated, as a convolution's padding would."""
    return lambda ms, pan: enlarged(ms) + ndimage.uniform_filter(pan, (0, 0, size, size), mode="constant")


def with_mean(fuse: influence.Fuse) -> influence.Fuse:
    """And a tenth of the whole tile's mean, which stands for a Fourier branch."""
    return lambda ms, pan: fuse(ms, pan) + 0.1 * pan.mean((-2, -1), keepdims=True)


@pytest.mark.parametrize("size", [3, 9, 15])
@pytest.mark.parametrize("global_too", [False, True])
def test_the_edge_is_as_wide_as_the_filter_reaches(size: int, global_too: bool) -> None:
    fuse = with_mean(blurred(size)) if global_too else blurred(size)
    found = measure(fuse, TILE, SENSOR)
    assert found["edge"] == size // 2
    assert (found["floor"] > 0.1) == global_too


def test_a_pixelwise_model_has_no_edge_and_no_reach() -> None:
    found = measure(lambda ms, pan: enlarged(ms) + pan, TILE, SENSOR)
    assert found == {"edge": 0.0, "floor": 0.0, "reach": 0.0, "threshold": pytest.approx(2.047)}


def test_reach_is_the_filters_and_no_more_below_the_threshold() -> None:
    """A step of 102 DN is 11 DN in a mean of nine pixels, and below one in a mean of 225."""
    assert reach(blurred(3), TILE, SENSOR, 2.0) == 1
    assert reach(blurred(15), TILE, SENSOR, 2.0) == 0
    assert reach(blurred(15), TILE, SENSOR, 0.2) == 7


def test_profiles_begin_at_the_border() -> None:
    profile = across(blurred(9), TILE, SENSOR, -1)
    assert len(profile) == 24
    assert (np.diff(profile[:4]) < 0).all()
    assert not profile[4:].any()


def test_a_profile_settles_where_nothing_further_stands_out() -> None:
    assert edge(np.array([9.0, 3.0, 1.0, 1.0, 1.0, 1.0])) == (2, 1.0)
    assert edge(np.array([9.0, 1.0, SPREAD + 0.1, 1.0, 1.0, 1.0])) == (3, 1.0)
    assert edge(np.array([9.0, 1.0, 1.9, 1.0, 2.0, 1.0])) == (1, 1.0)  # a spread that the inner half has, too
    assert edge(np.full(8, 2.0)) == (0, 2.0)


def test_the_shipped_models_hand_over_where_no_border_is_seen(shipped_checkpoint: Path) -> None:
    contract = models.contract(models.choose(4, 4))
    tile = contract.tile
    network = checkpoint.load_sfiin(shipped_checkpoint, (tile.height, tile.width))
    found = measure(golden.fuser(network), tile, network.sensor)
    assert found == pytest.approx(dict(contract.influence), rel=1e-3)
    assert 0 < contract.safe_overlap == 2 * found["edge"] <= tile.overlap

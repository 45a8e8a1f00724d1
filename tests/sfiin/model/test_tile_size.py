"""A network on tiles of another size: what the correction is, and what it is worth."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sfiin.data.sensors import SENSORS
from sfiin.evaluation import judging
from sfiin.model import checkpoint, spectrum
from sfiin.model.baselines import PNN, BaselineConfig
from sfiin.model.network import SFIIN, FrequencyBranch, NetworkConfig
from sfiin.model.tile_size import fitted, for_tile, trained_side
from sfiin.runtime.contract import Tile


def network(**changes: object) -> SFIIN:
    torch.manual_seed(0)
    return SFIIN(NetworkConfig(blocks=1, **changes), SENSORS["vhr4"].profile).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tile", "gain"), [((32, 32), 0.5), ((64, 64), 1.0), ((128, 32), 1.0), ((96, 128), 3**0.5)]
)
def test_a_gain_on_the_amplitudes_is_a_gain_on_the_biases(tile: tuple[int, int], gain: float) -> None:
    """The gain in front of the amplitude network and its inverse behind it, written out, do the same."""
    net = network().double()
    result = fitted(net, (64, 64), tile)
    m, p = torch.randn(2, 1, 8, *tile, dtype=torch.float64)
    part, other = net.blocks[0].frequency, result.blocks[0].frequency
    assert isinstance(part, FrequencyBranch)
    with torch.no_grad():
        amplitude, phase = spectrum.analyse(torch.cat((part.ms(m), part.pan(p)), 1))
        maps = spectrum.synthesise(gain * part.amplitude(amplitude / gain), part.phase(phase), tile[1])
        torch.testing.assert_close(other(m, p), part.out(maps.abs()))  # type: ignore[operator]


def test_the_amplitudes_of_textures_grow_as_the_root_of_the_area() -> None:
    """What the correction rests on: a texture four times as large has amplitudes twice as large; a mean,
    four times."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 4, 128, 128, generator=generator) + 3
    (large, _), (small, _) = (spectrum.analyse(x) for x in (noise, noise[..., :64, :64]))
    assert float(large.median() / small.median()) == pytest.approx(2, rel=0.03)
    assert float((large[..., 0, 0] / small[..., 0, 0]).mean()) == pytest.approx(4, rel=0.03)


def test_nothing_changes_on_the_tile_trained_on_nor_without_a_record() -> None:
    net = network()
    before = copy.deepcopy(net.state_dict())
    assert for_tile(net, {}, (32, 64)) is net
    for same in (for_tile(net, {"patch": 64}, (64, 64)), for_tile(net, {"patch": 64}, (32, 128))):
        assert all(torch.equal(tensor, before[name]) for name, tensor in same.state_dict().items())
    for_tile(net, {"patch": 64}, (128, 128))
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
    assert [trained_side(record) for record in ({}, {"patch": 96}, {"patch": "96"}, {"patch": 0})] == [
        None,
        96,
        None,
        None,
    ]


def test_networks_without_a_frequency_branch_stay_as_they_are() -> None:
    for net in (PNN(BaselineConfig(), SENSORS["vhr4"].profile), network(branches="spatial")):
        result = fitted(net, (64, 64), (128, 128))
        assert all(
            torch.equal(tensor, net.state_dict()[name]) for name, tensor in result.state_dict().items()
        )


def test_evaluation_runs_the_corrected_network(shipped_checkpoint: Path) -> None:
    ms = np.random.default_rng(0).uniform(200, 900, (1, 4, 40, 40)).astype(np.float32)
    pan = np.random.default_rng(1).uniform(200, 900, (1, 1, 160, 160)).astype(np.float32)
    loaded = checkpoint.load(shipped_checkpoint)
    side = trained_side(loaded.training)
    assert side is not None
    assert side != 160
    expected = checkpoint.fuser(fitted(loaded.network, (side, side), (160, 160)))(ms, pan)
    model = judging.open_model(shipped_checkpoint, Tile(160, 160, 16))
    np.testing.assert_array_equal(model.fuse(ms, pan), expected)
    assert np.abs(expected - checkpoint.fuser(loaded.network)(ms, pan)).max() > 0.1


def test_the_published_figures_say_what_is_claimed_of_them() -> None:
    """From 48 x 48 on, with the correction, no tile is worse than the trained one by 0.03 dB or 0.03
    degrees."""
    path = Path(__file__).parents[3] / "benchmarks" / "tiles.json"
    rows = json.loads(path.read_text("utf-8"))["rows"]
    own = {row["sensor"]: row for row in rows if row["tile"] == [128, 128]}
    loss: dict[str, list[float]] = {"none": [], "sqrt": [], "area": []}
    for row in rows:
        if min(row["tile"]) >= 48:
            loss[row["correction"]].append(own[row["sensor"]]["psnr"] - row["psnr"])
            assert row["correction"] != "sqrt" or row["sam"] - own[row["sensor"]]["sam"] < 0.03
    assert max(loss["sqrt"]) < 0.03
    assert max(loss["none"]) > 2 * max(loss["sqrt"])
    assert max(loss["area"]) > 2 * max(loss["sqrt"])

"""Evaluation: tiling, scores, means; and the shipped checkpoint against the baselines on real pairs."""

from __future__ import annotations

import statistics
from pathlib import Path

import numpy as np
import pytest

from sfiin.data import pairs
from sfiin.data.pairs import Image, Pair
from sfiin.data.sensors import SENSORS
from sfiin.data.simulate import simulate
from sfiin.evaluation import judging
from sfiin.evaluation.judging import JudgedModel
from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import InputError
from sfiin.runtime.quality import classical, metrics
from sfiin.runtime.quality.bicubic import bicubic
from sfiin.runtime.quality.metrics import psnr


def pair(height: int = 64, width: int = 96) -> Pair:
    scene = simulate(height, width, 5)
    pan, ms, truth = (a.astype(np.float32) for a in (scene.pan[None], scene.ms, scene.truth))
    return Pair("p", pan, ms, truth, {"sensor": "simulated"})


def repeat(ms: Image, pan: Image) -> Image:
    return ms.repeat(4, 2).repeat(4, 3) + 0.1 * pan


@pytest.mark.parametrize("tile", [Tile(32, 32, 8), Tile(64, 32, 0), Tile(128, 128, 32), Tile(40, 60, 20)])
def test_a_pointwise_model_does_not_see_the_tiles(tile: Tile) -> None:
    given = pair()
    fused = judging.fuse_whole(JudgedModel("m", SENSORS["vhr4"].profile, tile, repeat), given.ms, given.pan)
    np.testing.assert_allclose(fused, repeat(given.ms[None], given.pan[None])[0], rtol=1e-5)


def test_an_image_below_a_tile_is_mirrored() -> None:
    small = pair(32, 32)
    seen: list[Image] = []

    def fuse(ms: Image, pan: Image) -> Image:
        seen.append(pan)
        return repeat(ms, pan)

    tile = Tile(96, 64, 8)
    model = JudgedModel("m", SENSORS["vhr4"].profile, tile, fuse)
    assert judging.fuse_whole(model, small.ms, small.pan).shape[1:] == (32, 32)
    across = np.concatenate([small.pan, small.pan[:, :, ::-1]], 2)
    np.testing.assert_array_equal(seen[0][0], np.concatenate([across, across[:, ::-1], across], 1))


def test_scores_are_those_of_the_methods() -> None:
    given = pair()
    assert given.truth is not None
    scores = list(
        judging.evaluate(JudgedModel("m", SENSORS["vhr4"].profile, Tile(32, 32, 8), repeat), [given, given])
    )
    assert [score.method for score in scores] == ["bicubic", "brovey", "m"] * 2
    up = np.clip(np.rint(bicubic(given.ms, 4)), 0, 2047)
    assert scores[0].quality.psnr == pytest.approx(psnr(up, given.truth, 2047.0))
    means = judging.means(scores)
    assert [(sensor, method, n) for sensor, method, n, _ in means] == [
        ("simulated", "bicubic", 2),
        ("simulated", "brovey", 2),
        ("simulated", "m", 2),
    ]
    assert means[2][3]["ergas"] == pytest.approx(scores[2].quality.ergas)


def test_every_classical_method_is_scored_with_its_sensors_gains() -> None:
    given = pair()
    given = Pair(given.name, given.pan, given.ms, given.truth, {"sensor": "QuickBird"})
    profile = SENSORS["vhr4"].profile
    methods = {name: judging.without_network(name) for name in classical.METHODS}
    scores = {score.method: score.quality for score in judging.reference_scores(methods, given, profile)}
    assert given.truth is not None
    images = {name: method(given.ms, given.pan, 4) for name, method in classical.METHODS.items()}
    images["mtf_glp_hpm"] = classical.mtf_glp_hpm(given.ms, given.pan, 4, SENSORS["quickbird"].ms_gains)
    for name, image in images.items():
        expected = metrics.reference_quality(np.clip(np.rint(image), 0, 2047), given.truth, 4, 2047.0)
        assert scores[name] == expected


def test_at_full_resolution_dn_are_brought_to_the_models_range_and_back() -> None:
    whole = pair(128, 128)
    full = Pair("p", whole.pan, whole.ms, None, {"sensor": "Pleiades", "nominal_bits": 12})
    seen = []

    def method(given: Pair) -> Image:
        seen.append(given)
        return given.ms.repeat(4, 1).repeat(4, 2) + 3000 * (given.pan == given.pan.max())

    (score,) = judging.full_resolution_scores({"m": method}, full, SENSORS["vhr4"].profile)
    np.testing.assert_allclose(seen[0].pan, full.pan * (2047 / 4095), rtol=1e-6)
    back = (full.ms.astype(np.float64) * (2047 / 4095)).repeat(4, 1).repeat(4, 2) + 3000 * (
        full.pan == full.pan.max()
    )
    product = np.clip(np.rint(back * (4095 / 2047)), 0, 4095)
    assert (score.pair, score.sensor, score.method) == ("p", "Pleiades", "m")
    found = score.quality
    assert found.hqnr == pytest.approx(
        metrics.hqnr(product, full.ms, full.pan, gains=0.3, gain=0.15), abs=1e-6
    )
    assert found.qnr == pytest.approx(metrics.qnr(product, full.ms, full.pan, gain=0.15), abs=1e-6)
    assert found.d_lambda_k == pytest.approx(metrics.d_lambda_k(product, full.ms, 0.3), abs=1e-6)
    assert found.hqnr == pytest.approx((1 - found.d_lambda_k) * (1 - found.d_s))


def test_a_pair_that_cannot_be_measured_is_named() -> None:
    small = pair(16, 16)
    methods = {"bicubic": judging.without_network("bicubic")}
    with pytest.raises(InputError, match=r"p: cannot be judged.*32x32"):
        list(judging.reference_scores(methods, small, SENSORS["vhr4"].profile))
    with pytest.raises(InputError, match=r"p: cannot be judged.*32x32"):
        list(judging.full_resolution_scores(methods, small, SENSORS["vhr4"].profile))


def test_spread_is_mean_and_sample_deviation() -> None:
    assert judging.spread([1.0, 2.0, 6.0]) == judging.Spread(3.0, statistics.stdev([1, 2, 6]), 3)
    assert judging.spread([5.0]) == judging.Spread(5.0, None, 1)
    assert judging.spread([5.0, float("inf")]).deviation is None


def test_a_pair_without_truth_is_a_programming_error() -> None:
    bare = Pair("p", pair().pan, pair().ms, None, {})
    with pytest.raises(ValueError, match="no truth"):
        list(judging.evaluate(JudgedModel("m", SENSORS["vhr4"].profile, Tile(32, 32, 8), repeat), [bare]))


def test_checkpoint_and_shipped_model_agree(shipped_checkpoint: Path) -> None:
    from sfiin.runtime import models

    torch_model = judging.open_model(shipped_checkpoint, Tile(128, 128, 32))
    onnx_model = judging.open_model(models.choose(4, 4), Tile(1, 1, 0))
    assert onnx_model.tile == Tile(128, 128, 32)
    given = pair(128, 192)
    first, second = (judging.fuse_whole(model, given.ms, given.pan) for model in (torch_model, onnx_model))
    assert np.abs(first - second).max() < 1e-4 * 2047


def test_the_shipped_checkpoint_beats_bicubic_and_brovey_on_real_pairs(
    imagery: Path, shipped_checkpoint: Path
) -> None:
    """Pairs that no training ever saw: ten of QuickBird and a GaoFen-2 strip, mean over each sensor."""
    model = judging.open_model(shipped_checkpoint, Tile(128, 128, 32))
    judged = [pair for pair in pairs.load_folder(imagery / "check", 4, 4) if pair.truth is not None]
    table = {
        (sensor, method): mean
        for sensor, method, _, mean in judging.means(list(judging.evaluate(model, judged)))
    }
    sensors = {sensor for sensor, _ in table}
    assert sensors == {"QuickBird", "GaoFen-2"}
    for sensor in sensors:
        ours = table[sensor, "sfiin"]
        for baseline in ("bicubic", "brovey"):
            theirs = table[sensor, baseline]
            assert ours["psnr"] > theirs["psnr"]
            assert ours["sam"] < theirs["sam"]
            assert ours["ergas"] < theirs["ergas"]

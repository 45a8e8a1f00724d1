"""Patches made anew: what is drawn is what was asked for, and the same seed draws the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from sfiin.data import sensors
from sfiin.data.pairs import Pair, draw
from sfiin.data.simulate import simulate
from sfiin.runtime.errors import InputError
from sfiin.runtime.quality.degradation import bicubic_reduce, block_mean, degrade
from sfiin.runtime.quality.detail import crispness, gaussian
from sfiin.training import drawing
from sfiin.training.drawing import MARGIN, Drawing, Varied, degrade_off

SENSOR = sensors.find("vhr4")
CLEAN = {"soften": 0.0, "noise": 0.0, "keep": 0.0}


def pair(side: int = 128, bands: int = 4, sensor: str = "QuickBird", seed: int = 1) -> Pair:
    scene = simulate(side, side, seed)
    order = np.arange(bands) % 4
    pan, ms, truth = (
        image.astype(np.float32) for image in (scene.pan[None], scene.ms[order], scene.truth[order])
    )
    return Pair(f"p{seed}", pan, ms, truth, {"sensor": sensor})


def varied(source: Pair, **changes: object) -> Varied:
    return Varied(source, Drawing(**changes), 2047.0)  # type: ignore[arg-type]


def test_a_kept_patch_is_the_pairs() -> None:
    given = pair()
    drawn = varied(given, keep=1.0, noise=0.0).vary(3, 4, 16, np.random.default_rng(0))
    for first, second in zip(drawn, given.patch(3, 4, 16), strict=True):
        np.testing.assert_array_equal(first, second)


def test_keep_is_of_the_sensor_where_it_is_named() -> None:
    assert varied(pair(), keep=0.2, keep_of={"QuickBird": 0.7}).keep == 0.7
    assert varied(pair(sensor="IKONOS"), keep=0.2, keep_of={"QuickBird": 0.7}).keep == 0.2


@pytest.mark.parametrize("wanted", [0.7, 1.0, 1.4])
def test_sharpness_is_what_was_drawn(wanted: float) -> None:
    """On the whole image: the truth's fine contrast is that multiple of PAN's."""
    given = pair(160)
    side = given.size[0]
    _, pan, truth = varied(given, sharpness=(wanted, wanted), **CLEAN).vary(
        0, 0, side, np.random.default_rng(0)
    )
    assert crispness(truth) / crispness(pan) == pytest.approx(wanted, rel=0.08)


@pytest.mark.parametrize(("blocks", "bicubic"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_ms_is_reduced_as_drawn(blocks: float, bicubic: float) -> None:
    given = pair()
    changes = {
        "blocks": blocks,
        "bicubic": bicubic,
        "mtf": (0.3, 0.3),
        "shifted": 0.0,
        "jittered": 0.0,
        **CLEAN,
    }
    ms, _, truth = varied(given, sharpness=(9.0, 9.0), **changes).vary(0, 0, 32, np.random.default_rng(0))
    np.testing.assert_array_equal(truth, given.truth)
    whole = (
        block_mean(truth, 4) if blocks else bicubic_reduce(truth, 4) if bicubic else degrade(truth, 4, 0.3)
    )
    inner = np.s_[:, 6:-6, 6:-6]
    np.testing.assert_allclose(ms[inner], whole[inner], rtol=2e-4)


def test_ms_stays_where_the_truth_does() -> None:
    whole = pair()
    assert whole.truth is not None
    sharper_pan = dataclasses.replace(
        whole, truth=gaussian(whole.truth, 1.0).astype(np.float32), ms=whole.ms + 7
    )
    drawn = varied(sharper_pan, **CLEAN, sharpness=(1.0, 1.001), own_ms=1.0)
    ms, pan, truth = drawn.vary(3, 4, 16, np.random.default_rng(0))
    for first, second in zip((ms, truth), sharper_pan.patch(3, 4, 16)[::2], strict=True):
        np.testing.assert_array_equal(first, second)
    assert crispness(pan) < crispness(sharper_pan.patch(3, 4, 16)[1])
    again = varied(sharper_pan, **CLEAN, sharpness=(1.0, 1.001)).vary(3, 4, 16, np.random.default_rng(0))
    assert np.abs(again[0] - ms).mean() > 3


def test_a_patch_sees_what_lies_around_it() -> None:
    """The same as cut from the whole image that was reduced, up to the margin's end."""
    given = pair()
    changes = {"blocks": 0.0, "bicubic": 0.0, "mtf": (0.3, 0.3), "shifted": 0.0, "jittered": 0.0, **CLEAN}
    assert given.truth is not None
    ms, pan, _ = varied(given, sharpness=(9.0, 9.0), **changes).vary(8, 9, 16, np.random.default_rng(0))
    np.testing.assert_allclose(ms, degrade(given.truth, 4, 0.3)[:, 8:24, 9:25], rtol=1e-3)
    assert pan.shape == (1, 64, 64)


@pytest.mark.parametrize("ratio", [2, 3, 4])
def test_offsets_move_ms_by_that_much(ratio: int) -> None:
    rows, cols = np.mgrid[: 24 * ratio, : 24 * ratio].astype(float)
    ramp = np.stack([rows, cols])
    plain = degrade_off(ramp, ratio, 0.3, (0, 0))
    moved = degrade_off(ramp, ratio, 0.3, (0.5, -0.25))
    inner = np.s_[:, 8:-8, 8:-8]
    np.testing.assert_allclose(plain[inner], degrade(ramp, ratio, 0.3)[inner], atol=1e-6)
    np.testing.assert_allclose((moved - plain)[inner][0], 0.5, atol=1e-3)
    np.testing.assert_allclose((moved - plain)[inner][1], -0.25, atol=1e-3)


def test_a_pair_without_truth_comes_by_several_gains() -> None:
    full = Pair("f", *pair().patch(0, 0, 32)[1::-1], None, {"sensor": "IKONOS"})
    found = drawing.varied([full], Drawing(pan_gains=(0.15, 0.5)), 4, SENSOR)
    assert [source.size for source in found] == [(8, 8)] * 2
    assert sum(source.weight for source in found) == 1
    assert crispness(found[0].pair.pan) < crispness(found[1].pair.pan)


def test_pairs_of_other_bands_lend_their_share() -> None:
    pairs = [pair(), pair(bands=3, seed=2), pair(256, 2, seed=3)]
    assert len(drawing.varied(pairs, Drawing(), 4, SENSOR)) == 1
    found = drawing.varied(pairs, Drawing(lent=0.25), 4, SENSOR)
    areas = [source.weight * source.size[0] * source.size[1] for source in found]
    assert sum(areas[1:]) / sum(areas) == pytest.approx(0.25)
    ms, _, truth = found[2].vary(0, 0, 16, np.random.default_rng(0))
    assert (len(ms), len(truth)) == (4, 4)


def test_the_seed_determines_the_batch() -> None:
    sources = drawing.varied([pair(), pair(seed=2)], Drawing(keep=0.5), 4, SENSOR)
    first, second, other = (draw(sources, 32, 3, seed) for seed in ((0, 1), (0, 1), (0, 2)))
    for one, two, three in zip(first, second, other, strict=True):
        np.testing.assert_array_equal(one, two)
        assert one.dtype == np.float32
        assert not np.array_equal(one, three)


def test_crispness_is_of_any_gain_and_falls_with_blur() -> None:
    image = pair().truth
    assert image is not None
    assert crispness(3 * image + 100) == pytest.approx(crispness(image))
    assert crispness(gaussian(image, 0.8)) < 0.7 * crispness(image)


def test_margins_hold_whole_ms_pixels() -> None:
    assert all(MARGIN % ratio == 0 for ratio in (2, 3, 4, 6))


@pytest.mark.parametrize("name", ["sensors", "sensors8", "landsat"])
def test_shipped_drawings_can_be_read(name: str) -> None:
    assert drawing.named(name) != Drawing()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[a]\nsharp = 1", "unknown field 'sharp'"),
        ("[a]\nkeep = 'x'", "keep is made of numbers"),
        ("[a]\nsharpness = 1.0", "sharpness cannot be"),
        ("[a]\nmtf = [0.1]", "mtf cannot be"),
        ("[a]\nkeep_of = 0.5", "keep_of cannot be"),
        ("[a", "not a TOML file"),
        ("[a]\n[b]", "one table"),
    ],
)
def test_a_wrong_drawing_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "d.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=message):
        drawing.named(str(path))


def test_unknown_names_are_told() -> None:
    with pytest.raises(InputError, match="known: sensors, sensors8, landsat"):
        drawing.named("nothing")


def test_nothing_to_draw_from_is_refused() -> None:
    with pytest.raises(InputError, match="no pair of 4 bands"):
        drawing.varied([pair(bands=3)], Drawing(), 4, SENSOR)

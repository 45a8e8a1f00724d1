"""Where truth comes from: pairs reduced at once, scenes reduced window by window, and which sensor's MTF
it takes."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.transform import Affine

from sfiin.data import pairs
from sfiin.data.pairs import Pair, Reduction
from sfiin.data.sensors import SENSORS, Sensor
from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import InputError, MismatchError, SceneError
from sfiin.runtime.quality.degradation import bicubic_reduce, degrade
from sfiin.runtime.scenes.scene import open_raster

QUICKBIRD = SENSORS["quickbird"]
OWN = Sensor(SensorProfile("own", ("red", "nir"), 2, 11, 2047.0), (0.2, 0.4), 0.1, ("Own-1",))


def random_pair(
    sensor: str | None, *, truth: bool, bands: int = 4, ratio: int = 4, size: tuple[int, int] = (16, 20)
) -> Pair:
    random = np.random.default_rng(3)
    fine = (size[0] * ratio, size[1] * ratio)
    shapes = ((1, *fine), (bands, *size), (bands, *fine))
    pan, ms, image = (random.uniform(1, 2047, shape).astype(np.float32) for shape in shapes)
    return Pair("p", pan, ms, image if truth else None, {} if sensor is None else {"sensor": sensor})


def single(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32)


def test_ms_is_made_from_the_truth() -> None:
    pair = random_pair("QuickBird", truth=True)
    assert pairs.reduced(pair, "given") is pair
    assert pair.truth is not None
    mtf, bicubic = pairs.reduced(pair, "mtf"), pairs.reduced(pair, "bicubic")
    assert np.array_equal(mtf.ms, single(degrade(pair.truth, 4, (0.34, 0.32, 0.30, 0.22))))
    assert np.array_equal(bicubic.ms, single(bicubic_reduce(pair.truth, 4)))
    for other in (mtf, bicubic):
        assert (other.pan is pair.pan, other.truth is pair.truth, other.name) == (True, True, "p")
        assert other.ms.dtype == np.float32


@pytest.mark.parametrize("reduction", ["given", "mtf", "bicubic"])
def test_without_truth_ms_becomes_it(reduction: Reduction) -> None:
    pair = random_pair("IKONOS", truth=False, size=(18, 21))  # no multiples of 4: 16 x 20 of it are used
    lower = pairs.reduced(pair, reduction)
    truth, pan = pair.ms[:, :16, :20], pair.pan[:, :64, :80]
    if reduction == "bicubic":
        expected = bicubic_reduce(truth, 4), bicubic_reduce(pan, 4)
    else:
        expected = degrade(truth, 4, (0.26, 0.28, 0.29, 0.28)), degrade(pan, 4, 0.17)
    assert lower.truth is not None
    assert np.array_equal(lower.truth, truth)
    assert np.array_equal(lower.ms, single(expected[0]))
    assert np.array_equal(lower.pan, single(expected[1]))
    assert (lower.size, lower.ratio, lower.name, lower.meta) == ((4, 5), 4, "p", pair.meta)


@pytest.mark.parametrize(
    ("named", "given_", "gains"),
    [
        (None, None, (0.3, 0.15)),
        ("hubble", None, (0.3, 0.15)),
        ("own", None, (0.3, 0.15)),
        ("WorldView-2", None, (0.3, 0.15)),  # eight gains cannot be meant for two bands
        ("WorldView-2", OWN, ((0.2, 0.4), 0.1)),
        (None, OWN, ((0.2, 0.4), 0.1)),
        ("hubble", OWN, ((0.2, 0.4), 0.1)),
        ("OWN-1", OWN, ((0.2, 0.4), 0.1)),
        (None, QUICKBIRD, (0.3, 0.15)),
    ],
)
def test_whose_mtf_it_is(named: str | None, given_: Sensor | None, gains: Any) -> None:
    pair = random_pair(named, truth=False, bands=2, ratio=2, size=(12, 12))
    lower = pairs.reduced(pair, "mtf", given_)
    assert np.array_equal(lower.ms, single(degrade(pair.ms, 2, gains[0])))
    assert np.array_equal(lower.pan, single(degrade(pair.pan, 2, gains[1])))


def test_a_users_sensor_replaces_a_shipped_one_of_its_name_but_no_other() -> None:
    own = dataclasses.replace(QUICKBIRD, ms_gains=(0.5, 0.5, 0.5, 0.5))
    pair = random_pair("qb02", truth=True)
    assert pair.truth is not None
    assert np.array_equal(pairs.reduced(pair, "mtf", own).ms, single(degrade(pair.truth, 4, 0.5)))
    ikonos = random_pair("ikonos", truth=True)
    assert np.array_equal(
        pairs.reduced(ikonos, "mtf", own).ms, single(degrade(pair.truth, 4, SENSORS["ikonos"].ms_gains))
    )


def test_a_patch_is_cut_from_all_three() -> None:
    pair = random_pair(None, truth=True)
    assert pair.truth is not None
    ms, pan, truth = pair.patch(2, 3, 5)
    assert np.array_equal(ms, pair.ms[:, 2:7, 3:8])
    assert np.array_equal(pan, pair.pan[:, 8:28, 12:32])
    assert np.array_equal(truth, pair.truth[:, 8:28, 12:32])
    with pytest.raises(ValueError, match="p has no truth; reduce it first"):
        random_pair(None, truth=False).patch(0, 0, 1)


# --- scenes ---

PROFILES = {4: QUICKBIRD, 2: OWN}


def write_scene(folder: Path, sensor: Sensor, size: tuple[int, int], seed: int = 0) -> Pair:
    """PAN and MS as GeoTIFFs, `size` in MS pixels; the same in memory."""
    folder.mkdir(parents=True)
    random, ratio = np.random.default_rng(seed), sensor.profile.ratio
    pan = random.integers(1, 2000, (1, size[0] * ratio, size[1] * ratio), dtype=np.uint16)
    ms = random.integers(1, 2000, (len(sensor.ms_gains), *size), dtype=np.uint16)
    for name, image, pixel in (("pan.tif", pan, 0.5), ("ms.tif", ms, 0.5 * ratio)):
        where = {"transform": Affine(pixel, 0, 400000, 0, -pixel, 5000000), "crs": "EPSG:32633"}
        shape = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
        with open_raster(folder / name, "w", driver="GTiff", dtype="uint16", **shape, **where) as file:
            file.write(image)
    return Pair(folder.name, single(pan), single(ms), None, {"sensor": sensor.name})


@pytest.mark.parametrize("ratio", [2, 4])
@pytest.mark.parametrize("reduction", ["given", "mtf", "bicubic"])
def test_a_window_of_a_scene_is_that_of_the_scene_reduced(
    tmp_path: Path, reduction: Reduction, ratio: int
) -> None:
    sensor = PROFILES[ratio]
    scene = write_scene(tmp_path / "a", sensor, (30 * ratio, 37 * ratio))
    whole = pairs.reduced(scene, reduction, sensor)
    with ExitStack() as stack:
        (opened,) = pairs.open_scenes(tmp_path, sensor, reduction, stack)
        assert (opened.size, opened.ratio, opened.name) == (whole.size, ratio, "a") == ((30, 37), ratio, "a")
        everything = opened.patch(0, 0, 30)
        for row, col, side in [(0, 0, 6), (11, 13, 7), (24, 31, 6), (2, 28, 9), (0, 0, 30), (0, 7, 30)]:
            found = opened.patch(row, col, side)
            assert [image.dtype for image in found] == [np.float32] * 3
            assert np.array_equal(found[2], whole.patch(row, col, side)[2])
            for image, expected, step in zip(
                found[:2], whole.patch(row, col, side)[:2], (1, ratio), strict=True
            ):
                # Bicubic reduction knows nothing beyond the edge, where a window sees the outermost pixel
                # repeated.
                edge = 2 if reduction == "bicubic" else 0
                rows, cols = (
                    slice(
                        max(0, edge - start * step),
                        side * step - max(0, edge - (total - start - side) * step),
                    )
                    for start, total in ((row, 30), (col, 37))
                )
                np.testing.assert_allclose(image[:, rows, cols], expected[:, rows, cols], rtol=1e-6)
                np.testing.assert_allclose(image, expected, rtol=0, atol=0.15 * 2000 if edge else 1e-3)
        # two windows agree on what they share
        inside = opened.patch(9, 4, 12)
        for image, wide, step in zip(inside, everything, (1, ratio, ratio), strict=True):
            part = wide[:, 9 * step : 21 * step, 4 * step : 16 * step]
            np.testing.assert_allclose(image, part, rtol=1e-6)


def test_a_scene_whose_sides_are_no_multiples_is_used_as_far_as_they_go(tmp_path: Path) -> None:
    """Beyond the last whole pixel the window goes on with what the scene holds there: inside, it changes
    nothing."""
    scene = write_scene(tmp_path / "a", OWN, (61, 63))
    whole = pairs.reduced(scene, "mtf", OWN)
    with ExitStack() as stack:
        (opened,) = pairs.open_scenes(tmp_path, OWN, "mtf", stack)
        assert opened.size == whole.size == (30, 31)
        ms, pan, truth = opened.patch(0, 1, 30)
    reach = 10  # 20 pixels of the filter
    expected = whole.patch(0, 1, 30)
    assert np.array_equal(truth, expected[2])
    np.testing.assert_allclose(ms[:, :-reach, :-reach], expected[0][:, :-reach, :-reach], rtol=1e-6)
    np.testing.assert_allclose(pan[:, :-reach, :-reach], expected[1][:, :-reach, :-reach], rtol=1e-6)


def test_open_scenes_finds_sub_folders_by_name(tmp_path: Path) -> None:
    for seed, name in enumerate(("b", "a")):
        write_scene(tmp_path / name, OWN, (8, 8), seed)
    (tmp_path / "empty").mkdir()
    write_scene(tmp_path / "half", OWN, (8, 8))
    (tmp_path / "half" / "ms.tif").unlink()
    with ExitStack() as stack:
        found = pairs.open_scenes(tmp_path, OWN, "mtf", stack)
        assert [scene.name for scene in found] == ["a", "b"]
        assert [scene.gains for scene in found] == [((0.2, 0.4), 0.1)] * 2
    assert pairs.open_scenes(tmp_path / "empty", OWN, "mtf", ExitStack()) == []


def test_a_scene_of_another_sensor_or_a_damaged_one_is_refused(tmp_path: Path) -> None:
    write_scene(tmp_path / "a", OWN, (8, 8))
    with ExitStack() as stack, pytest.raises(MismatchError, match="bands: MS has 2, the model wants 4"):
        pairs.open_scenes(tmp_path, QUICKBIRD, "mtf", stack)
    (tmp_path / "a" / "ms.tif").write_text("no image")
    with ExitStack() as stack, pytest.raises(SceneError, match=r"ms\.tif: no image"):
        pairs.open_scenes(tmp_path, OWN, "mtf", stack)


# --- splitting and drawing ---


@pytest.mark.parametrize(
    ("width", "tile", "cut"),
    [(64, 16, 48), (16, 16, 12), (32, 64, 16), (33, 64, 17), (9, 16, 5)],  # MS pixels, PAN pixels, MS pixels
)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_few_pairs_are_divided_without_overlap(width: int, tile: int, cut: int, count: int) -> None:
    column = np.arange(width, dtype=np.float32)
    ms = np.broadcast_to(column, (4, 6, width))
    fine = np.broadcast_to(column.repeat(4), (4, 24, 4 * width))
    many = [Pair(f"p{i}", fine[:1], ms, fine, {"sensor": "x"}) for i in range(count)]
    used, held = pairs.split(many, tile)
    assert [pair.name for pair in used] == [pair.name for pair in held] == [f"p{i}" for i in range(count)]
    for part, columns in ((used, range(cut)), (held, range(cut, width))):
        for pair in part:
            assert pair.truth is not None
            assert pair.ms[0, 0].tolist() == list(columns)
            assert pair.pan[0, 0].tolist() == pair.truth[3, 5].tolist() == np.repeat(columns, 4).tolist()
            assert (pair.ratio, pair.meta) == (4, {"sensor": "x"})
            assert pair.pan.shape[2] >= tile


def test_what_cannot_be_divided_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"p: 28 PAN pixels wide, too few.* four pairs or more.*--patch \(now 16\)"
    ):
        pairs.split([random_pair(None, truth=True, size=(16, 7))], 16)
    enough, _ = pairs.split([random_pair(None, truth=True, size=(16, 8))], 16)
    assert enough[0].size == (16, 4)


@given(st.integers(4, 40), st.integers(4, 9))
def test_from_four_pairs_on_every_eighth_is_held_out(count: int, every: int) -> None:
    many = [Pair(str(i), *(np.zeros((1, 4, 4), np.float32),) * 3, {}) for i in range(count)]
    used, held = pairs.split(many, 4, every)
    assert [int(pair.name) for pair in held] == list(range(3, count, every))
    assert sorted(used + held, key=lambda pair: int(pair.name)) == many


def coordinates(name: str, number: int, rows: int, cols: int) -> Pair:
    """MS bands hold the pair's number, the row, and the column."""
    row, col = np.mgrid[:rows, :cols]
    ms = np.stack([np.full((rows, cols), number), row, col]).astype(np.float32)
    fine = ms.repeat(4, 1).repeat(4, 2)
    return Pair(name, fine[:1], ms, fine, {})


@given(seed=st.integers(0, 2**31), step=st.integers(1, 10**6), batch=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_places_are_those_that_the_patches_came_from(seed: int, step: int, batch: int) -> None:
    """The number of the pair tells the brightness, so turned, mirrored and dimmed patches tell where they
    began."""
    sources = [coordinates("first", 1, 9, 12), coordinates("second", 2, 20, 5)]
    patches = pairs.draw(sources, 16, batch, (seed, step))[0]
    for ms, place in zip(patches, pairs.drawn_from(sources, 16, batch, (seed, step)), strict=True):
        name = place.split(" ")[0]
        brightness = ms[0].mean() / {"first": 1, "second": 2}[name]
        assert 2**-0.5 * 0.999 <= brightness <= 2**0.5 * 1.001
        row, col = (round(float(band.min() / brightness)) for band in ms[1:])
        assert place == f"{name} at MS row {row}, column {col}"
        np.testing.assert_allclose(sorted(set(np.rint(ms[1] / brightness).ravel())), range(row, row + 4))


def test_pairs_are_drawn_by_their_area() -> None:
    sources = [coordinates("small", 1, 8, 8), coordinates("large", 2, 16, 12)]
    places = pairs.drawn_from(sources, 16, 2000, (0, 1))
    assert sum(place.startswith("large") for place in places) / 2000 == pytest.approx(0.75, abs=0.04)
    rows = {int(place.split()[4].rstrip(",")) for place in places if place.startswith("large")}
    assert rows == set(range(13))  # the first and the last place are as good as any

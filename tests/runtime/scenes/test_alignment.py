"""Shifts that are known, found again; and what is refused."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import AlignmentError
from sfiin.runtime.scenes.alignment import ENOUGH, LIMIT, Shift, estimate, of_window

SENSOR = SensorProfile("quad", ("blue", "green", "red", "nir"), 4, 11, 2047.0)


def ground(side: int, seed: int) -> np.ndarray:
    """Noise with a natural spectrum, periodic."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    spectrum = np.fft.fft2(random.normal(size=(side, side))) / np.maximum(frequency, 1 / side) ** 1.2
    image = np.fft.ifft2(spectrum).real
    return 500 + 100 * image / image.std()


def moved(image: np.ndarray, row: float, col: float) -> np.ndarray:
    """Down and to the right by so many pixels, exactly."""
    return np.fft.ifft2(ndimage.fourier_shift(np.fft.fft2(image), (row, col))).real


def blocks(image: np.ndarray) -> np.ndarray:
    height, width = image.shape
    return image.reshape(height // 4, 4, width // 4, 4).mean((1, 3))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 1000), st.floats(-8, 8), st.floats(-8, 8))
def test_a_shift_is_found_to_a_part_of_a_pixel(seed: int, row: float, col: float) -> None:
    """In PAN pixels, two whole MS pixels far."""
    image = ground(256, seed)
    found = of_window(blocks(moved(image, row, col)), blocks(image))
    assert found is not None
    np.testing.assert_allclose(4 * np.array(found), (row, col), atol=0.5)


@pytest.mark.parametrize("contrast", [0.2, -1.0])
def test_contrast_and_noise_do_not_matter(contrast: float) -> None:
    random = np.random.default_rng(1)
    image = ground(256, 5)
    pan = blocks(moved(image, 3, -2)) * contrast + 100
    found = of_window(pan + random.normal(0, 3, pan.shape), blocks(image))
    assert found is not None
    np.testing.assert_allclose(4 * np.array(found), (3, -2), atol=0.6)


def test_what_has_nothing_in_common_has_no_shift() -> None:
    random = np.random.default_rng(2)
    none = [of_window(random.normal(size=(64, 64)), random.normal(size=(64, 64))) for _ in range(20)]
    assert none.count(None) >= 16
    assert of_window(np.ones((64, 64)), random.normal(size=(64, 64))) is None


def scene_of(pan: np.ndarray, ms: np.ndarray, valid: np.ndarray | None = None) -> Any:
    """What `estimate` asks of a scene."""
    valid = np.ones(pan.shape, bool) if valid is None else valid

    def read(row: int, col: int, height: int, width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        fine = np.s_[row : row + height, col : col + width]
        coarse = np.s_[:, row // 4 : (row + height) // 4, col // 4 : (col + width) // 4]
        return ms[coarse].astype(np.float32), pan[fine][None].astype(np.float32), valid[fine]

    return SimpleNamespace(sensor=SENSOR, height=pan.shape[0], width=pan.shape[1], read=read)


def pair(row: float, col: float, side: int = 1024) -> tuple[np.ndarray, np.ndarray]:
    image = ground(side, 9)
    return moved(image, row, col), np.stack([blocks(image)] * 4)


def test_a_scenes_shift_is_the_windows_median() -> None:
    found = estimate(scene_of(*pair(2.5, -1.0)))
    assert (found.row, found.col) == pytest.approx((2.5, -1.0), abs=0.3)
    assert found.windows == found.looked == 49
    assert found.spread < 0.3
    with pytest.raises(
        AlignmentError, match=r"PAN lies \+2\.\d rows and -[01]\.\d columns .*--coregister"
    ) as error:
        found.require()
    assert error.value.exit_code == 8
    found.require(limit=3.0)


def test_an_aligned_scene_passes() -> None:
    found = estimate(scene_of(*pair(0, 0)))
    assert found.length < 0.1
    found.require()


@pytest.mark.parametrize("every", [3, 15, 60])
def test_scattered_gaps_hide_nothing(every: int) -> None:
    pan, ms = pair(5, -3)
    lacking = np.zeros(ms.shape[1:], bool)
    lacking[::every, ::every] = True
    found = estimate(scene_of(pan, ms, ~lacking.repeat(4, 0).repeat(4, 1)))
    assert (found.row, found.col) == pytest.approx((5, -3), abs=0.15)


def test_windows_without_data_are_left_out() -> None:
    pan, ms = pair(1, 1)
    valid = np.ones(pan.shape, bool)
    valid[:, ::2] = False
    found = estimate(scene_of(pan, ms, valid))
    assert (found.looked, found.known) == (0, False)
    assert "too many gaps" in found.sentence()
    found.require()
    with pytest.raises(AlignmentError, match="could not be told"):
        found.require(certain=True)


@settings(max_examples=20, deadline=None)
@given(st.floats(-100, 100), st.floats(-100, 100))
def test_far_shifts_are_found_to_a_tenth_of_a_pixel(row: float, col: float) -> None:
    found = estimate(scene_of(*pair(row, col)), search=110)
    assert (found.row, found.col) == pytest.approx((row, col), abs=0.1)


def test_beyond_the_search_nothing_is_told() -> None:
    found = estimate(scene_of(*pair(150, 0)), search=64)
    assert not found.known
    assert found.verdict() == "could not be told"


def test_two_places_have_no_shift() -> None:
    for seed in range(5):
        pan = ground(1024, 100 + seed)
        found = estimate(scene_of(pan, pair(0, 0)[1]))
        assert not found.known, found


def test_a_scene_that_is_too_small_tells_nothing() -> None:
    pan, ms = pair(3, 3, 80)
    found = estimate(scene_of(pan, ms))
    assert (found.looked, found.known) == (0, False)


def test_a_shift_that_changes_is_told_as_such() -> None:
    """A plane, from -4 rows to 4: no one shift is right."""
    image = ground(1024, 3)
    rows, cols = np.mgrid[:1024, :1024].astype(float)
    pan = ndimage.map_coordinates(image, [rows - (rows / 1023 * 8 - 4), cols], order=3, mode="wrap")
    found = estimate(scene_of(pan, np.stack([blocks(image)] * 4)))
    assert found.known
    assert found.drift is not None
    at = found.drift(np.array([128.0, 896.0]), np.array([512.0, 512.0]))
    np.testing.assert_allclose(at, [(-3, 0), (3, 0)], atol=0.3)
    assert found.verdict() == "shifted" or found.is_local()


def test_what_is_less_than_its_own_spread_is_not_refused() -> None:
    Shift(2 * LIMIT, 0.0, 3 * LIMIT, ENOUGH, 36, ENOUGH, known=True).require()
    with pytest.raises(AlignmentError):
        Shift(2 * LIMIT, 0.0, LIMIT, ENOUGH, 36, ENOUGH, known=True).require()


@pytest.mark.parametrize("name", ["VHR4_zhengzhou_1", "L8_istanbul_1"])
def test_real_scenes_are_aligned(imagery: Path, name: str) -> None:
    from sfiin.runtime.scenes.scene import open_scene

    sensor = (
        SENSOR if name.startswith("VHR4") else SensorProfile("l8", ("blue", "green", "red"), 2, 16, 65535.0)
    )
    folder = imagery / "scenes" / name
    with open_scene(folder / "pan.tif", [folder / "ms.tif"], sensor) as scene:
        found = estimate(scene)
    assert found.known
    assert found.length < 1.5
    assert found.is_local() == name.startswith("VHR4")  # a line of MS twice, in the middle
    found.require()

"""Pairs of other sensors: bands by name, DN by peaks, the middle."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sfiin.data import fitting
from sfiin.data.pairs import Pair, gains
from sfiin.runtime.errors import MismatchError

BANDS = ("blue", "green", "red", "nir")


def pair(meta: dict[str, Any], side: int = 10) -> Pair:
    rng = np.random.default_rng(1)
    pan, ms, truth = (
        rng.uniform(0, 500, size).astype(np.float32)
        for size in ((1, 4 * side, 4 * side), (4, side, side), (4, 4 * side, 4 * side))
    )
    return Pair("p", pan, ms, truth, meta)


def test_bands_are_reordered_by_name_whatever_the_spelling() -> None:
    plain = pair({"bands": ["R", "G", "B", "NIR"]})
    found = fitting.in_order(plain, BANDS)
    np.testing.assert_array_equal(found.ms, plain.ms[[2, 1, 0, 3]])
    assert plain.truth is not None
    assert found.truth is not None
    np.testing.assert_array_equal(found.truth, plain.truth[[2, 1, 0, 3]])
    assert found.meta["bands"] == list(BANDS)
    assert fitting.in_order(pair({}), BANDS).meta == {}


@pytest.mark.parametrize("bands", [["B", "G", "R", "SWIR"], ["B", "G", "R"], ["B", "G", "R", "R"]])
def test_other_bands_are_refused(bands: list[str]) -> None:
    with pytest.raises(MismatchError, match="p: its bands are blue, green"):
        fitting.in_order(pair({"bands": bands}), BANDS)


@pytest.mark.parametrize(
    ("meta", "peak"),
    [
        ({"nominal_bits": 8}, 255),
        ({"sensor": "Pleiades"}, 4095),
        ({"sensor": "GeoEye-1", "nominal_bits": 8}, 255),
        ({"sensor": "hubble"}, 2047),
        ({}, 2047),
    ],
)
def test_the_peak_is_the_pairs_or_its_sensors(meta: dict[str, Any], peak: int) -> None:
    assert fitting.peak(pair(meta), 2047) == peak


def test_the_middle_lies_on_whole_ms_pixels() -> None:
    plain = pair({}, 11)
    found = fitting.central(plain, 18)
    np.testing.assert_array_equal(found.ms, plain.ms[:, 3:7, 3:7])
    np.testing.assert_array_equal(found.pan, plain.pan[:, 12:28, 12:28])
    assert found.truth is not None
    assert found.truth.shape == (4, 16, 16)
    assert fitting.central(plain, 500).pan.shape == plain.pan.shape


def test_scaling_takes_all_images_along() -> None:
    plain = pair({})
    found = fitting.scaled(plain, 0.5)
    assert plain.truth is not None
    assert found.truth is not None
    for before, after in ((plain.pan, found.pan), (plain.ms, found.ms), (plain.truth, found.truth)):
        np.testing.assert_allclose(after, before / 2)


def test_gains_follow_the_bands() -> None:
    assert gains(pair({"sensor": "QuickBird", "bands": ["R", "G", "B", "NIR"]})) == (
        (0.30, 0.32, 0.34, 0.22),
        0.15,
    )
    assert gains(pair({"sensor": "QuickBird"})) == ((0.34, 0.32, 0.30, 0.22), 0.15)
    assert gains(pair({"sensor": "hubble"})) == (0.3, 0.15)

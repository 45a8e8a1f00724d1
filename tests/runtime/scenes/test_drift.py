"""A drift that is known, found again among windows that are off."""

from __future__ import annotations

import numpy as np
import pytest

from sfiin.runtime.scenes.drift import fit, read

SIZE = 1000, 2000


def windows(terms: int, share_off: float = 0.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Places, shifts, and the numbers behind them."""
    random = np.random.default_rng(seed)
    places = random.uniform(0, 1, (60, 2)) * SIZE
    y, x = (2 * places[:, axis] / SIZE[axis] - 1 for axis in (0, 1))
    matrix = np.stack([np.ones(60), y, x, y * y, y * x, x * x][:terms], axis=-1)
    numbers = random.uniform(2, 4, (terms, 2)) * random.choice([-1, 1], (terms, 2))
    shifts = matrix @ numbers + random.normal(0, 0.05, (60, 2))
    off = random.random(60) < share_off
    shifts[off] = random.uniform(-16, 16, (int(off.sum()), 2))
    return places, shifts, numbers


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("terms", [1, 3, 6])
def test_a_drift_is_found_though_some_windows_are_off(terms: int, share: float) -> None:
    places, shifts, numbers = windows(terms, share)
    found = fit(places, shifts, SIZE, 2.0, 3)
    assert found is not None
    np.testing.assert_allclose(found[1].numbers, numbers, atol=0.3)
    assert found[1].is_majority
    assert found[1].spread < 0.2


def test_what_is_constant_stays_so() -> None:
    places, shifts, _ = windows(1, 0.3)
    found = fit(places, shifts, SIZE, 2.0, 3)
    assert found is not None
    assert found[0] is found[1]
    assert found[0].is_constant
    assert found[0].farthest_from(found[0].mean) == pytest.approx(0, abs=1e-9)


def test_noise_has_no_majority() -> None:
    random = np.random.default_rng(1)
    places = random.uniform(0, 1, (49, 2)) * SIZE
    found = fit(places, random.uniform(-16, 16, (49, 2)), SIZE, 2.0, 3)
    assert found is None or not found[0].is_majority


def test_too_few_windows_tell_nothing() -> None:
    assert fit(np.zeros((2, 2)), np.zeros((2, 2)), SIZE, 2.0, 3) is None


def test_a_document_gives_the_drift_back() -> None:
    places, shifts, _ = windows(3)
    found = fit(places, shifts, SIZE, 2.0, 3)
    assert found is not None
    again = read({"numbers": found[1].numbers.tolist(), "size": list(SIZE)})
    at = np.array([10.0, 900.0]), np.array([5.0, 1500.0])
    np.testing.assert_allclose(again(*at), found[1](*at))

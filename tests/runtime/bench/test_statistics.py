"""Percentiles and intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sfiin.runtime.bench.statistics import CONFIDENCE, _binomial, enough, paired, quantile, settled, summary


def test_binomial_probabilities_are_scipys() -> None:
    for count, share in ((10, 0.5), (500, 0.99), (3, 0.9)):
        expected = stats.binom.cdf(np.arange(count + 1), count, share)
        np.testing.assert_allclose(_binomial(count, share), expected, atol=1e-9)


@pytest.mark.parametrize(("percent", "count"), [(50.0, 101), (90.0, 200), (99.0, 800)])
def test_intervals_hold_the_truth_as_often_as_they_say(percent: float, count: int) -> None:
    random = np.random.default_rng(1)
    truth = stats.expon.ppf(percent / 100)
    held = 0
    for _ in range(400):
        found = quantile(np.sort(random.exponential(size=count)), percent)
        assert found.low is not None
        assert found.high is not None
        held += found.low <= truth <= found.high
    assert held / 400 >= CONFIDENCE - 0.03


def test_too_few_do_not_bound_a_percentile() -> None:
    few = np.arange(20.0)
    assert quantile(few, 99.0).high is None
    assert quantile(few, 50.0).low is not None
    for percent in (50.0, 90.0, 99.0):
        bounded = quantile(np.arange(float(enough(percent))), percent)
        assert bounded.low is not None
        assert bounded.high is not None
        assert quantile(np.arange(enough(percent) - 1.0), percent).high is None


@given(st.lists(st.floats(0.1, 1e3), min_size=1, max_size=200))
def test_a_summary_is_ordered(values: list[float]) -> None:
    found = summary(values)
    assert found.minimum <= found.median <= max(values)
    assert found.count == len(values)
    for bounded in found.quantiles:
        assert bounded.low is None or bounded.low <= bounded.value
        assert bounded.high is None or bounded.value <= bounded.high


def test_ratios_are_of_pairs() -> None:
    """Both are slow at the same time, so the ratio is sure though the times are not."""
    shared = np.random.default_rng(0).uniform(1, 10, 200)
    found = paired(list(1.1 * shared), list(shared))
    assert (found.low, found.value, found.high) == (pytest.approx(1.1),) * 3


def test_windows_settle() -> None:
    assert not settled([1.0, 1.0])
    assert settled([9.0, 1.0, 1.02, 1.04])
    assert not settled([1.0, 1.0, 1.1])

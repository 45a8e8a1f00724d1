"""What do many measured times say, and how surely? Percentiles and ratios, with intervals for any
distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95

PERCENTILES = (50.0, 90.0, 99.0, 99.9)


@dataclass(frozen=True)
class Quantile:
    """A percentile of a sample, and the interval in which that of the whole lies with the confidence; an end
    is None where the sample is too small to bound it.
    """

    percent: float
    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Summary:
    """Of a sample of times: extremes, mean, coefficient of variation, and percentiles."""

    count: int
    minimum: float
    mean: float
    variation: float
    quantiles: tuple[Quantile, ...]

    @property
    def median(self) -> float:
        """The 50th percentile."""
        return self.at(50.0).value

    def at(self, percent: float) -> Quantile:
        """One of the percentiles. Raises KeyError for one that was not asked for."""
        return {quantile.percent: quantile for quantile in self.quantiles}[percent]


def summary(values: Sequence[float], percents: Sequence[float] = PERCENTILES) -> Summary:
    """The summary of at least one value."""
    array = np.sort(np.asarray(values, np.float64))
    spread = float(array.std(ddof=1) / array.mean()) if len(array) > 1 else 0.0
    quantiles = tuple(quantile(array, percent) for percent in percents)
    return Summary(len(array), float(array[0]), float(array.mean()), spread, quantiles)


def quantile(ordered: np.ndarray, percent: float) -> Quantile:
    """A percentile by order statistics: the interval's ends are those whose ranks a binomial count stays
    between (H. A. David and H. N. Nagaraja, Order Statistics, 3rd edition, 7.1).
    """
    count, share = len(ordered), percent / 100
    value = float(np.percentile(ordered, percent, method="higher"))
    tail = (1 - CONFIDENCE) / 2
    below = _binomial(count, share)
    low = int(np.searchsorted(below, tail, "right")) - 1  # the largest rank with P(count < rank) <= tail
    high = int(np.searchsorted(below, 1 - tail, "left"))
    return Quantile(
        percent,
        value,
        float(ordered[low]) if low >= 0 else None,
        float(ordered[high]) if high < count else None,
    )


def enough(percent: float) -> int:
    """The fewest samples that bound a percentile on both sides."""
    share = max(percent, 100 - percent) / 100
    return math.ceil(math.log((1 - CONFIDENCE) / 2) / math.log(share))


def paired(first: Sequence[float], second: Sequence[float]) -> Quantile:
    """The median of the ratios first / second of values that were taken side by side."""
    return quantile(np.sort(np.asarray(first) / np.asarray(second)), 50.0)


def settled(windows: Sequence[float], within: float = 0.05, last: int = 3) -> bool:
    """Whether the last windows' medians agree."""
    recent = windows[-last:]
    return len(recent) == last and max(recent) <= (1 + within) * min(recent)


def _binomial(count: int, share: float) -> np.ndarray:
    """P(at most k successes of `count`) for k from 0."""
    k = np.arange(count + 1)
    logs = np.array([math.lgamma(count + 1) - math.lgamma(i + 1) - math.lgamma(count - i + 1) for i in k])
    with np.errstate(divide="ignore"):
        mass = np.exp(logs + k * math.log(share) + (count - k) * math.log1p(-share))
    cumulative: np.ndarray = np.minimum(np.cumsum(mass), 1.0)
    return cumulative

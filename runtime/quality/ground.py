"""On what ground does an image lie, so that a model can tell whether it was trained on the like?

Four figures that decide how hard sharpening is, each of any gain: how PAN and the bands correlate at MS
scale, how PAN's contrast compares with theirs, how crisp PAN is, and how bright. A model's home ground is a
range of each, over what it was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.quality.degradation import block_mean
from sfiin.runtime.quality.detail import crispness

Figures = Mapping[str, float]
Home = Mapping[str, tuple[float, ...]]

NAMES: Mapping[str, str] = {
    "correlation": "the correlation of PAN with the band that is most like it",
    "contrast": "PAN's contrast beside the bands'",
    "crispness": "PAN's fine contrast beside its middle scales",
    "brightness": "PAN's mean, as a share of the range of DN",
}
"""The figures, and what each says."""

SHARE = (2.0, 98.0)
"""The percentiles of what was trained on that bound the home ground."""


def measure(ms: NDArray[Any], pan: NDArray[Any], scale: float) -> Figures | None:
    """The figures of MS (B, h, w) and PAN (1, H, W), DN; None where one has no contrast to measure."""
    low = block_mean(pan, pan.shape[-1] // ms.shape[-1])
    bands = np.asarray(ms, np.float64)
    spread, pan_spread = bands.std((1, 2)), float(low.std())
    means, pan_mean = bands.mean((1, 2)), float(low.mean())
    if not spread.all() or not pan_spread or means.min() <= 0 or pan_mean <= 0:
        return None
    shared = ((bands - means[:, None, None]) * (low - pan_mean)).mean((1, 2)) / (spread * pan_spread)
    return {
        "correlation": float(shared.max()),
        "contrast": pan_spread / pan_mean / float(np.median(spread / means)),
        "crispness": crispness(pan),
        "brightness": pan_mean / scale,
    }


def home(found: Sequence[Figures]) -> Home:
    """The range of each figure over many images; empty without any."""
    if not found:
        return {}
    ranges = {name: np.percentile([one[name] for one in found], SHARE) for name in NAMES}
    return {name: (float(low), float(high)) for name, (low, high) in ranges.items()}


def outside(found: Sequence[Figures], ground: Home) -> list[str]:
    """Which figures of a scene, the median over its parts, lie outside a home ground: a sentence each."""
    if not found:
        return []
    notes = []
    for name, says in NAMES.items():
        value = float(np.median([one[name] for one in found]))
        low, high = ground.get(name, (-np.inf, np.inf))
        if not low <= value <= high:
            notes.append(
                f"off the model's home ground: {says} is {value:.3g}, trained on {low:.3g} to {high:.3g}; "
                "compare with a classical method"
            )
    return notes

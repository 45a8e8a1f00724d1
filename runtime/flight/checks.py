"""Can this tile be right? What is known of a product without knowing the truth: its range, and its own MS.

Reduced to MS pixels, a product must give about what the sensor measured there (Wald's first property). How
nearly, differs by network and by place; so the limits are measured on tiles that are known to be right, per
band, and widened by a margin. What is looked at is the root mean square over a tile, in which many small
errors show, and the largest difference, in which a single large one does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.quality.degradation import block_mean

Alarm = Literal["not finite", "range", "inconsistent"]
Image = NDArray[np.floating]

MARGIN = 2.0
"""How many times what right tiles showed is still taken for right."""


@dataclass(frozen=True)
class Limits:
    """What right tiles do not exceed. Differences from MS are in shares of the tile's own contrast plus one
    DN.

    `rms` and `largest`: a figure a band; `beyond`: how far, as a share of the peak, values lie outside of 0
    to peak.
    """

    rms: tuple[float, ...]
    largest: tuple[float, ...]
    beyond: float

    def widened(self, margin: float = MARGIN) -> Limits:
        """The same with a margin."""
        wider = [tuple(margin * value for value in values) for values in (self.rms, self.largest)]
        return Limits(wider[0], wider[1], margin * self.beyond + 0.01)


def measure(tiles: Iterable[tuple[Image, Image, Image]], sensor: SensorProfile) -> Limits:
    """The largest figures over tiles that are known to be right, each (HRMS, MS, PAN) as in `alarms`."""
    rms, largest, beyond = [], [], []
    for hrms, ms, pan in tiles:
        one, two = _differences(hrms, ms, pan, sensor)
        rms.append(one)
        largest.append(two)
        beyond.append(_beyond(hrms, sensor))
    if not rms:
        raise ValueError("no tiles to measure limits on")
    highest = [tuple(map(float, np.max(figures, axis=0))) for figures in (rms, largest)]
    return Limits(highest[0], highest[1], max(beyond))


def alarms(hrms: Image, ms: Image, pan: Image, sensor: SensorProfile, limits: Limits) -> list[Alarm]:
    """What is wrong with a tile: HRMS (B, H, W), made of MS (B, h, w) and PAN (1, H, W), all in DN."""
    if not np.isfinite(hrms).all():
        return ["not finite"]
    found: list[Alarm] = []
    if _beyond(hrms, sensor) > limits.beyond:
        found.append("range")
    rms, largest = _differences(hrms, ms, pan, sensor)
    if (rms > limits.rms).any() or (largest > limits.largest).any():
        found.append("inconsistent")
    return found


def _differences(hrms: Image, ms: Image, pan: Image, sensor: SensorProfile) -> tuple[Image, Image]:
    """Root mean square and largest difference from MS, a figure a band, in shares of contrast."""
    apart = np.abs(block_mean(hrms, sensor.ratio) - ms)
    # A flat tile must come out flat; where PAN or a band varies, so may what is made of them.
    contrast = np.maximum(ms.std(axis=(1, 2), dtype=np.float64), pan.std(dtype=np.float64)) + 1.0
    return np.sqrt((apart**2).mean(axis=(1, 2))) / contrast, apart.max(axis=(1, 2)) / contrast


def _beyond(hrms: Image, sensor: SensorProfile) -> float:
    return max(0.0, float(-hrms.min()), float(hrms.max()) - sensor.peak) / sensor.peak

"""Does a scene lie on its model's home ground? A few windows tell."""

from __future__ import annotations

import numpy as np

from sfiin.runtime.contract import Contract
from sfiin.runtime.quality import ground
from sfiin.runtime.scenes.scene import Scene

SIDE = 256
"""PAN pixels a side of a window."""

WINDOWS = 3
"""Windows along each axis."""

VALID = 0.9
"""The least share of valid pixels of a window that counts."""


def notes(scene: Scene, contract: Contract) -> list[str]:
    """What of a scene lies outside what its model was trained on, a sentence each; none where that is not
    known.

    Raises SceneError when a file turns out to be damaged.
    """
    if not contract.home:
        return []
    ratio = contract.sensor.ratio
    height, width = (max(min(side, SIDE) // ratio, 1) * ratio for side in (scene.height, scene.width))
    rows, cols = (
        sorted({int(at) // ratio * ratio for at in np.linspace(0, max(whole - side, 0), WINDOWS)})
        for whole, side in ((scene.height, height), (scene.width, width))
    )
    found = []
    for row in rows:
        for col in cols:
            ms, pan, valid = scene.read(row, col, height, width)
            figures = ground.measure(ms, pan, contract.sensor.scale) if valid.mean() >= VALID else None
            if figures is not None:
                found.append(figures)
    return ground.outside(found, contract.home)

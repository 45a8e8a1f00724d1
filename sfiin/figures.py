"""What does it look like? Pictures of images and errors, for people."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.files import publish

RGB = (2, 1, 0)
"""Red, green and blue of a blue-green-red(-nir) image."""


def comparison(
    path: Path, pan: NDArray[Any], ms: NDArray[Any], fused: NDArray[Any], truth: NDArray[Any], *, title: str
) -> None:
    """Write a PNG of PAN, MS, result, truth and the error's magnitude.

    `pan` (H, W), `ms` (B, h, w), `fused` and `truth` (B, H, W), DN; B of at least 3 in the order blue, green, red. All
    colour panels share one stretch, from the truth's 1st to its 99th percentile. Raises OutputError.
    """
    from matplotlib.figure import Figure

    low, high = np.percentile(truth, (1, 99))
    error = np.abs(fused.astype(np.float64) - truth).mean(0)
    figure = Figure(figsize=(18, 4.4), layout="constrained")
    panels = figure.subplots(1, 5)
    pan_low, pan_high = np.percentile(pan, (1, 99))
    panels[0].imshow(pan, cmap="gray", vmin=pan_low, vmax=pan_high)
    for panel, image in zip(panels[1:4], (ms, fused, truth), strict=True):
        panel.imshow(np.clip((image[list(RGB)].transpose(1, 2, 0) - low) / (high - low), 0, 1))
    shown = panels[4].imshow(error, cmap="magma", vmin=0, vmax=np.percentile(error, 99))
    figure.colorbar(shown, ax=panels[4], label="DN")
    names = ("PAN", "MS", "SFIIN", "truth", "|SFIIN - truth|, mean of bands")
    for panel, name in zip(panels, names, strict=True):
        panel.set_title(name)
        panel.set_axis_off()
    figure.suptitle(title)
    with publish(path) as part:
        figure.savefig(part, dpi=80)

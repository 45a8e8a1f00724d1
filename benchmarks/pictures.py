"""What does a product look like beside the classical ones, pixel for pixel?

    python benchmarks/pictures.py MODEL PAIR.npz -o PICTURE.png [--at ROW COL] [--side 240]

One strip, each image as large as it is: PAN, MS (pixels repeated), GS, MTF-GLP-HPM, SFIIN. Colours share one
stretch, that of MS. `docs/pictures/landsat-8.png` is of a CC-0 scene:

    python benchmarks/pictures.py runtime/models/sfiin-landsat.onnx L8_momotombo_1.npz \
        -o docs/pictures/landsat-8.png
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.data import fitting, pairs
from sfiin.data.pairs import Pair
from sfiin.evaluation import figures, judging
from sfiin.evaluation.judging import JudgedModel
from sfiin.runtime.contract import Tile
from sfiin.runtime.files import publish

GAP = 4
"""White pixels between images."""


def strip(model: JudgedModel, pair: Pair) -> NDArray[np.uint8]:
    """The images of a pair, side by side: (H, W, 3)."""
    chosen = list(figures.colours(model.sensor.bands))
    low, high = (value[chosen] for value in np.percentile(pair.ms, (1, 99), (1, 2)))
    products = {
        "ms": pair.ms.repeat(pair.ratio, 1).repeat(pair.ratio, 2),
        **{name: judging.without_network(name)(pair) for name in ("gs", "mtf_glp_hpm")},
        "sfiin": judging.by_model(model)(pair),
    }
    grey = np.percentile(pair.pan, (1, 99))
    panels = [stretched(pair.pan[[0, 0, 0]], grey[0], grey[1])]
    panels += [
        stretched(image[chosen], low[:, None, None], high[:, None, None]) for image in products.values()
    ]
    gap = np.full((pair.pan.shape[1], GAP, 3), 255, np.uint8)
    return np.concatenate([part for panel in panels for part in (panel, gap)][:-1], 1)


def stretched(image: NDArray[Any], low: Any, high: Any) -> NDArray[np.uint8]:
    """(3, H, W) to (H, W, 3), 0..255."""
    return np.rint(255 * np.clip((image - low) / (high - low), 0, 1)).astype(np.uint8).transpose(1, 2, 0)


def window(pair: Pair, row: int, col: int, side: int) -> Pair:
    """A square of the pair, from a PAN pixel on, along whole MS pixels."""
    ratio = pair.ratio
    top, left, size = row // ratio, col // ratio, side // ratio
    coarse = np.s_[:, top : top + size, left : left + size]
    fine = np.s_[:, top * ratio : (top + size) * ratio, left * ratio : (left + size) * ratio]
    return dataclasses.replace(pair, pan=pair.pan[fine], ms=pair.ms[coarse], truth=None)


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("pair", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--at", type=int, nargs=2, default=None)
    parser.add_argument("--side", type=int, default=240)
    options = parser.parse_args()
    from matplotlib import image

    model = judging.open_model(options.model, Tile(128, 128, 32))
    pair = fitting.in_order(pairs.load_pair(options.pair), model.sensor.bands)
    pair = fitting.scaled(pair, model.sensor.peak / fitting.peak(pair, model.sensor.peak))
    row, col = options.at or [(length - options.side) // 2 for length in pair.pan.shape[1:]]
    options.output.parent.mkdir(parents=True, exist_ok=True)
    with publish(options.output) as part:
        image.imsave(part, strip(model, window(pair, row, col, options.side)), format="png")


if __name__ == "__main__":
    main()

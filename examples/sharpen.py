"""A tour of sfiin from Python: arrays, files, tiles, and what goes wrong.

    python examples/sharpen.py [FOLDER]

It makes a small scene of its own, so that it needs nothing but sfiin with the extra 'cpu'.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

import sfiin


def scene(side: int = 256, ratio: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """PAN (side, side) and MS (4, side / ratio, side / ratio), uint16, DN: hills, a road, and four
    colours."""
    rows, cols = np.mgrid[:side, :side] / 32
    hills = 500 + 180 * np.sin(rows) * np.cos(1.3 * cols) + 120 * np.sin(3.1 * rows + 2.3 * cols)
    hills[np.abs(rows - 0.7 * cols - 2) < 0.15] = 950
    bands = np.stack([gain * hills for gain in (0.5, 0.7, 0.8, 1.4)])
    blocks = bands.reshape(4, side // ratio, ratio, side // ratio, ratio)
    pan = bands[:3].mean(0) * 0.8 + bands[3] * 0.2
    return pan.astype(np.uint16), blocks.mean((2, 4)).astype(np.uint16)


def main(folder: Path) -> None:
    """Sharpen the scene in three ways that give the same pixels, and meet an error."""
    pan, ms = scene()

    # Arrays in, arrays out: tiled and blended as the command does it.
    hrms = sfiin.sharpen(pan, ms)
    print("from arrays:", hrms.shape, hrms.dtype)

    # Files in, a GeoTIFF out, with a report of what was done.
    for name, image, pixel in (("pan", pan[None], 0.5), ("ms", ms, 2.0)):
        place = {"crs": "EPSG:32633", "transform": Affine(pixel, 0, 500_000, 0, -pixel, 4_000_000)}
        size = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
        with rasterio.open(
            folder / f"{name}.tif", "w", driver="GTiff", dtype=image.dtype, **size, **place
        ) as file:
            file.write(image)
    report = sfiin.sharpen_files(folder / "pan.tif", folder / "ms.tif", folder / "sharp.tif", overwrite=True)
    print(
        "from files:", report.output.name, report.size, f"{report.tiles} tiles by {Path(report.model).name}"
    )
    with rasterio.open(report.output) as file:
        print("the same pixels:", np.array_equal(file.read(), hrms))

    # One tile through an open model: what all of it is made of.
    with sfiin.open_model("sfiin-vhr4") as model:
        tile = model.contract.tile
        fused = model.run(
            ms[:, : tile.height // 4, : tile.width // 4], pan[None, : tile.height, : tile.width]
        )
        print("one tile:", fused.shape, fused.dtype, "for", ", ".join(model.contract.sensor.bands))

    # Whatever a user can mend is an sfiin.SfiinError, whose text says what to do.
    try:
        sfiin.sharpen(pan, ms[:3])
    except sfiin.MismatchError as error:
        print("refused:", error)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(Path(sys.argv[1]))
    else:
        with tempfile.TemporaryDirectory() as made:
            main(Path(made))

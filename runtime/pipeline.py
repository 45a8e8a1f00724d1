"""How does a scene become a product? Tile by tile through a session, blended in a strip one tile high."""

from __future__ import annotations

import dataclasses
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

import runtime
from runtime.contract import Contract
from runtime.errors import MismatchError, SceneError, SfiinError
from runtime.files import publish
from runtime.scene import Scene, open_raster
from runtime.session import Pipelined, Session
from runtime.tiles import TilePlan, plan

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Report:
    """What sharpening did: `pixels` of the product per band, of which `nodata` lack data; wall-clock `seconds`.

    `clipped` counts, by band, valid values that the product's data type could not hold.
    """

    tiles: int
    pixels: int
    nodata: int
    clipped: dict[str, int]
    seconds: float


def sharpen(
    session: Session,
    scene: Scene,
    out: Path,
    *,
    batch: int = 1,
    overlap: int | None = None,
    progress: Progress | None = None,
) -> Report:
    """Fuse a scene into a GeoTIFF of MS' data type on PAN's grid; `out` appears only when it is complete.

    `batch` tiles go to the session at once; `overlap` is another than the model's, in PAN pixels, the one part of the
    tile that a model does not fix; `progress` is told the number of tiles done and of all. Memory is bounded
    by one row of tiles. Integers are rounded half to even and clipped to their type; where PAN or any MS band has no
    data the product has none, and a valid value equal to the nodata value moves to the nearest one that is not.
    Raises MismatchError when the scene was opened for another sensor, SceneError when a file turns out to be damaged,
    OutputError when `out` cannot be written, SfiinError when the model returns values that are not finite.
    """
    contract = session.contract
    if scene.sensor != contract.sensor:
        raise MismatchError(f"sensor: the model is for '{contract.sensor.name}', the scene for '{scene.sensor.name}'")
    began = time.perf_counter()
    tile = contract.tile if overlap is None else dataclasses.replace(contract.tile, overlap=overlap)
    tiles = plan(scene.height, scene.width, tile, contract.sensor.ratio)
    with publish(out) as part:
        with open_raster(part, "w", **scene.profile) as product:
            product.colorinterp = scene.colours
            product.descriptions = scene.bands
            product.update_tags(**_tags(contract))
            strip, writer = _Strip(scene, tiles), _Writer(scene, product)
            for i, (row, following) in enumerate(pairwise((*tiles.rows, scene.height))):
                _add_row(session, scene, strip, i, batch=batch, progress=progress)
                writer.write(row, *strip.take(following - row))
        writer.check(part)
    return Report(len(tiles), scene.height * scene.width, writer.nodata, writer.clipped, time.perf_counter() - began)


def _tags(contract: Contract) -> dict[str, str]:
    return {
        "SFIIN_MODEL": contract.checkpoint,
        "SFIIN_LOWERING": contract.lowering,
        "SFIIN_PRECISION": contract.precision,
        "SFIIN_VERSION": runtime.__version__,
    }


def _add_row(session: Session, scene: Scene, strip: _Strip, i: int, *, batch: int, progress: Progress | None) -> None:
    """Run row `i` of tiles and add the results to the strip."""
    tiles = strip.tiles
    columns = range(len(tiles.cols))
    ahead: deque[tuple[range, NDArray[np.bool_]]] = deque()

    def batches() -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
        for first in range(0, len(columns), batch):
            chosen = columns[first : first + batch]
            windows = [(tiles.rows[i], tiles.cols[j], tiles.tile.height, tiles.tile.width) for j in chosen]
            ms, pan, valid = (np.stack(part) for part in zip(*(scene.read(*window) for window in windows), strict=True))
            if valid.any():  # where there is nothing to see there is nothing to compute, either
                ahead.append((chosen, valid))
                yield ms, pan

    done = 0
    for fused in _fused(session, batches()):
        chosen, valid = ahead.popleft()
        for j, image, good in zip(chosen, fused, valid, strict=True):
            strip.add(i, j, image, good)
        done = chosen[-1] + 1
        if progress:
            progress(i * len(columns) + done, len(tiles))
    if progress and done < len(columns):  # the last ones were empty
        progress((i + 1) * len(columns), len(tiles))


def _fused(
    session: Session, batches: Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]
) -> Iterator[NDArray[np.float32]]:
    """Results in order; a session that can has the next batches read while it computes."""
    if isinstance(session, Pipelined):
        return session.run_many(batches)
    return (session.run(*batch) for batch in batches)


class _Strip:
    """The rows of the product, one tile high, to which tiles are still being added."""

    def __init__(self, scene: Scene, tiles: TilePlan) -> None:
        self.tiles = tiles
        height, width = tiles.tile.height, tiles.cols[-1] + tiles.tile.width
        self._total = np.zeros((len(scene.bands), height, width), np.float32)
        self._valid = np.zeros((height, width), np.bool_)
        self._shape = scene.height, scene.width

    def add(self, i: int, j: int, image: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add tile (i, j), which begins at the strip's first row."""
        if not np.isfinite(image).all():
            at = f"row {self.tiles.rows[i]}, column {self.tiles.cols[j]}"
            raise SfiinError(f"the model's result is not finite for the tile at {at}; its weights are damaged")
        columns = slice(self.tiles.cols[j], self.tiles.cols[j] + image.shape[-1])
        self._total[..., columns] += image * self.tiles.weights(i, j)
        self._valid[:, columns] = valid

    def take(self, rows: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Remove the first rows, which are complete, within the scene; the rest moves up."""
        width = self._shape[1]
        total, valid = self._total[:, :rows, :width].copy(), self._valid[:rows, :width].copy()
        kept = self._valid.shape[0] - rows
        for strip in (self._total, self._valid):
            strip[..., :kept, :] = strip[..., rows:, :]
            strip[..., kept:, :] = 0
        return total, valid


class _Writer:
    """Turns finished rows into the product's data type and counts what was lost."""

    def __init__(self, scene: Scene, product: Any) -> None:
        self.nodata = 0
        self.clipped = dict.fromkeys(scene.bands, 0)
        self._scene = scene
        self._product = product
        self._written: list[tuple[Window, int]] = []

    def write(self, row: int, image: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Write rows (bands, rows, width) from `row` on; what is not valid (rows, width) becomes nodata."""
        nodata = self._scene.nodata
        self.nodata += int(valid.size - valid.sum())
        bands = np.empty(image.shape, self._scene.dtype)
        for band, values, name in zip(bands, image, self._scene.bands, strict=True):
            band[...], outside = _convert(values, self._scene.dtype)
            self.clipped[name] += int((outside & valid).sum())
            if nodata is not None:
                band[band == nodata] = _beside(nodata, self._scene.dtype)
                band[~valid] = nodata
        window = Window(0, row, image.shape[2], image.shape[1])
        self._product.write(bands, window=window)
        self._written.append((window, zlib.crc32(bands.data)))

    def check(self, path: Path) -> None:
        """Read the closed product back, as GDAL does not tell when its last writes fail. Raises OSError if they did."""
        try:
            with open_raster(path) as product:
                complete = all(zlib.crc32(product.read(window=window)) == crc for window, crc in self._written)
        except (SceneError, RasterioIOError):
            complete = False
        if not complete:
            raise OSError("it does not read back as written, most likely the disk is full")


def _convert(values: NDArray[np.float32], dtype: np.dtype[Any]) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values in the data type, and where it could not hold them."""
    if dtype.kind == "f":
        return values.astype(dtype), np.zeros(values.shape, np.bool_)
    limits = np.iinfo(dtype)
    # float32 has no 2**32 - 1; float64 has.
    rounded = np.rint(values.astype(np.float64))
    held = np.clip(rounded, limits.min, limits.max)
    return held.astype(dtype), held != rounded


def _beside(nodata: float, dtype: np.dtype[Any]) -> float:
    """A valid value next to nodata: one above, or below where there is nothing above."""
    if dtype.kind == "f":
        return float(nodata + max(abs(nodata), 1) * np.finfo(dtype).eps)
    return nodata + 1 if nodata < np.iinfo(dtype).max else nodata - 1

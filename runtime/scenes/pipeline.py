"""How does a scene become a product? Tile by tile through a session, blended in a strip one tile high.

A thread reads the next tiles and another writes the last rows while the session computes. Each finished row
of tiles is kept in a journal (`sfiin.runtime.scenes.journal`), from which a run that was killed goes on.
"""

from __future__ import annotations

import dataclasses
import errno
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

import sfiin
from sfiin.runtime.backends.session import Pipelined, Session
from sfiin.runtime.errors import MismatchError, SceneError, SfiinError, StoppedError
from sfiin.runtime.scenes import beside, identity, saturation
from sfiin.runtime.scenes.concurrency import Behind, ahead
from sfiin.runtime.scenes.identity import Identity
from sfiin.runtime.scenes.journal import Arrays, Journal, journal
from sfiin.runtime.scenes.names import title
from sfiin.runtime.scenes.product import Compression, Kind, creation_options, finish
from sfiin.runtime.scenes.raster import create
from sfiin.runtime.scenes.scene import Scene, open_raster
from sfiin.runtime.scenes.tiles import TilePlan, plan

Progress = Callable[[int, int], None]

Publish = Callable[[Path, "Sharpened"], None]
"""Told of a complete product under its hidden name, just before it appears; what it raises keeps it from
that."""

MOST_CLIPPED = 0.5
"""The share of valid values that may be clipped."""

BATCHES_AHEAD, ROWS_BEHIND = 2, 1
"""Read but not yet computed, and computed but not yet written, beside those at work."""


@dataclass(frozen=True)
class Form:
    """What kind of file a product becomes (`sfiin.runtime.scenes.product`)."""

    kind: Kind = "gtiff"
    compress: Compression = "deflate"
    overviews: bool = False


@dataclass(frozen=True)
class Sharpened:
    """What sharpening did: `pixels` of the product per band, of which `nodata` lack data; wall-clock
    `seconds`.

    `clipped` counts, by band, valid values that the product's data type could not hold; `resumed` is how many
    of the rows of tiles an earlier run had done, `skipped` the numbers of tiles, row after row, that have no
    data and were not computed, and `notes` say what else a user should know, a sentence each.
    """

    tiles: int
    pixels: int
    nodata: int
    clipped: dict[str, int]
    seconds: float
    resumed: int = 0
    notes: tuple[str, ...] = ()
    skipped: tuple[int, ...] = ()


def sharpen(
    session: Session,
    scene: Scene,
    out: Path,
    *,
    batch: int = 1,
    overlap: int | None = None,
    form: Form | None = None,
    progress: Progress | None = None,
    inputs: Identity | None = None,
    about: Mapping[str, Any] | None = None,
    publish: Publish | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Sharpened:
    """Fuse a scene into a GeoTIFF of MS' data type on PAN's grid; `out` appears only when it is complete, and
    what lies beside it of an older product goes (`sfiin.runtime.scenes.beside`).

    `batch` tiles go to the session at once; `overlap` is another than the model's, in PAN pixels, the one
    part of the tile that a model does not fix; `progress` is told the number of tiles done and of all;
    `inputs` is the scene's identity where it is known already; `about` names what else the pixels depend on,
    such as the digest of the model's bytes; `publish` has the last word; once `stop` says so, the row at hand
    is finished and kept. Memory is bounded by some rows of tiles. Integers are rounded half to even and
    clipped to their type; where PAN or any MS band has no data the product has none, and a valid value equal
    to the nodata value moves to the nearest one that is not. A run of the same inputs, model and settings
    that was stopped is resumed, to the same bytes. What is saturated in MS is in the product, and nothing
    beyond (`sfiin.runtime.scenes.saturation`).

    Raises MismatchError when the scene was opened for another sensor, or most values are clipped; SceneError
    when a file turns out to be damaged, or has changed meanwhile; OutputError when `out` cannot be written;
    SfiinError when the model returns values that are not finite; StoppedError when it was told to stop.
    """
    contract, form = session.contract, form or Form()
    if scene.sensor != contract.sensor:
        raise MismatchError(
            f"sensor: the model is for '{contract.sensor.name}', the scene for '{scene.sensor.name}'"
        )
    began = time.perf_counter()
    tile = contract.tile if overlap is None else dataclasses.replace(contract.tile, overlap=overlap)
    tiles = plan(*scene.extent, tile, contract.sensor.ratio)
    inputs = inputs or identity.of(scene.datasets)
    told = _about(session, scene, tiles, batch) | {"files": inputs.digests, "more": dict(about or {})}
    with journal(out, told) as book:
        done = book.rows
        scene = scene.sifted(wholly=bool(done))
        levels = saturation.levels(scene)
        product = _Product(scene, book.part, levels, form, _tags(session))
        with closing(product), Behind(ROWS_BEHIND) as behind:
            rows = _Rows(scene, tiles, book, product, behind)
            rows.replay()
            complete = rows.compute(session, batch, progress, stop)
        if not complete:
            raise StoppedError(f"{out}: stopped; what is done is kept, start again to go on")
        product.complete()
        notes = (
            *scene.notes,
            *inputs.notes,
            *scene.found(),
            *saturation.notes(scene.bands, levels.most),
            *saturation.pan_notes(scene, product.pan),
            *([book.begun] if book.begun else []),
        )
        seconds = time.perf_counter() - began
        pixels = scene.height * scene.width
        report = Sharpened(
            len(tiles), pixels, product.nodata, product.clipped, seconds, done, notes, tuple(rows.skipped)
        )
        _require_range(report, scene)
        inputs.check()
        if publish:
            publish(book.part, report)
        beside.remove(out)
    return report


def _require_range(report: Sharpened, scene: Scene) -> None:
    """Raise MismatchError where the product's type could not hold most of its values."""
    valid = (report.pixels - report.nodata) * len(scene.bands)
    clipped = sum(report.clipped.values())
    if clipped > MOST_CLIPPED * valid:
        raise MismatchError(
            f"scale: {clipped / valid:.0%} of the product's values do not fit into {scene.dtype.name} and "
            f"would be clipped; the files' numbers are not what the model wants, or --gain {scene.gain:g} is "
            "wrong"
        )


def _about(session: Session, scene: Scene, tiles: TilePlan, batch: int) -> dict[str, Any]:
    """All that a row's numbers depend on."""
    return {
        "gain": scene.gain,
        "ms": scene.placement,
        "bands": [[title(file.name), index] for file, index in scene.ms_bands],
        "nodata": repr(scene.nodata),
        "model": session.contract.to_json(),
        "bytes": getattr(session, "sha256", ""),
        "session": type(session).__qualname__,
        "batch": batch,
        "tile": dataclasses.asdict(tiles.tile),
        "version": sfiin.__version__,
    }


@dataclass(frozen=True)
class _Batch:
    """Tiles side by side in row `row`: their columns, inputs, and where they are valid."""

    row: int
    columns: range
    ms: NDArray[np.float32]
    pan: NDArray[np.float32]
    valid: NDArray[np.bool_]


class _Rows:
    """The rows of tiles, from the files or the journal through the strip to the journal and the product."""

    def __init__(
        self,
        scene: Scene,
        tiles: TilePlan,
        book: Journal,
        product: _Product,
        behind: Behind,
    ) -> None:
        self._scene, self._tiles, self._book, self._product, self._behind = (
            scene,
            tiles,
            book,
            product,
            behind,
        )
        self._strip = _Strip(scene, tiles)
        self.skipped: list[int] = []
        self._heights, self._widths = (
            [b - a for a, b in pairwise((*starts, length))]
            for starts, length in ((tiles.rows, tiles.height), (tiles.cols, tiles.width))
        )
        self._pan = saturation.Peak()

    def replay(self) -> None:
        """Write what the journal kept, and take up the strip where it was."""
        for i in range(self._book.rows):
            row = self._book.row(i)
            self._behind.do(lambda row=row: self._product.write(row))  # type: ignore[misc]
        if self._book.rows:
            self._strip.put(self._book.left())

    def compute(
        self, session: Session, batch: int, progress: Progress | None, stop: Callable[[], bool]
    ) -> bool:
        """Run the other tiles; False where it was told to stop before the last row."""
        waiting: deque[_Batch] = deque()

        def wanted(batches: Iterator[_Batch]) -> Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]:
            for ready in batches:
                waiting.append(ready)
                if ready.valid.any():  # where there is nothing to see there is nothing to compute, either
                    yield ready.ms, ready.pan

        with closing(ahead(self._batches(batch), BATCHES_AHEAD)) as batches:
            for fused in _fused(session, wanted(batches)):
                while not waiting[0].valid.any():
                    self._passed(waiting.popleft(), progress)
                done = waiting.popleft()
                for j, image, ms, good in zip(done.columns, fused, done.ms, done.valid, strict=True):
                    held = saturation.kept(image, ms, self._product.levels.most, self._scene.gain)
                    self._strip.add(done.row, j, held, good)
                self._look(done)
                self._passed(done, progress)
                if self._at_end(done) and done.row + 1 < len(self._tiles.rows) and stop():
                    return False
        while waiting:
            self._passed(waiting.popleft(), progress)
        return True

    def _look(self, batch: _Batch) -> None:
        """See PAN's own pixels of each tile, without those that the next ones see."""
        for j, pan, good in zip(batch.columns, batch.pan, batch.valid, strict=True):
            own = slice(self._heights[batch.row]), slice(self._widths[j])
            self._pan.add(pan[0][own][good[own]])

    def _at_end(self, batch: _Batch) -> bool:
        return batch.columns[-1] + 1 == len(self._tiles.cols)

    def _batches(self, batch: int) -> Iterator[_Batch]:
        tiles, columns = self._tiles, range(len(self._tiles.cols))
        for i in range(self._book.rows, len(tiles.rows)):
            for first in range(0, len(columns), batch):
                chosen = columns[first : first + batch]
                windows = [
                    (tiles.rows[i], tiles.cols[j], tiles.tile.height, tiles.tile.width) for j in chosen
                ]
                read = zip(*(self._scene.read(*window) for window in windows), strict=True)
                yield _Batch(i, chosen, *map(np.stack, read))

    def _passed(self, batch: _Batch, progress: Progress | None) -> None:
        """A batch has gone through the strip; with the last one of a row its lines are complete."""
        if not batch.valid.any():
            self.skipped += [batch.row * len(self._tiles.cols) + j for j in batch.columns]
        if self._at_end(batch):
            image, valid = self._strip.take(self._heights[batch.row])
            if batch.row == 0:
                image, valid = image[:, self._scene.lead[0] :], valid[self._scene.lead[0] :]
            left, pan, self._pan = self._strip.left(), self._pan, saturation.Peak()
            self._behind.do(lambda: self._finished(image, valid, left, pan))
        if progress:
            progress(batch.row * len(self._tiles.cols) + batch.columns[-1] + 1, len(self._tiles))

    def _finished(
        self, image: NDArray[np.float32], valid: NDArray[np.bool_], left: Arrays, pan: saturation.Peak
    ) -> None:
        row = self._product.converted(image, valid) | {"pan": np.array([pan.value, pan.count])}
        self._book.keep(row, left)
        self._product.write(row)


def _fused(
    session: Session, batches: Iterator[tuple[NDArray[np.float32], NDArray[np.float32]]]
) -> Iterator[NDArray[np.float32]]:
    """Results in order; a session that can has the next batches copied while it computes."""
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
        self._columns = slice(scene.lead[1], scene.extent[1])

    def add(self, i: int, j: int, image: NDArray[np.float32], valid: NDArray[np.bool_]) -> None:
        """Add tile (i, j), which begins at the strip's first row."""
        # A sum is finite unless a number is not, or the numbers are beyond all that a sensor delivers.
        if not np.isfinite(image.sum()) and not np.isfinite(image).all():
            at = f"row {self.tiles.rows[i]}, column {self.tiles.cols[j]}"
            raise SfiinError(
                f"the model's result is not finite for the tile at {at}; its weights are damaged"
            )
        columns = slice(self.tiles.cols[j], self.tiles.cols[j] + image.shape[-1])
        self._total[..., columns] += image * self.tiles.weights(i, j)
        self._valid[:, columns] = valid

    def take(self, rows: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Remove the first rows, which are complete, within the scene; the rest moves up."""
        total, valid = self._total[:, :rows, self._columns].copy(), self._valid[:rows, self._columns].copy()
        self._kept = self._valid.shape[0] - rows
        for strip in (self._total, self._valid):
            strip[..., : self._kept, :] = strip[..., rows:, :]
            strip[..., self._kept :, :] = 0
        return total, valid

    def left(self) -> Arrays:
        """A copy of what is there for the next row after a `take`."""
        return {"total": self._total[:, : self._kept].copy(), "valid": self._valid[: self._kept].copy()}

    def put(self, left: Arrays) -> None:
        """Begin with what an earlier strip left."""
        kept = len(left["valid"])
        self._total[:, :kept], self._valid[:kept] = left["total"], left["valid"]


class _Product:
    """The GeoTIFF, written in whole rows of its blocks, and the counts of what was lost.

    It stays open: GDAL compresses what it adds to a file that it has opened again at another level. Whole
    blocks of all bands are written as they come, so that their order does not depend on GDAL's cache.
    """

    def __init__(
        self, scene: Scene, part: Path, levels: saturation.Levels, form: Form, tags: Mapping[str, str]
    ) -> None:
        self.levels, self.pan = levels, saturation.Peak()
        low, high = scene.limits
        self._limits = [(low, min(high, float(most))) for most in levels.most]
        self.nodata = 0
        self.clipped = dict.fromkeys(scene.bands, 0)
        self._scene, self._part, self._form = scene, part, form
        self._profile = (
            scene.profile | creation_options(scene.dtype, form.compress, scene.bits) | {"SPARSE_OK": True}
        )
        self._tags = {**tags, **scene.tags}
        self._waiting: list[NDArray[Any]] = []
        self._file: Any = None
        self._row = 0
        self._written: list[tuple[Window, int]] = []

    def converted(self, image: NDArray[np.float32], valid: NDArray[np.bool_]) -> Arrays:
        """Rows (bands, rows, width) in the product's data type, nodata where not valid (rows, width), and
        counts."""
        nodata = self._scene.nodata
        image = image if self._scene.gain == 1 else image / np.float32(self._scene.gain)
        bands = np.empty(image.shape, self._scene.dtype)
        clipped = []
        for band, values, limits, least in zip(bands, image, self._limits, self.levels.least, strict=True):
            band[...], outside = _convert(values, self._scene.dtype, limits)
            clipped.append(int((outside & valid).sum()))
            if np.isfinite(least):
                np.maximum(band, self._scene.dtype.type(least), out=band)
            if nodata is not None:
                band[band == nodata] = _beside(nodata, self._scene.dtype, self._scene.limits[1])
                band[~valid] = nodata
        return {"bands": bands, "clipped": np.array(clipped), "nodata": np.array(valid.size - valid.sum())}

    def write(self, row: Arrays) -> None:
        """Take the next rows, as `converted` makes them."""
        self.nodata += int(row["nodata"])
        self.pan.join(float(row["pan"][0]), int(row["pan"][1]))
        for name, count in zip(self._scene.bands, row["clipped"], strict=True):
            self.clipped[name] += int(count)
        self._waiting.append(row["bands"])
        side, height = self._profile["blockysize"], sum(part.shape[1] for part in self._waiting)
        whole = height if self._row + height == self._scene.height else height // side * side
        if whole:
            rows = np.concatenate(self._waiting, axis=1)
            self._waiting = [rows[:, whole:]]
            self._append(rows[:, :whole])

    def _append(self, rows: NDArray[Any]) -> None:
        window = Window(0, self._row, rows.shape[2], rows.shape[1])
        with rasterio.Env():  # a thread's own, and another thread may close the file
            if self._file is None:
                self._file = create(self._part, **self._profile)
                self._scene.metadata.write(self._file)
                self._file.update_tags(**self._tags)
            elif not self._part.exists():
                raise FileNotFoundError(errno.ENOENT, "it went while it was being written", str(self._part))
            self._file.write(rows, window=window)
        self._written.append((window, zlib.crc32(np.ascontiguousarray(rows).data)))
        self._row += rows.shape[1]

    def close(self) -> None:
        """Close the file, complete or not."""
        if self._file is not None:
            with rasterio.Env():
                self._file.close()

    def complete(self) -> None:
        """Read the file back, as GDAL does not tell when its last writes fail, and finish it. Raises
        OSError."""
        try:
            with open_raster(self._part) as product:
                complete = all(
                    zlib.crc32(product.read(window=window)) == crc for window, crc in self._written
                )
        except (SceneError, RasterioIOError):
            complete = False
        if not complete:
            raise OSError("it does not read back as written, most likely the disk is full")
        if self._form.kind == "cog" or self._form.overviews:
            finish(self._part, self._form.kind, self._form.compress)


def _tags(session: Session) -> dict[str, str]:
    own: dict[str, str] | None = getattr(session, "tags", None)  # of a session without a model
    if own is not None:
        return own
    contract = session.contract
    return {
        "SFIIN_MODEL": contract.checkpoint,
        "SFIIN_GOLDEN": contract.golden,
        "SFIIN_LOWERING": contract.lowering,
        "SFIIN_PRECISION": contract.precision,
        "SFIIN_VERSION": sfiin.__version__,
        **({"SFIIN_BACKEND": backend} if (backend := getattr(session, "backend", "")) else {}),
        # Of the bytes that ran; a session elsewhere, such as on a server, does not know them.
        **({"SFIIN_MODEL_SHA256": ran} if (ran := getattr(session, "sha256", "")) else {}),
    }


def _convert(
    values: NDArray[np.float32], dtype: np.dtype[Any], limits: tuple[float, float]
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Values in the data type, and where it could not hold them."""
    if dtype.kind == "f":
        return values.astype(dtype), np.zeros(values.shape, np.bool_)
    # float32 has no 2**32 - 1; float64 has.
    rounded = np.rint(values if dtype.itemsize <= 2 else values.astype(np.float64))
    held = np.clip(rounded, *(rounded.dtype.type(limit) for limit in limits))
    return held.astype(dtype), held != rounded


def _beside(nodata: float, dtype: np.dtype[Any], most: float) -> float:
    """A valid value next to nodata: one above, or below where there is nothing above."""
    if dtype.kind == "f":
        return float(nodata + max(abs(nodata), 1) * np.finfo(dtype).eps)
    return nodata + 1 if nodata < most else nodata - 1

"""What do a PAN and MS pair hold, and how are windows of them read on their common grid
(sfiin.runtime.scenes.grid)?

A scene's pixel is valid where PAN and all MS bands are (`sfiin.runtime.scenes.layer`). A product marks what
is not valid by MS' nodata; else, for floats, by NaN; else by PAN's nodata; else, if a file can lack pixels at
all, by 0; of these, the first that its type holds.

A product has MS' data type, or the smallest that holds all bands' types. It has MS' number of bits per sample
(NBITS, such as 11 in UInt16) if all MS bands declare fewer than the type's and nodata fits in them.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import InputError
from sfiin.runtime.scenes import bands, limits, metadata, plausible, product
from sfiin.runtime.scenes.drift import Drift
from sfiin.runtime.scenes.grid import Axis, Grid, Span, common_grid, is_located, moved
from sfiin.runtime.scenes.layer import Image, Layer, Mask, sample
from sfiin.runtime.scenes.metadata import Metadata
from sfiin.runtime.scenes.names import Name, title
from sfiin.runtime.scenes.outliers import Outliers
from sfiin.runtime.scenes.place import NOWHERE, Relief
from sfiin.runtime.scenes.raster import describe, open_raster
from sfiin.runtime.scenes.view import View

__all__ = ["Scene", "describe", "open_raster", "open_scene"]


@dataclass(frozen=True, eq=False)
class Scene:
    """An open pair of PAN and MS on the common grid.

    `height` and `width` are in PAN pixels and need not be multiples of the sensor's ratio. `bands` are the MS
    bands' names, `dtype` is MS' data type, `bits` how many of its bits a product uses (None: all), and
    `nodata` marks, in a product, pixels that PAN or any MS band lacks (None when neither file can lack any).
    `gain` is how many DN make one of the files' numbers. `crs` is None and `transform` the identity when the
    files have no geotransform. `metadata` is what a product takes over, `tags` what else is written into it;
    `notes` say what a user should know about the pair, a sentence each. `lead` is how many rows and columns
    of the grid lie before the product's first, so that it begins with a whole MS pixel.
    """

    sensor: SensorProfile
    height: int
    width: int
    dtype: np.dtype[Any]
    bits: int | None
    nodata: float | None
    gain: float
    crs: Any
    transform: Affine
    metadata: Metadata
    notes: tuple[str, ...]
    _pan: View
    _ms: View
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    lead: tuple[int, int] = (0, 0)

    @property
    def bands(self) -> tuple[str, ...]:
        """The MS bands' names, as the files give them, else as the model does."""
        return self.metadata.names

    @property
    def extent(self) -> tuple[int, int]:
        """The grid's height and width, with what leads the product."""
        return self.height + self.lead[0], self.width + self.lead[1]

    @property
    def ms_bands(self) -> list[tuple[Any, int]]:
        """The MS bands' open files and indices, in the product's order."""
        return _bands(self._ms.layers)

    @property
    def datasets(self) -> tuple[Any, ...]:
        """The open files, PAN first."""
        layers = [layer for raster in (self._pan, self._ms) for layer in raster.layers]
        return tuple(dict.fromkeys(layer.file for layer in layers))

    def found(self) -> tuple[str, ...]:
        """What reading has shown so far that a user should know, a sentence each."""
        layers = [layer for raster in (self._pan, self._ms) for layer in raster.layers]
        return tuple(note for layer in layers for note in layer.outliers.notes(title(layer.file.name)))

    @property
    def brightest(self) -> float:
        """The largest of MS' numbers that a sensor delivers."""
        return min(layer.outliers.high for layer in self._ms.layers) / self.gain

    def sifted(self, *, wholly: bool = False) -> Scene:
        """The same scene, whose product can mark what no sensor delivers, where its files hold such values.

        They are looked for in all of the files where there is no nodata value yet, or `wholly`, so that
        `found` knows them all. Raises SceneError for a damaged file, or for such values where they are
        refused.
        """
        if self.nodata is not None and not wholly:
            return self
        layers = [layer for raster in (self._pan, self._ms) for layer in raster.layers]
        for layer in layers:
            layer.search()
        met = [layer.outliers.extreme for layer in layers if layer.outliers.count]
        if self.nodata is not None or not met:
            return self
        numbers = sorted((round(value / self.gain) for value in met), key=abs)
        top = self.limits[1]
        fits = [number for number in numbers if _fits(number, self.dtype) and number <= top]
        return dataclasses.replace(self, nodata=float(fits[-1] if fits else 0))

    @property
    def parts(self) -> list[str]:
        """The names of all files that GDAL reads for the scene, with what lies beside them."""
        layers = [layer for raster in (self._pan, self._ms) for layer in raster.layers]
        return [name for layer in layers for name in layer.file.files]

    @property
    def placement(self) -> list[float]:
        """Where MS lies on the common grid, which coregistration changes."""
        drift = [] if self._ms.drift is None else self._ms.drift.numbers.ravel().tolist()
        return [
            *(number for axis in (self._ms.rows, self._ms.cols) for number in (axis.origin, axis.step)),
            *drift,
        ]

    @property
    def block_row(self) -> int:
        """Bytes of one row of the files' blocks, as they are in memory."""
        files = [layer.file for raster in (self._pan, self._ms) for layer in raster.layers]
        return sum(
            height * file.width * np.dtype(dtype).itemsize
            for file in files
            for (height, _), dtype in zip(file.block_shapes, file.dtypes, strict=True)
        )

    def coregistered(self, row: float, col: float) -> Scene:
        """The same scene with MS moved down and to the right by so many PAN pixels, by interpolation."""
        rows, cols = (
            dataclasses.replace(axis, origin=axis.origin - axis.step * shift / self.sensor.ratio)
            for axis, shift in ((self._ms.rows, row), (self._ms.cols, col))
        )
        return dataclasses.replace(self, _ms=dataclasses.replace(self._ms, rows=rows, cols=cols))

    @property
    def uncovered(self) -> tuple[int, int]:
        """Whole MS pixels of the grid, as PAN rows and columns, that lie outside of MS."""
        rows, cols = (
            int(
                max(0.0, -axis.origin) / axis.step
                + max(0.0, axis.origin / axis.step + axis.count - axis.size / axis.step)
            )
            * self.sensor.ratio
            for axis in (self._ms.rows, self._ms.cols)
        )
        return rows, cols

    def drifted(self, drift: Drift) -> Scene:
        """The same scene with MS moved by so many PAN pixels as `drift` says for each place."""
        return dataclasses.replace(
            self, _ms=dataclasses.replace(self._ms, drift=drift, ratio=self.sensor.ratio)
        )

    def told(self, *notes: str, **tags: str) -> Scene:
        """The same scene with more notes, and more tags for its product."""
        return dataclasses.replace(self, notes=(*self.notes, *notes), tags={**self.tags, **tags})

    @property
    def resampled(self) -> bool:
        """Whether MS is interpolated onto the common grid."""
        return self._ms.drift is not None or self._ms.rows.resampled or self._ms.cols.resampled

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Image, Image, Mask]:
        """Read a window of the grid (`lead`) in PAN pixels, all four numbers multiples of the ratio.

        Returns MS (B, height / ratio, width / ratio) and PAN (1, height, width), float32, DN, and a mask
        (height, width) of where both are valid. Beyond the scene the outermost pixels repeat. Pixels that a
        file marks as nodata, and such as are not finite, take the mean of the valid pixels around them.
        Raises SceneError when a file turns out to be damaged.
        """
        ratio = self.sensor.ratio
        if any(number % ratio for number in (row, col, height, width)):
            raise ValueError(
                f"window ({row}, {col}, {height}, {width}) is not on multiples of the ratio {ratio}"
            )
        ms, ms_valid = self._ms.read(row // ratio, col // ratio, height // ratio, width // ratio)
        pan, pan_valid = self._pan.read(row, col, height, width)
        return ms, pan, pan_valid & ms_valid.repeat(ratio, axis=0).repeat(ratio, axis=1)

    @property
    def limits(self) -> tuple[float, float]:
        """The smallest and the largest value that a product can hold, in the files' numbers."""
        if self.dtype.kind == "f":
            held = np.finfo(self.dtype)
            return float(held.min), float(held.max)
        low, high = np.iinfo(self.dtype).min, np.iinfo(self.dtype).max
        return low, high if self.bits is None else (1 << self.bits) - 1

    @property
    def profile(self) -> dict[str, Any]:
        """Creation options of a product, for rasterio: a tiled, compressed GeoTIFF of MS bands on the PAN
        grid.

        It has all bits of its type: who writes fewer of them, with `product.creation_options`, must keep to
        `limits`.
        """
        return {
            "driver": "GTiff",
            "height": self.height,
            "width": self.width,
            "count": len(self.bands),
            "dtype": self.dtype.name,
            "nodata": self.nodata,
            "crs": self.crs,
            "transform": self.transform,
        } | product.creation_options(self.dtype)

    @property
    def colours(self) -> tuple[ColorInterp, ...]:
        """The bands' colour interpretation."""
        return self.metadata.colours


@contextmanager
def open_scene(
    pan: Name,
    ms: Sequence[Name],
    sensor: SensorProfile,
    *,
    gain: float = 1.0,
    refuse_outliers: bool = False,
    chosen: str | None = None,
    stated: Sequence[str | None] | None = None,
    any_ratio: bool = False,
    memory: int | None = None,
    relief: Relief = NOWHERE,
) -> Iterator[Scene]:
    """Open PAN and MS, the latter one file or several.

    Which of MS' bands are the sensor's goes by what the files say, else by position; `chosen` overrides it,
    `stated` is what a vendor's metadata say in the files' place. With `any_ratio`, MS of another ratio than
    the sensor's is brought to it by resampling (`sfiin.runtime.scenes.bands`). `gain` is how many DN make one
    of the files' numbers: 1 for files that hold DN, the DN of reflectance 1 for reflectance. Values that no
    sensor delivers are no data, or an error with `refuse_outliers` (`sfiin.runtime.scenes.outliers`); a row
    of blocks must fit into `memory` bytes; RPCs meet the ground at `relief`.

    Raises SceneError when a file cannot be used or the two cannot be aligned, MismatchError when they are not
    what the sensor delivers; the message names `bands`, `ratio`, `bits` or `scale`. Raises InputError for a
    gain that is not positive, or a choice that is none.
    """
    if not 0 < gain < math.inf:
        raise InputError(f"--gain: {gain:g} is no number of DN that make 1; give a positive one")
    with ExitStack() as stack:
        pan_file = stack.enter_context(open_raster(pan))
        files = [stack.enter_context(open_raster(path)) for path in ms]
        for file in (pan_file, *files):
            limits.check_file(file, memory)

        def outliers(file: Any) -> Outliers:
            kind = file.dtypes[0]
            return Outliers.of(sensor.peak, refuse_outliers, np.float32 if "complex" in kind else kind, gain)

        pan_layer = Layer.of(pan_file, bands.images(pan_file, 1), gain, outliers(pan_file), 1)
        plausible.check_pan(pan_layer, files)
        choice = bands.choose(bands.look(files, stated), sensor.bands, chosen)
        ms_layers = [
            Layer.of(file, [band.index for band in group], gain, outliers(file))
            for file, group in itertools.groupby(choice.bands, key=lambda band: band.file)
        ]
        plausible.check_kinds([pan_layer, *ms_layers])
        grid = common_grid(pan_layer.file, files, sensor.ratio, any_ratio, relief)
        zeros = []
        for layer in (pan_layer, *ms_layers):
            values = sample(layer)
            if values.size:
                plausible.check_scale(layer, values, sensor)
                zeros.append((layer.file.name, float((values == 0).mean())))
        yield _scene(pan_layer, ms_layers, sensor, grid, (*choice.notes, *plausible.zero_notes(zeros)))


def _scene(
    pan: Layer, ms: Sequence[Layer], sensor: SensorProfile, grid: Grid, notes: tuple[str, ...]
) -> Scene:
    rows, cols, file = grid.rows, grid.cols, pan.file
    dtype = np.result_type(*(dtype for layer in ms for dtype in layer.dtypes))
    nodata = _product_nodata(pan, ms, dtype)
    bits, bits_notes = _product_bits(ms, nodata, dtype)
    passed = metadata.gather(file, _bands(ms), sensor.bands, rows.start, cols.start)
    return Scene(
        sensor=sensor,
        height=rows.count,
        width=cols.count,
        dtype=dtype,
        bits=bits,
        nodata=nodata,
        gain=pan.gain,
        crs=file.crs or ms[0].file.crs,
        transform=_transform(file, ms[0].file, grid, sensor.ratio),
        lead=(rows.lead, cols.lead),
        metadata=passed,
        notes=(*grid.notes, *passed.notes, *bits_notes, *notes),
        _pan=View([pan], _pan_axis(rows, file.height), _pan_axis(cols, file.width)),
        _ms=View(ms, rows.ms, cols.ms),
    )


def _bands(ms: Sequence[Layer]) -> list[tuple[Any, int]]:
    return [(layer.file, i) for layer in ms for i in layer.bands]


def _pan_axis(span: Span, size: int) -> Axis:
    return Axis(span.start - span.lead, 1, span.lead + span.count, size)


def _transform(pan: Any, ms: Any, grid: Grid, ratio: int) -> Affine:
    """The product's: PAN's, else MS' where only MS has one, and the two begin at one corner."""
    if is_located(pan):
        return moved(pan.transform, grid.rows.start, grid.cols.start)
    if not is_located(ms):
        return Affine.identity()
    a, b, c, d, e, f = tuple(ms.transform)[:6]
    fine = Affine(a / ratio, b / ratio, c, d / ratio, e / ratio, f)
    return moved(fine, grid.rows.start, grid.cols.start)


def _product_nodata(pan: Layer, ms: Sequence[Layer], dtype: np.dtype[Any]) -> float | None:
    """MS' nodata; else NaN for floats; else PAN's; else 0 if a file has a mask. What `dtype` cannot hold
    is skipped."""
    own, other = ([value for layer in layers for value in layer.nodata] for layers in (ms, [pan]))
    for nodata in (*own, math.nan, *other):
        if nodata is not None and _fits(nodata, dtype):
            return float(nodata)
    return 0.0 if any(layer.may_lack for layer in (pan, *ms)) else None


def _product_bits(
    ms: Sequence[Layer], nodata: float | None, dtype: np.dtype[Any]
) -> tuple[int | None, tuple[str, ...]]:
    """MS' bits per sample if a product can have them too, and what is to be said where it cannot."""
    bits = metadata.bits(_bands(ms)) if dtype.kind == "u" else None
    if bits is None or nodata is None or nodata < 1 << bits:
        return bits, ()
    return None, (
        f"the product has {8 * dtype.itemsize} bits, not MS' {bits}, to hold the nodata value {nodata:g}",
    )


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return not math.isfinite(value) or abs(value) <= np.finfo(dtype).max
    return float(value).is_integer() and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)

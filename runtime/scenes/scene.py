"""What do PAN and MS files hold, and how are windows of them read on their common grid
(sfiin.runtime.scenes.grid)?

A pixel is valid where its file says so: by a mask in the file or beside it (.msk), which as everywhere in
GDAL stands above nodata values, else by the nodata value of each band; by an alpha band (above 0); and only
where it is finite. What is not declared is data: a 0 is a 0. A scene's pixel is valid where PAN and all MS
bands are; where MS is interpolated, its validity goes by the nearest pixel. A product marks what is not valid
by MS' nodata; else, for floats, by NaN; else by PAN's nodata; else, if a file can lack pixels at all, by 0;
of these, the first that its type holds.

A product has MS' data type, or the smallest that holds all bands' types. It has MS' number of bits per sample
(NBITS, such as 11 in UInt16) if all MS bands declare fewer than the type's and nodata fits in them.

Digital numbers (DN) go into the model. Where files hold other numbers, such as reflectance, `gain` says how
many DN make one; without it, floats that are fractions and numbers beyond twice the sensor's peak are
refused, not guessed at.
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
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import RasterioIOError
from rasterio.transform import Affine
from rasterio.windows import Window

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import InputError, MismatchError, SceneError
from sfiin.runtime.scenes import bands, limits, metadata, product
from sfiin.runtime.scenes.cubic import cubic
from sfiin.runtime.scenes.drift import Drift
from sfiin.runtime.scenes.grid import Axis, Grid, Span, common_grid, is_located, moved
from sfiin.runtime.scenes.metadata import Metadata
from sfiin.runtime.scenes.names import Name, title
from sfiin.runtime.scenes.outliers import Outliers
from sfiin.runtime.scenes.raster import describe, open_raster, reason

__all__ = ["Scene", "describe", "open_raster", "open_scene"]

_REFLECTANCE = 1.5  # the largest value of floats that are taken for reflectance
_EXCESS = 2.0  # how often the sensor's peak may be exceeded
_ZEROS = 0.01  # the share of zeros from which on they are mentioned
_SAMPLES, _SAMPLE_SIDE = 4, 128  # windows per axis, pixels
_SEARCHED = 4 << 20  # bytes at once

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class _Layer:
    """An open file, those of its bands that are data, how many DN make one of its numbers, and its alpha
    bands."""

    file: Any
    bands: tuple[int, ...]
    gain: float
    outliers: Outliers
    alphas: tuple[int, ...] = ()

    @classmethod
    def of(
        cls, file: Any, indices: Sequence[int], gain: float, outliers: Outliers, wanted: int | None = None
    ) -> _Layer:
        """Some of a file's bands, which are images (`sfiin.runtime.scenes.bands`); the others are alpha."""
        images = bands.images(file, wanted)
        return cls(file, tuple(indices), gain, outliers, tuple(i for i in file.indexes if i not in images))

    @property
    def names(self) -> list[str | None]:
        return [self.file.descriptions[i - 1] for i in self.bands]

    @property
    def colours(self) -> list[ColorInterp]:
        return [self.file.colorinterp[i - 1] for i in self.bands]

    @property
    def dtypes(self) -> list[str]:
        return [self.file.dtypes[i - 1] for i in self.bands]

    @property
    def nodata(self) -> list[float | None]:
        return [self.file.nodatavals[i - 1] for i in self.bands]

    @property
    def may_lack(self) -> bool:
        """Whether pixels may be invalid though no value is nodata: by a mask, or because they are not
        finite."""
        if any(np.dtype(it).kind == "f" for it in self.dtypes):
            return True
        unmasked = {MaskFlags.all_valid, MaskFlags.alpha}
        flags = [self.file.mask_flag_enums[i - 1] for i in self.bands]
        return bool(self.alphas) or any(unmasked.isdisjoint(each) for each in flags)

    def load(self, window: Window) -> tuple[Image, Mask]:
        """Pixels in DN, and where each is valid, both (bands, height, width)."""
        image, valid = self.load_raw(window)
        if self.outliers.possible:
            self.outliers.sift(image, valid, int(window.row_off), int(window.col_off), self.file.name)
        return image, valid

    def search(self) -> None:
        """Look in all of the file for values that no sensor delivers. Raises SceneError as `load`."""
        if not self.outliers.possible:
            return
        high = self.file.block_shapes[0][0]
        line = self.file.width * len(self.bands) * np.dtype(self.dtypes[0]).itemsize
        lines = max(1, _SEARCHED // (line * high)) * high
        for top in range(0, self.file.height, lines):
            window = Window(0, top, self.file.width, min(lines, self.file.height - top))
            try:
                values = self.file.read(self.bands, window=window)
            except RasterioIOError as error:
                raise _damaged(self.file, error) from error
            ends = np.array([values.min(), values.max()], np.float32) * np.float32(self.gain)
            if not self.outliers.is_light(ends).all():  # as it is for a NaN
                self.load(window)

    def load_raw(self, window: Window) -> tuple[Image, Mask]:
        """The same, with what no sensor delivers."""
        try:
            image: Image = self.file.read(self.bands, window=window, out_dtype=np.float32)
            valid: Mask = np.isfinite(image)
            # GDAL's own use of alpha depends on the number of bands.
            if MaskFlags.alpha not in self.file.mask_flag_enums[self.bands[0] - 1]:
                valid &= self.file.read_masks(self.bands, window=window) > 0
            for alpha in self.alphas:
                valid &= self.file.read(alpha, window=window) > 0
        except RasterioIOError as error:
            raise _damaged(self.file, error) from error
        if self.gain != 1:
            with np.errstate(over="ignore"):
                image = image * np.float32(self.gain)
        return image, valid


@dataclass(frozen=True, eq=False)
class _Raster:
    """Bands of one or more files of one grid, seen on the scene's grid."""

    layers: Sequence[_Layer]
    rows: Axis
    cols: Axis
    drift: Drift | None = None
    ratio: int = 1

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Image, Mask]:
        """Pixels (bands, height, width) float32, all finite, and where all bands are valid (height,
        width)."""
        if self.drift is not None:
            return self._read_drifted(self.drift, row, col, height, width)
        rows, cols = self.rows.taps(row, height), self.cols.taps(col, width)
        window, (top, left) = _window(rows, cols)
        image, everywhere = self._load(window)
        for axis, (taps, first) in enumerate([(rows, top), (cols, left)], start=-2):
            image = _apply(image, taps, first, axis)
        nearest = np.ix_(self.rows.nearest(row, height) - top, self.cols.nearest(col, width) - left)
        return image, everywhere[nearest]

    def _load(self, window: Window) -> tuple[Image, Mask]:
        """A window of the files, with gaps filled, and where all bands are valid."""
        image, valid = map(np.concatenate, zip(*(layer.load(window) for layer in self.layers), strict=True))
        everywhere: Mask = np.logical_and.reduce(valid)
        if not everywhere.all():
            image = np.stack([_fill(band, good) for band, good in zip(image, valid, strict=True)])
        return image, everywhere

    def _read_drifted(self, drift: Drift, row: int, col: int, height: int, width: int) -> tuple[Image, Mask]:
        """As `read`, each pixel from where its content lies, by cubic convolution."""
        down, right = np.meshgrid(
            (np.arange(row, row + height) + 0.5) * self.ratio,
            (np.arange(col, col + width) + 0.5) * self.ratio,
            indexing="ij",
        )
        by = drift(down.ravel(), right.ravel()).reshape(height, width, 2) / self.ratio
        places = (
            np.clip(
                self.rows.centres(row, height)[:, np.newaxis] - by[..., 0] * self.rows.step,
                0,
                self.rows.size - 1,
            ),
            np.clip(
                self.cols.centres(col, width)[np.newaxis, :] - by[..., 1] * self.cols.step,
                0,
                self.cols.size - 1,
            ),
        )
        nearest = [np.floor(place).astype(np.intp) for place in places]
        taps = [
            [
                (np.clip(first + k, 0, size - 1), cubic(place - first - k).astype(np.float32))
                for k in (-1, 0, 1, 2)
            ]
            for place, first, size in zip(places, nearest, (self.rows.size, self.cols.size), strict=True)
        ]
        window, (top, left) = _window(*taps)
        image, everywhere = self._load(window)
        total = np.zeros((len(image), height, width), np.float32)
        for (i, down_weight), (j, right_weight) in itertools.product(*taps):
            total += image[:, i - top, j - left] * (down_weight * right_weight)
        rows, cols = (
            np.clip(np.rint(place).astype(np.intp), 0, size - 1)
            for place, size in zip(places, (self.rows.size, self.cols.size), strict=True)
        )
        return total, everywhere[rows - top, cols - left]


@dataclass(frozen=True, eq=False)
class Scene:
    """An open pair of PAN and MS on the common grid.

    `height` and `width` are in PAN pixels and need not be multiples of the sensor's ratio. `bands` are the MS
    bands' names, `dtype` is MS' data type, `bits` how many of its bits a product uses (None: all), and
    `nodata` marks, in a product, pixels that PAN or any MS band lacks (None when neither file can lack any).
    `gain` is how many DN make one of the files' numbers. `crs` is None and `transform` the identity when the
    files have no geotransform. `metadata` is what a product takes over, `tags` what else is written into it;
    `notes` say what a user should know about the pair, a sentence each. `lead` is how many rows and columns of
    the grid lie before the product's first, so that it begins with a whole MS pixel.
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
    _pan: _Raster
    _ms: _Raster
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

        They are looked for in all of the files where there is no nodata value yet, or `wholly`, so that `found`
        knows them all. Raises SceneError for a damaged file, or for such values where they are refused.
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
) -> Iterator[Scene]:
    """Open PAN and MS, the latter one file or several.

    Which of MS' bands are the sensor's goes by what the files say, else by position; `chosen` overrides it,
    `stated` is what a vendor's metadata say in the files' place. With `any_ratio`, MS of another ratio than the
    sensor's is brought to it by resampling
    (`sfiin.runtime.scenes.bands`). `gain` is how many DN make one of the files' numbers: 1 for files that hold
    DN, the DN of reflectance 1 for reflectance. Values that no sensor delivers are no data, or an
    error with `refuse_outliers` (`sfiin.runtime.scenes.outliers`); a row of blocks must fit into `memory` bytes.

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

        pan_layer = _Layer.of(pan_file, bands.images(pan_file, 1), gain, outliers(pan_file), 1)
        _check_pan(pan_layer, files)
        choice = bands.choose(bands.look(files, stated), sensor.bands, chosen)
        ms_layers = [
            _Layer.of(file, [band.index for band in group], gain, outliers(file))
            for file, group in itertools.groupby(choice.bands, key=lambda band: band.file)
        ]
        _check_kinds([pan_layer, *ms_layers])
        grid = common_grid(pan_layer.file, files, sensor.ratio, any_ratio)
        zeros = []
        for layer in (pan_layer, *ms_layers):
            values = _sample(layer)
            if values.size:
                _check_scale(layer, values, sensor)
                zeros.append((layer.file.name, float((values == 0).mean())))
        yield _scene(pan_layer, ms_layers, sensor, grid, (*choice.notes, *_zero_notes(zeros)))


# --- what the files are ---


def _check_pan(pan: _Layer, ms: Sequence[Any]) -> None:
    if len(pan.bands) != 1:
        hint = (
            "are PAN and MS swapped?"
            if len(ms) == 1 and ms[0].count == 1
            else "give the panchromatic band alone"
        )
        raise SceneError(f"{pan.file.name}: PAN has {len(pan.bands)} bands instead of one; {hint}")


def _check_kinds(layers: Sequence[_Layer]) -> None:
    for layer in layers:
        if any("complex" in dtype for dtype in layer.dtypes):
            raise SceneError(
                f"{layer.file.name}: data of type {layer.dtypes[0]}; complex numbers cannot be sharpened"
            )
        if ColorInterp.palette in layer.colours:
            raise SceneError(
                f"{layer.file.name}: numbers of a colour table, not of light; give the original image"
            )


def _check_scale(layer: _Layer, values: Image, sensor: SensorProfile) -> None:
    name = layer.file.name
    likely = values[layer.outliers.is_light(values)]
    most = float(likely.max()) if likely.size else 0.0
    fractions = np.dtype(layer.dtypes[0]).kind == "f" or layer.gain != 1
    if fractions and likely.size and most <= _REFLECTANCE < sensor.scale:
        raise MismatchError(
            f"scale: {name} holds fractions up to {most:.3g} (reflectance?), the model wants digital "
            f"numbers up to {sensor.peak}; give the product in digital numbers, or --gain, how many make 1"
        )
    # A few hot pixels do not make another sensor, nor do many that say of themselves that they are no data.
    values = values[values < layer.outliers.fill]
    bright = float(np.percentile(values, 99)) if values.size else 0.0
    if bright > _EXCESS * sensor.peak:
        raise MismatchError(
            f"bits: {name} holds values around {bright:.0f}, the model wants {sensor.bits} bits "
            f"(up to {sensor.peak}); use a model for this sensor, or the product in its original digital numbers, "
            "or --gain, how many of them make 1"
        )


def _zero_notes(shares: Sequence[tuple[str, float]]) -> tuple[str, ...]:
    """What is to be said of the files' shares of valid values that are 0, which many writers mean as
    nodata."""
    called = [title(name) for name, _ in shares]
    many = ", ".join(
        f"{share:.0%} of {title(name) if called.count(title(name)) == 1 else name}"
        for name, share in shares
        if share > _ZEROS
    )
    if not many:
        return ()
    declare = "if they are not, declare them, e.g. with gdal_edit.py -a_nodata 0"
    return (f"zeros are {many}: no file says that they are nodata, and they are taken as data; {declare}",)


def _sample(layer: _Layer) -> Image:
    """The valid pixels of some windows spread over the file."""
    height, width = layer.file.shape
    tops, lefts = (
        sorted({int(start) for start in np.linspace(0, max(0, side - _SAMPLE_SIDE), _SAMPLES)})
        for side in (height, width)
    )
    size = (min(_SAMPLE_SIDE, width), min(_SAMPLE_SIDE, height))
    samples = [layer.load_raw(Window(left, top, *size)) for top in tops for left in lefts]
    return np.concatenate([image[valid] for image, valid in samples])


def _scene(
    pan: _Layer, ms: Sequence[_Layer], sensor: SensorProfile, grid: Grid, notes: tuple[str, ...]
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
        _pan=_Raster([pan], _pan_axis(rows, file.height), _pan_axis(cols, file.width)),
        _ms=_Raster(ms, rows.ms, cols.ms),
    )


def _bands(ms: Sequence[_Layer]) -> list[tuple[Any, int]]:
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


def _product_nodata(pan: _Layer, ms: Sequence[_Layer], dtype: np.dtype[Any]) -> float | None:
    """MS' nodata; else NaN for floats; else PAN's; else 0 if a file has a mask. What `dtype` cannot hold
    is skipped."""
    own, other = ([value for layer in layers for value in layer.nodata] for layers in (ms, [pan]))
    for nodata in (*own, math.nan, *other):
        if nodata is not None and _fits(nodata, dtype):
            return float(nodata)
    return 0.0 if any(layer.may_lack for layer in (pan, *ms)) else None


def _product_bits(
    ms: Sequence[_Layer], nodata: float | None, dtype: np.dtype[Any]
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


def _damaged(file: Any, error: BaseException) -> SceneError:
    return SceneError(f"{file.name}: damaged or cut short ({reason(error)}); fetch it again")


# --- pixels ---


def _fill(image: Image, valid: Mask) -> Image:
    """Give each invalid pixel the mean of the smallest block of 2**k x 2**k around it with valid pixels; 0
    if none."""
    if valid.all():
        return image
    if not valid.any():
        return np.zeros_like(image)
    height, width = image.shape
    padding = ((0, height % 2), (0, width % 2))
    number = _blocks(np.pad(valid.astype(np.float32), padding))
    mean = _blocks(np.pad(np.where(valid, image, 0), padding)) / np.maximum(number, 1)
    coarse = _fill(mean.astype(np.float32), number > 0).repeat(2, axis=0).repeat(2, axis=1)
    return np.where(valid, image, coarse[:height, :width])


def _blocks(image: Image) -> Image:
    """Sums of 2 x 2 pixels."""
    return image[::2, ::2] + image[1::2, ::2] + image[::2, 1::2] + image[1::2, 1::2]


def _window(rows: list[Any], cols: list[Any]) -> tuple[Window, tuple[int, int]]:
    """The smallest window of the file that holds all taps, and its first row and column."""
    (top, bottom), (left, right) = (
        (min(int(index.min()) for index, _ in taps), max(int(index.max()) for index, _ in taps))
        for taps in (rows, cols)
    )
    return Window(left, top, right - left + 1, bottom - top + 1), (top, left)


def _apply(image: Image, taps: list[Any], first: int, axis: int) -> Image:
    """Sum of weighted taps along an axis, -2 for rows or -1 for columns, of an image that begins at pixel
    `first`."""
    total: Image = np.zeros(1, np.float32)
    for index, weight in taps:
        shaped = weight[:, np.newaxis] if axis == -2 else weight
        total = total + np.take(image, index - first, axis) * shaped
    return total

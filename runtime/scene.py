"""What do PAN and MS files hold, on which common grid, and how are windows of them read?

The common grid has PAN's pixels; its MS pixels are `ratio` x `ratio` of them, beginning at a corner of a PAN pixel.
Along each axis, MS is brought there in one of two ways.

- As it is, when its own pixels lie there to within 0.05 PAN pixel, or when the arrays are exactly ratio:1 and the
  georeferences contradict that only by what files in circulation get wrong: their centres differ by less than half a
  PAN pixel, their ends by at most the (ratio - 1) / 2 pixels that arise where the outermost pixels' centres were
  written down as the edges. Up to ratio - 1 lines of PAN before the first whole MS pixel are left out.
- Otherwise by cubic convolution, so that Landsat's offset of half a PAN pixel comes out right.

The scene is the area both files cover; where MS ends less than one PAN pixel before PAN, it is all of PAN.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, MaskFlags
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError, RasterioIOError
from rasterio.transform import Affine
from rasterio.windows import Window

from runtime.contract import SensorProfile
from runtime.cubic import cubic
from runtime.errors import MismatchError, SceneError

# In PAN pixels, unless said otherwise.
_ON_GRID = 0.05
_CENTRES = 0.45
_RATIO_ERROR = 0.02  # relative

_REFLECTANCE = 1.5  # the largest value of floats that are taken for reflectance
_EXCESS = 2.0  # how often the sensor's peak may be exceeded
_SAMPLES, _SAMPLE_SIDE = 4, 128  # windows per axis, pixels

_BLOCK = 256
_COLOURS = {"blue": ColorInterp.blue, "green": ColorInterp.green, "red": ColorInterp.red}
# GDAL knows near infrared since 3.10 only.
_COLOURS |= {"nir": getattr(ColorInterp, "nir", ColorInterp.undefined)}

Image = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _Axis:
    """Where the grid's `count` pixels lie along one axis of a file of `size` pixels.

    Grid pixel i reaches from `origin + step * i` to `origin + step * (i + 1)`, in the file's pixels.
    """

    origin: float
    step: float
    count: int
    size: int

    @property
    def resampled(self) -> bool:
        return self.step != 1 or self.origin != int(self.origin)

    def taps(self, start: int, length: int) -> list[tuple[NDArray[np.intp], Image]]:
        """File pixels and weights for grid pixels from `start`: one tap on the file's pixels, or cubic's four.

        Outside the grid, and outside the file, the outermost pixel repeats.
        """
        pixel = np.clip(np.arange(start, start + length), 0, self.count - 1)
        centre = np.clip(self.origin + self.step * (pixel + 0.5), 0.5, self.size - 0.5) - 0.5
        nearest = np.floor(centre)
        if not self.resampled:
            return [(nearest.astype(np.intp), np.ones(length, np.float32))]
        return [
            (np.clip(nearest + k, 0, self.size - 1).astype(np.intp), cubic(centre - nearest - k).astype(np.float32))
            for k in (-1, 0, 1, 2)
        ]


@dataclass(frozen=True, eq=False)
class _Layer:
    """An open file and those of its bands that are data."""

    file: Any
    bands: tuple[int, ...]

    @classmethod
    def of(cls, file: Any, wanted: int) -> _Layer:
        """All bands if they are as many as wanted, else those that are no alpha channel.

        What is written without further ado as four bands of 8 bits says that the fourth is alpha; it is infrared.
        """
        kinds = zip(file.indexes, file.colorinterp, strict=True)
        return cls(file, tuple(i for i, kind in kinds if file.count == wanted or kind != ColorInterp.alpha))

    @property
    def names(self) -> list[str | None]:
        return [self.file.descriptions[i - 1] for i in self.bands]

    @property
    def dtypes(self) -> list[str]:
        return [self.file.dtypes[i - 1] for i in self.bands]

    @property
    def is_masked(self) -> bool:
        """Whether pixels may be invalid though no value is nodata."""
        flags = self.file.mask_flag_enums[self.bands[0] - 1]
        return len(self.bands) < self.file.count or not {MaskFlags.all_valid, MaskFlags.alpha} & set(flags)

    def load(self, window: Window) -> tuple[Image, Mask]:
        """Pixels as they are in the file, and where each is valid, both (bands, height, width)."""
        try:
            image: Image = self.file.read(self.bands, window=window, out_dtype=np.float32)
            valid: Mask = np.isfinite(image)
            # GDAL's own use of alpha depends on the number of bands.
            if MaskFlags.alpha not in self.file.mask_flag_enums[self.bands[0] - 1]:
                valid &= self.file.read_masks(self.bands, window=window) > 0
            for alpha in set(self.file.indexes) - set(self.bands):
                valid &= self.file.read(alpha, window=window) > 0
        except RasterioIOError as error:
            raise SceneError(f"{self.file.name}: damaged or cut short ({_reason(error)}); fetch it again") from error
        return image, valid


@dataclass(frozen=True, eq=False)
class _Raster:
    """Bands of one or more files of one grid, seen on the scene's grid."""

    layers: Sequence[_Layer]
    rows: _Axis
    cols: _Axis

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Image, Mask]:
        """Pixels (bands, height, width) float32, all finite, and where all bands are valid (height, width)."""
        rows, cols = self.rows.taps(row, height), self.cols.taps(col, width)
        window, (top, left) = _window(rows, cols)
        image, valid = map(np.concatenate, zip(*(layer.load(window) for layer in self.layers), strict=True))
        everywhere: Mask = np.logical_and.reduce(valid)
        if not everywhere.all():
            image = np.stack([_fill(band, good) for band, good in zip(image, valid, strict=True)])
        share: Image = everywhere.astype(np.float32)
        for axis, (taps, first) in enumerate([(rows, top), (cols, left)], start=-2):
            image = _apply(image, taps, first, axis)
            share = _apply(share, taps, first, axis)
        return image, share > 0.5


@dataclass(frozen=True, eq=False)
class Scene:
    """An open pair of PAN and MS on the common grid.

    `height` and `width` are in PAN pixels and need not be multiples of the sensor's ratio. `bands` are the MS bands'
    names, `dtype` is MS' data type, and `nodata` marks, in a product, pixels that PAN or any MS band lacks (None when
    neither file can lack any). `crs` is None and `transform` the identity when the files have no georeference.
    """

    sensor: SensorProfile
    height: int
    width: int
    bands: tuple[str, ...]
    dtype: np.dtype[Any]
    nodata: float | None
    crs: Any
    transform: Affine
    _pan: _Raster
    _ms: _Raster

    @property
    def resampled(self) -> bool:
        """Whether MS is interpolated onto the common grid."""
        return self._ms.rows.resampled or self._ms.cols.resampled

    def read(self, row: int, col: int, height: int, width: int) -> tuple[Image, Image, Mask]:
        """Read a window given in PAN pixels, all four numbers multiples of the ratio.

        Returns MS (B, height / ratio, width / ratio) and PAN (1, height, width), float32, DN, and a mask (height,
        width) of where both are valid. Beyond the scene the outermost pixels repeat. Pixels that a file marks as
        nodata, and such as are not finite, take the mean of the valid pixels around them. Raises SceneError when a
        file turns out to be damaged.
        """
        ratio = self.sensor.ratio
        if any(number % ratio for number in (row, col, height, width)):
            raise ValueError(f"window ({row}, {col}, {height}, {width}) is not on multiples of the ratio {ratio}")
        ms, ms_valid = self._ms.read(row // ratio, col // ratio, height // ratio, width // ratio)
        pan, pan_valid = self._pan.read(row, col, height, width)
        return ms, pan, pan_valid & ms_valid.repeat(ratio, axis=0).repeat(ratio, axis=1)

    @property
    def profile(self) -> dict[str, Any]:
        """Creation options of a product, for rasterio: a tiled, compressed GeoTIFF of MS bands on the PAN grid."""
        return {
            "driver": "GTiff", "height": self.height, "width": self.width, "count": len(self.bands),
            "dtype": self.dtype.name, "nodata": self.nodata, "crs": self.crs, "transform": self.transform,
            "tiled": True, "blockxsize": _BLOCK, "blockysize": _BLOCK, "compress": "DEFLATE",
            "predictor": 3 if self.dtype.kind == "f" else 2, "BIGTIFF": "IF_SAFER", "photometric": "MINISBLACK",
        }  # fmt: skip

    @property
    def colours(self) -> tuple[ColorInterp, ...]:
        """The bands' colour interpretation, by their names."""
        return tuple(_COLOURS.get(name.casefold(), ColorInterp.undefined) for name in self.bands)


@contextmanager
def open_scene(pan: Path, ms: Sequence[Path], sensor: SensorProfile) -> Iterator[Scene]:
    """Open PAN and MS, the latter one file or one file per band in the sensor's order.

    Raises SceneError when a file cannot be used or the two cannot be aligned, MismatchError when they are not what
    the sensor delivers; the message names `bands`, `ratio`, `bits` or `scale`.
    """
    with ExitStack() as stack:
        wanted = len(sensor.bands) if len(ms) == 1 else 1
        pan_layer = _Layer.of(stack.enter_context(open_raster(pan)), 1)
        ms_layers = [_Layer.of(stack.enter_context(open_raster(path)), wanted) for path in ms]
        _check_bands(pan_layer, ms_layers, sensor)
        grid = _grid(pan_layer.file, [layer.file for layer in ms_layers], sensor.ratio)
        for layer in (pan_layer, *ms_layers):
            _check_scale(layer, sensor)
        yield _scene(pan_layer, ms_layers, sensor, grid)


@contextmanager
def open_raster(path: Path, mode: str = "r", **profile: Any) -> Iterator[Any]:
    """Open a raster with rasterio, without warnings about what it lacks.

    Raises SceneError when a file to read is missing or is no image.
    """
    if mode == "r" and not path.exists():
        raise SceneError(f"{path}: no such file")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        try:
            file = rasterio.open(path, mode, **profile)
        except (RasterioError, OSError) as error:
            if mode != "r":
                raise
            raise SceneError(f"{path}: no image that GDAL can read ({_reason(error)})") from error
        with file:
            yield file


def describe(path: Path) -> dict[str, Any]:
    """What an image file holds, as plain values: size and pixel size as (height, width), bands, georeference.

    `crs` and `transform` (GDAL's six numbers a, b, c, d, e, f of rasterio's order) are None where the file has none.
    Raises SceneError when the file is missing or is no image.
    """
    with open_raster(path) as file:
        located = _is_located(file)
        return {
            "size": file.shape,
            "bands": file.count,
            "names": list(file.descriptions),
            "dtype": file.dtypes[0],
            "crs": file.crs.to_string() if file.crs else None,
            "transform": tuple(file.transform)[:6] if located else None,
            "pixel_size": (file.res[1], file.res[0]) if located else None,
            "nodata": file.nodata,
        }


# --- what the files are ---


def _check_bands(pan: _Layer, ms: Sequence[_Layer], sensor: SensorProfile) -> None:
    names = [name for layer in ms for name in layer.names]
    if len(pan.bands) != 1:
        hint = "are PAN and MS swapped?" if len(names) == 1 else "give the panchromatic band alone"
        raise SceneError(f"{pan.file.name}: PAN has {len(pan.bands)} bands instead of one; {hint}")
    for layer in (pan, *ms):
        if any("complex" in dtype for dtype in layer.dtypes):
            raise SceneError(f"{layer.file.name}: data of type {layer.dtypes[0]}; complex numbers cannot be sharpened")
    if len(names) != len(sensor.bands):
        wanted = ", ".join(sensor.bands)
        raise MismatchError(f"bands: MS has {len(names)}, the model wants {len(sensor.bands)} ({wanted})")
    _check_order([(name or "").casefold() for name in names], [name.casefold() for name in sensor.bands])


def _check_order(found: list[str], wanted: list[str]) -> None:
    if found != wanted and sorted(found) == sorted(wanted):
        raise MismatchError(f"bands: MS holds {', '.join(found)}; the model wants the order {', '.join(wanted)}")


def _check_scale(layer: _Layer, sensor: SensorProfile) -> None:
    values, name = _sample(layer), layer.file.name
    if not values.size:
        return
    if np.dtype(layer.dtypes[0]).kind == "f" and values.max() <= _REFLECTANCE < sensor.scale:
        raise MismatchError(
            f"scale: {name} holds fractions up to {values.max():.3g} (reflectance?), the model wants digital "
            f"numbers up to {sensor.peak}; give the product in digital numbers"
        )
    # A few hot pixels do not make another sensor.
    bright = float(np.percentile(values, 99))
    if bright > _EXCESS * sensor.peak:
        raise MismatchError(
            f"bits: {name} holds values around {bright:.0f}, the model wants {sensor.bits} bits "
            f"(up to {sensor.peak}); use a model for this sensor, or the product in its original digital numbers"
        )


def _sample(layer: _Layer) -> Image:
    """The valid pixels of some windows spread over the file."""
    height, width = layer.file.shape
    tops, lefts = (
        sorted({int(start) for start in np.linspace(0, max(0, side - _SAMPLE_SIDE), _SAMPLES)})
        for side in (height, width)
    )
    size = (min(_SAMPLE_SIDE, width), min(_SAMPLE_SIDE, height))
    samples = [layer.load(Window(left, top, *size)) for top in tops for left in lefts]
    return np.concatenate([image[valid] for image, valid in samples])


# --- where the files lie ---


def _is_located(file: Any) -> bool:
    return not file.transform.is_identity


def _between(one: Any, other: Any) -> NDArray[np.float64]:
    """From the other file's pixel coordinates (column, row, 1) to one's, as a 3 x 3 matrix."""
    # affine before 3.0 knows no @, and after it no * without a warning.
    to_map, from_map = (np.array([tuple(t)[:3], tuple(t)[3:6], (0, 0, 1)]) for t in (other.transform, one.transform))
    matrix: NDArray[np.float64] = np.linalg.inv(from_map) @ to_map
    return matrix


def _relation(pan: Any, ms: Any) -> NDArray[np.float64]:
    """From MS' pixel coordinates to PAN's, as `_between`, after checking that the georeferences allow it."""
    if _is_located(pan) != _is_located(ms):
        lacking = ms if _is_located(pan) else pan
        raise SceneError(f"{lacking.name}: no georeference, but the other file has one; give both or neither")
    if not _is_located(pan):
        return np.diag([pan.width / ms.width, pan.height / ms.height, 1])
    if pan.crs != ms.crs:
        raise SceneError(f"{ms.name}: MS is in {_crs(ms)}, PAN in {_crs(pan)}; reproject one of them")
    for file in (pan, ms):
        if file.transform.determinant > 0:
            raise SceneError(f"{file.name}: its rows run from south to north; turn it over, e.g. with gdalwarp")
    relation = _between(pan, ms)
    if max(abs(relation[0, 1]) * ms.height, abs(relation[1, 0]) * ms.width) > 0.5:
        raise SceneError(f"{ms.name}: MS is rotated or sheared against PAN; warp both onto parallel grids")
    return relation


def _moved(transform: Affine, row: int, col: int) -> Affine:
    """The transform of the part of an image that begins at (row, col)."""
    a, b, c, d, e, f = tuple(transform)[:6]
    return Affine(a, b, c + a * col + b * row, d, e, f + d * col + e * row)


def _crs(file: Any) -> str:
    return file.crs.to_string() if file.crs else "no CRS"


def _check_same_grid(first: Any, other: Any) -> None:
    corners = np.array([(0, 0, 1), (first.width, first.height, 1)]).T
    apart = np.abs(_between(first, other) @ corners - corners).max()
    if first.shape != other.shape or first.crs != other.crs or apart > _ON_GRID:
        raise SceneError(f"{other.name}: not on the grid of {first.name}; MS bands must share one grid")


def _grid(pan: Any, files: Sequence[Any], ratio: int) -> tuple[int, int, _Axis, int, int, _Axis]:
    """Start and length, in PAN pixels, and MS' axis, first of the rows, then of the columns."""
    ms = files[0]
    for file in files[1:]:
        _check_same_grid(ms, file)
    (col_step, _, col), (_, row_step, row), _ = _relation(pan, ms)
    if max(row_step, col_step) < 1:
        raise SceneError(f"{ms.name}: MS is finer than PAN; are PAN and MS swapped?")
    for step in (row_step, col_step):
        if abs(step / ratio - 1) > _RATIO_ERROR:
            raise MismatchError(f"ratio: MS' pixels are {step:.3g} times PAN's, the model wants {ratio}")
    if not _is_located(pan) and pan.shape != (ratio * ms.height, ratio * ms.width):
        raise SceneError(
            f"{ms.name}: without georeferences PAN must be exactly {ratio} times MS' size, "
            f"not {pan.height}x{pan.width} to {ms.height}x{ms.width}"
        )
    rows = _align(row, row_step, pan.height, ms.height, ratio)
    cols = _align(col, col_step, pan.width, ms.width, ratio)
    if rows[1] < 1 or cols[1] < 1:
        raise SceneError(f"{ms.name}: MS and PAN have no common area; are they of one acquisition?")
    return *rows, *cols


def _align(offset: float, step: float, pan: int, ms: int, ratio: int) -> tuple[int, int, _Axis]:
    """One axis: first PAN pixel, number of PAN pixels, MS' axis; MS begins at PAN coordinate `offset`."""
    end = offset + step * ms
    whole = _whole_offset(offset, end, pan, ms, ratio)
    if whole is not None:
        start = whole if whole >= 0 else whole % ratio
        count = min(pan, whole + ratio * ms) - start
        origin, scale = float((start - whole) // ratio), 1.0
    else:
        start = 0 if offset < 1 else math.ceil(offset - _ON_GRID)
        count = (pan if end > pan - 1 else math.floor(end + _ON_GRID)) - start
        origin, scale = (start - offset) / step, ratio / step
    return start, count, _Axis(origin, scale, -(-count // ratio), ms)


def _whole_offset(offset: float, end: float, pan: int, ms: int, ratio: int) -> int | None:
    """The PAN pixel at which MS' pixels begin if they can be used as they are, else None."""
    whole = round(offset)
    if max(abs(offset - whole), abs(end - whole - ratio * ms)) <= _ON_GRID:
        return whole
    low, high = offset, end - pan
    same_ends = max(abs(low), abs(high)) <= (ratio - 1) / 2 + _ON_GRID
    return 0 if pan == ratio * ms and abs(low + high) / 2 < _CENTRES and same_ends else None


def _scene(
    pan: _Layer, ms: Sequence[_Layer], sensor: SensorProfile, grid: tuple[int, int, _Axis, int, int, _Axis]
) -> Scene:
    row, height, ms_rows, col, width, ms_cols = grid
    file = pan.file
    names = [name for layer in ms for name in layer.names]
    dtype = np.result_type(*(dtype for layer in ms for dtype in layer.dtypes))
    return Scene(
        sensor=sensor,
        height=height,
        width=width,
        bands=tuple(name or default for name, default in zip(names, sensor.bands, strict=True)),
        dtype=dtype,
        nodata=_product_nodata(pan, ms, dtype),
        crs=file.crs,
        transform=_moved(file.transform, row, col) if _is_located(file) else Affine.identity(),
        _pan=_Raster([pan], _Axis(row, 1, height, file.height), _Axis(col, 1, width, file.width)),
        _ms=_Raster(ms, ms_rows, ms_cols),
    )


def _product_nodata(pan: _Layer, ms: Sequence[_Layer], dtype: np.dtype[Any]) -> float | None:
    """MS' nodata; else NaN for floats; else PAN's; else 0 if a file has a mask. What `dtype` cannot hold is skipped."""
    own, other = ([layer.file.nodata for layer in layers] for layers in (ms, [pan]))
    for nodata in (*own, math.nan, *other):
        if nodata is not None and _fits(nodata, dtype):
            return float(nodata)
    return 0.0 if any(layer.is_masked for layer in (pan, *ms)) else None


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return not math.isfinite(value) or abs(value) <= np.finfo(dtype).max
    return float(value).is_integer() and bool(np.iinfo(dtype).min <= value <= np.iinfo(dtype).max)


# --- pixels ---


def _fill(image: Image, valid: Mask) -> Image:
    """Give each invalid pixel the mean of the smallest block of 2**k x 2**k around it with valid pixels; 0 if none."""
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
    """Sum of weighted taps along an axis, -2 for rows or -1 for columns, of an image that begins at pixel `first`."""
    total: Image = np.zeros(1, np.float32)
    for index, weight in taps:
        shaped = weight[:, np.newaxis] if axis == -2 else weight
        total = total + np.take(image, index - first, axis) * shaped
    return total


def _reason(error: BaseException) -> str:
    return str(error.__cause__ or error).strip().splitlines()[0]

"""What kind of file does a product become: its tiles, compression, overviews, a COG, a picture to look at?

The GeoTIFF is made of tiles of 256 x 256 pixels, few enough lines for a row of them to wait in memory until
it is complete, compressed with the predictor that suits the type: differences of integers (2), of the bytes
of floats (3), none for other than 8, 16 or 32 bits, as not every reader knows one. It becomes a BigTIFF when
it might exceed 4 GB.

A COG is made from the finished GeoTIFF by GDAL's driver, with tiles of 512 x 512; GDAL before 3.8 leaves the
tags of the domain IMAGERY out of it. Either has overviews, by halves until they fit one of its tiles, each
pixel the average of its valid ones and invalid where there are none. Both are read back before they count,
since GDAL does not tell when its last writes fail.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import rasterio
import rasterio.shutil
from numpy.typing import NDArray
from rasterio.enums import ColorInterp, Resampling
from rasterio.windows import Window

from sfiin.runtime.errors import SceneError, UnavailableError
from sfiin.runtime.files import publish
from sfiin.runtime.scenes.raster import GDAL_ERRORS, open_raster, reason

Compression = Literal["deflate", "zstd", "lzw", "none"]
Kind = Literal["gtiff", "cog"]

_BLOCK = {"gtiff": 256, "cog": 512}
_LEVEL = (
    2  # of deflate: a quarter of the time of the default, 6, for 1.4 % more bytes (a sharpened 11-bit scene)
)
_PICTURE = 2048  # pixels a side
_STRETCH = 2, 98  # percentiles
_RGB = ColorInterp.red, ColorInterp.green, ColorInterp.blue


def creation_options(
    dtype: np.dtype[Any], compress: Compression = "deflate", bits: int | None = None
) -> dict[str, Any]:
    """Options for rasterio to create a product of this data type as GeoTIFF, of which `bits` are used
    (None: all)."""
    options = {
        "tiled": True,
        "blockxsize": _BLOCK["gtiff"],
        "blockysize": _BLOCK["gtiff"],
        "photometric": "MINISBLACK",
        "BIGTIFF": "IF_SAFER",
        "compress": compress.upper(),
    }
    if compress == "deflate":
        options["zlevel"] = _LEVEL
    if compress != "none":
        options["predictor"] = _predictor(dtype, bits)
    if bits is not None:
        options["NBITS"] = bits
    return options


def require(kind: Kind, compress: Compression) -> None:
    """Raise UnavailableError where this GDAL cannot make such a file; long work calls it before it starts."""
    here = f"GDAL {rasterio.__gdal_version__} here"
    with rasterio.Env() as env:
        if kind == "cog" and "COG" not in env.drivers():
            raise UnavailableError(
                f"COG: {here} has no driver for it; install rasterio from PyPI, or write a GeoTIFF"
            )
    try:
        _in_memory(np.zeros((1, 16, 16), np.uint8), driver="GTiff", compress=compress.upper())
    except GDAL_ERRORS as error:
        others = ", ".join(other for other in get_args(Compression) if other != compress)
        raise UnavailableError(
            f"{compress}: {here} cannot compress with it; choose one of {others}"
        ) from error


def finish(part: Path, kind: Kind, compress: Compression = "deflate") -> None:
    """Turn a complete GeoTIFF, in its place, into what is published: with overviews, or a COG.

    Of a COG, the file itself again and a third of it more are needed on the disk for a while. Raises OSError,
    as any write does, when there is no room; `part` is then of no use.
    """
    if kind == "cog":
        _make_cog(part, compress)
    else:
        _add_overviews(part)


def quicklook(path: Path, png: Path) -> None:
    """Write a picture of a product: RGBA, at most 2048 pixels a side, transparent where the product has no
    data.

    Red, green and blue are the bands of that colour, else of that name, else all three the first band. Each
    goes from black at the 2nd percentile of its valid pixels to white at the 98th. The product is read
    reduced, by averaging, from an overview where it has one. Raises SceneError when the product cannot be
    read, OutputError when `png` cannot be written.
    """
    with open_raster(path) as file:
        shrink = max(1.0, max(file.shape) / _PICTURE)
        size = tuple(max(1, round(side / shrink)) for side in file.shape)
        bands = _red_green_blue(file)
        image = file.read(bands, out_shape=(len(bands), *size), resampling=Resampling.average)
        valid = (file.dataset_mask(out_shape=size) > 0) & np.isfinite(image).all(axis=0)
    picture = np.stack([*(_stretched(band, valid) for band in image), 255 * valid.astype(np.uint8)])
    with publish(png) as part:
        part.write_bytes(_in_memory(picture, driver="PNG"))


def _predictor(dtype: np.dtype[Any], bits: int | None) -> int:
    if dtype.kind == "f":
        return 3
    return 2 if (bits or 8 * dtype.itemsize) in (8, 16, 32) else 1


def _in_memory(image: NDArray[np.uint8], **options: str) -> bytes:
    count, height, width = image.shape
    with rasterio.MemoryFile() as memory:
        with open_raster(
            memory.name, "w", count=count, height=height, width=width, dtype="uint8", **options
        ) as file:
            file.write(image)
        content: bytes = memory.read()
        return content


# --- overviews and COG ---


def _add_overviews(part: Path) -> None:
    with open_raster(part) as file:
        factors = _factors(file.shape, _BLOCK["gtiff"])
    if not factors:
        return
    with (
        _failing_as_os(),
        rasterio.Env(GDAL_TIFF_OVR_BLOCKSIZE=_BLOCK["gtiff"]),
        open_raster(part, "r+") as file,
    ):
        file.build_overviews(factors, Resampling.average)
    _check_read_back(_has_overviews(part, len(factors)))


def _make_cog(part: Path, compress: Compression) -> None:
    cog = part.with_name(f"{part.stem}.cog{part.suffix}")
    with open_raster(part) as file:
        bits = int(file.tags(1, ns="IMAGE_STRUCTURE").get("NBITS", 0))
        predicted = compress != "none" and _predictor(np.dtype(file.dtypes[0]), bits or None) > 1
        levels = len(_factors(file.shape, _BLOCK["cog"]))
    try:
        with _failing_as_os():
            rasterio.shutil.copy(
                part,
                cog,
                driver="COG",
                BLOCKSIZE=_BLOCK["cog"],
                COMPRESS=compress,
                BIGTIFF="IF_SAFER",
                PREDICTOR="YES" if predicted else "NO",
                OVERVIEWS="IGNORE_EXISTING",
                OVERVIEW_RESAMPLING="AVERAGE",
                NUM_THREADS="ALL_CPUS",
                COPY_SRC_MDD="YES",
            )
        _check_read_back(_has_overviews(cog, levels) and _same_pixels(part, cog))
        cog.replace(part)
    finally:
        for left in part.parent.glob(f"{glob.escape(cog.name)}*"):  # GDAL's own temporary files, too
            left.unlink()


def _factors(shape: tuple[int, int], block: int) -> list[int]:
    """By which powers of two an image is reduced until it fits a block."""
    return list(takewhile(lambda factor: max(shape) * 2 > block * factor, (2**i for i in count(1))))


@contextmanager
def _failing_as_os() -> Iterator[None]:
    try:
        yield
    except GDAL_ERRORS as error:
        raise OSError(reason(error)) from error


def _check_read_back(complete: bool) -> None:
    if not complete:
        raise OSError("it does not read back as written, most likely the disk is full")


def _has_overviews(path: Path, levels: int) -> bool:
    """Whether there are so many overviews, and all of them can be read."""
    try:
        for level in range(levels):
            with open_raster(path, overview_level=level) as file:
                for window in _windows(file):
                    file.read(window=window)
    except (SceneError, *GDAL_ERRORS):
        return False
    return True


def _same_pixels(one: Path, other: Path) -> bool:
    """Whether two files hold the same values; NaN equals NaN."""
    try:
        with open_raster(one) as a, open_raster(other) as b:
            return all(
                np.array_equal(a.read(window=window), b.read(window=window), equal_nan=True)
                for window in _windows(a)
            )
    except (SceneError, *GDAL_ERRORS):
        return False


def _windows(file: Any) -> Iterator[Window]:
    """Squares of a COG's tiles."""
    side = _BLOCK["cog"]
    for row in range(0, file.height, side):
        for col in range(0, file.width, side):
            yield Window(col, row, min(side, file.width - col), min(side, file.height - row))


# --- picture ---


def _red_green_blue(file: Any) -> list[int]:
    names = [(name or "").casefold() for name in file.descriptions]
    for labels, wanted in ((file.colorinterp, _RGB), (names, tuple(colour.name for colour in _RGB))):
        if all(label in labels for label in wanted):
            return [labels.index(label) + 1 for label in wanted]
    return [1, 1, 1]


def _stretched(band: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """A band from its low to its high percentile, 0 to 255; 0 where it is not valid, or is even."""
    if not valid.any():
        return np.zeros(band.shape, np.uint8)
    low, high = np.percentile(band[valid].astype(np.float64), _STRETCH)
    scaled = (np.where(valid, band, low) - low) / max(high - low, np.finfo(np.float64).tiny)
    picture: NDArray[np.uint8] = np.rint(255 * np.clip(scaled, 0, 1)).astype(np.uint8)
    return picture

"""How is a raster opened, with errors that a user understands, and what is in it at a glance?"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import rasterio
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes.grid import is_located


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
            raise SceneError(f"{path}: no image that GDAL can read ({reason(error)})") from error
        with file:
            yield file


def describe(path: Path) -> dict[str, Any]:
    """What an image file holds, as plain values: size and pixel size as (height, width), bands, georeference.

    `crs` and `transform` (GDAL's six numbers a, b, c, d, e, f of rasterio's order) are None where the file
    has none. Raises SceneError when the file is missing or is no image.
    """
    with open_raster(path) as file:
        located = is_located(file)
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


def reason(error: BaseException) -> str:
    """The first line of what GDAL says, which rasterio keeps as an error's cause."""
    return str(error.__cause__ or error).strip().splitlines()[0]

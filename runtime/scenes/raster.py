"""How is a raster opened, with errors that a user understands, and what is in it at a glance?"""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import rasterio
from rasterio._err import CPLE_BaseError  # some of rasterio lets it out, and nothing public is above it
from rasterio.errors import NodataShadowWarning, NotGeoreferencedWarning, RasterioError, RasterioIOError

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes import access, names
from sfiin.runtime.scenes.names import Name

_SHOWN = 8

GDAL_ERRORS = (RasterioError, RasterioIOError, CPLE_BaseError)  # of which rasterio 1.3 has no common one


@contextmanager
def open_raster(path: Name, mode: str = "r", **profile: Any) -> Iterator[Any]:
    """Open a raster with rasterio, by any name that GDAL opens, without warnings about what it lacks.

    Raises SceneError when a file to read is missing, is no image, holds several, which it names, or may not
    be opened (`sfiin.runtime.scenes.access`).
    """
    if "\0" in str(path):
        raise SceneError(f"{str(path)!r}: a name with a null byte, which no file has")
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise SceneError(
            f"{str(path)!a}: a name that is not UTF-8, which GDAL cannot open; rename it"
        ) from None
    policy = access.current() if mode == "r" else None
    if mode == "r":
        _require_file(path)
    elif mode == "r+" and not Path(path).exists():
        raise FileNotFoundError(errno.ENOENT, "it went while it was being written", str(path))
    if policy:
        if not names.is_local(path):
            raise SceneError(f"{path}: no file, and only files inside the scene's folder are opened")
        profile["driver"] = policy.driver(Path(path))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        warnings.simplefilter("ignore", NodataShadowWarning)
        try:
            _point_to_store(names.gdal(path))
            file = rasterio.open(names.gdal(path), mode, **profile)
        except (RasterioError, OSError) as error:
            if mode != "r":
                raise
            raise SceneError(f"{path}: no image that GDAL can read ({reason(error)})") from error
        with file:
            if policy:
                policy.check_opened(file)
            if mode == "r" and not file.count:
                raise SceneError(f"{path}: {_contents(file)}")
            yield file


def create(path: Path, **profile: Any) -> Any:
    """A new raster, open for writing, without warnings about what it lacks; the caller closes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        return rasterio.open(path, "w", **profile)


def _contents(file: Any) -> str:
    """What is in a container that has no bands of its own."""
    inside = list(file.subdatasets)
    if not inside:
        return "has no band"
    more = f", and {len(inside) - _SHOWN} more" if len(inside) > _SHOWN else ""
    return f"holds several images; name one of them: {', '.join(inside[:_SHOWN])}{more}"


def _point_to_store(name: str) -> None:
    """Tell GDAL of the endpoint that AWS's own tools are told of, which it does not look for."""
    url = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if not name.startswith("/vsis3/") or not url or "AWS_S3_ENDPOINT" in os.environ:
        return
    found = urlsplit(url)
    os.environ["AWS_S3_ENDPOINT"] = found.netloc
    if found.scheme == "http":
        os.environ["AWS_HTTPS"] = "NO"
    if not found.netloc.endswith("amazonaws.com"):
        os.environ.setdefault("AWS_VIRTUAL_HOSTING", "FALSE")


def _require_file(name: Name) -> None:
    """What is no file of this machine is left to GDAL, but for what is not there, or would never end."""
    if not names.is_local(name) or str(name).startswith("/vsi"):
        return
    path = Path(names.gdal(name))
    if not path.exists():
        raise SceneError(f"{path}: no such file")
    if not path.is_file() and not path.is_dir():
        raise SceneError(f"{path}: a pipe or a device; give a file")
    beside = path.with_name(f"{path.name}.aux.xml")
    if beside.is_file() and beside.stat().st_size > access.MOST_TEXT:
        raise SceneError(
            f"{beside}: {beside.stat().st_size >> 20} MiB, which no statistics take; remove it, GDAL reads "
            "all of it"
        )


def describe(path: Name) -> dict[str, Any]:
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


def is_located(file: Any) -> bool:
    """Whether an open raster has a geotransform."""
    return not file.transform.is_identity


def reason(error: BaseException) -> str:
    """The first line of what GDAL says, which rasterio keeps as an error's cause."""
    return str(error.__cause__ or error).strip().splitlines()[0]

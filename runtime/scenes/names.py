"""What is an image called? By any name that GDAL opens: a file, a URL, one inside an archive or a container.

| given                                    | what GDAL is told        |
|------------------------------------------|--------------------------|
| `http://`, `https://`, `ftp://`          | `/vsicurl/` before it    |
| `s3://bucket/key`                        | `/vsis3/bucket/key`      |
| `gs://`, `az://` (or `abfs://`), `oss://`, `swift://` | `/vsigs/`, `/vsiaz/`, `/vsioss/`, `/vsiswift/` |
| `zip+file://a.zip!b.tif`, and such       | as rasterio reads it     |
| `/vsi...`, `NETCDF:"a.nc":pan`, a path   | as it is                 |

Such a name is text: a path's type would fold `//` and lose its meaning. Source: GDAL, "Virtual File Systems".
"""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

Name = str | Path
"""What a user gives."""

_STORES = {
    "s3": "/vsis3/",
    "gs": "/vsigs/",
    "gcs": "/vsigs/",
    "az": "/vsiaz/",
    "abfs": "/vsiaz/",
    "oss": "/vsioss/",
    "swift": "/vsiswift/",
}
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]+)://", re.IGNORECASE)
_INSIDE = re.compile(r"[A-Za-z][A-Za-z0-9_]+:")  # a driver's own name, such as NETCDF:"a.nc":pan


def gdal(name: Name) -> str:
    """The name by which GDAL opens it."""
    text = str(name)
    found = _SCHEME.match(text)
    if not found:
        return text
    scheme, rest = found[1].lower(), text[found.end() :]
    if scheme in ("http", "https", "ftp"):
        return f"/vsicurl/{text}"
    if scheme in _STORES:
        return _STORES[scheme] + rest
    return rest if scheme == "file" else text


def is_local(name: Name) -> bool:
    """Whether it is a file of this machine, by its path, rather than another of GDAL's names."""
    if isinstance(name, Path):
        return True
    text = gdal(name)
    if text.startswith("/vsi") or _SCHEME.match(text):
        return False
    # A file may have a colon in its name, and a drive has one after a single letter.
    return not _INSIDE.match(text) or Path(text).exists()


def beside(folder: Path, name: str) -> Name:
    """A name that a list in `folder` gives: relative paths are relative to that folder."""
    return folder / gdal(name) if is_local(name) else name


def named(text: str) -> Name:
    """A name from text: a path where it is a file of this machine."""
    return Path(text) if is_local(text) else text


def title(name: Name) -> str:
    """The last part, for people, without what a URL asks for."""
    text = str(name)
    if _SCHEME.match(text):
        return Path(urlsplit(text).path).name or text
    return Path(text).name if is_local(name) or text.startswith("/vsi") else text

"""Which files may be opened as rasters? All, for a user's own run; for what others uploaded, few.

A user may name a VRT, or a file that GDAL fetches from elsewhere (`/vsicurl/`). Who uploads may not: GDAL
goes by content, so a `pan.tif` can be a VRT that has any other file's bytes in it. A policy for a folder of
uploads lets in regular files inside that folder only, with no symbolic link on the way, of the drivers below,
and nothing that refers to a file elsewhere. Where it is set, GDAL has no other driver in its process, either
(`sfiin.runtime.station.worker`), as it also opens files by itself, such as overviews and masks.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfiin.runtime.errors import SceneError

DRIVERS = ("GTiff", "JP2OpenJPEG", "NITF", "DIMAP", "TIL")
"""What deliveries consist of: images, and a provider's lists of images."""

MOST_FILES, MOST_DEPTH = 2000, 6
"""Files in a scene's folder, and folders one in another."""

MOST_TEXT = 16 << 20
"""Bytes of a file beside the rasters, which GDAL reads as a whole."""

_RASTERS = {
    b"II*\0": "GTiff",
    b"MM\0*": "GTiff",
    b"II+\0": "GTiff",
    b"MM\0+": "GTiff",
    b"\0\0\0\x0cjP  ": "JP2OpenJPEG",
    b"\xffO\xffQ": "JP2OpenJPEG",
    b"NITF": "NITF",
    b"NSIF": "NITF",
}
"""By the first bytes."""

_LISTS = {".xml": "DIMAP", ".dim": "DIMAP", ".til": "TIL"}
_BESIDE = (".ovr", ".msk", ".aux", ".rrd")
"""Ends of names that GDAL opens as rasters by itself."""

_REFERRING = (
    b"<vrtdataset",
    b"<gdal_wms",
    b"<wmts",
    b"<tiled_wms",
    b"<gdaltileindexdataset",
    b"overview_file",
)


@dataclass(frozen=True)
class Access:
    """What may be opened: of `DRIVERS`, inside `folder`. `check` looks at a folder before anything in it is
    opened."""

    folder: Path

    def check(self) -> None:
        """Raise SceneError for a folder that holds what is no regular file, or what GDAL would follow
        elsewhere."""
        count = 0
        for path, found in _walk(self.folder, MOST_DEPTH):
            count += 1
            if count > MOST_FILES:
                raise SceneError(
                    f"{self.folder.name}: more than {MOST_FILES} files; deliver one scene a folder"
                )
            if stat.S_ISLNK(found.st_mode):
                raise SceneError(
                    f"{path.name}: a symbolic link, which is not followed; deliver the file itself"
                )
            if stat.S_ISDIR(found.st_mode):
                continue
            if not stat.S_ISREG(found.st_mode):
                raise SceneError(f"{path.name}: no regular file (a pipe or a device); deliver a file")
            self._check_file(path, found.st_size)

    def driver(self, path: Path) -> str:
        """The one driver that a file is opened by. Raises SceneError for what does not lie inside, is no
        regular file, or of a kind that none of them is for."""
        self._check_path(path)
        head = _head(path)
        by_bytes = next((driver for magic, driver in _RASTERS.items() if head.startswith(magic)), None)
        driver = by_bytes or _LISTS.get(path.suffix.lower())
        if driver is None:
            raise SceneError(f"{path.name}: no image of a kind that may be uploaded (TIFF, JPEG 2000, NITF)")
        return driver

    def _check_path(self, path: Path) -> None:
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(self._real):
            raise SceneError(f"{path.name}: lies outside the scene's folder")
        if path.is_relative_to(self.folder) and real != self._real / path.relative_to(self.folder):
            raise SceneError(f"{path.name}: a symbolic link, which is not followed; deliver the file itself")
        if not path.is_file():
            raise SceneError(f"{path.name}: no file")

    def check_opened(self, file: Any) -> None:
        """Raise SceneError for a dataset that refers to files outside the folder."""
        for name in file.files:
            if not Path(os.path.realpath(name)).is_relative_to(self._real):
                raise SceneError(
                    f"{Path(file.name).name}: refers to {Path(name).name} outside the scene's folder"
                )
        if file.tags(ns="OVERVIEWS"):
            raise SceneError(f"{Path(file.name).name}: names overviews of another file, which are not opened")

    @property
    def _real(self) -> Path:
        return Path(os.path.realpath(self.folder))

    @staticmethod
    def _check_file(path: Path, size: int) -> None:
        head = _head(path)
        if any(head.startswith(magic) for magic in _RASTERS):
            return
        if path.suffix.lower() in _BESIDE:
            raise SceneError(f"{path.name}: neither TIFF nor JPEG 2000, and GDAL would open it; leave it out")
        text = head.lower()
        if path.name.lower().endswith(".xml") and size > MOST_TEXT:
            raise SceneError(f"{path.name}: {size >> 20} MiB of text beside the images; leave it out")
        if any(word in text for word in _REFERRING):
            raise SceneError(
                f"{path.name}: refers to other files (a VRT or the like), which uploads may not; deliver the "
                "images"
            )


_current: ContextVar[Access | None] = ContextVar("access", default=None)


def current() -> Access | None:
    """The policy in force; None where everything may be opened."""
    return _current.get()


@contextmanager
def restricted(access: Access | None) -> Iterator[None]:
    """Let only such files be opened while the block runs."""
    token = _current.set(access)
    try:
        yield
    finally:
        _current.reset(token)


def _walk(folder: Path, depth: int) -> Iterator[tuple[Path, os.stat_result]]:
    if depth == 0:
        raise SceneError(f"{folder.name}: folders in folders; deliver one scene a folder")
    with os.scandir(folder) as entries:
        for entry in entries:
            found = entry.stat(follow_symlinks=False)
            yield Path(entry.path), found
            if stat.S_ISDIR(found.st_mode):
                yield from _walk(Path(entry.path), depth - 1)


def _head(path: Path) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        return os.read(descriptor, 4096)
    finally:
        os.close(descriptor)

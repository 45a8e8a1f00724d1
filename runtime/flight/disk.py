"""How do files change so that a power cut at any moment leaves something to start from? By few, named steps.

Whoever changes what a flight starts from does it through a `Disk` and nothing else, so that a test can record
the steps and cut the power after each of them. A file's content is on the medium once `sync_file` has
returned, a name (made, moved or removed) once `sync_folder` of its folder has.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import IO, Protocol

_CHUNK = 1 << 20


class Disk(Protocol):
    """The steps. All raise OSError."""

    def make_folder(self, path: Path) -> None:
        """Make a folder that is not there yet."""
        ...

    def write(self, path: Path, source: IO[bytes]) -> None:
        """Make a file that is not there yet, with all that can be read from `source`."""
        ...

    def sync_file(self, path: Path) -> None:
        """Wait until a file's content is on the medium."""
        ...

    def sync_folder(self, path: Path) -> None:
        """Wait until a folder's names are on the medium."""
        ...

    def move(self, path: Path, target: Path) -> None:
        """Rename within one folder; a file that is there is replaced."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file, or a folder with all that it holds; nothing where neither is there."""
        ...


class RealDisk:
    """The operating system's."""

    def make_folder(self, path: Path) -> None:
        """As `Disk.make_folder`."""
        path.mkdir()

    def write(self, path: Path, source: IO[bytes]) -> None:
        """As `Disk.write`."""
        with path.open("xb") as file:
            shutil.copyfileobj(source, file, _CHUNK)

    def sync_file(self, path: Path) -> None:
        """As `Disk.sync_file`."""
        _sync(path, os.O_RDWR)

    def sync_folder(self, path: Path) -> None:
        """As `Disk.sync_folder`."""
        _sync(path, os.O_RDONLY)

    def move(self, path: Path, target: Path) -> None:
        """As `Disk.move`."""
        path.replace(target)

    def remove(self, path: Path) -> None:
        """As `Disk.remove`."""
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""What is a scene, whatever it is called and wherever it lies? The digests of all files that it consists of.

A dataset is more than the file that was named: GDAL's list of files has the tiles of a mosaic, and what lies
beside (georeference, masks, overviews, statistics). A mosaic of mosaics is followed down. Size and time say
nothing, as both can stay while the content changes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfiin.runtime.errors import SceneError
from sfiin.runtime.files import sha256
from sfiin.runtime.scenes import access
from sfiin.runtime.scenes.names import Name

MOST = 20_000
"""Files of one dataset."""


class ChangedError(SceneError):
    """A file changed while it was read; what it holds now may be whole."""


@dataclass(frozen=True)
class Input:
    """A file: `name` without folders, `sha256` in hex, "" for what is no file of this machine."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Identity:
    """A scene's files, those of the first dataset first, and where they were found."""

    inputs: tuple[Input, ...]
    paths: tuple[str, ...]

    @property
    def digests(self) -> list[str]:
        """What stays when files are moved or renamed; the name where there is no digest."""
        return [found.sha256 or found.name for found in self.inputs]

    @property
    def notes(self) -> tuple[str, ...]:
        """What a user should know: files that could not be looked at."""
        blind = [found.name for found in self.inputs if not found.sha256]
        if not blind:
            return ()
        return (f"{', '.join(blind[:3])}: no file of this machine, known by name only; a change goes unseen",)

    def check(self) -> None:
        """Raise ChangedError where a file is no longer what it was."""
        for path, before in zip(self.paths, self.inputs, strict=True):
            if before.sha256 and _digest_now(path) != before.sha256:
                raise ChangedError(
                    f"{before.name}: changed while it was read; deliver it whole, then start again"
                )


def of(datasets: Iterable[Any]) -> Identity:
    """The identity of open datasets (rasterio's), in order. Raises SceneError for files that cannot be
    read."""
    paths: dict[str, None] = {}
    for dataset in datasets:
        _gather(dataset, paths)
    inputs = tuple(Input(Path(path).name, _digest(path)) for path in paths)
    return Identity(inputs, tuple(paths))


def of_files(names: Sequence[Name]) -> Identity:
    """The same of files that are not open."""
    from sfiin.runtime.scenes.raster import open_raster

    paths: dict[str, None] = {}
    for name in names:
        with open_raster(name) as dataset:
            _gather(dataset, paths)
    inputs = tuple(Input(Path(path).name, _digest(path)) for path in paths)
    return Identity(inputs, tuple(paths))


def _gather(dataset: Any, paths: dict[str, None]) -> None:
    from sfiin.runtime.scenes.raster import open_raster

    for name in dataset.files or [dataset.name]:
        if name in paths:
            continue
        if len(paths) >= MOST:
            raise SceneError(f"{dataset.name}: consists of more than {MOST} files")
        paths[name] = None
        if name != dataset.name and _is_mosaic(name) and access.current() is None:
            with open_raster(Path(name)) as inner:
                _gather(inner, paths)


def _is_mosaic(name: str) -> bool:
    try:
        with Path(name).open("rb") as file:
            return b"<VRTDataset" in file.read(4096)
    except OSError:
        return False


def _digest_now(name: str) -> str:
    """The same of a file that could be read before; "" where it cannot be now."""
    try:
        return _digest(name)
    except SceneError:
        return ""


def _digest(name: str) -> str:
    path = Path(name)
    if not os.path.isfile(path):  # noqa: PTH113 - GDAL's name need not be a path
        return ""
    try:
        return sha256(path)
    except OSError as error:
        raise SceneError(f"{name}: cannot be read ({error.strerror})") from None

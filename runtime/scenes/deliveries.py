"""What did the provider deliver? A folder, or any of its files, becomes PAN and MS of one scene.

Vendors' metadata are read first (`sfiin.runtime.scenes.deliveries_vendors`); where there are none, files that
are called `pan` and `ms` (or `ms-1`, `ms-2` and so on), and at last the one image of one band and the one of
several.
Nothing outside the folder is looked at, whatever the metadata refer to, unless they are trusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes import deliveries_vendors as vendors
from sfiin.runtime.scenes.deliveries_vendors import Part
from sfiin.runtime.scenes.raster import describe

DEPTH = 5
"""Folders one in another that are looked into."""

IMAGES = (".tif", ".tiff", ".jp2", ".ntf", ".vrt", ".til")

_NUMBERED = re.compile(r"ms-(\d+)", re.IGNORECASE)


@dataclass(frozen=True)
class Delivery:
    """One scene: `kind` is the vendor, or "images"; `pan` and `ms` are its files, `bands` what MS' bands are
    (None: what the files say); `acquired` is when, and `facts` what else the metadata tell."""

    kind: str
    pan: Path
    ms: tuple[Path, ...]
    bands: tuple[str | None, ...] | None = None
    acquired: datetime | None = None
    facts: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "delivery": self.kind,
            "pan": str(self.pan),
            "ms": [str(path) for path in self.ms],
            "bands": list(self.bands) if self.bands else None,
            "acquired": self.acquired.isoformat() if self.acquired else None,
            **self.facts,
        }


def is_delivery(name: str | Path) -> bool:
    """Whether a name is a folder, or a file of metadata, rather than an image."""
    path = Path(name)
    return path.is_dir() or (
        path.is_file() and path.suffix.lower() not in IMAGES and bool(vendors.read(path))
    )


def find(place: Path, trust: bool = False) -> Delivery:
    """The scene of a folder, or of the folder that a file is in. With `trust`, what metadata refer to outside
    of it is taken, too.

    Raises SceneError with what was found where that is no scene, or more than one.
    """
    folder = place if place.is_dir() else place.parent
    for root in [folder] if place.is_dir() else [folder, folder.parent]:
        files = list(vendors.candidates(root, DEPTH if root == folder else 2))
        parts = [part for path in files for part in vendors.read(path)]
        if not trust:
            _check_inside(root, parts)
        if any(part.is_pan for part in parts) and any(not part.is_pan for part in parts):
            return _paired(root, parts)
    if parts:
        lacking = "MS" if parts[0].is_pan else "PAN"
        raise SceneError(
            f"{folder.name}: a delivery of {parts[0].vendor} without {lacking}; deliver both in one folder"
        )
    return _images(
        folder, [path for path in files if path.suffix.lower() in IMAGES and path.parent == folder]
    )


def _paired(folder: Path, parts: list[Part]) -> Delivery:
    """PAN and MS that belong together. Raises SceneError where several do."""
    fine = [part for part in parts if part.is_pan]
    pairs = [
        (pan, ms)
        for pan in fine
        for ms in parts
        if not ms.is_pan and (pan.vendor, pan.group) == (ms.vendor, ms.group)
    ]
    if len(pairs) != 1:
        names = ", ".join(sorted({path.name for part in parts for path in part.files})[:8])
        raise SceneError(
            f"{folder.name}: holds {len(pairs)} pairs of PAN and MS ({names}); name one pair with --pan and "
            "--ms"
        )
    pan, ms = pairs[0]
    for path in (*pan.files, *ms.files):
        if not path.is_file():
            raise SceneError(
                f"{path.name}: is named by the delivery's metadata, and is not there; deliver it whole"
            )
        if path.suffix.lower() == ".til":
            missing = [tile.name for tile in vendors.tiles(path) if not tile.is_file()]
            if missing:
                raise SceneError(f"{path.name}: names {missing[0]}, which is not there; deliver it whole")
    if len(pan.files) != 1:
        raise SceneError(f"{folder.name}: PAN consists of {len(pan.files)} files; name one with --pan")
    return Delivery(
        pan.vendor, pan.files[0], ms.files, ms.bands if all(ms.bands) else None, ms.acquired, ms.facts
    )


def _images(folder: Path, paths: Iterable[Path]) -> Delivery:
    """By names that say so, else by the number of bands."""
    images = sorted(paths)
    stems = {path.stem.casefold(): path for path in images}
    numbered = {int(match[1]): path for path in images if (match := _NUMBERED.fullmatch(path.stem))}
    ms = (stems["ms"],) if "ms" in stems else tuple(numbered[number] for number in sorted(numbered))
    if "pan" in stems and ms:
        return Delivery("images", stems["pan"], ms)
    counts = {path: describe(path)["bands"] for path in images}
    one = [path for path, count in counts.items() if count == 1]
    several = [path for path, count in counts.items() if count > 2]
    if len(one) == 1 and len(several) == 1:
        return Delivery("images", one[0], (several[0],))
    names = (
        ", ".join(f"{path.name} ({count} bands)" for path, count in list(counts.items())[:8]) or "no image"
    )
    raise SceneError(
        f"{folder.name}: no known delivery, nor one image of one band beside one of several: {names}; "
        "call them pan.tif and ms.tif, or name them with --pan and --ms"
    )


def _check_inside(folder: Path, parts: Iterable[Part]) -> None:
    root = folder.resolve()
    for part in parts:
        for path in part.files:
            named = [path, *(vendors.tiles(path) if path.suffix.lower() == ".til" and path.is_file() else [])]
            for each in named:
                if not each.resolve().is_relative_to(root):
                    raise SceneError(
                        f"{folder.name}: its metadata name {each.name} outside of it; deliver the images "
                        "with them"
                    )

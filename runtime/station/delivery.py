"""Which files of a folder are the scene's PAN and MS? Those that are called so; else those that look so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes import deliveries
from sfiin.runtime.scenes import deliveries_vendors as vendors
from sfiin.runtime.scenes.access import Access, restricted
from sfiin.runtime.scenes.deliveries import Delivery

_NUMBERED = re.compile(r"ms-(\d+)\.tiff?", re.IGNORECASE)
_IMAGES = (".tif", ".tiff", ".jp2", ".ntf")
_RATIOS = range(2, 9)

Found = tuple[Path, tuple[Path, ...]]


def find(folder: Path, bands: int | None = None, access: Access | None = None) -> Found:
    """PAN and MS (one file, or one a band) of a scene's folder; `bands` are how many MS bands are wanted.

    Raises SceneError, with what is missing.
    """
    files = {path.name.lower(): path for path in folder.iterdir()}
    numbered = {int(found[1]): path for name, path in files.items() if (found := _NUMBERED.fullmatch(name))}
    pan = next((files[name] for name in ("pan.tif", "pan.tiff") if name in files), None)
    whole = [files[name] for name in ("ms.tif", "ms.tiff") if name in files][:1]
    ms = tuple(whole or [numbered[number] for number in sorted(numbered)])
    if pan is None and not ms:
        return _by_content([path for path in files.values() if path.suffix.lower() in _IMAGES], access)
    if pan is None:
        raise SceneError(f"{folder.name}: holds no PAN (pan.tif)")
    if not ms:
        raise SceneError(f"{folder.name}: holds no MS (ms.tif, or ms-1.tif, ms-2.tif and so on)")
    if not whole:
        _check_numbers(folder, sorted(numbered), bands)
    return pan, ms


def delivery(folder: Path, bands: int | None = None, access: Access | None = None) -> Delivery:
    """The scene of a folder: as a vendor delivers it, else as `find` finds it. Raises SceneError."""
    with restricted(access):
        if any(vendors.read(path) for path in vendors.candidates(folder, deliveries.DEPTH)):
            return deliveries.find(folder, trust=access is None)
    pan, ms = find(folder, bands, access)
    return Delivery("images", pan, ms)


def _check_numbers(folder: Path, numbers: Sequence[int], bands: int | None) -> None:
    if bands is None:
        from sfiin.runtime import models

        counts = {len(contract.sensor.bands) for _, contract in models.shipped()}
    else:
        counts = {bands}
    if len(numbers) not in counts:
        wanted = " or ".join(map(str, sorted(counts)))
        raise SceneError(f"{folder.name}: MS has {len(numbers)} files, a band each; the model wants {wanted}")


def _by_content(paths: Sequence[Path], access: Access | None) -> Found:
    """The one file of one band, and the one of several at a multiple of its pixel size."""
    from sfiin.runtime.scenes.raster import describe

    with restricted(access):
        found = {path: describe(path) for path in sorted(paths)}
    sharp = [path for path, file in found.items() if file["bands"] == 1]
    coloured = [path for path, file in found.items() if file["bands"] > 2]
    if not sharp or not coloured:
        missing = "PAN (one band)" if not sharp else "MS (several bands)"
        raise SceneError(f"no image is {missing}; call the files pan.tif and ms.tif")
    if len(sharp) > 1 or len(coloured) > 1:
        raise SceneError("several images could be PAN or MS; call the files pan.tif and ms.tif")
    pan, ms = sharp[0], coloured[0]
    ratio = found[pan]["size"][0] / found[ms]["size"][0]
    if round(ratio) not in _RATIOS:
        raise SceneError(
            f"{pan.name} has {ratio:.2f} times the rows of {ms.name}; they are no PAN and MS of one scene"
        )
    return pan, (ms,)

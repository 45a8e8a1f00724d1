"""Which images of a folder belong together, of PAN, MS and truth? Those of one number or name.

Their folders are named after what is in them (`ms/0.tif` beside `pan/0.tif`, `LR_npy/0.npy`), or they are
themselves (`0_ms.tif` beside `0_pan.tif`; `pan.npy`, `ms.npy`). A folder with `pan.tif` and `ms.tif` inside
another is a scene, and is read by `sfiin.data.pairs`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sfiin.data.memory import require_affordable
from sfiin.data.samples import Array, Raw, role, samples
from sfiin.runtime.errors import InputError, SceneError

_IMAGES = (".tif", ".tiff", ".png", ".npy", ".img")

_SCENE = {"pan.tif": True, "ms.tif": True, "gt.tif": False}

Places = Mapping[str, Mapping[str, Path]]


def read(folder: Path, prefix: str) -> Iterator[Raw]:
    """The samples of a folder, each named `prefix` and what its images have in common.

    Raises InputError for a PAN without MS, and for images that cannot be read or do not fit one another.
    """
    places = _by_folder(folder) or _by_name(folder, is_inside=bool(prefix))
    if not places.get("pan") or not (places.get("ms") or places.get("lms")):
        return
    of_ms = places.get("ms") or places["lms"]
    truths = places.get("gt", {})
    for key, pan in sorted(places["pan"].items(), key=lambda entry: _natural(entry[0])):
        if key not in of_ms:
            raise InputError(f"{pan}: there is no MS of this name in {next(iter(of_ms.values())).parent}")
        found = {"pan": _image(pan), "ms": _image(of_ms[key])}
        found |= {"gt": _image(truths[key])} if key in truths else {}
        yield from samples((f"{prefix}{key}".rstrip("/") or pan.stem, pan), found, {})


def _by_folder(folder: Path) -> Places:
    """Images by what their folders' names say, then by their own."""
    found: dict[str, dict[str, Path]] = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        if key := _free(role(place.name), place.name, found):
            found[key] = {_stem(path): path for path in sorted(place.iterdir()) if _is_image(path)}
    return found


def _by_name(folder: Path, *, is_inside: bool) -> Places:
    """Images by what their own names say, then by the rest of these; none of a scene, which lies inside a
    folder."""
    files = sorted(path for path in folder.iterdir() if _is_image(path))
    if is_inside and is_scene(folder):
        return {}
    found: dict[str, dict[str, Path]] = {}
    for path in files:
        key = next((role(word) for word in reversed(_words(path.stem)) if role(word)), "") or role(path.stem)
        if key:
            is_truth = key == "ms" and "mul" in _words(path.stem) and _has_lr(files, path)
            found.setdefault("gt" if is_truth else key, {})[_stem(path)] = path
    return found


def is_scene(folder: Path) -> bool:
    """Whether a folder holds `pan.tif` and `ms.tif`, and no truth."""
    return all((folder / name).exists() == there for name, there in _SCENE.items())


def _free(key: str, name: str, taken: Mapping[str, object]) -> str:
    """A folder's role, "" for none or one that is taken; where `lr` is MS, `mul` is the truth."""
    if key == "ms" and key in taken and "mul" in _words(name) and "gt" not in taken:
        return "gt"
    return "" if key in taken else key


def _has_lr(files: list[Path], mul: Path) -> bool:
    """Whether there is another MS of the same name."""
    return any(
        path != mul and _stem(path) == _stem(mul) and {"lr", "lrms", "ms"} & set(_words(path.stem))
        for path in files
    )


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in _IMAGES and path.is_file()


def _words(stem: str) -> list[str]:
    return [word for word in re.split(r"[_\W]", stem.casefold()) if word]


def _stem(path: Path) -> str:
    """A file's name without what it is: `12_pan.tif` and `12_ms.tif` belong together."""
    parts = [part for part in re.split(r"[_-]", path.stem) if part and not role(part)]
    return "_".join(parts)


def _natural(text: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"\d+|\D+", text)]


def _image(path: Path) -> Array:
    if path.suffix.lower() == ".npy":
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise InputError(
                f"{path}: no array, or a damaged one ({str(error).splitlines()[0][:80]})"
            ) from None
        return np.asarray(array)
    from sfiin.runtime.scenes.raster import open_raster

    try:
        with open_raster(path) as file:
            require_affordable(path, 4 * file.width * file.height * file.count)
            return np.asarray(file.read())
    except SceneError as error:
        raise InputError(str(error)) from None

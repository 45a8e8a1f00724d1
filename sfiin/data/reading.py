"""Which images of PAN, MS and truth lie in a file or a folder, whoever wrote it, and in which order are their
axes?

| what                                   | as whom                                                          |
|----------------------------------------|------------------------------------------------------------------|
| `.npz` with pan, ms, gt, meta          | our own pairs; any usual order of axes                           |
| `.h5` with ms, lms, pan, gt            | PanCollection: many samples, N x C x H x W                       |
| `.mat` with I_MS_LR, I_PAN, I_GT       | DLPan-Toolbox, by SciPy; v7.3 by h5py                            |
| folders ms/, pan/, gt/ of images       | one image each, `0.tif` beside `0.tif` (`sfiin.data.images`)     |
| images 0_pan.tif, 0_ms.tif in a folder | likewise                                                         |

What comes out is told in `sfiin.data.samples`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sfiin.data import images
from sfiin.data.memory import affordable, require_affordable
from sfiin.data.samples import NAMES, Array, Raw, role, samples
from sfiin.runtime import npz
from sfiin.runtime.errors import InputError, UnavailableError
from sfiin.runtime.extras import install

__all__ = ["NAMES", "SUFFIXES", "Raw", "describe", "read_file", "read_folder"]

SUFFIXES = (".npz", ".h5", ".hdf5", ".mat")
_HDF5 = b"\x89HDF\r\n\x1a\n"
_NOTHING: Array = np.empty(0)


def read_folder(folder: Path) -> Iterator[Raw]:
    """All samples of a folder: its files by name, then its folders of images. Raises InputError for a damaged
    one."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield from read_file(path)
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        yield from images.read(place, "" if place == folder else f"{place.name}/")


def read_file(path: Path) -> Iterator[Raw]:
    """The samples of one file. Raises InputError for what is no set of PAN and MS, UnavailableError for a
    reader."""
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such pair") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if head == _HDF5 and suffix != ".npz":
        for group, found in _hdf5(path, matlab=suffix == ".mat").items():
            yield from samples((path.stem + group, path), found, {})
        return
    if suffix == ".npz":
        arrays, meta = _npz(path)
    elif suffix == ".mat":
        arrays, meta = _matlab(path), {}
    else:
        raise InputError(f"{path}: not HDF5, though its name ends in {suffix}; it is damaged, fetch it again")
    yield from samples((path.stem, path), arrays, meta)


def describe(folder: Path) -> str:
    """What lies in a folder, for a message that nothing there could be used."""
    kinds: dict[str, int] = {}
    for path in folder.iterdir():
        kind = "folders" if path.is_dir() else path.suffix.lower() or "files without a suffix"
        kinds[kind] = kinds.get(kind, 0) + 1
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"
    inside = [place.name for place in sorted(folder.iterdir()) if place.is_dir() and _has_files(place)]
    hint = f"; there are such files in {', '.join(inside[:4])}: give that folder" if inside else ""
    return (
        f"there: {found}{hint}; read are {', '.join(SUFFIXES)}, folders ms/ and pan/ of images, images "
        "0_pan.tif beside 0_ms.tif, and scenes */pan.tif"
    )


def _has_files(folder: Path) -> bool:
    return any(path.suffix.lower() in SUFFIXES for path in folder.iterdir())


def _npz(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            arrays = npz.arrays(stream, affordable())
        meta = json.loads(str(arrays.pop("meta"))) if "meta" in arrays else {}
    except (*npz.DAMAGED, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{path}: not a pair of PAN and MS (an .npz with 'pan' and 'ms'): {reason}"
        ) from None
    if not isinstance(meta, dict):
        raise InputError(f"{path}: 'meta' is a JSON object, not {meta!r:.40}")
    return arrays, _understood(meta, path)


def _understood(meta: dict[str, Any], path: Path) -> dict[str, Any]:
    """What a pair says of itself, in the types that are expected. Raises InputError, naming the field."""
    found = {key: value for key, value in meta.items() if value is not None}
    for key, low, high in (("nominal_bits", 1, 32), ("peak", 1e-9, 1e12)):
        if key in found:
            try:
                number = float(found[key])
            except (TypeError, ValueError, OverflowError):
                number = math.nan
            if not low <= number <= high or (key == "nominal_bits" and number != int(number)):
                raise InputError(f"{path}: meta.{key}: lies in {low:g}..{high:g}, not {found[key]!r:.40}")
            found[key] = number if key == "peak" else int(number)
    bands = found.get("bands", [])
    if not isinstance(bands, list) or not all(isinstance(band, str) for band in bands):
        raise InputError(f"{path}: meta.bands: a list of names, not {bands!r:.40}")
    return found if bands else {key: value for key, value in found.items() if key != "bands"}


def _hdf5(path: Path, *, matlab: bool) -> dict[str, dict[str, Array]]:
    """The images of a file by their group's name; the file itself is "" where it has any."""
    try:
        import h5py
    except ImportError:
        raise UnavailableError(
            f"{path}: {'.mat of version 7.3' if matlab else '.h5'} needs h5py; {install('train')}, or "
            "convert it to .npz with 'pan' and 'ms'"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            wanted: list[tuple[str, str, Any]] = []

            def look(place: str, node: Any) -> None:
                group, _, name = place.rpartition("/")
                if isinstance(node, h5py.Dataset) and role(name):
                    wanted.append((f"/{group}" if group else "", name, node))

            file.visititems(look)
            require_affordable(path, sum(math.prod(node.shape) * 4 for _, _, node in wanted))
            found: dict[str, dict[str, Array]] = {} if wanted else {"": dict.fromkeys(file, _NOTHING)}
            for group, name, node in wanted:
                # MATLAB counts the first axis fastest, HDF5 the last: what it wrote comes reversed.
                found.setdefault(group, {})[name] = np.asarray(node).T if matlab else np.asarray(node)
            return found
    except (OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path}: damaged: {(str(error) or type(error).__name__).splitlines()[0][:120]}"
        ) from None


def _matlab(path: Path) -> dict[str, Array]:
    try:
        from scipy import io
    except ImportError:
        raise UnavailableError(
            f"{path}: .mat needs SciPy; {install('train')}, or convert it to .npz with 'pan' and 'ms'"
        ) from None
    try:
        listed = {name: shape for name, shape, _ in io.whosmat(path) if role(name)}
        require_affordable(path, sum(8 * math.prod(shape) for shape in listed.values()))
        return {
            name: np.asarray(array)
            for name, array in io.loadmat(path, variable_names=list(listed)).items()
            if name in listed
        }
    except InputError:
        raise
    except Exception as error:  # over damaged bytes SciPy raises anything
        raise InputError(
            f"{path}: damaged: {(str(error) or type(error).__name__).splitlines()[0][:120]}"
        ) from None

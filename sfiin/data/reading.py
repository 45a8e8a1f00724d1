"""Which images of PAN, MS and truth lie in a file or a folder, whoever wrote it, and in which order are their axes?

| what                                   | as whom                                                          |
|----------------------------------------|------------------------------------------------------------------|
| `.npz` with pan, ms, gt, meta          | our own pairs; any usual order of axes                           |
| `.h5` with ms, lms, pan, gt            | PanCollection: many samples, N x C x H x W                       |
| `.mat` with I_MS_LR, I_PAN, I_GT       | DLPan-Toolbox, by SciPy; v7.3 by h5py                            |
| folders ms/, pan/, gt/ of images       | MS-PAN sets: one image each, `0.tif` beside `0.tif`              |

Bands first is what comes out: PAN (1, H, W), MS (B, h, w), truth (B, H, W) or None, in the file's own numbers.
MS that lies on PAN's grid already is left out, for what it was resampled by is not known; where there is a truth
it can be made anew.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime import npz
from sfiin.runtime.errors import InputError, SceneError, UnavailableError
from sfiin.runtime.extras import install

Array = NDArray[Any]

NAMES: Mapping[str, tuple[str, ...]] = {
    "pan": ("pan", "i_pan", "pan_lr", "i_pan_lr", "panchromatic", "p"),
    "ms": ("ms", "i_ms_lr", "ms_lr", "lrms", "lr", "lr_ms", "mul", "i_ms", "multispectral", "m"),
    "gt": ("gt", "i_gt", "hrms", "hr", "hr_ms", "ref", "reference", "truth", "label", "target"),
    "lms": ("lms", "ums", "ms_up", "i_ms_up"),
}
"""By which names sets know an image, in lower case; the first that is there counts."""

SUFFIXES = (".npz", ".h5", ".hdf5", ".mat")
_IMAGES = (".tif", ".tiff", ".png", ".npy", ".img")
_MOST_BANDS = 64
_HDF5 = b"\x89HDF\r\n\x1a\n"


@dataclass(frozen=True)
class Raw:
    """One sample as it lies in its file: PAN (1, H, W), MS (B, h, w), truth (B, H, W) or None.

    `ms` is None where the file has it on PAN's grid only. `stored` is the type in the file.
    """

    name: str
    pan: Array
    ms: Array | None
    truth: Array | None
    meta: Mapping[str, Any]
    stored: str
    notes: tuple[str, ...] = ()


def read_folder(folder: Path) -> Iterator[Raw]:
    """All samples of a folder: its files by name, then its folders of images. Raises InputError for a damaged one."""
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.is_file():
            yield from read_file(path)
    for place in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        yield from _images(place, "" if place == folder else f"{place.name}/")


def read_file(path: Path) -> Iterator[Raw]:
    """The samples of one file. Raises InputError for what is no set of PAN and MS, UnavailableError for a reader."""
    suffix = path.suffix.lower()
    try:
        with path.open("rb") as file:
            head = file.read(8)
    except FileNotFoundError:
        raise InputError(f"{path}: no such pair") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    if suffix == ".npz":
        arrays, meta = _npz(path)
    elif head == _HDF5:
        arrays, meta = _hdf5(path, matlab=suffix == ".mat"), {}
    elif suffix == ".mat":
        arrays, meta = _matlab(path), {}
    else:
        raise InputError(f"{path}: not HDF5, though its name ends in {suffix}; it is damaged, fetch it again")
    yield from _samples(path, arrays, meta)


def describe(folder: Path) -> str:
    """What lies in a folder, for a message that nothing there could be used."""
    kinds: dict[str, int] = {}
    for path in folder.iterdir():
        kind = "folders" if path.is_dir() else path.suffix.lower() or "files without a suffix"
        kinds[kind] = kinds.get(kind, 0) + 1
    found = ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())) or "nothing"
    return f"there: {found}; read are {', '.join(SUFFIXES)}, folders ms/ and pan/ of images, and scenes */pan.tif"


def _npz(path: Path) -> tuple[dict[str, Array], dict[str, Any]]:
    try:
        with path.open("rb") as stream:
            arrays = npz.arrays(stream, _affordable())
        meta = json.loads(str(arrays.pop("meta"))) if "meta" in arrays else {}
    except (*npz.DAMAGED, RecursionError) as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise InputError(
            f"{path}: not a pair of PAN and MS (an .npz with 'pan' and 'ms'): {reason}"
        ) from None
    if not isinstance(meta, dict):
        raise InputError(f"{path}: 'meta' is a JSON object, not {meta!r:.40}")
    return arrays, meta


def _hdf5(path: Path, *, matlab: bool) -> dict[str, Array]:
    try:
        import h5py
    except ImportError:
        raise UnavailableError(
            f"{path}: {'.mat of version 7.3' if matlab else '.h5'} needs h5py; {install('train')}, or convert "
            "it to .npz with 'pan' and 'ms'"
        ) from None
    try:
        with h5py.File(path, "r") as file:
            wanted = {
                key: name for name in file if (key := _role(name)) and isinstance(file[name], h5py.Dataset)
            }
            _require_affordable(path, sum(math.prod(file[name].shape) * 4 for name in wanted.values()))
            # MATLAB counts the first axis fastest, HDF5 the last: what it wrote comes reversed.
            return {
                name: np.asarray(file[name]).T if matlab else np.asarray(file[name])
                for name in wanted.values()
            }
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
        listed = {name: shape for name, shape, _ in io.whosmat(path) if _role(name)}
        _require_affordable(path, sum(8 * math.prod(shape) for shape in listed.values()))
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


def _role(name: str) -> str:
    """Which image a name stands for, "" for another."""
    return next((role for role, names in NAMES.items() if name.casefold() in names), "")


def _samples(path: Path, arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> Iterator[Raw]:
    found = {role: _first(arrays, names) for role, names in NAMES.items()}
    pan, ms, truth = found["pan"], found["ms"] if found["ms"] is not None else found["lms"], found["gt"]
    if pan is None or ms is None:
        there = ", ".join(f"'{name}'" for name in list(arrays)[:8]) or "nothing of that kind"
        raise InputError(f"{path}: not a pair of PAN and MS: there is {there}, but no 'pan' and 'ms'")
    for role, array in (("pan", pan), ("ms", ms), ("gt", truth)):
        if array is not None and (array.dtype.kind not in "iuf" or not array.size):
            raise InputError(f"{path}: '{role}' holds no numbers ({array.dtype} {array.shape})")
    if ms.ndim < 4:
        yield _sample((path.stem, path), pan, ms, truth, meta)
        return
    count = len(ms)
    for role, array in (("pan", pan), ("gt", truth)):
        if array is not None and len(array) != count:
            raise InputError(f"{path}: {len(array)} of '{role}' for {count} of 'ms'")
    digits = len(str(count - 1))
    for i in range(count):
        name = f"{path.stem}[{i:0{digits}}]"
        yield _sample((name, path), pan[i], ms[i], None if truth is None else truth[i], meta)


def _first(arrays: Mapping[str, Array], names: tuple[str, ...]) -> Array | None:
    lower = {name.casefold(): array for name, array in arrays.items()}
    return next((lower[name] for name in names if name in lower), None)


def _sample(
    named: tuple[str, Path], pan: Array, ms: Array, truth: Array | None, meta: Mapping[str, Any]
) -> Raw:
    """One sample, by its name and file, its bands brought to the front."""
    name, path = named
    sharp = _plane(pan)
    if sharp is None:
        raise InputError(f"{path}: 'pan' is {pan.shape}, not one image of one band")
    bands = len(meta["bands"]) if isinstance(meta.get("bands"), list) else None
    coarse = _bands_first(ms, sharp.shape, bands)
    if coarse is None:
        raise InputError(f"{path}: PAN {pan.shape} is no whole multiple of MS {ms.shape}")
    fine = None if truth is None else _bands_first(truth, sharp.shape, len(coarse))
    if truth is not None and (fine is None or fine.shape != (len(coarse), *sharp.shape)):
        raise InputError(f"{path}: the truth is {truth.shape}, not {(len(coarse), *sharp.shape)}")
    stored, raw = str(ms.dtype), sharp[None]
    if coarse.shape[1:] == sharp.shape:
        if fine is None:
            raise InputError(
                f"{path}: MS {ms.shape} lies on PAN's grid already, and there is no truth to make it from anew; give "
                "MS as it was delivered"
            )
        return Raw(
            name, raw, None, fine, meta, stored, ("MS on PAN's grid is not used, but made from the truth",)
        )
    return Raw(name, raw, coarse, fine, meta, stored)


def _plane(pan: Array) -> Array | None:
    """A PAN of any order of axes as (H, W)."""
    shape = tuple(side for side in pan.shape if side > 1)
    return pan.reshape(shape) if pan.ndim in (2, 3) and len(shape) == 2 else None


def _bands_first(image: Array, pan: tuple[int, ...], bands: int | None) -> Array | None:
    """An image of bands as (B, h, w), whose sides divide PAN's by one whole number; None where that is not so.

    Where both the first and the last axis could be the bands, the number of them decides, or else the first is.
    """
    if image.ndim != 3:
        return None
    fitting = []
    for order in ((0, 1, 2), (2, 0, 1)):
        turned = image.transpose(order)
        count, height, width = turned.shape
        whole = pan[0] % height == 0 and pan[1] % width == 0 and pan[0] * width == pan[1] * height
        if whole and count <= _MOST_BANDS:
            fitting.append(turned)
    return next((turned for turned in fitting if len(turned) == bands), fitting[0] if fitting else None)


# --- folders of images ---


def _images(folder: Path, prefix: str) -> Iterator[Raw]:
    """Samples of a folder whose own folders are named after what is in them."""
    places: dict[str, dict[str, Path]] = {}
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        role = _role(re.sub(r"[\W\d]+$", "", place.name))
        if role and role not in places:
            files = (path for path in sorted(place.iterdir()) if path.suffix.lower() in _IMAGES)
            places[role] = {_stem(path): path for path in files}
    if not places.get("pan") or not (places.get("ms") or places.get("lms")):
        return
    ms_of = places.get("ms") or places["lms"]
    truths = places.get("gt", {})
    for key, pan in sorted(places["pan"].items(), key=lambda entry: _natural(entry[0])):
        if key not in ms_of:
            raise InputError(f"{pan}: there is no MS of this name in {next(iter(ms_of.values())).parent}")
        truth = _image(truths[key]) if key in truths else None
        yield _sample((f"{prefix}{key}", pan), _image(pan), _image(ms_of[key]), truth, {})


def _stem(path: Path) -> str:
    """A file's name without what it is: `12_pan.tif` and `12_ms.tif` belong together."""
    parts = [part for part in re.split(r"[_-]", path.stem) if part and not _role(part)]
    return "_".join(parts) or path.stem


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
            _require_affordable(path, 4 * file.width * file.height * file.count)
            return np.asarray(file.read())
    except SceneError as error:
        raise InputError(str(error)) from None


def _affordable() -> int:
    """Bytes that a set may take here: half of what the machine has free, or 4 GiB where that is not known."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            found = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
    except OSError:
        found = None
    return int(found[1]) * 512 if found else 4 << 30


def _require_affordable(path: Path, size: int) -> None:
    if size > (most := _affordable()):
        raise InputError(
            f"{path}: holds {size / 2**30:.1f} GiB of images, more than half of the memory that is free "
            f"({most / 2**30:.1f} GiB); divide it into several files and give some of them"
        )

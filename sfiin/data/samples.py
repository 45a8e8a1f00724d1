"""What is a sample of PAN, MS and truth: which array is which image, and in which order are its axes?

Bands first is what comes out: PAN (1, H, W), MS (B, h, w), truth (B, H, W) or None, in the file's own
numbers. MS that lies on PAN's grid already is left out, for what it was resampled by is not known; where
there is a truth it can be made anew.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from sfiin.runtime.errors import InputError

Array = NDArray[Any]

NAMES: Mapping[str, tuple[str, ...]] = {
    "pan": ("pan", "i_pan", "pan_lr", "i_pan_lr", "panchromatic", "p"),
    "ms": ("ms", "i_ms_lr", "ms_lr", "lrms", "lr", "lr_ms", "mul", "i_ms", "multispectral", "m"),
    "gt": ("gt", "i_gt", "hrms", "hr", "hr_ms", "ref", "reference", "truth", "label", "target"),
    "lms": ("lms", "ums", "ms_up", "i_ms_up"),
}
"""By which names sets know an image, in lower case; the first that is there counts."""

_MOST_BANDS = 64
_SAID_BY_OTHERS = (
    "npy",
    "img",
    "image",
    "images",
    "data",
    "train",
    "test",
    "val",
    "valid",
    "patch",
    "patches",
)


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


def role(name: str) -> str:
    """Which image a name stands for, as a whole or by one of its words, such as `pan` of `PAN_npy`; "" for
    another."""
    whole = re.sub(r"[\W\d]+$", "", name.casefold())
    words = [word for word in re.split(r"[\W\d_]+", whole) if word and word not in _SAID_BY_OTHERS]
    for text in (name.casefold(), whole, "_".join(words)):
        if found := next((key for key, names in NAMES.items() if text in names), ""):
            return found
    return ""


def samples(named: tuple[str, Path], arrays: Mapping[str, Array], meta: Mapping[str, Any]) -> Iterator[Raw]:
    """The samples in arrays, one or a stack of each, by the set's name and its file. Raises InputError."""
    name, path = named
    found = {key: _of_role(arrays, key) for key in NAMES}
    if found["gt"] is None and found["ms"] is not None and _first(arrays, ("mul",)) is not None:
        other = _first(arrays, tuple(word for word in NAMES["ms"] if word != "mul"))
        if other is not None:  # where `lr` is MS, `mul` is the truth
            found |= {"ms": other, "gt": _first(arrays, ("mul",))}
    pan, ms, truth = found["pan"], found["ms"] if found["ms"] is not None else found["lms"], found["gt"]
    if pan is None or ms is None:
        there = ", ".join(f"'{name}'" for name in list(arrays)[:8]) or "nothing of that kind"
        raise InputError(f"{path}: not a pair of PAN and MS: there is {there}, but no 'pan' and 'ms'")
    for key, array in (("pan", pan), ("ms", ms), ("gt", truth)):
        if array is not None and (array.dtype.kind not in "iuf" or not array.size):
            raise InputError(f"{path}: '{key}' holds no numbers ({array.dtype} {array.shape})")
    if ms.ndim < 4:
        yield _sample(named, pan, ms, truth, meta)
        return
    count = len(ms)
    for key, array in (("pan", pan), ("gt", truth)):
        if array is not None and (array.ndim < 3 or len(array) != count):
            raise InputError(f"{path}: {len(array)} of '{key}' for {count} of 'ms'")
    digits = len(str(count - 1))
    for i in range(count):
        yield _sample(
            (f"{name}[{i:0{digits}}]", path), pan[i], ms[i], None if truth is None else truth[i], meta
        )


def _first(arrays: Mapping[str, Array], names: tuple[str, ...]) -> Array | None:
    lower = {name.casefold(): array for name, array in arrays.items()}
    return next((lower[name] for name in names if name in lower), None)


def _of_role(arrays: Mapping[str, Array], key: str) -> Array | None:
    """By one of its names, the first that is there, or by a word in one."""
    exact = _first(arrays, NAMES[key])
    return exact if exact is not None else next((a for name, a in arrays.items() if role(name) == key), None)


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
                f"{path}: MS {ms.shape} lies on PAN's grid already, and there is no truth to make it from "
                "anew; give MS as it was delivered"
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
    """An image of bands as (B, h, w), whose sides divide PAN's by one whole number; None where that is not
    so.

    Where both the first and the last axis could be the bands, the number of them decides, or else the first
    is.
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

"""Which of MS' bands is which, and which does the model want? By what the files say, not by position.

What a band says of itself is, in this order: its name (`sfiin.runtime.scenes.words`), its wavelength (ENVI's
tags, GDAL's domain IMAGERY), its colour interpretation, and, of a file with a single band, the file's name. A
stated order is followed, one that contradicts the model's bands is refused, and where nothing is stated the
model's order is assumed and said.

A band is alpha, and no image, where it is declared so beside all the bands that are wanted, or where it holds
nothing but 0 and its type's largest value. Writers declare the fourth of four 8-bit bands alpha by default:
where that is an image, nothing is believed of the colours of that file.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioIOError
from rasterio.windows import Window

from sfiin.runtime.errors import InputError, MismatchError, SceneError
from sfiin.runtime.scenes import words
from sfiin.runtime.scenes.raster import GDAL_ERRORS, reason

_SAMPLES, _SIDE = 4, 128
_COLOURS = ("coastal", "blue", "green", "yellow", "red", "rededge", "nir")
_ALIKE = ({"nir", "nir1"}, {"rededge", "rededge1"}, {"coastal", "deepblue"})
_UNITS = {
    "nm": 1.0,
    "nanometers": 1.0,
    "nanometres": 1.0,
    "um": 1000.0,
    "micrometers": 1000.0,
    "micrometres": 1000.0,
}
_NAMING = (
    "bandname",
    "band_name",
    "common_name",
    "eo:common_name",
    "name",
    "long_name",
    "band",
    "colour",
    "color",
)
_WAVELENGTHS = ("wavelength", "wavelengths", "center_wavelength", "central_wavelength", "centre_wavelength")
_LANDSAT = re.compile(r"L[CO]0[89]_.*_B(\d)\.tif", re.IGNORECASE)
_OLI = {
    2: "blue",
    3: "green",
    4: "red",
    5: "nir",
    6: "swir1",
    7: "swir2",
    1: "coastal",
    8: "pan",
    9: "cirrus",
}


@dataclass(frozen=True, eq=False)
class Band:
    """A band that is an image: of which open `file`, its `index` there, its `number` among all, from 1 both;
    the `word` that it says, or None."""

    file: Any
    index: int
    number: int
    word: str | None


@dataclass(frozen=True, eq=False)
class Choice:
    """The bands for the model, in its order, and what is to be said, a sentence each."""

    bands: tuple[Band, ...]
    notes: tuple[str, ...]


def images(file: Any, wanted: int | None = None) -> tuple[int, ...]:
    """The indices of an open file's bands that are images. `wanted` is how many there should be, if known."""
    alpha = [i for i, kind in zip(file.indexes, file.colorinterp, strict=True) if kind == ColorInterp.alpha]
    named = [i for i in file.indexes if words.of_name(file.descriptions[i - 1]) == "alpha"]
    if alpha and file.count == 4 and wanted in (None, 4):
        alpha = [i for i in alpha if _is_mask(file, i)]
    elif not alpha and file.count in (2, 4, 5) and file.colorinterp[-1] == ColorInterp.undefined:
        alpha = [file.count] if _is_mask(file, file.count) else []
    return tuple(i for i in file.indexes if i not in {*alpha, *named})


def look(files: Sequence[Any], stated: Sequence[str | None] | None = None) -> list[Band]:
    """All bands that are images, with what they say; `stated` is what a vendor's metadata say in their place.
    Raises SceneError for a damaged file."""
    found: list[Band] = []
    for file in files:
        try:
            indices = images(file)
            words_said = _said(file, indices)
        except GDAL_ERRORS as error:
            raise SceneError(
                f"{file.name}: damaged or cut short ({reason(error)}); fetch it again"
            ) from error
        for index, word in zip(indices, words_said, strict=True):
            found.append(Band(file, index, len(found) + 1, word))
    if stated is None or len(stated) != len(found):
        return found
    return [dataclasses.replace(band, word=word) for band, word in zip(found, stated, strict=True)]


def choose(found: Sequence[Band], wanted: Sequence[str], override: str | None = None) -> Choice:
    """The bands that are `wanted`, in that order.

    `override` is a list of numbers in the wanted order, or of `name=number`. Raises InputError for one that
    is neither, MismatchError, which begins with "bands", where the wanted bands are not there, or cannot be
    told.
    """
    if override:
        return _overridden(found, wanted, override)
    names = [name.casefold() for name in wanted]
    own = {(band.file.descriptions[band.index - 1] or "").casefold(): band for band in found}
    if len(own) == len(found) and all(name in own for name in names):  # in the model's own words
        matched: list[Band | None] = [own[name] for name in names]
        return Choice(tuple(own[name] for name in names), _order_notes(matched, found))
    stated = [band for band in found if band.word is not None]
    if not stated or not any(map(words.of_name, wanted)):
        return _unstated(found, wanted)
    matched = [_one(stated, name, wanted) for name in names]
    missing = [i for i, band in enumerate(matched) if band is None]
    silent = [band for band in found if band.word is None]
    if not missing:
        return Choice(tuple(band for band in matched if band), _order_notes(matched, found))
    in_place = len(found) == len(wanted) and all(
        band is None or band.number == i + 1 for i, band in enumerate(matched)
    )
    if len(missing) == len(silent) and (len(missing) == 1 or in_place):
        for i, band in zip(missing, silent, strict=True):
            matched[i] = band
        filled = ", ".join(f"{band.number} is {wanted[i]}" for i, band in zip(missing, silent, strict=True))
        note = f"bands: the other bands say what they are, and so it is assumed that band {filled}"
        return Choice(tuple(band for band in matched if band), (note, *_order_notes(matched, found)))
    raise MismatchError(
        f"bands: MS says that it holds {_held(found)}; the model wants {', '.join(wanted)}. "
        "Say which they are with --bands, or use a model for these"
    )


def _one(stated: Sequence[Band], name: str, wanted: Sequence[str]) -> Band | None:
    """The one band that says a name. Raises MismatchError where several do."""
    alike = next((group for group in _ALIKE if name in group), {name})
    same = [band for band in stated if band.word == name] or [band for band in stated if band.word in alike]
    if len(same) > 1:
        numbers = " and ".join(str(band.number) for band in same)
        raise MismatchError(
            f"bands: {numbers} of MS both say that they are {name}; the model wants {', '.join(wanted)}. "
            "Say which with --bands"
        )
    return same[0] if same else None


def _unstated(found: Sequence[Band], wanted: Sequence[str]) -> Choice:
    if len(found) != len(wanted):
        hint = "say which they are with --bands" if len(found) > len(wanted) else "use a model for these"
        raise MismatchError(
            f"bands: MS has {len(found)}, the model wants {len(wanted)} ({', '.join(wanted)}); {hint}"
        )
    numbers = words.numbers([band.file.descriptions[band.index - 1] for band in found])
    if numbers and numbers != sorted(numbers):
        given = ", ".join(map(str, numbers))
        raise MismatchError(
            f"bands: MS' are numbered {given}, in no ascending order, and say no colours; the model wants "
            f"{', '.join(wanted)}. Say which they are with --bands"
        )
    named = [band.file.descriptions[band.index - 1] or "" for band in found]
    said = "no file says which is which"
    if any(named) and not numbers:
        said = f"what the names ({', '.join(named)}) mean is not known"
    note = f"bands: {said}; it is assumed that they are {', '.join(wanted)}, in this order"
    return Choice(tuple(found), (note,))


def _order_notes(matched: Sequence[Band | None], found: Sequence[Band]) -> tuple[str, ...]:
    order = [band.number for band in matched if band]
    if order == [band.number for band in found]:
        return ()
    return (f"bands: {', '.join(map(str, order))} of MS are taken, in this order, by what the files say",)


def _held(found: Sequence[Band]) -> str:
    return ", ".join(band.word or "?" for band in found)


def _overridden(found: Sequence[Band], wanted: Sequence[str], text: str) -> Choice:
    """By `3,2,1,4`, or by `red=3,green=2`, whose names are read as any others."""
    parts = [part.strip() for part in text.split(",")]
    numbers: dict[str, int] = {}
    for place, part in enumerate(parts):
        name, _, number = part.rpartition("=")
        word = (
            (words.of_name(name) or name.casefold())
            if name
            else (wanted[place] if place < len(wanted) else "")
        )
        if not number.strip().isdigit() or not 1 <= int(number) <= len(found) or not word or word in numbers:
            raise InputError(
                f"--bands {text}: give {len(wanted)} numbers from 1 to {len(found)}, for "
                f"{', '.join(wanted)}, or name=number for each of these"
            )
        numbers[word.casefold()] = int(number)
    chosen = [
        numbers.get(name.casefold(), numbers.get("nir" if name.casefold() == "nir1" else ""))
        for name in wanted
    ]
    missing = [name for name, number in zip(wanted, chosen, strict=True) if number is None]
    if missing or len(numbers) != len(wanted):
        raise InputError(
            f"--bands {text}: says nothing of {', '.join(missing)}"
            if missing
            else f"--bands {text}: names more than the model's bands, {', '.join(wanted)}"
        )
    bands = tuple(found[number - 1] for number in chosen if number)
    against = [
        f"{band.number} says that it is {band.word}, and is taken for {name}"
        for band, name in zip(bands, wanted, strict=True)
        if band.word and not any({band.word, name.casefold()} <= group for group in ({band.word}, *_ALIKE))
    ]
    return Choice(bands, (f"bands: {'; '.join(against)}, by --bands",) if against else ())


# --- what a file says ---


def _said(file: Any, indices: Sequence[int]) -> list[str | None]:
    """What each band says, by the best source that says something of any of them."""
    by_name = words.of_all([file.descriptions[i - 1] for i in indices])
    if any(by_name):
        return by_name
    by_length = [_by_wavelength(file, i) for i in indices]
    if any(by_length):
        return by_length
    by_tag = words.of_all([_band_tag(file, i) for i in indices])
    if any(by_tag):
        return by_tag
    by_colour = [_by_colour(file.colorinterp[i - 1]) for i in indices]
    believed = not any(file.colorinterp[i - 1] == ColorInterp.alpha for i in indices)
    if any(by_colour) and believed:
        return by_colour
    by_vendor = _by_imd(file, len(indices))
    if by_vendor:
        return by_vendor
    return [_by_file_name(file.name)] if len(indices) == 1 else [None] * len(indices)


def _by_colour(kind: ColorInterp) -> str | None:
    return kind.name if kind.name in _COLOURS else None


def _by_wavelength(file: Any, index: int) -> str | None:
    tags = {key.casefold(): value for key, value in file.tags(index).items()}
    micrometres = file.tags(index, ns="IMAGERY").get("CENTRAL_WAVELENGTH_UM")
    try:
        if micrometres:
            return words.of_wavelength(1000 * float(micrometres))
        value = float(next(tags[key] for key in _WAVELENGTHS if key in tags))
    except (StopIteration, ValueError):
        return None
    unit = _UNITS.get(tags.get("wavelength_units", "").casefold())
    return words.of_wavelength(value * (unit or (1.0 if value > 100 else 1000.0)))


def _band_tag(file: Any, index: int) -> str | None:
    tags: Mapping[str, str] = {key.casefold(): value for key, value in file.tags(index).items()}
    return next(
        (tags[key] for key in _NAMING if key in tags),
        None,
    )


def _by_imd(file: Any, count: int) -> list[str | None] | None:
    """Maxar's IMD, which GDAL keeps as tags: the bands stand in the image's order."""
    letters = list(
        dict.fromkeys(
            match[1]
            for key in file.tags(ns="IMD")
            if (match := re.match(r"BAND_(\w+?)\.", key)) and match[1] != "P"
        )
    )
    found = words.of_all(letters)
    return found if len(letters) == count and all(found) else None


def _by_file_name(name: str) -> str | None:
    landsat = _LANDSAT.fullmatch(Path(name).name)
    if landsat:
        return _OLI.get(int(landsat[1]))
    stem = Path(name).stem
    return words.of_name(stem) or words.of_name(re.split(r"[_\-. ]", stem)[-1])


# --- is it a mask? ---


def _is_mask(file: Any, index: int) -> bool:
    """Whether a band's samples are 0 and its type's largest value only."""
    kind = np.dtype(file.dtypes[index - 1])
    full = {255.0, float(np.iinfo(kind).max) if kind.kind in "ui" else 1.0}
    seen: set[float] = set()
    for window in _windows(file):
        try:
            seen |= set(np.unique(file.read(index, window=window)).tolist())
        except RasterioIOError:  # told of where the file is read
            return False
        if not seen <= full | {0.0}:
            return False
    return bool(seen & full)


def _windows(file: Any) -> Iterator[Window]:
    size = min(_SIDE, file.height), min(_SIDE, file.width)
    for row in sorted({int(at) for at in np.linspace(0, file.height - size[0], _SAMPLES)}):
        for col in sorted({int(at) for at in np.linspace(0, file.width - size[1], _SAMPLES)}):
            yield Window(col, row, size[1], size[0])

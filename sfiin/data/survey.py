"""What is in a folder of data: how many pairs of which shapes and range, how do their images fit, which come
twice?

Nothing is trained or judged. What is measured is what spoils a training unnoticed: values in another range,
PAN that does not lie on MS, a truth that is blunter or sharper than PAN, images of one ground on both sides
of a split.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np

from sfiin.data import duplicates, images, pairs, reading
from sfiin.data.duplicates import Overlap
from sfiin.data.pairs import Image, Pair
from sfiin.data.samples import Raw
from sfiin.runtime.errors import InputError
from sfiin.runtime.quality.detail import crispness
from sfiin.runtime.scenes.alignment import LIMIT, SMALLEST, of_window

_BITS = (8, 10, 11, 12, 14, 16)


@dataclass(frozen=True)
class PairFacts:
    """One pair. `split` is the folder, or the file of many pairs, that it lies in, "" for the set's own.

    `pan` (H, W), `ms` (B, h, w), `truth` whether there is one; `stored` the type in the file; `low` and
    `high` the values of all images; `shift` (row, col) of PAN against MS in PAN pixels, None where it cannot
    be told; `detail` PAN's crispness over the truth's, None without truth or contrast; `notes` on how it was
    read.
    """

    name: str
    split: str
    pan: tuple[int, int]
    ms: tuple[int, int, int]
    ratio: int
    truth: bool
    stored: str
    low: float
    high: float
    finite: bool
    shift: tuple[float, float] | None
    detail: float | None
    sensor: str
    bands: tuple[str, ...]
    says_range: bool
    notes: tuple[str, ...]

    @property
    def shifted(self) -> bool:
        """Whether PAN lies further from MS than a run accepts."""
        return self.shift is not None and float(np.hypot(*self.shift)) > LIMIT


@dataclass(frozen=True)
class Kind:
    """Pairs of one shape and type. `bits`: the fewest that hold all values, 0 for fractions of 1, None for
    neither.

    `says_range`: whether the pairs name their range or bits themselves. `shift` (row, col) and `detail` are
    medians over the pairs where they are known; `told` is how many shifts are known, `shifted` how many of
    them a run would refuse.
    """

    pairs: int
    bands: int
    ratio: int
    pan: tuple[int, int]
    truth: int
    stored: str
    low: float
    high: float
    bits: int | None
    says_range: bool
    shift: tuple[float, float] | None
    told: int
    shifted: int
    detail: float | None


@dataclass(frozen=True)
class Survey:
    """A folder: its pairs by kind and by split, scenes by name, and pairs that share ground.

    `across` are those of two splits; `findings` say in words what is wrong or odd.
    """

    folder: str
    kinds: tuple[Kind, ...]
    splits: dict[str, int]
    scenes: tuple[str, ...]
    overlaps: tuple[Overlap, ...]
    across: tuple[Overlap, ...]
    findings: tuple[str, ...]
    pairs: tuple[PairFacts, ...]


def survey(folder: Path) -> Survey:
    """Look at all of a folder, and at the folders in it. Raises InputError where nothing there can be
    read."""
    facts: list[PairFacts] = []
    grounds: dict[str, Image] = {}
    for split, raw in _all(folder):
        pair = pairs.from_raw(raw)
        facts.append(_facts(split, raw, pair))
        grounds[facts[-1].name] = pair.pan[0]
    scenes = tuple(
        str(path.parent.relative_to(folder))
        for path in sorted(folder.rglob("pan.tif"))
        if path.parent != folder and images.is_scene(path.parent)
    )
    if not facts and not scenes:
        raise InputError(f"{folder}: no pairs of PAN and MS; {reading.describe(folder)}")
    split_of = {fact.name: fact.split for fact in facts}
    found = tuple(duplicates.overlaps(grounds))
    across = tuple(each for each in found if split_of[each.first] != split_of[each.second])
    kinds = tuple(_kinds(facts))
    splits = {split: sum(fact.split == split for fact in facts) for split in dict.fromkeys(split_of.values())}
    findings = tuple(_findings(facts, kinds, found, across))
    return Survey(str(folder), kinds, splits, scenes, found, across, findings, tuple(facts))


def _all(folder: Path) -> Iterator[tuple[str, Raw]]:
    """The samples of a folder and of those in it, with the split that each belongs to and a name of its
    own."""
    for raw in reading.read_folder(folder):
        yield _split_of(raw.name), raw
    for place in sorted(path for path in folder.iterdir() if path.is_dir()):
        for path in sorted(place.rglob("*")):
            if path.suffix.lower() in reading.SUFFIXES and path.is_file():
                inside = path.parent.relative_to(folder)
                for raw in reading.read_file(path):
                    yield str(inside), replace(raw, name=f"{inside}/{raw.name}")


def _split_of(name: str) -> str:
    """The folder in a sample's name, or its file of many; "" for a file of one."""
    folder, _, rest = name.rpartition("/")
    return folder or (rest.partition("[")[0] if rest.endswith("]") else "")


def _facts(split: str, raw: Raw, pair: Pair) -> PairFacts:
    every = [image for image in (pair.pan, pair.ms, pair.truth) if image is not None]
    bands = pair.meta.get("bands", ())
    return PairFacts(
        name=raw.name,
        split=split,
        pan=(pair.pan.shape[1], pair.pan.shape[2]),
        ms=(pair.ms.shape[0], pair.ms.shape[1], pair.ms.shape[2]),
        ratio=pair.ratio,
        truth=pair.truth is not None,
        stored=raw.stored,
        low=float(np.min([image.min() for image in every])),
        high=float(np.max([image.max() for image in every])),
        finite=all(bool(np.isfinite(image).all()) for image in every),
        shift=_shift(pair),
        detail=_detail(pair),
        sensor=str(pair.meta.get("sensor", "")),
        bands=tuple(map(str, bands)),
        says_range=bool({"peak", "nominal_bits"} & set(pair.meta)),
        notes=tuple(raw.notes),
    )


def _shift(pair: Pair) -> tuple[float, float] | None:
    """How far PAN's content lies from that of MS, in PAN pixels (`sfiin.runtime.scenes.alignment`)."""
    ratio, (height, width) = pair.ratio, pair.size
    if min(height, width) < SMALLEST:
        return None
    coarse = pair.pan[0].reshape(height, ratio, width, ratio).mean((1, 3), dtype=np.float64)
    found = of_window(coarse, pair.ms.mean(0, dtype=np.float64))
    return None if found is None else (round(found[0] * ratio, 2), round(found[1] * ratio, 2))


def _detail(pair: Pair) -> float | None:
    """PAN's fine contrast beside its middle one, over the truth's: 1 where they are equally crisp."""
    if pair.truth is None:
        return None
    truth = crispness(pair.truth)
    return round(crispness(pair.pan) / truth, 3) if truth else None


def _kinds(facts: Sequence[PairFacts]) -> Iterator[Kind]:
    groups: dict[tuple[int, int, tuple[int, int], str, bool], list[PairFacts]] = {}
    for fact in facts:
        groups.setdefault((fact.ms[0], fact.ratio, fact.pan, fact.stored, fact.says_range), []).append(fact)
    for (bands, ratio, size, stored, says_range), own in groups.items():
        shifts = [fact.shift for fact in own if fact.shift is not None]
        details = [fact.detail for fact in own if fact.detail is not None]
        low, high = min(fact.low for fact in own), max(fact.high for fact in own)
        yield Kind(
            pairs=len(own),
            bands=bands,
            ratio=ratio,
            pan=size,
            truth=sum(fact.truth for fact in own),
            stored=stored,
            low=low,
            high=high,
            bits=_bits(low, high, stored),
            says_range=says_range,
            shift=_middle(shifts) if shifts else None,
            told=len(shifts),
            shifted=sum(fact.shifted for fact in own),
            detail=median(details) if details else None,
        )


def _middle(shifts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    rows, columns = zip(*shifts, strict=True)
    return float(median(rows)), float(median(columns))


def _bits(low: float, high: float, stored: str) -> int | None:
    if low < -0.05 * max(high, 0) or not np.isfinite(high):
        return None
    if stored.startswith("float") and 0 < high <= 1.5:
        return 0
    return next((bits for bits in _BITS if high <= (1 << bits) - 1), None)


def _findings(
    facts: Sequence[PairFacts], kinds: Sequence[Kind], found: Sequence[Overlap], across: Sequence[Overlap]
) -> Iterator[str]:
    silent = [kind for kind in kinds if not kind.says_range and kind.bits is not None]
    if silent and max(kind.bits or 0 for kind in silent) > min(kind.bits or 0 for kind in silent) + 2:
        told = ", ".join(dict.fromkeys(_as_bits(kind) for kind in silent))
        yield f"pairs that do not name their range are of several: {told}; they are read as of one (--bits)"
    for kind in kinds:
        if kind.bits is None:
            yield (
                f"{kind.pairs} pairs range from {kind.low:g} to {kind.high:g}, which no digital numbers do; "
                "bring them to 0 and more"
            )
    infinite = [fact.name for fact in facts if not fact.finite]
    if infinite:
        yield f"{len(infinite)} pairs hold NaN or infinity: {_some(infinite)}"
    shifted = [fact.name for fact in facts if fact.shifted]
    if shifted:
        yield f"PAN lies more than {LIMIT:g} PAN pixels from MS in {len(shifted)} pairs: {_some(shifted)}"
    for word, odd in (
        ("blunter", [fact.name for fact in facts if fact.detail is not None and fact.detail < 0.8]),
        ("crisper", [fact.name for fact in facts if fact.detail is not None and fact.detail > 1.25]),
    ):
        if odd:
            yield (
                f"PAN is {word} than the truth in {len(odd)} pairs, so a network learns to {_learns(word)}: "
                f"{_some(odd)}"
            )
    if unnamed := [fact.name for fact in facts if not fact.bands]:
        yield f"{len(unnamed)} pairs do not name their bands; the sensor's order is assumed (--bands)"
    yield from (f"{fact.name}: {note}" for fact in facts for note in fact.notes)
    same = [each for each in found if each.share == 1.0]
    if same:
        yield f"{len(same)} pairs come twice: {_some([f'{each.first} = {each.second}' for each in same])}"
    if across:
        told = _some([f"{each.first} and {each.second} ({each.share:.0%})" for each in across])
        yield f"{len(across)} pairs share ground across splits, so what is held out has been seen: {told}"


def _learns(word: str) -> str:
    return "sharpen beyond PAN" if word == "blunter" else "leave detail of PAN out"


def _as_bits(kind: Kind) -> str:
    return "none" if kind.bits is None else "fractions of 1" if kind.bits == 0 else f"{kind.bits} bits"


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

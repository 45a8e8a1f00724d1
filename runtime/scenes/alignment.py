"""Do PAN and MS lie on one another? Their shift by phase correlation, from coarse to fine.

PAN is averaged to MS' pixels and MS' bands to one; both are cut by a Hann window, and the phases of their
spectra are compared (Kuglin and Hines, 1975) over the frequencies that a mean of 2 x 2 pixels passes. Gaps
are filled and fade out of the window, so that neither their values nor their edges are seen.

First, on large windows, the surfaces of correlation are added up, and the highest peak within the search is
taken where it stands out from all that is around it. Then, on small windows at that shift, each peak's place
is found to a part of a pixel by a parabola through it and its neighbours. What these windows say must agree:
on one shift, or on one that changes smoothly over the scene (a plane, or a curved surface). Where they do
not, or too few of them have something to see, the shift could not be told, which is not the same as none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.errors import AlignmentError
from sfiin.runtime.scenes.drift import Drift, fit
from sfiin.runtime.scenes.scene import Scene

SIDE, LARGE = 64, 256
"""MS pixels of the side of a small and of a large window, or fewer where the scene is smaller."""

SMALLEST = 24
"""MS pixels of a scene's side, below which nothing can be told."""

WINDOWS, LARGE_WINDOWS = 7, 3
"""Small and large windows an axis at most, evenly over the scene."""

LIMIT = 1.5
"""PAN pixels of shift from which on a scene is refused."""

SEARCH = 128
"""PAN pixels within which a shift is looked for."""

ENOUGH = 3
"""Windows that must agree for a shift to be told."""

# Of a perfect match's height, above which noise hardly gets in a window of SIDE; smaller ones have more.
_PEAK = 0.1
_PARTS = 10  # of a pixel, at which the surface is looked at between pixels
_REACH = 4  # MS pixels within which a small window's peak is looked for
_STANDS_OUT = 7.0  # standard deviations of what is around, from which on a large windows' peak counts
_UNCOVERED = 0.05  # the share of PAN that MS, once moved, may miss
_FILLED = 0.5  # the share of a window that must be valid

Image = NDArray[np.float64]
Phases = NDArray[np.complex128]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Shift:
    """How far PAN's content lies from MS', in PAN pixels: positive where PAN's is further down and to the
    right.

    `spread` is the median distance from it of the windows that agree; `windows` is how many do, `seen` how
    many had something to see, of `looked`. `known` says whether that tells the shift; else `row`, `col`,
    `spread` and `most` are 0. `constant` says whether they agree on one shift for all of the scene; else
    `row` and `col` are the mean of one that changes. `most` is the largest shift in any part of the scene,
    and `drift` the shift as a function of place.
    """

    row: float
    col: float
    spread: float
    windows: int
    looked: int
    seen: int = 0
    known: bool = False
    constant: bool = True
    most: float = 0.0
    search: float = SEARCH
    drift: Drift | None = field(default=None, compare=False, repr=False)

    @property
    def length(self) -> float:
        """PAN pixels."""
        return float(np.hypot(self.row, self.col))

    def verdict(self, limit: float = LIMIT) -> str:
        """ "aligned", "shifted", or "could not be told"."""
        if not self.known:
            return "could not be told"
        found = self.length if self.constant else self.most
        return "shifted" if found > max(limit, self.spread) else "aligned"

    def require(self, limit: float = LIMIT, certain: bool = False) -> None:
        """Raise AlignmentError where the shift is above the limit, and above its own spread; with `certain`,
        also where it could not be told."""
        verdict = self.verdict(limit)
        if verdict == "shifted":
            how = "--coregister" if self.constant else "--coregister local"
            raise AlignmentError(
                f"alignment: {self.sentence()}; above {limit:g} edges get coloured fringes. "
                f"Correct it with {how}, or leave it with --max-shift"
            )
        if certain and verdict != "aligned":
            raise AlignmentError(
                f"alignment: {self.sentence()}; check the pair by eye, then leave out --require-alignment"
            )

    def sentence(self) -> str:
        """What was found, for people."""
        if not self.known:
            return f"it could not be told whether PAN and MS lie on one another: {self._why()}"
        most = f" ({self.most:.1f} in parts of the scene)" if self.is_local() else ""
        return (
            f"PAN lies {self.row:+.1f} rows and {self.col:+.1f} columns (PAN pixels) from MS{most}, by "
            f"{self.windows} of {self.looked} windows, which agree to {self.spread:.1f}"
        )

    def document(self, limit: float = LIMIT) -> dict[str, Any]:
        """As JSON."""
        plain = {
            item.name: getattr(self, item.name) for item in dataclasses.fields(self) if item.name != "drift"
        }
        plain["drift"] = None
        if self.drift is not None:
            plain["drift"] = {"numbers": self.drift.numbers.tolist(), "size": list(self.drift.size)}
        return plain | {"verdict": self.verdict(limit), "said": self.sentence()}

    def is_local(self, limit: float = LIMIT) -> bool:
        """Whether parts of the scene are shifted though it is not, taken as a whole."""
        return self.known and self.most > max(limit, self.length + 1)

    def _why(self) -> str:
        if not self.looked:
            return "the scene is too small, or has too many gaps"
        if self.seen < ENOUGH:
            seen = f"{self.seen} of {self.looked} windows"
            return f"{seen} had something in common within {self.search:g} PAN pixels"
        return f"{self.seen} windows had something in common, but no more than {self.windows} agree"


def estimate(scene: Scene, search: float = SEARCH) -> Shift:
    """The shift between a scene's PAN and MS, looked for within `search` PAN pixels. Raises SceneError for a
    damaged file."""
    coarse = _coarse(scene, search)
    found = [_at(scene, coarse, True, search)] if coarse else []
    if coarse != (0, 0):
        found.append(_at(scene, (0, 0), False, search))
    best = max(found, key=lambda shift: (shift.known, shift.windows))
    return dataclasses.replace(best, search=max(search, _REACH * scene.sensor.ratio))


def corrected(scene: Scene, shift: Shift, how: str, limit: float = LIMIT) -> Scene:
    """The scene with MS moved onto PAN: by one shift for `how` "shift", by a smooth field for "local".

    Raises AlignmentError where the shift could not be told, or one shift leaves more than `limit` PAN pixels.
    """
    if not shift.known or shift.drift is None:
        raise AlignmentError(
            f"--coregister: {shift.sentence()}; look further with --search, or leave out --coregister"
        )
    if how == "local" and not shift.drift.is_constant:
        return scene.drifted(shift.drift)
    left = shift.drift.farthest_from((shift.row, shift.col))
    if how == "shift" and left > limit:
        raise AlignmentError(
            f"--coregister: {shift.sentence()}; one shift for all leaves {left:.1f} PAN pixels in places. "
            "Correct it with --coregister local, or accept that with --max-shift"
        )
    return _covered(scene.coregistered(shift.row, shift.col))


def _covered(scene: Scene) -> Scene:
    """The scene, with a note where MS, as it was moved, does not reach all of PAN. Raises AlignmentError
    where that is much of it."""
    rows, cols = scene.uncovered
    share = 1 - (1 - rows / scene.height) * (1 - cols / scene.width)
    lacking = f"as it was moved, MS does not reach {rows} rows and {cols} columns of PAN ({share:.0%})"
    if share > _UNCOVERED:
        raise AlignmentError(
            f"--coregister: {lacking}; cut PAN to what both show, e.g. with gdal_translate -srcwin"
        )
    return scene.told(f"{lacking}: there its outermost pixels are repeated") if rows or cols else scene


def _at(scene: Scene, start: tuple[int, int], coarse: bool, search: float) -> Shift:
    """The shift that small windows tell where PAN is looked at `start` MS pixels further on."""
    ratio, looked, points = scene.sensor.ratio, 0, []
    both = [length - abs(by) for length, by in zip(_size(scene), start, strict=True)]
    side = min(SIDE, *(max(length // 2, min(length, SMALLEST)) for length in both))
    for place in _places(scene, side, WINDOWS, start):
        pair = _pair(scene, place, start, side)
        if pair is None:
            continue
        looked += 1
        shift = of_window(*pair)
        if shift is not None:
            at = [(first + side / 2) * ratio for first in place]
            points.append([*at, *(ratio * (first + part) for first, part in zip(start, shift, strict=True))])
    seen = np.array(points).reshape(-1, 4)
    fitted = fit(seen[:, :2], seen[:, 2:], (scene.height, scene.width), ratio / 2, ENOUGH)
    if fitted is None:
        return Shift(0.0, 0.0, 0.0, 0, looked, len(seen))
    # Without a coarse peak that says the same, false ones must be outvoted; where windows share most of their
    # pixels, their agreement says little.
    wanted = looked * (0.8 if max(both) < 2 * side else 0.25 if coarse else 0.5)
    simple, best = fitted
    if not simple.is_majority or simple.count < wanted:
        return Shift(0.0, 0.0, 0.0, simple.count, looked, len(seen))
    row, col = simple.mean
    return Shift(
        row,
        col,
        simple.spread,
        simple.count,
        looked,
        len(seen),
        True,
        simple.is_constant,
        best.most,
        search,
        best,
    )


def _coarse(scene: Scene, search: float) -> tuple[int, int] | None:
    """The shift in whole MS pixels at which large windows together have a peak that stands out, else None."""
    side = min(LARGE, *_size(scene))
    reach = min(round(search / scene.sensor.ratio), side // 2 - 2)
    if reach <= 1:
        return None
    total = np.zeros((2 * reach + 1, 2 * reach + 1))
    for place in _places(scene, side, LARGE_WINDOWS):
        pair = _pair(scene, place, (0, 0), side)
        phases = None if pair is None else _phases(*pair)
        if phases is not None:
            surface = np.abs(np.fft.ifft2(phases).real)
            total += np.roll(surface, (reach, reach), (0, 1))[: 2 * reach + 1, : 2 * reach + 1]
    row, col = (int(at) for at in np.unravel_index(total.argmax(), total.shape))
    around = np.ones(total.shape, bool)
    around[max(0, row - 2) : row + 3, max(0, col - 2) : col + 3] = False
    rest = total[around]
    if total[row, col] < rest.mean() + _STANDS_OUT * rest.std() or not rest.std():
        return None
    return row - reach, col - reach


def of_window(pan: Image, ms: Image, weight: Image | None = None) -> tuple[float, float] | None:
    """The shift (row, col) of PAN against MS, two images of one size, in their pixels; None where none
    stands out. `weight` (0 to 1) is how much each pixel counts."""
    phases = _phases(pan, ms, weight)
    if phases is None:
        return None
    surface = np.fft.ifft2(phases).real
    near = np.roll(surface, (_REACH, _REACH), (0, 1))[: 2 * _REACH + 1, : 2 * _REACH + 1]
    # Two sensors' contrasts may be opposite over most of a window; the peak is then negative.
    row, col = (int(at) for at in np.unravel_index(np.abs(near).argmax(), near.shape))
    if abs(near[row, col]) < _PEAK * SIDE / min(pan.shape) or not (
        0 < row < 2 * _REACH and 0 < col < 2 * _REACH
    ):
        return None
    return _refined(phases * np.sign(near[row, col]), (row - _REACH, col - _REACH))


def _refined(phases: Phases, at: tuple[int, int]) -> tuple[float, float]:
    """The peak's place to a part of a pixel: the surface between pixels, then a parabola (as M.
    Guizar-Sicairos, S. T. Thurman, J. R. Fienup, Optics Letters 33, 2008)."""
    steps = np.arange(-_PARTS, _PARTS + 1) / _PARTS
    rows, cols = (
        np.exp(2j * np.pi * np.outer(middle + steps, np.fft.fftfreq(side)))
        for middle, side in zip(at, phases.shape, strict=True)
    )
    surface = (rows @ phases @ cols.T).real
    row, col = (int(np.clip(i, 1, 2 * _PARTS - 1)) for i in np.unravel_index(surface.argmax(), surface.shape))
    return (
        at[0] + float(steps[row]) + _vertex(*surface[row - 1 : row + 2, col]) / _PARTS,
        at[1] + float(steps[col]) + _vertex(*surface[row, col - 1 : col + 2]) / _PARTS,
    )


def _phases(pan: Image, ms: Image, weight: Image | None = None) -> Phases | None:
    """The phases' difference at each frequency, so weighted that two equal images have a surface with a peak
    of 1; None where an image is even."""
    window = np.multiply.outer(np.hanning(pan.shape[0]), np.hanning(pan.shape[1]))
    window = window if weight is None else window * weight
    if not window.any():
        return None
    levelled = [(image - np.average(image, weights=window)) * window for image in (pan, ms)]
    if not all(image.std() for image in levelled):
        return None
    one, other = (np.fft.fft2(image) for image in levelled)
    product = one * other.conj()
    low = _passed(pan.shape)
    magnitude = np.abs(product)
    passed = np.where(magnitude > 1e-12 * magnitude.max(), low / np.maximum(magnitude, 1e-300), 0)
    phases: Phases = product * (passed / low.mean())
    return phases


def _passed(shape: tuple[int, ...]) -> Image:
    """What a mean of 2 x 2 pixels lets pass: high frequencies are aliased in MS."""
    rows, cols = (np.cos(np.pi * np.fft.fftfreq(side)) ** 2 for side in shape)
    passed: Image = np.multiply.outer(rows, cols)
    return passed


def _vertex(before: float, at: float, after: float) -> float:
    """Where a parabola through three neighbouring values has its highest point, from the middle one."""
    bend = before - 2 * at + after
    return 0.0 if not bend else float(np.clip((before - after) / (2 * bend), -0.5, 0.5))


# --- windows ---


def _pair(
    scene: Scene, place: tuple[int, int], start: tuple[int, int], side: int
) -> tuple[Image, Image, Image] | None:
    """PAN averaged to MS' pixels, the mean of MS' bands, and weights (side, side); PAN is taken `start` MS
    pixels further on. None where too little is valid."""
    ratio = scene.sensor.ratio
    there = place[0] + start[0], place[1] + start[1]
    ms, pan, valid = _read(scene, place, side)
    if start != (0, 0):
        _, pan, there_valid = _read(scene, there, side)
        valid = valid & there_valid
    whole = np.asarray(valid.reshape(side, ratio, side, ratio).all((1, 3)))
    if whole.mean() < _FILLED:
        return None
    coarse = pan[0].reshape(side, ratio, side, ratio).mean((1, 3), dtype=np.float64)
    return coarse, ms.mean(0, dtype=np.float64), _faded(whole)


def _read(scene: Scene, place: tuple[int, int], side: int) -> tuple[Any, Any, Mask]:
    ratio = scene.sensor.ratio
    return scene.read(place[0] * ratio, place[1] * ratio, side * ratio, side * ratio)


def _faded(valid: Mask) -> Image:
    """1 where all around is valid, falling to 0 in larger gaps; a single pixel's gap, which is filled, hardly
    shows."""
    if valid.all():
        return np.ones(valid.shape)
    weight = valid.astype(np.float64)
    for axis in (0, 1, 0, 1):
        padded = np.pad(weight, [(2, 2) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
        weight = np.lib.stride_tricks.sliding_window_view(padded, 5, axis=axis).mean(-1)
    return weight


def _size(scene: Scene) -> tuple[int, int]:
    """Whole MS pixels."""
    return scene.height // scene.sensor.ratio, scene.width // scene.sensor.ratio


def _places(scene: Scene, side: int, most: int, start: tuple[int, int] = (0, 0)) -> Iterator[tuple[int, int]]:
    """First rows and columns of windows, in MS pixels, from which PAN reaches `start` pixels further; none
    where there is too little room."""
    if side < SMALLEST:
        return
    axes = []
    for length, by in zip(_size(scene), start, strict=True):
        first, last = max(0, -by), length - side - max(0, by)
        number = min(most, 2 * ((length - abs(by)) // side) + 1)
        axes.append(np.unique(np.linspace(first, last, number).astype(int)).tolist() if last >= first else [])
    yield from product(*axes)

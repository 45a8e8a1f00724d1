"""Do PAN and MS lie on one another? Their shift by phase correlation, on windows that have something to see.

PAN is averaged to MS' pixels and MS' bands to one; both are cut by a Hann window, and the phases of their
spectra are compared (Kuglin and Hines, 1975) over the frequencies that a mean of 2 x 2 pixels passes. The
peak's place to a part of a pixel comes from a parabola through it and its neighbours (in each direction). The
scene's shift is the median over windows; those with little texture, or whose peak does not stand out, are
left out, and the spread of the rest says how far the median is to be trusted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.errors import AlignmentError
from sfiin.runtime.scenes.scene import Scene

SIDE = 64
"""MS pixels of a window's side."""

WINDOWS = 6
"""Windows an axis, evenly over the scene."""

LIMIT = 1.5
"""PAN pixels of shift from which on a scene is refused."""

ENOUGH = 3
"""Windows that must have something to see for a shift to be told."""

_PEAK = 0.1  # of a perfect match's height, from which on a peak stands out; noise stays below
_REACH = 4  # MS pixels within which the peak is looked for

Image = NDArray[np.float64]


@dataclass(frozen=True)
class Shift:
    """How far PAN's content lies from MS', in PAN pixels: positive where PAN's is further down and to the
    right.

    `spread` is the windows' median distance from it; `windows` how many had something to see, of `looked`.
    Without enough of them `row`, `col` and `spread` are 0 and `known` is False.
    """

    row: float
    col: float
    spread: float
    windows: int
    looked: int

    @property
    def known(self) -> bool:
        """Whether enough windows agree to tell."""
        return self.windows >= ENOUGH

    @property
    def length(self) -> float:
        """PAN pixels."""
        return float(np.hypot(self.row, self.col))

    def require(self, limit: float = LIMIT) -> None:
        """Raise AlignmentError where the shift is known, above the limit, and above its own spread."""
        if self.known and self.length > limit and self.length > self.spread:
            raise AlignmentError(
                f"alignment: PAN lies {self.row:+.1f} rows and {self.col:+.1f} columns (PAN pixels) from MS, by "
                f"{self.windows} windows that agree to {self.spread:.1f}; above {limit:g} edges get coloured fringes. "
                "Correct it with --coregister, or leave it with --max-shift"
            )


def estimate(scene: Scene) -> Shift:
    """The shift between a scene's PAN and MS. Raises SceneError for a damaged file."""
    found = [shift for pan, ms in _windows(scene) if (shift := of_window(pan, ms)) is not None]
    looked = len(list(_places(scene)))
    if len(found) < ENOUGH:
        return Shift(0.0, 0.0, 0.0, len(found), looked)
    ratio = scene.sensor.ratio
    shifts = ratio * np.array(found)
    row, col = np.median(shifts, axis=0)
    spread = float(np.median(np.hypot(*(shifts - (row, col)).T)))
    return Shift(float(row), float(col), spread, len(found), looked)


def of_window(pan: Image, ms: Image) -> tuple[float, float] | None:
    """The shift (row, col) of PAN against MS, two images of one size, in their pixels; None where none
    stands out."""
    if not (pan.std() and ms.std()):
        return None
    window = np.multiply.outer(np.hanning(pan.shape[0]), np.hanning(pan.shape[1]))
    one, other = (np.fft.fft2((image - image.mean()) * window) for image in (pan, ms))
    product = one * other.conj()
    passed = _passed(pan.shape)
    magnitude = np.abs(product)
    phases = (
        np.where(magnitude > 1e-12 * magnitude.max(), product / np.maximum(magnitude, 1e-300), 0) * passed
    )
    # Two sensors' contrasts may be opposite over most of a window; the peak is then negative.
    surface = np.abs(np.fft.ifft2(phases).real) / passed.mean()
    near = np.roll(surface, (_REACH, _REACH), (0, 1))[: 2 * _REACH + 1, : 2 * _REACH + 1]
    row, col = np.unravel_index(near.argmax(), near.shape)
    if near[row, col] < _PEAK or not (0 < row < 2 * _REACH and 0 < col < 2 * _REACH):
        return None
    return (
        row - _REACH + _vertex(*near[row - 1 : row + 2, col]),
        col - _REACH + _vertex(*near[row, col - 1 : col + 2]),
    )


def _passed(shape: tuple[int, ...]) -> Image:
    """What a mean of 2 x 2 pixels lets pass: high frequencies are aliased in MS."""
    rows, cols = (np.cos(np.pi * np.fft.fftfreq(side)) ** 2 for side in shape)
    passed: Image = np.multiply.outer(rows, cols)
    return passed


def _vertex(before: float, at: float, after: float) -> float:
    """Where a parabola through three neighbouring values has its highest point, from the middle one."""
    bend = before - 2 * at + after
    return 0.0 if not bend else float(np.clip((before - after) / (2 * bend), -0.5, 0.5))


def _windows(scene: Scene) -> Iterator[tuple[Image, Image]]:
    ratio = scene.sensor.ratio
    for row, col in _places(scene):
        ms, pan, valid = scene.read(row * ratio, col * ratio, SIDE * ratio, SIDE * ratio)
        if valid.all():
            yield (
                pan[0].reshape(SIDE, ratio, SIDE, ratio).mean((1, 3), dtype=np.float64),
                ms.mean(0, dtype=np.float64),
            )


def _places(scene: Scene) -> Iterator[tuple[int, int]]:
    """First rows and columns, in MS pixels."""
    rows, cols = (
        np.unique(np.linspace(0, side // scene.sensor.ratio - SIDE, WINDOWS).astype(int)).tolist()
        if side // scene.sensor.ratio >= SIDE
        else []
        for side in (scene.height, scene.width)
    )
    for row in rows:
        for col in cols:
            yield row, col

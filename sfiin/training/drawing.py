"""How are training patches varied, so that a network learns what sensors have in common, not one set's ways?

Sets of pairs contradict one another: how sharp PAN is beside the truth (fine contrast of truth over PAN's:
0.4 to 2), how MS was reduced (blocks, an MTF, bicubic interpolation), and where MS pixels lie (some sets:
half a PAN pixel off). A network that sees one of these learns it: to blur, or to undo a block mean. So a
patch is made anew from its truth and PAN, each time otherwise:

- PAN is blurred, or the truth, until the truth's fine contrast is a drawn multiple of PAN's;
- both are softened together, as optics and resampling do;
- MS is reduced by blocks, by bicubic interpolation, or by an MTF of a drawn gain and, at times, a drawn
  offset;
- noise is added.

A pair without truth is reduced by Wald's protocol with several gains for PAN. Pairs of another number of
bands may lend their patches, with their bands mixed. Everything is determined by the random state that is
handed in.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sfiin.data import sensors
from sfiin.data.pairs import Image, Pair, gains
from sfiin.runtime.errors import InputError
from sfiin.runtime.quality.degradation import bicubic_reduce, block_mean, degrade
from sfiin.runtime.quality.detail import SIGMAS, crispness
from sfiin.runtime.toml import parse

MARGIN = 24
"""PAN pixels around a patch that filters may see, cut off in the end."""


@dataclass(frozen=True)
class Drawing:
    """Shares are of the patches, ranges are drawn from evenly.

    `keep`: patches as the pair gives them, by sensor where `keep_of` names it; `sharpness`: the truth's fine
    contrast over PAN's (drawn on a logarithmic scale); `own_ms`: of the patches whose truth stays as it is,
    those whose MS does, too; `soften`, `softening`: share, and sigma in PAN pixels; `blocks`, `bicubic`: MS
    so reduced, by an MTF of a gain in `mtf` otherwise, of which `shifted` lie half a PAN pixel off along both
    axes and `jittered` up to that anyhow; `noise`: share, of standard deviations up to `noise_pan` and
    `noise_ms` of the range of DN; `pan_gains`: PAN's MTF gains where a pair has no truth; `weight_of`: how
    often a sensor's pairs are drawn, beside their area; `lent`: patches from pairs of another number of
    bands.
    """

    keep: float = 1.0
    keep_of: Mapping[str, float] = field(default_factory=dict)
    sharpness: tuple[float, float] = (0.85, 1.55)
    own_ms: float = 0.0
    soften: float = 0.35
    softening: tuple[float, float] = (0.2, 0.6)
    blocks: float = 0.22
    bicubic: float = 0.16
    mtf: tuple[float, float] = (0.08, 0.45)
    shifted: float = 0.1
    jittered: float = 0.05
    noise: float = 0.15
    noise_pan: float = 7e-4
    noise_ms: float = 8e-4
    pan_gains: tuple[float, ...] = (0.15, 0.3, 0.5)
    weight_of: Mapping[str, float] = field(default_factory=dict)
    lent: float = 0.0


@dataclass(frozen=True)
class Varied:
    """A pair with truth, of which each patch is drawn otherwise; DN scaled so that `peak` is its largest.

    `mixed` is how many bands a patch is to have, mixed from the pair's own; 0: the pair's own.
    """

    pair: Pair
    drawing: Drawing
    peak: float
    weight: float = 1.0
    mixed: int = 0

    @property
    def name(self) -> str:
        """The pair's name."""
        return self.pair.name

    @property
    def ratio(self) -> int:
        """PAN pixels per MS pixel."""
        return self.pair.ratio

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in MS pixels."""
        return self.pair.size

    @property
    def keep(self) -> float:
        """The share of patches that stay as given."""
        of = str(self.pair.meta.get("sensor", ""))
        return self.drawing.keep_of.get(of, self.drawing.keep)

    @cached_property
    def sharpness(self) -> tuple[list[float], list[float]]:
        """The truth's fine contrast over PAN's, for each of `SIGMAS` that blurs PAN, and that blurs the
        truth."""
        pair = self.pair
        assert pair.truth is not None
        truth, pan = crispness(pair.truth), crispness(pair.pan)
        return (
            [truth / crispness(gaussian(pair.pan, sigma)) for sigma in SIGMAS],
            [crispness(gaussian(pair.truth, sigma)) / pan for sigma in SIGMAS],
        )

    def patch(self, row: int, col: int, side: int) -> tuple[Image, Image, Image]:
        """As the pair gives it."""
        return self.pair.patch(row, col, side)

    def vary(self, row: int, col: int, side: int, random: np.random.Generator) -> tuple[Image, Image, Image]:
        """MS, PAN and truth of a patch, drawn anew; see the module."""
        kept = random.random() < self.keep
        images = self.pair.patch(row, col, side) if kept else self._anew(row, col, side, random)
        ms, pan, truth = (np.asarray(image, np.float64) for image in self._mixed(images, random))
        if random.random() < self.drawing.noise:
            pan = pan + random.normal(0, random.uniform(0, self.drawing.noise_pan) * self.peak, pan.shape)
            ms = ms + random.normal(0, random.uniform(0, self.drawing.noise_ms) * self.peak, ms.shape)
        return single(ms), single(pan), single(truth)

    def _anew(self, row: int, col: int, side: int, random: np.random.Generator) -> tuple[Image, Image, Image]:
        pair, ratio = self.pair, self.ratio
        assert pair.truth is not None
        truth, pan = (
            around(image, row * ratio, col * ratio, side * ratio) for image in (pair.truth, pair.pan)
        )
        own, (truth, pan) = truth, self._sharpened(truth, pan, random)
        if random.random() < self.drawing.soften:
            sigma = random.uniform(*self.drawing.softening)
            truth, pan = gaussian(truth, sigma), gaussian(pan, sigma)
        inner = slice(MARGIN // ratio, MARGIN // ratio + side)
        if truth is own and self.drawing.own_ms and random.random() < self.drawing.own_ms:
            ms = pair.ms[:, row : row + side, col : col + side]
        else:
            ms = reduce(truth, ratio, self.drawing, random)[:, inner, inner]
        fine = slice(inner.start * ratio, inner.stop * ratio)
        return single(ms), single(pan[:, fine, fine]), single(truth[:, fine, fine])

    def _sharpened(
        self, truth: NDArray[Any], pan: NDArray[Any], random: np.random.Generator
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Whichever is too crisp is blurred."""
        wanted = float(np.exp(random.uniform(*np.log(self.drawing.sharpness))))
        of_pan, of_truth = self.sharpness
        if of_pan[0] < wanted:
            return truth, gaussian(pan, float(np.interp(wanted, of_pan, SIGMAS)))
        falling = [-ratio for ratio in of_truth]
        return gaussian(truth, float(np.interp(-wanted, falling, SIGMAS))), pan

    def _mixed(
        self, images: tuple[Image, Image, Image], random: np.random.Generator
    ) -> tuple[Image, Image, Image]:
        """The same mixes of the pair's bands in MS and truth: each near to one band, with some of the
        others."""
        if not self.mixed:
            return images
        ms, pan, truth = images
        nearest = np.sort(random.integers(len(ms), size=self.mixed))
        weights = 0.3 * random.dirichlet(np.ones(len(ms)), self.mixed) + 0.7 * np.eye(len(ms))[nearest]
        weights = np.asarray(weights * 2 ** random.uniform(-0.7, 0.7, (self.mixed, 1)), np.float32)
        return single(np.tensordot(weights, ms, 1)), pan, single(np.tensordot(weights, truth, 1))


def varied(pairs: Sequence[Pair], drawing: Drawing, bands: int, sensor: sensors.Sensor) -> list[Varied]:
    """What to draw from: pairs with truth, the others by Wald's protocol once for each of PAN's gains.

    Pairs of another number of bands than `bands` come in with the weight that makes their share `lent`, not
    at all where that is 0. Raises InputError where nothing is left.
    """
    found: list[Varied] = []
    for pair in pairs:
        own = len(pair.ms) == bands
        if not own and not drawing.lent:
            continue
        weight = drawing.weight_of.get(str(pair.meta.get("sensor", "")), 1.0)
        made = (
            [pair] if pair.truth is not None else [_by_wald(pair, gain, sensor) for gain in drawing.pan_gains]
        )
        peak = float(sensor.profile.peak)
        found += [Varied(reduced, drawing, peak, weight / len(made), 0 if own else bands) for reduced in made]
    if not found:
        raise InputError(f"no pair of {bands} bands to draw from")
    return _lending(found, drawing.lent)


def _lending(found: list[Varied], share: float) -> list[Varied]:
    """Weights such that pairs of other bands have their share."""
    own, lent = (
        sum(
            source.weight * source.size[0] * source.size[1]
            for source in found
            if bool(source.mixed) == others
        )
        for others in (False, True)
    )
    if not own or not lent:
        return found
    gain = share / max(1 - share, 1e-6) * own / lent
    return [
        dataclasses.replace(source, weight=source.weight * gain) if source.mixed else source
        for source in found
    ]


def _by_wald(pair: Pair, pan_gain: float, sensor: sensors.Sensor) -> Pair:
    """The MS as truth, PAN through an MTF of this gain, MS through that of its sensor."""
    ratio = pair.ratio
    height, width = (side // ratio * ratio for side in pair.ms.shape[1:])
    truth = pair.ms[:, :height, :width]
    pan = degrade(pair.pan[:, : height * ratio, : width * ratio], ratio, pan_gain)
    ms = degrade(truth, ratio, gains(pair, sensor)[0])
    name = f"{pair.name} (PAN gain {pan_gain:g})"
    return Pair(name, np.asarray(pan, np.float32), np.asarray(ms, np.float32), truth, pair.meta)


def reduce(truth: NDArray[Any], ratio: int, drawing: Drawing, random: np.random.Generator) -> NDArray[Any]:
    """MS from the truth (B, H, W), by a way that is drawn: (B, H / ratio, W / ratio) float64."""
    way = random.random()
    if way < drawing.blocks:
        return block_mean(truth, ratio)
    if way < drawing.blocks + drawing.bicubic:
        return bicubic_reduce(truth, ratio)
    gain, place = float(random.uniform(*drawing.mtf)), random.random()
    offset = [0.0, 0.0]
    if place < drawing.shifted:
        offset = [0.5, 0.5]
    elif place < drawing.shifted + drawing.jittered:
        offset = list(random.uniform(-0.5, 0.5, 2))
    return degrade_off(truth, ratio, gain, offset)


def degrade_off(image: NDArray[Any], ratio: int, gain: float, offset: Sequence[float]) -> NDArray[Any]:
    """`degrade` with MS pixels that lie `offset` (down, right) PAN pixels off their blocks' centres."""
    sigma = ratio / np.pi * np.sqrt(-2 * np.log(gain))
    result = np.asarray(image)
    for axis, shift in zip((1, 2), offset, strict=True):
        reach = 20
        position = np.arange(-reach, reach + 1)
        # The sample taken is the pixel just after the block's centre.
        taps = np.exp(-0.5 * ((position - (shift - 0.5 + ratio % 2 / 2)) / sigma) ** 2)
        result = ndimage.correlate1d(result, taps / taps.sum(), axis, mode="nearest")
    return np.asarray(result[:, ratio // 2 :: ratio, ratio // 2 :: ratio])


def around(image: NDArray[Any], row: int, col: int, side: int) -> NDArray[Any]:
    """A square of an image (C, H, W) with `MARGIN` around it; beyond the image its edge is repeated."""
    height, width = image.shape[1:]
    rows = np.clip(np.arange(row - MARGIN, row + side + MARGIN), 0, height - 1)
    cols = np.clip(np.arange(col - MARGIN, col + side + MARGIN), 0, width - 1)
    return np.asarray(image[:, rows[:, None], cols])


def gaussian(image: NDArray[Any], sigma: float) -> NDArray[Any]:
    """As `sfiin.runtime.quality.detail.gaussian`, faster by a compiled filter, in the image's own
    precision."""
    if sigma < 0.05:
        return image
    return np.asarray(ndimage.gaussian_filter(image, (0, sigma, sigma), mode="nearest", truncate=4.0))


def single(image: NDArray[Any]) -> Image:
    """As float32, in one piece."""
    return np.ascontiguousarray(image, np.float32)


def named(name: str) -> Drawing:
    """The drawing of this name, or the one in a TOML file. Raises InputError that names the file and the
    field."""
    path = Path(name) if name.endswith(".toml") else Path(__file__).with_name("drawings.toml")
    try:
        document = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not a TOML file of drawings: {error}") from None
    tables = {key: table for key, table in document.items() if isinstance(table, dict)}
    chosen = next(iter(tables)) if name.endswith(".toml") and len(tables) == 1 else name
    if chosen not in tables:
        raise InputError(
            f"unknown drawing '{name}'; known: {', '.join(tables)}, or a TOML file with one table"
        )
    return _drawing(tables[chosen], f"{path}: [{chosen}]")


def _drawing(table: Mapping[str, Any], where: str) -> Drawing:
    known = {field.name: field.default for field in dataclasses.fields(Drawing)}
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise InputError(f"{where}: unknown field '{key}'; a drawing has {', '.join(known)}")
        numbers = (
            value if isinstance(value, list) else [*value.values()] if isinstance(value, dict) else [value]
        )
        if not numbers or not all(
            isinstance(number, (int, float)) and not isinstance(number, bool) for number in numbers
        ):
            raise InputError(f"{where}: {key} is made of numbers, not {value!r}")
        kinds = (dict,) if key.endswith("_of") else (list,) if isinstance(known[key], tuple) else (int, float)
        short = isinstance(value, list) and key != "pan_gains" and len(value) != 2
        if not isinstance(value, kinds) or short:
            raise InputError(f"{where}: {key} cannot be {value!r}")
        values[key] = tuple(map(float, value)) if isinstance(value, list) else value
    return Drawing(**values)

"""How is a scene sharpened without a model? By a classical method, behind the session protocol.

The methods are those of `sfiin.runtime.quality.classical`, whose statistics here are the scene's and not a
tile's, taken once from windows spread over it, so that tiles agree. Each tile sees enough beyond what it
hands over for the filters' reach. Any bands, and any ratio of 1.5 or more: one that is no integer is brought
to the next one by resampling MS. MTFs are the sensor's (`sfiin.runtime.quality.mtf`).

What is linear is done at MS' size and enlarged once: the intensity, and a band less its part of that.
"""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

import sfiin
from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.errors import InputError, MismatchError, SceneError
from sfiin.runtime.quality import mtf
from sfiin.runtime.quality.bicubic import cubic_taps
from sfiin.runtime.quality.degradation import mtf_taps
from sfiin.runtime.quality.mtf import Mtf
from sfiin.runtime.scenes.bands import Band
from sfiin.runtime.scenes.scene import Scene

Method = Literal["brovey", "gs", "gsa", "sfim", "mtf-glp-hpm"]
METHODS: tuple[str, ...] = get_args(Method)

SIDE, OVERLAP = 768, 64
"""PAN pixels of a tile's side, and that neighbours share: more than twice what the filters reach."""

WITH_MTF = ("brovey", "gs", "gsa", "mtf-glp-hpm")
"""Methods that a sensor's MTF changes."""

_WINDOWS, _WINDOW = 6, 256  # an axis, and PAN pixels of their sides, from which statistics are taken
_LEAST_RATIO, _MOST_RATIO = 1.5, 16
_FRACTION = 1.5  # the largest value of floats that are reflectance

Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Of a scene: PAN's mean and its low-pass's deviation, the bands' means (B,), their mix and its constant
    that is the intensity (B,), its mean and deviation, each band's deviation and regression on it (B,)."""

    pan: float
    contrast: float
    means: Image
    mix: Image
    intensity: float
    deviation: float
    deviations: Image
    gains: Image


class ClassicalSession:
    """A method and the statistics of the one scene that it is for."""

    def __init__(self, method: str, scene: Scene, gains: str | None = None) -> None:
        """`gains` are the MTF's, as `mtf.of_scene` reads them, None for the sensor's own. Raises
        InputError."""
        self._method = method
        self._contract = contract(method, scene.sensor)
        self._mtf = mtf.of_scene(scene.datasets, scene.sensor.bands, gains)
        self._statistics = _measured(scene, method, self._mtf)
        self.sha256 = identity(method)
        self.notes: tuple[str, ...] = (self._mtf.note,) if method in WITH_MTF else ()

    @property
    def contract(self) -> Contract:
        """What goes in: the scene's own bands and ratio, on tiles that only say how much is done at once."""
        return self._contract

    @property
    def tags(self) -> dict[str, str]:
        """What a product says of how it was made."""
        return {"SFIIN_METHOD": self._method, "SFIIN_VERSION": sfiin.__version__}

    def run(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fuse a batch of tiles; shapes and units as in `Session.run`."""
        return np.stack([self._tile(coarse, fine[0]) for coarse, fine in zip(ms, pan, strict=True)])

    def close(self) -> None:
        """Nothing is held."""

    def _tile(self, ms: Image, pan: Image) -> Image:
        found, ratio = self._statistics, self._contract.sensor.ratio
        if self._method == "sfim":
            out = enlarged(ms, ratio)
            out *= _quotient(pan, _box(pan, ratio), found.pan)
            return out
        if self._method == "mtf-glp-hpm":
            return _modulated(enlarged(ms, ratio), pan, found, self._mtf.ms, ratio)
        if self._method == "gsa":
            sharp = pan - np.float32(found.pan - found.intensity)
        else:
            scale = found.deviation / found.contrast if found.contrast > 0 else 1.0
            sharp = pan * np.float32(scale)
            sharp += np.float32(found.intensity - scale * found.pan)
        intensity = np.tensordot(found.mix, ms, 1)
        if self._method == "brovey":
            both = enlarged(np.concatenate([ms, intensity[None]]), ratio)
            out = both[:-1]
            out *= _quotient(sharp, both[-1], found.intensity)
            return out
        out = enlarged(ms - found.gains[:, None, None] * intensity, ratio)
        part = np.empty_like(sharp)
        for band, gain in enumerate(found.gains):
            out[band] += np.multiply(sharp, gain, out=part)
        return out


def contract(method: str, sensor: SensorProfile) -> Contract:
    """What a session for scenes of this kind promises."""
    side = -(-SIDE // sensor.ratio) * sensor.ratio
    return Contract(
        sensor=sensor,
        tile=Tile(side, side, OVERLAP),
        lowering="matmul",
        precision="fp32",
        opset=1,  # no graph is behind it
        network={"method": method},
        checkpoint="",
        golden="",
        versions={"sfiin": sfiin.__version__},
    )


def identity(method: str) -> str:
    """What stands for the digest of a model: of the method and this version, SHA-256 in hex."""
    return hashlib.sha256(f"sfiin/{sfiin.__version__}/{method}".encode()).hexdigest()


def sensor(pan: Any, found: Sequence[Band], chosen: str | None = None) -> tuple[SensorProfile, str]:
    """The profile of open images, by which a scene of any sensor can be opened, and which bands to take.

    `found` are MS' bands, `chosen` a list as `--bands` has it. Raises MismatchError for a ratio that no
    method is for, InputError for a choice that is none, SceneError for MS without bands.
    """
    if not found:
        raise SceneError("MS has no band that is an image")
    coarse = found[0].file
    located = not pan.transform.is_identity and not coarse.transform.is_identity
    ratio = float(coarse.res[1] / pan.res[1] if located else pan.height / coarse.height)
    if not _LEAST_RATIO <= ratio <= _MOST_RATIO:
        raise MismatchError(
            f"ratio: MS' pixels are {ratio:.3g} times PAN's; methods are for {_LEAST_RATIO:g} to "
            f"{_MOST_RATIO}"
        )
    numbers = _numbers(found, chosen)
    names = [found[number - 1].word or f"band{number}" for number in numbers]
    unique = [f"{name}{i}" if names.count(name) > 1 else name for i, name in enumerate(names, 1)]
    bits, scale = _range([pan, *(band.file for band in found)])
    profile = SensorProfile("any", tuple(unique), max(2, round(ratio)), bits, scale)
    return profile, ",".join(map(str, numbers))


def _numbers(found: Sequence[Band], chosen: str | None) -> list[int]:
    if not chosen:
        return list(range(1, len(found) + 1))
    parts = [part.rpartition("=")[2].strip() for part in chosen.split(",")]
    if not all(part.isdigit() and 1 <= int(part) <= len(found) for part in parts) or len(set(parts)) < len(
        parts
    ):
        raise InputError(f"--bands {chosen}: give numbers from 1 to {len(found)}, each once")
    return [int(part) for part in parts]


def _range(files: Sequence[Any]) -> tuple[int, float]:
    """Bits and scale that nothing the files can hold exceeds; of floats, as their values are."""
    kinds = [np.dtype(dtype) for file in files for dtype in file.dtypes]
    if all(kind.kind in "ui" for kind in kinds):
        bits = max(8 * kind.itemsize - (kind.kind == "i") for kind in kinds)
        return bits, float((1 << bits) - 1)
    middle = files[-1].read(1, window=((0, min(256, files[-1].height)), (0, min(256, files[-1].width))))
    finite = middle[np.isfinite(middle)]
    fractions = finite.size and np.percentile(finite, 99) <= _FRACTION
    return (1, 1.0) if fractions else (16, 65535.0)


# --- statistics ---


def _measured(scene: Scene, method: str, blur: Mtf) -> Statistics:
    """From windows spread over the scene, where all is valid."""
    bands, lows = [], []
    ratio = scene.sensor.ratio
    for ms, pan, valid in _samples(scene):
        whole = valid.reshape(ms.shape[1], ratio, ms.shape[2], ratio).all((1, 3))
        inside = np.zeros_like(whole)
        inside[1:-1, 1:-1] = True
        kept = whole & (inside if inside.any() else True)
        bands.append(ms[:, kept].astype(np.float64))
        lows.append(reduced(pan[0], ratio, blur.pan)[kept].astype(np.float64))
    if not bands or not sum(values.shape[1] for values in bands):
        count = len(scene.bands)
        zeros, ones = np.zeros(count, np.float32), np.ones(count, np.float32)
        return Statistics(0.0, 0.0, zeros, ones / np.float32(count), 0.0, 0.0, ones, ones)
    coarse, low = np.concatenate(bands, axis=1), np.concatenate(lows)
    mix = np.full(len(coarse), 1 / len(coarse))
    if method == "gsa":
        design = np.vstack([coarse, np.ones(coarse.shape[1])]).T
        mix = np.linalg.lstsq(design, low, rcond=None)[0][:-1]
    intensity = mix @ coarse
    off = intensity - intensity.mean()
    power = float((off**2).sum())
    flat = power <= 1e-18 * float((coarse**2).sum())
    gains = np.ones(len(coarse)) if flat else (coarse * off).sum(axis=1) / power
    return Statistics(
        float(low.mean()),
        float(low.std()),
        coarse.mean(axis=1).astype(np.float32),
        mix.astype(np.float32),
        float(intensity.mean()),
        float(intensity.std()),
        coarse.std(axis=1).astype(np.float32),
        gains.astype(np.float32),
    )


def _samples(scene: Scene) -> Any:
    ratio = scene.sensor.ratio
    height, width = (-(-side // ratio) * ratio for side in scene.extent)
    side = [min(-(-_WINDOW // ratio) * ratio, length) for length in (height, width)]
    starts = [
        sorted({int(at) // ratio * ratio for at in np.linspace(0, length - part, _WINDOWS)})
        for length, part in zip((height, width), side, strict=True)
    ]
    for row, col in itertools.product(*starts):
        yield scene.read(row, col, side[0], side[1])


# --- filters, by phases, in float32 ---


def enlarged(ms: Image, ratio: int) -> Image:
    """MS (B, h, w) on PAN's grid (B, h * ratio, w * ratio), as `sfiin.runtime.quality.bicubic` does it.

    Columns first, as there are fewer rows then; the rows go through BLAS, a small product each.
    """
    taps = cubic_taps(ratio).astype(np.float32)
    count, height, width = ms.shape
    padded = np.pad(ms, [(0, 0), (2, 2), (2, 2)], mode="edge")
    wide = np.empty((count, height + 4, width, ratio), np.float32)
    for phase, weights in enumerate(taps):
        first, *others = np.flatnonzero(weights).tolist()
        total = weights[first] * padded[..., first : first + width]
        for k in others:
            total += weights[k] * padded[..., k : k + width]
        wide[..., phase] = total
    windows = sliding_window_view(wide.reshape(count, height + 4, width * ratio), len(taps[0]), axis=1)
    tall: Image = np.matmul(taps, np.moveaxis(windows, -1, 2))
    return tall.reshape(count, height * ratio, width * ratio)


def reduced(pan: Image, ratio: int, gain: float) -> Image:
    """PAN (H, W) as the MS sensor would have seen it (H / ratio, W / ratio), as
    `sfiin.runtime.quality.degradation.degrade` does it."""
    rows, cols = (_reducing(side, ratio, gain) for side in pan.shape)
    return np.asarray(rows @ pan @ cols.T)


@functools.lru_cache(maxsize=16)
def _reducing(side: int, ratio: int, gain: float) -> Image:
    """The low-pass, one pixel in `ratio`, as a matrix (side / ratio, side); beyond the edge its pixel
    repeats."""
    taps = mtf_taps(gain, ratio, ratio % 2 == 1)
    first = np.arange(side // ratio)[:, None] * ratio - (len(taps) // 2 - ratio // 2)
    matrix = np.zeros((side // ratio, side))
    for k, weight in enumerate(taps):
        np.add.at(matrix, (np.arange(side // ratio), np.clip(first[:, 0] + k, 0, side - 1)), weight)
    return matrix.astype(np.float32)


def _box(pan: Image, ratio: int) -> Image:
    """The mean over a window of one MS pixel; of an even one, its outermost pixels count by half."""
    half = ratio // 2
    for axis in (0, 1):
        padded = np.pad(pan, [(half, half) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
        size = pan.shape[axis]
        total = _part(padded, axis, 0, size) + _part(padded, axis, 2 * half, size)
        if ratio % 2 == 0:
            total *= np.float32(0.5)
        for k in range(1, 2 * half):
            total += _part(padded, axis, k, size)
        total *= np.float32(1 / ratio)
        pan = total
    return pan


def _part(image: Image, axis: int, first: int, size: int) -> Image:
    """A view of so many pixels along an axis."""
    place = [slice(None)] * image.ndim
    place[axis] = slice(first, first + size)
    return image[tuple(place)]


def _modulated(up: Image, pan: Image, found: Statistics, gains: Sequence[float], ratio: int) -> Image:
    """Each band times PAN over PAN's low-pass by that band's MTF, both brought to the band's mean and
    contrast: as that is a factor and a term, one low-pass does for all bands of one gain."""
    lows = {gain: enlarged(reduced(pan, ratio, gain)[None], ratio)[0] for gain in dict.fromkeys(gains)}
    for band, gain in enumerate(gains):
        scale = np.float32(found.deviations[band] / found.contrast if found.contrast > 0 else 1.0)
        term = np.float32(found.means[band] - scale * found.pan)
        up[band] *= _quotient(pan * scale + term, lows[gain] * scale + term, float(found.means[band]))
    return up


def _quotient(fine: Image, coarse: Image, level: float) -> Image:
    """fine / coarse, but 1 where coarse is under 1 % of its level in the scene: there the quotient would be
    noise blown up."""
    usable = coarse > np.float32(max(0.01 * level, 0.0))
    return np.divide(fine, coarse, out=np.ones_like(fine), where=usable)

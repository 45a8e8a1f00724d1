"""How is a scene sharpened without a model? By a classical method, behind the session protocol.

The methods are those of `sfiin.runtime.quality.classical`, whose statistics here are the scene's and not a
tile's, taken once from windows spread over it, so that tiles agree. Each tile sees enough beyond what it hands
over for the filters' reach. Any bands, and any ratio of 1.5 or more: one that is no integer is brought to the
next one by resampling MS. MTFs are the defaults for a sensor of which nothing is known.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

import sfiin
from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.errors import InputError, MismatchError, SceneError
from sfiin.runtime.quality.bicubic import cubic_taps
from sfiin.runtime.quality.degradation import OTHER_MS_GAIN, OTHER_PAN_GAIN, mtf_taps
from sfiin.runtime.scenes.bands import Band
from sfiin.runtime.scenes.scene import Scene

Method = Literal["brovey", "gs", "gsa", "sfim", "mtf-glp-hpm"]
METHODS: tuple[str, ...] = get_args(Method)

SIDE, OVERLAP = 768, 64
"""PAN pixels of a tile's side, and that neighbours share: more than twice what the filters reach."""

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

    def __init__(self, method: str, scene: Scene) -> None:
        self._method = method
        self._contract = contract(method, scene.sensor)
        self._statistics = _measured(scene, method)
        self.sha256 = identity(method)
        self.notes: tuple[str, ...] = ()

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
        up = enlarged(ms, ratio)
        if self._method == "sfim":
            return up * _quotient(pan, _box(pan, ratio), found.pan)
        if self._method == "mtf-glp-hpm":
            return _modulated(up, pan, found, ratio)
        intensity = np.tensordot(found.mix, up, 1)
        if self._method == "gsa":
            sharp = pan - np.float32(found.pan - found.intensity)
        else:
            scale = found.deviation / found.contrast if found.contrast > 0 else 1.0
            sharp = (pan - np.float32(found.pan)) * np.float32(scale) + np.float32(found.intensity)
        if self._method == "brovey":
            return up * _quotient(sharp, intensity, found.intensity)
        return up + found.gains[:, None, None] * (sharp - intensity)


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

    `found` are MS' bands, `chosen` a list as `--bands` has it. Raises MismatchError for a ratio that no method
    is for, InputError for a choice that is none, SceneError for MS without bands.
    """
    if not found:
        raise SceneError("MS has no band that is an image")
    coarse = found[0].file
    located = not pan.transform.is_identity and not coarse.transform.is_identity
    ratio = float(coarse.res[1] / pan.res[1] if located else pan.height / coarse.height)
    if not _LEAST_RATIO <= ratio <= _MOST_RATIO:
        raise MismatchError(
            f"ratio: MS' pixels are {ratio:.3g} times PAN's; methods are for {_LEAST_RATIO:g} to {_MOST_RATIO}"
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


def _measured(scene: Scene, method: str) -> Statistics:
    """From windows spread over the scene, where all is valid."""
    bands, lows = [], []
    ratio = scene.sensor.ratio
    for ms, pan, valid in _samples(scene):
        whole = valid.reshape(ms.shape[1], ratio, ms.shape[2], ratio).all((1, 3))
        inside = np.zeros_like(whole)
        inside[1:-1, 1:-1] = True
        kept = whole & (inside if inside.any() else True)
        bands.append(ms[:, kept].astype(np.float64))
        lows.append(reduced(pan[0], ratio, OTHER_PAN_GAIN)[kept].astype(np.float64))
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
    """MS (B, h, w) on PAN's grid (B, h * ratio, w * ratio), as `sfiin.runtime.quality.bicubic` does it."""
    taps = cubic_taps(ratio).astype(np.float32)
    for axis in (1, 2):
        size = ms.shape[axis]
        padded = np.pad(ms, [(2, 2) if each == axis else (0, 0) for each in range(3)], mode="edge")
        out = np.zeros(
            [side * ratio if each == axis else side for each, side in enumerate(ms.shape)], np.float32
        )
        for phase, weights in enumerate(taps):
            place = [slice(None)] * 3
            place[axis] = slice(phase, None, ratio)
            target = out[tuple(place)]
            for k in np.flatnonzero(weights):
                target += weights[k] * _part(padded, axis, int(k), size)
        ms = out
    return ms


def _part(image: Image, axis: int, first: int, size: int) -> Image:
    """A view of so many pixels along an axis."""
    place = [slice(None)] * image.ndim
    place[axis] = slice(first, first + size)
    return image[tuple(place)]


def reduced(pan: Image, ratio: int, gain: float) -> Image:
    """PAN (H, W) as the MS sensor would have seen it (H / ratio, W / ratio), as
    `sfiin.runtime.quality.degradation.degrade` does it."""
    taps = mtf_taps(gain, ratio, ratio % 2 == 1).astype(np.float32)
    before = len(taps) // 2 - ratio // 2
    for axis in (0, 1):
        size = pan.shape[axis] // ratio
        after = (size - 1) * ratio + len(taps) - before - pan.shape[axis]
        widths = [(max(before, 0), max(after, 0)) if each == axis else (0, 0) for each in (0, 1)]
        padded = np.pad(pan, widths, mode="edge")
        total = np.zeros([size if each == axis else side for each, side in enumerate(pan.shape)], np.float32)
        for k, weight in enumerate(taps):
            place = [slice(None)] * 2
            place[axis] = slice(k, k + (size - 1) * ratio + 1, ratio)
            total += weight * padded[tuple(place)]
        pan = total
    return pan


def _box(pan: Image, ratio: int) -> Image:
    """The mean over a window of one MS pixel; of an even one, its outermost pixels count by half."""
    window = np.ones(ratio) if ratio % 2 else np.r_[0.5, np.ones(ratio - 1), 0.5]
    window = (window / ratio).astype(np.float32)
    half = len(window) // 2
    for axis in (0, 1):
        padded = np.pad(pan, [(half, half) if each == axis else (0, 0) for each in (0, 1)], mode="edge")
        size = pan.shape[axis]
        total = np.zeros_like(pan)
        for k, weight in enumerate(window):
            total += weight * _part(padded, axis, k, size)
        pan = total
    return pan


def _modulated(up: Image, pan: Image, found: Statistics, ratio: int) -> Image:
    """Each band times PAN over PAN's low-pass, both brought to the band's mean and contrast: as that is a
    factor and a term, one low-pass does for all bands."""
    low = enlarged(reduced(pan, ratio, OTHER_MS_GAIN)[None], ratio)[0]
    out = np.empty_like(up)
    for band, image in enumerate(up):
        scale = np.float32(found.deviations[band] / found.contrast if found.contrast > 0 else 1.0)
        term = np.float32(found.means[band] - scale * found.pan)
        out[band] = image * _quotient(pan * scale + term, low * scale + term, float(found.means[band]))
    return out


def _quotient(fine: Image, coarse: Image, level: float) -> Image:
    """fine / coarse, but 1 where coarse is under 1 % of its level in the scene: there the quotient would be
    noise blown up."""
    usable = coarse > max(0.01 * level, 0.0)
    result: Image = np.where(usable, fine / np.where(usable, coarse, np.float32(1)), np.float32(1))
    return result

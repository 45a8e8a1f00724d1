"""What does a scene with known truth look like? A simulated landscape: fields, a river, roads, houses, trees.

Every material has reflectances in blue, green, red and near infrared and a texture of its own; light falls
from the north-west. It is no substitute for imagery, but it has what pan-sharpening is about: edges that all
bands share, colours that differ across them, and fine texture.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from sfiin.runtime.quality.degradation import degrade

BANDS = ("blue", "green", "red", "nir")
Image = NDArray[np.float64]
Grid = NDArray[np.uint16]

# Reflectances by band; PAN's spectral response over them.
FIELDS = np.array(
    [
        [0.06, 0.10, 0.07, 0.25],
        [0.05, 0.09, 0.05, 0.29],
        [0.09, 0.13, 0.14, 0.22],
        [0.11, 0.15, 0.19, 0.21],
        [0.13, 0.17, 0.22, 0.24],
        [0.07, 0.11, 0.10, 0.23],
    ]
)
WATER = np.array([0.08, 0.08, 0.05, 0.02])
ASPHALT = np.array([0.12, 0.12, 0.13, 0.15])
TREES = np.array([0.035, 0.06, 0.04, 0.22])
ROOFS = np.array(
    [[0.14, 0.16, 0.25, 0.27], [0.22, 0.23, 0.24, 0.26], [0.30, 0.31, 0.32, 0.34], [0.16, 0.17, 0.19, 0.22]]
)
PAN_RESPONSE = np.array([0.16, 0.28, 0.30, 0.26])


@dataclass(frozen=True)
class SimulatedScene:
    """`pan` (H, W), `ms` (4, H / ratio, W / ratio) and the `truth` (4, H, W) behind both, uint16 DN."""

    pan: Grid
    ms: Grid
    truth: Grid


def simulate(height: int, width: int, seed: int, bits: int = 11, ratio: int = 4) -> SimulatedScene:
    """A scene of `height` x `width` PAN pixels (about 0.5 m), determined by its seed.

    Raises ValueError for sides that are no multiples of the ratio, or under 16 pixels.
    """
    if height % ratio or width % ratio or min(height, width) < 16:
        raise ValueError(
            f"sides must be multiples of the ratio {ratio} and at least 16, not {height} x {width}"
        )
    random = np.random.default_rng(seed)
    reflectance = _landscape(height, width, random)
    full = (1 << bits) - 1
    radiance = (0.035 + reflectance) * full * 1.25
    noise = full / 1600
    truth = _digitise(radiance + random.normal(0, noise, radiance.shape), full)
    pan = np.tensordot(PAN_RESPONSE, radiance, 1)
    pan = ndimage.gaussian_filter(pan, 0.45) + random.normal(0, noise, pan.shape)
    ms = degrade(truth.astype(np.float64), ratio, 0.3)
    return SimulatedScene(_digitise(pan, full), _digitise(ms, full), truth)


def _landscape(height: int, width: int, random: np.random.Generator) -> Image:
    """Reflectance (4, H, W)."""
    rows, cols = np.mgrid[:height, :width].astype(np.float64)
    fine, broad = _fractal(height, width, 0.9, random), _fractal(height, width, 1.7, random)
    image = _fields(rows, cols, fine, broad, random)
    forest = ndimage.gaussian_filter(_fractal(height, width, 1.5, random), 2) > 0.9
    image = _mix(image, _crowns(height, width, forest, random), TREES, 0.5)
    course = 0.55 * height + 0.12 * height * np.sin(cols / width * 5 + random.uniform(0, 6)) + 6 * broad
    image = _mix(
        image,
        ndimage.gaussian_filter((np.abs(rows - course) < 0.035 * height).astype(np.float64), 0.8),
        WATER,
        0.03,
    )
    for slope, offset in ((0.25, 0.2), (-1.6, 1.1)):
        distance = np.abs(rows - slope * cols - offset * height) / np.hypot(1, slope)
        image = _mix(image, np.clip(5.0 - distance, 0, 1), ASPHALT * (1 + 0.05 * fine[..., None]), 0.05)
        image = _mix(
            image, 0.7 * np.clip(0.8 - distance, 0, 1) * (np.sin(cols / 3) > 0), np.full(4, 0.35), 0.0
        )
    image = _houses(image, random)
    tint = 1 + 0.02 * np.stack([_fractal(height, width, 1.0, random) for _ in BANDS])
    return np.asarray(ndimage.gaussian_filter(np.clip(image * tint, 0.005, 1), (0, 0.5, 0.5)))


def _fields(rows: Image, cols: Image, fine: Image, broad: Image, random: np.random.Generator) -> Image:
    """Parcels around random points, each with its crop, brightness and row direction."""
    height, width = rows.shape
    count = max(6, height * width // 9000)
    points = random.uniform(0, 1, (count, 2)) * (height, width)
    warped = rows + 3 * broad, cols + 3 * np.roll(broad, 17, 0)
    parcel = np.argmin([(warped[0] - y) ** 2 + 0.6 * (warped[1] - x) ** 2 for y, x in points], 0)
    crop = FIELDS[random.integers(len(FIELDS), size=count)] * random.uniform(0.8, 1.25, (count, 1))
    angle, period, depth = (
        random.uniform(a, b, count)[parcel] for a, b in ((0, np.pi), (3.0, 9.0), (0.0, 0.12))
    )
    furrows = np.sin(2 * np.pi * (rows * np.sin(angle) + cols * np.cos(angle)) / period)
    texture = 1 + 0.07 * fine + 0.10 * broad + depth * furrows
    return np.moveaxis(crop[parcel] * texture[..., None], -1, 0)


def _crowns(height: int, width: int, forest: NDArray[np.bool_], random: np.random.Generator) -> Image:
    """Cover by tree crowns, 0 to 1.6 with light and shade: dense in the forest, here and there elsewhere."""
    seeds = random.random((height, width)) < np.where(forest, 0.03, 0.0006)
    crowns = ndimage.gaussian_filter(seeds.astype(np.float64), 2.2) * 40
    light = crowns - np.roll(crowns, (2, 2), (0, 1))
    return np.where(crowns > 0.25, np.clip(0.9 + 0.6 * light, 0.3, 1.0), 0.0)


def _houses(image: Image, random: np.random.Generator) -> Image:
    """Settlements: rows of roofs with a bright and a dark side, shadows to the south-east."""
    _, height, width = image.shape
    for _ in range(max(2, height * width // 40000)):
        top, left = random.uniform(0, 1, 2) * (height, width)
        for _ in range(14):
            y, x = (int(v) for v in (top + random.normal(0, 28), left + random.normal(0, 28)))
            h, w = (int(v) for v in random.integers(8, 22, 2))
            roof = ROOFS[random.integers(len(ROOFS))] * random.uniform(0.8, 1.2)
            image[:, max(y + 3, 0) : max(y + h + 4, 0), max(x + 3, 0) : max(x + w + 4, 0)] *= 0.45
            ridge = np.where(np.arange(w) < w // 2, 1.15, 0.85)
            target = image[:, max(y, 0) : max(y + h, 0), max(x, 0) : max(x + w, 0)]
            target[...] = (roof[:, None, None] * ridge[max(-x, 0) :])[..., : target.shape[2]]
    return image


def _mix(image: Image, cover: Image, reflectance: NDArray[np.float64], texture: float) -> Image:
    """Cover the image with a material: `reflectance` (4,) or (H, W, 4); `texture` lets the ground shine
    through."""
    material = np.moveaxis(np.broadcast_to(reflectance, (*cover.shape, 4)), -1, 0)
    ground = image.mean(0) / image.mean()
    share = np.clip(cover, 0, 1)
    return np.asarray(image * (1 - share) + material * (1 + texture * (ground - 1) * share) * share)


def _fractal(height: int, width: int, exponent: float, random: np.random.Generator) -> Image:
    """Noise with a spectrum that falls as frequency**-exponent; mean 0, standard deviation 1."""
    spectrum = np.fft.rfft2(random.normal(size=(height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    noise = np.fft.irfft2(spectrum * frequency**-exponent, (height, width))
    return np.asarray(noise / noise.std())


def _digitise(image: Image, full: int) -> Grid:
    return np.clip(np.rint(image), 1, full).astype(np.uint16)

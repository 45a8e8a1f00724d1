"""On which tiles are ranges measured? A few that stand for all that a folder of pairs and scenes holds.

Tiles on a grid are sorted into strata by what they show: missing data, cloud, water, and land by brightness
and by texture. As many are drawn from each stratum in turn, by a seed, so that rare ground is not outvoted by
common ground. The set is recorded by a digest of its contents, in the order in which they were drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import chain, product, zip_longest
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfiin.data.pairs import Pair, load_pair
from sfiin.export.ranges import Inputs
from sfiin.runtime.contract import Contract, Tile
from sfiin.runtime.errors import InputError
from sfiin.runtime.golden import GoldenTiles
from sfiin.runtime.scenes.scene import Scene, open_scene

Image = NDArray[np.float32]

MOST = 400
"""Tiles looked at per pair or scene; larger ones are sampled on a coarser grid."""

RANDOM = 0.3
"""Correlation of neighbouring PAN pixels under which a set, by its median, is noise: white noise has 0,
tiles of the imagery that sfiin was tried on 0.4 to 0.99, in the median 0.8 and more."""


@dataclass(frozen=True)
class Looked:
    """One tile: its inputs, where it comes from, its stratum, digest, and the correlation of neighbouring
    pixels."""

    inputs: Inputs
    place: str
    stratum: str
    digest: str
    correlation: float


@dataclass(frozen=True)
class Calibration:
    """The chosen tiles, one run each; how many of each stratum; and the digest of the whole set."""

    tiles: tuple[Inputs, ...]
    places: tuple[str, ...]
    strata: dict[str, int]
    digest: str


def choose(
    folder: Path, contract: Contract, count: int, seed: int, forbidden: Collection[str] = frozenset()
) -> Calibration:
    """Choose `count` tiles of a folder's `.npz` pairs and of its sub-folders with `pan.tif` and `ms.tif`.

    `forbidden` holds digests of pairs and tiles that are for judging (`digests`). Raises InputError for a
    folder without a fitting tile, for noise, and for what is forbidden.
    """
    looked = list(_all(folder, contract, forbidden))
    if not looked:
        bands, ratio, tile = len(contract.sensor.bands), contract.sensor.ratio, contract.tile
        raise InputError(
            f"{folder}: no pair or scene of {bands} bands at ratio {ratio} is as large as the tile, "
            f"{tile.height}x{tile.width}"
        )
    if (typical := float(np.median([tile.correlation for tile in looked]))) < RANDOM:
        raise InputError(
            f"{folder}: neighbouring pixels have a correlation of {typical:.2f} only: that is noise, no "
            "imagery; give pairs or scenes of the sensor"
        )
    chosen = list(_in_turn(looked, seed))[:count]
    strata = sorted(tile.stratum for tile in chosen)
    digest = hashlib.sha256("".join(tile.digest for tile in chosen).encode()).hexdigest()
    return Calibration(
        tuple(tile.inputs for tile in chosen),
        tuple(tile.place for tile in chosen),
        {name: strata.count(name) for name in dict.fromkeys(strata)},
        digest,
    )


def digests(pairs: Sequence[Pair], golden: GoldenTiles) -> frozenset[str]:
    """What is for judging and must not be calibrated on: whole pairs, and golden tiles."""
    whole = (digest(pair.ms, pair.pan) for pair in pairs)
    return frozenset(chain(whole, (digest(ms, pan) for ms, pan in zip(golden.ms, golden.pan, strict=True))))


def digest(ms: NDArray[np.generic], pan: NDArray[np.generic]) -> str:
    """SHA-256 (hex) of MS and PAN as float32, whatever their types."""
    parts = (np.ascontiguousarray(image, np.float32).tobytes() for image in (ms, pan))
    return hashlib.sha256(b"".join(parts)).hexdigest()


def stratum(ms: Image, pan: Image, valid: NDArray[np.bool_], contract: Contract) -> str:
    """What a tile shows. MS (B, h, w), PAN (1, H, W), DN; `valid` (H, W).

    Water by McFeeters' NDWI (1996) where the sensor has green and near infrared; cloud where half of the tile
    is within a tenth of the brightest DN. Brightness is cut at 5 % and 20 % of the peak, texture, the mean
    step between neighbours over the mean, at 3 %.
    """
    bands, peak = list(contract.sensor.bands), contract.sensor.peak
    if valid.mean() < 0.95 or (pan == 0).mean() > 0.05:
        return "nodata"
    if (pan > 0.9 * peak).mean() > 0.5:
        return "cloud"
    if {"green", "nir"} <= set(bands):
        green, infrared = (ms[bands.index(name)] for name in ("green", "nir"))
        if (green > infrared).mean() > 0.5:
            return "water"
    brightness = float(pan.mean())
    texture = float(np.abs(np.diff(pan, axis=-1)).mean()) / max(brightness, 1.0)
    light = "dark" if brightness < 0.05 * peak else "bright" if brightness > 0.2 * peak else "medium"
    return f"{light}, {'rough' if texture > 0.03 else 'smooth'}"


def correlation(pan: Image) -> float:
    """Between PAN's pixels and their right neighbours; 1 where all are alike."""
    left, right = (
        side - side.mean() for side in (pan[..., :-1].astype(np.float64), pan[..., 1:].astype(np.float64))
    )
    norm = float(np.sqrt((left**2).sum() * (right**2).sum()))
    return float((left * right).sum()) / norm if norm else 1.0


def _all(folder: Path, contract: Contract, forbidden: Collection[str]) -> Iterator[Looked]:
    fits = (len(contract.sensor.bands), contract.sensor.ratio)
    for path in sorted(folder.glob("*.npz")):
        pair = load_pair(path)
        if (len(pair.ms), pair.ratio) == fits:
            if digest(pair.ms, pair.pan) in forbidden:
                raise InputError(f"{path}: is among what the model is judged by; calibrate on other pairs")
            yield from _of_pair(pair, contract, forbidden)
    with ExitStack() as stack:
        for pan in sorted(folder.glob("*/pan.tif")):
            if pan.with_name("ms.tif").is_file():
                scene = stack.enter_context(open_scene(pan, [pan.with_name("ms.tif")], contract.sensor))
                yield from _of_scene(scene, pan.parent.name, contract, forbidden)


def _of_pair(pair: Pair, contract: Contract, forbidden: Collection[str]) -> Iterator[Looked]:
    ratio, tile = pair.ratio, contract.tile
    for row, col in _grid((pair.pan.shape[1], pair.pan.shape[2]), tile):
        coarse = np.s_[
            :, row // ratio : (row + tile.height) // ratio, col // ratio : (col + tile.width) // ratio
        ]
        pan = pair.pan[:, row : row + tile.height, col : col + tile.width]
        place = f"{pair.name} at row {row}, column {col}"
        yield _look((pair.ms[coarse], pan, np.ones(pan.shape[1:], np.bool_)), place, contract, forbidden)


def _of_scene(scene: Scene, name: str, contract: Contract, forbidden: Collection[str]) -> Iterator[Looked]:
    tile = contract.tile
    for row, col in _grid((scene.height, scene.width), tile):
        images = scene.read(row, col, tile.height, tile.width)
        if images[2].any():
            yield _look(images, f"{name} at row {row}, column {col}", contract, forbidden)


def _grid(size: tuple[int, int], tile: Tile) -> list[tuple[int, int]]:
    rows = range(0, size[0] - tile.height + 1, tile.height)
    places = list(product(rows, range(0, size[1] - tile.width + 1, tile.width)))
    return places[:: -(-len(places) // MOST) or 1]


def _look(
    images: tuple[Image, Image, NDArray[np.bool_]], place: str, contract: Contract, forbidden: Collection[str]
) -> Looked:
    ms, pan, valid = images
    own = digest(ms, pan)
    if own in forbidden:
        raise InputError(f"{place}: is among what the model is judged by; calibrate on other tiles")
    return Looked(
        {"ms": ms[None], "pan": pan[None]}, place, stratum(ms, pan, valid, contract), own, correlation(pan)
    )


def _in_turn(looked: Sequence[Looked], seed: int) -> Iterator[Looked]:
    """One of each stratum, then another of each, until all are drawn; shuffled within a stratum."""
    strata: dict[str, list[Looked]] = {}
    for tile in sorted(looked, key=lambda tile: tile.stratum):
        strata.setdefault(tile.stratum, []).append(tile)
    random = np.random.default_rng(seed)
    shuffled = [[group[i] for i in random.permutation(len(group))] for group in strata.values()]
    return (tile for turn in zip_longest(*shuffled) for tile in turn if tile is not None)

"""By which tiles with truth is a search judged? Patches of a folder's pairs, of the model's tile, drawn by
a seed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sfiin.data.pairs import Pair
from sfiin.export.lower_precision import pairs_with_truth
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError


def patches(folder: Path, contract: Contract, count: int, seed: int) -> list[Pair]:
    """At most `count` patches as pairs of their own, evenly over the folder's pairs with truth.

    Raises InputError where there is none as large as the tile.
    """
    tile, ratio = contract.tile, contract.sensor.ratio
    side = tile.height // ratio, tile.width // ratio
    pairs = [
        pair
        for pair in pairs_with_truth(folder, contract)
        if pair.size[0] >= side[0] and pair.size[1] >= side[1]
    ]
    if not pairs:
        raise InputError(f"{folder}: no pair with truth is as large as the tile, {tile.height}x{tile.width}")
    random = np.random.default_rng(seed)
    return [_patch(pairs[i % len(pairs)], side, random) for i in range(count)]


def _patch(pair: Pair, side: Sequence[int], random: np.random.Generator) -> Pair:
    row, col = (
        int(random.integers(0, whole - part + 1)) for whole, part in zip(pair.size, side, strict=True)
    )
    ratio = pair.ratio
    coarse = np.s_[:, row : row + side[0], col : col + side[1]]
    fine = np.s_[:, row * ratio : (row + side[0]) * ratio, col * ratio : (col + side[1]) * ratio]
    assert pair.truth is not None
    return Pair(f"{pair.name} at {row}, {col}", pair.pan[fine], pair.ms[coarse], pair.truth[fine], pair.meta)

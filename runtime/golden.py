"""What must any backend make of which inputs? Golden tiles, in a file that travels beside the model.

A compressed `.npz` of `names` (K), `ms` and `pan` (uint16, DN) and the expected `hrms` (float32, DN, computed
in float64). `sfiin.export.golden` makes them; their digest stands in the contract.
"""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime import npz
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError

MOST_TILES = 64
"""Tiles in a file at most."""

Run = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]


@dataclass(frozen=True)
class GoldenTiles:
    """Inputs `ms` (K, B, h, w) and `pan` (K, 1, H, W) uint16, expected `hrms` (K, B, H, W), all DN."""

    names: tuple[str, ...]
    ms: NDArray[np.uint16]
    pan: NDArray[np.uint16]
    hrms: NDArray[np.floating]

    def through(self, run: Run) -> NDArray[np.float32]:
        """What `run`, such as a session's, makes of the inputs, one tile at a time: (K, B, H, W), DN."""
        inputs = zip(self.ms.astype(np.float32), self.pan.astype(np.float32), strict=True)
        return np.concatenate([run(ms[None], pan[None]) for ms, pan in inputs])


def beside(model: Path) -> Path:
    """Where the golden tiles of a model, or of a plan built from it, lie."""
    return model.with_suffix(".golden.npz")


def write(path: Path, golden: GoldenTiles) -> None:
    """Write the tiles, compressed, to an open place."""
    with path.open("wb") as file:
        np.savez_compressed(
            file,
            names=np.array(golden.names),
            ms=golden.ms,
            pan=golden.pan,
            hrms=golden.hrms.astype(np.float32),
        )


def read(path: Path, contract: Contract) -> GoldenTiles:
    """The tiles that a contract names.

    Digest and tiles are of the same bytes, read once. Raises InputError for a file that is missing or
    damaged, MismatchError for the tiles of another model.
    """
    shapes = contract.shapes
    most = MOST_TILES * 4 * sum(math.prod(shape) for shape in shapes.values()) + (1 << 20)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise InputError(
            f"{path}: golden tiles cannot be read ({error.strerror}); they lie beside the model"
        ) from None
    if len(data) > most or hashlib.sha256(data).hexdigest() != contract.golden:
        raise MismatchError(f"{path}: golden: not the tiles that the model's contract names; export it again")
    try:
        found = npz.arrays(io.BytesIO(data), most)
        tiles = GoldenTiles(tuple(map(str, found["names"])), found["ms"], found["pan"], found["hrms"])
    except npz.DAMAGED:
        raise InputError(f"{path}: damaged golden tiles; export the model again") from None
    _require_fitting(tiles, contract, path)
    return tiles


def _require_fitting(tiles: GoldenTiles, contract: Contract, path: Path) -> None:
    count = len(tiles.names)
    for name, shape in contract.shapes.items():
        array: NDArray[Any] = getattr(tiles, name)
        kind = "f" if name == "hrms" else "u"
        if not 0 < count <= MOST_TILES or array.shape != (count, *shape) or array.dtype.kind != kind:
            raise InputError(
                f"{path}: golden tiles '{name}' are {array.dtype} {array.shape}, not of its contract's tile; "
                "export the model again"
            )
    if not np.isfinite(tiles.hrms).all():
        raise InputError(f"{path}: golden tiles hold what is not finite; export the model again")

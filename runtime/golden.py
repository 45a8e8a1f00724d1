"""What must any backend make of which inputs? Golden tiles, in a file that travels beside the model.

A compressed `.npz` of `names` (K), `ms` and `pan` (uint16, DN) and the expected `hrms` (float32, DN, computed
in float64). `sfiin.export.golden` makes them; their digest stands in the contract.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.files import sha256

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

    Raises InputError for a file that is missing or damaged, MismatchError for the tiles of another model.
    """
    try:
        if sha256(path) != contract.golden:
            raise MismatchError(
                f"{path}: golden: not the tiles that the model's contract names; export it again"
            )
        with path.open("rb") as opened, np.load(opened) as file:
            return GoldenTiles(tuple(map(str, file["names"])), file["ms"], file["pan"], file["hrms"])
    except OSError as error:
        raise InputError(
            f"{path}: golden tiles cannot be read ({error.strerror}); they lie beside the model"
        ) from None
    except (ValueError, KeyError, zipfile.BadZipFile):
        raise InputError(f"{path}: damaged golden tiles; export the model again") from None

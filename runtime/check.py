"""Was anything lost? The distance between an artefact's output and its reference, tile by tile, against a
gate."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.contract import Precision
from sfiin.runtime.errors import CheckFailedError


@dataclass(frozen=True)
class Gate:
    """What is allowed: relative L2 over all tiles together, and the largest difference as a share of the
    peak."""

    relative_l2: float = 1e-5
    peak_share: float = 1e-4


GATES: Mapping[Precision, Gate] = {
    "fp32": Gate(),
    "fp16": Gate(4e-3, 1e-2),
    "mixed": Gate(4e-3, 1e-2),
    "int8": Gate(2e-2, 5e-2),
}
"""How far a plan on a device may be from the golden tiles, by its model's precision.

FP32 without TF32 rounds as ONNX Runtime does. Rounding every value to FP16 moves the shipped models by 3e-4
and 5e-4 (relative L2) and 1.5e-3 of the peak at most; the gate leaves room for sums in FP16, which differ
between devices. The golden tiles of an INT8 model hold its own results, not FP32's. Whether FP16 is rounded
between its operators moves the shipped models by 4e-3 and 1.3e-2 of the peak, as a value at the edge of a
step falls to the other side.
"""


@dataclass(frozen=True)
class TileParity:
    """One tile's distance: relative L2 to its own reference, and largest difference as a share of the
    peak."""

    name: str
    relative_l2: float
    peak_share: float


@dataclass(frozen=True)
class Parity:
    """The distance of a set of tiles from its reference.

    `relative_l2` is over the set, ||output - reference|| / ||reference||: a tile without light has next to no
    norm of its own to compare with. `peak_share` is the largest of any tile.
    """

    tiles: tuple[TileParity, ...]
    relative_l2: float
    peak_share: float

    def within(self, gate: Gate) -> bool:
        """Whether both figures are finite and inside the gate."""
        return self.relative_l2 <= gate.relative_l2 and self.peak_share <= gate.peak_share

    def require(self, gate: Gate, what: str, remedy: str) -> None:
        """Raise CheckFailedError, with the worst tile and the remedy, unless within the gate."""
        if not self.within(gate):
            worst = max(self.tiles, key=lambda tile: np.nan_to_num(tile.peak_share, nan=np.inf))
            raise CheckFailedError(
                f"{what}: relative L2 {self.relative_l2:.1e} (gate {gate.relative_l2:.0e}), largest "
                f"difference {self.peak_share:.1e} of the peak (gate {gate.peak_share:.0e}), "
                f"worst on tile '{worst.name}'; {remedy}"
            )


def parity(
    names: tuple[str, ...], output: NDArray[np.floating], reference: NDArray[np.floating], peak: float
) -> Parity:
    """Compare (K, B, H, W) outputs in DN with their reference; `peak` in DN."""
    difference = output.astype(np.float64) - reference
    tiles = tuple(
        TileParity(name, _ratio(d, r), float(np.abs(d).max()) / peak)
        for name, d, r in zip(names, difference, reference, strict=True)
    )
    return Parity(tiles, _ratio(difference, reference), float(np.abs(difference).max()) / peak)


def _ratio(difference: NDArray[np.floating], reference: NDArray[np.floating]) -> float:
    return float(
        np.linalg.norm(difference) / max(float(np.linalg.norm(reference)), np.finfo(np.float64).tiny)
    )

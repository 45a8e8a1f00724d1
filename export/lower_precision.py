"""How does an FP32 model become one of lower precision that may be published? Audit, type, measure, and
tell."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx

from sfiin.data.pairs import Pair, load_folder
from sfiin.export.precision import Typed, rounded, typed
from sfiin.export.precision_loss import Distance, DistanceGate, Loss, LossGate, distance, loss, on_golden
from sfiin.export.ranges import as_inputs, calibration_tiles
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError
from sfiin.runtime.golden import GoldenTiles


@dataclass(frozen=True)
class Material:
    """Folders of `.npz` pairs, to audit ranges on beside the golden tiles and, with truth, to judge by;
    the gates."""

    calibration: Path | None = None
    check: Path | None = None
    distance: DistanceGate = field(default_factory=DistanceGate)
    loss: LossGate = field(default_factory=LossGate)


@dataclass(frozen=True)
class Reduced:
    """A typed graph within its gates: distance from FP32 as it is rounded and as ONNX Runtime runs it, and
    loss."""

    typed: Typed
    rounded: Distance
    here: Distance
    loss: Loss | None

    def document(self) -> dict[str, object]:
        """The whole report as JSON: shares, distances, and every FP32 island with its rule and reason."""
        it = self.typed
        return {
            "casts": it.casts,
            "node_share": it.node_share,
            "mac_share": it.mac_share,
            "rules": it.rules,
            "rounded": dataclasses.asdict(self.rounded),
            "onnxruntime": dataclasses.asdict(self.here),
            "loss": None if self.loss is None else dataclasses.asdict(self.loss),
            "islands": [dataclasses.asdict(island) for island in it.islands],
            "ranges": {name: dataclasses.asdict(found) for name, found in it.ranges.items()},
        }


def reduce(model: onnx.ModelProto, contract: Contract, tiles: GoldenTiles, material: Material) -> Reduced:
    """The FP32 model in its contract's precision, within the gates.

    Ranges are audited on the golden tiles and on those of `material.calibration`. Raises CheckFailedError
    with the figures, or InputError for folders without what is needed.
    """
    pairs = pairs_with_truth(material.check, contract) if material.check else []
    more = calibration_tiles(material.calibration, contract) if material.calibration else []
    found = typed(model, contract.precision, [*as_inputs(tiles.ms, tiles.pan), *more])
    twin, reference = rounded(found.model), on_golden(model, tiles)
    what = f"the {contract.precision} model"
    distances = []
    for graph in (twin, found.model):
        distances.append(distance(tiles.names, on_golden(graph, tiles), reference, contract))
        distances[-1].require(what, material.distance)
    lost = loss(model, twin, contract, pairs) if pairs else None
    if lost:
        lost.require(what, material.loss)
    return Reduced(found, distances[0], distances[1], lost)


def pairs_with_truth(folder: Path, contract: Contract) -> Sequence[Pair]:
    """A folder's pairs for the model that have a truth. Raises InputError when there is none."""
    pairs = load_folder(folder, len(contract.sensor.bands), contract.sensor.ratio)
    found = [pair for pair in pairs if pair.truth is not None]
    if not found:
        raise InputError(f"{folder}: none of the {len(pairs)} pairs there has a truth ('gt') to judge by")
    return found


def write(path: Path, reduced: Reduced) -> None:
    """Write the report as JSON."""
    path.write_text(json.dumps(reduced.document(), indent=1), encoding="utf-8")

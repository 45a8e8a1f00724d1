"""How does an FP32 model become one of lower precision that may be published? Audit, type, measure, and
tell."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from sfiin.data.pairs import Pair, load_folder
from sfiin.export.precision import Typed, rounded, typed
from sfiin.export.precision_loss import Distance, DistanceGate, Loss, LossGate, distance, loss, on_golden
from sfiin.export.precision_rules import KeptNode
from sfiin.export.ranges import Range, as_inputs, calibration_tiles
from sfiin.runtime import documents
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError
from sfiin.runtime.golden import GoldenTiles


@dataclass(frozen=True)
class PrecisionOptions:
    """Folders of `.npz` pairs, to audit ranges on beside the golden tiles (`calibration`) and, with truth, to
    judge by (`check`); and the gates."""

    calibration: Path | None = None
    check: Path | None = None
    distance: DistanceGate = field(default_factory=DistanceGate)
    loss: LossGate = field(default_factory=LossGate)


@dataclass(frozen=True)
class PrecisionReport:
    """What lies beside a model of lower precision as JSON; the names are the document's.

    Casts, the shares of nodes and of multiply-adds in FP16, nodes kept in FP32 by rule and (`islands`) one by
    one, distances from FP32 with every value rounded and as ONNX Runtime runs it, the loss against truth, and
    the range of each value.
    """

    casts: int
    node_share: float
    mac_share: float
    rules: Mapping[str, int]
    rounded: Distance
    onnxruntime: Distance
    loss: Loss | None
    islands: tuple[KeptNode, ...]
    ranges: Mapping[str, Range]


@dataclass(frozen=True)
class Converted:
    """A typed graph within its gates: distance from FP32 as it is rounded and as ONNX Runtime runs it, and
    loss."""

    typed: Typed
    rounded: Distance
    here: Distance
    loss: Loss | None

    def document(self) -> dict[str, Any]:
        """The report as JSON."""
        report = PrecisionReport(
            casts=self.typed.casts,
            node_share=self.typed.node_share,
            mac_share=self.typed.mac_share,
            rules=self.typed.rules,
            rounded=self.rounded,
            onnxruntime=self.here,
            loss=self.loss,
            islands=self.typed.kept,
            ranges=self.typed.ranges,
        )
        encoded: dict[str, Any] = documents.document(report)
        return encoded


def convert(
    model: onnx.ModelProto, contract: Contract, tiles: GoldenTiles, options: PrecisionOptions
) -> Converted:
    """The FP32 model in its contract's precision, within the gates.

    Ranges are audited on the golden tiles and on those of `options.calibration`. Raises CheckFailedError
    with the figures, or InputError for folders without what is needed.
    """
    pairs = pairs_with_truth(options.check, contract) if options.check else []
    more = calibration_tiles(options.calibration, contract) if options.calibration else []
    found = typed(model, contract.precision, [*as_inputs(tiles.ms, tiles.pan), *more])
    rounded_model, reference = rounded(found.model), on_golden(model, tiles)
    what = f"the {contract.precision} model"
    distances = []
    for graph in (rounded_model, found.model):
        distances.append(distance(tiles.names, on_golden(graph, tiles), reference, contract))
        distances[-1].require(what, options.distance)
    lost = loss(model, rounded_model, contract, pairs) if pairs else None
    if lost:
        lost.require(what, options.loss)
    return Converted(found, distances[0], distances[1], lost)


def pairs_with_truth(folder: Path, contract: Contract) -> Sequence[Pair]:
    """A folder's pairs for the model that have a truth. Raises InputError when there is none."""
    pairs = load_folder(folder, len(contract.sensor.bands), contract.sensor.ratio)
    found = [pair for pair in pairs if pair.truth is not None]
    if not found:
        raise InputError(f"{folder}: none of the {len(pairs)} pairs there has a truth ('gt') to judge by")
    return found


def write(path: Path, converted: Converted) -> None:
    """Write the report as JSON."""
    path.write_text(json.dumps(converted.document(), indent=1), encoding="utf-8")

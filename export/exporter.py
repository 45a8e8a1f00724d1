"""How does a checkpoint become a model that can be trusted? Build the graph, check it, and only then publish
it.

For lower precision the FP32 graph is checked against PyTorch, and what `sfiin.export.lower_precision` makes
of it against FP32.
"""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx
import torch

from sfiin.export import golden, influence, lower_precision
from sfiin.export.graph import build_graph
from sfiin.export.lower_precision import Converted, PrecisionOptions
from sfiin.export.lowering_choice import CANDIDATES, Choice, Fourier, choose
from sfiin.export.preflight import Target, require, targets
from sfiin.export.spectral_fusion import ReferenceSession
from sfiin.export.vouched import with_contract
from sfiin.model import checkpoint
from sfiin.model.network import SFIIN
from sfiin.runtime import golden as tiles_file
from sfiin.runtime import models
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.check import Gate, Parity, parity
from sfiin.runtime.contract import Contract, Lowering, Precision, Tile
from sfiin.runtime.errors import CheckpointError
from sfiin.runtime.files import publish, sha256
from sfiin.runtime.golden import GoldenTiles


@dataclass(frozen=True)
class ExportReport:
    """A published model, its golden tiles, and how far it is from PyTorch on them.

    `float64` and `float32` compare the model with PyTorch in that type; `rounding` compares PyTorch's two
    types with each other: a phase that float32 cannot decide flips there too. In lower precision these are of
    the FP32 graph it was made from, and `converted` is what became of it.
    """

    model: Path
    golden: Path
    contract: Contract
    float64: Parity
    float32: Parity
    rounding: Parity
    choice: Choice | None = None
    converted: Converted | None = None


def export_model(
    source: Path,
    out: Path,
    fourier: Fourier,
    tile: Tile,
    *,
    opset: int,
    target: Target | None = None,
    gate: Gate | None = None,
    precision: Precision = "fp32",
    precision_options: PrecisionOptions | None = None,
) -> ExportReport:
    """Export a checkpoint for ONNX Runtime and TensorRT, with its contract inside and its golden tiles beside
    it.

    On a tile that it was not trained on the network is corrected as `sfiin.model.tile_size` says. The model
    must be within the gate of PyTorch's float64, and of its float32 up to what separates those two; in lower
    precision also within those of `sfiin.export.precision_loss`, and a report lies beside it; and a `target`,
    if given, must read it, and decides in FP32 how convolutions are arranged. `auto` chooses the lowering for
    the target, ONNX Runtime if none is given. Raises CheckpointError, ContractError (a tile that is no
    multiple of the ratio), InputError (`precision_options`), CheckFailedError or OutputError; nothing is left
    under `out`.
    """
    gate = gate or Gate()
    network = _exportable(source, tile)
    contract = _contract(source, network, tile, fourier, opset=opset, precision=precision, target=target)
    tiles = golden.make(network, (tile.height, tile.width))
    choice = None
    if fourier == "auto":
        choice, model = _choose(network, contract, tiles, target, gate)
        contract = dataclasses.replace(contract, lowering=choice.lowering, lowering_choice=choice.figures())
    else:
        model = _graph(network, contract)
        if target is not None:
            require(model, target)
    golden_path = tiles_file.beside(out)
    with publish(golden_path) as golden_part, ExitStack() as beside, publish(out) as model_part:
        tiles_file.write(golden_part, tiles)
        contract = dataclasses.replace(contract, golden=sha256(golden_part))
        contract = with_contract(model, contract)
        onnx.save(model, model_part)
        report = ExportReport(out, golden_path, contract, *compare(model_part, network, tiles), choice)
        _require_parity(report, gate)
        if precision != "fp32":
            converted = lower_precision.convert(
                model, contract, tiles, precision_options or PrecisionOptions()
            )
            if target is not None:
                require(converted.typed.model, target)
            contract = with_contract(converted.typed.model, contract)
            onnx.save(converted.typed.model, model_part)
            lower_precision.write(beside.enter_context(publish(report_beside(out))), converted)
            report = dataclasses.replace(report, contract=contract, converted=converted)
    return report


def _contract(
    source: Path,
    network: SFIIN,
    tile: Tile,
    fourier: Fourier,
    *,
    opset: int,
    precision: Precision,
    target: Target | None,
) -> Contract:
    """What the model promises; the choice of the lowering and the golden tiles are still to come."""
    contract = Contract(
        sensor=network.sensor,
        tile=tile,
        lowering="matmul" if fourier == "auto" else fourier,
        precision=precision,
        opset=opset,
        network=dataclasses.asdict(network.config),
        checkpoint=sha256(source),
        golden="",
        versions={name: version(name) for name in ("sfiin", "torch", "onnx", "onnxruntime")},
        home=_home(source),
        block=target.block if target is not None and precision == "fp32" else 1,
    )
    # Only now, for a contract refuses a tile that does not fit.
    return dataclasses.replace(
        contract, influence=influence.measure(golden.fuser(network), tile, network.sensor)
    )


def _graph(network: SFIIN, contract: Contract) -> onnx.ModelProto:
    """The FP32 graph that the contract describes."""
    size = (contract.tile.height, contract.tile.width)
    return build_graph(network, size, contract.lowering, contract.opset, contract.block)


def _require_parity(report: ExportReport, gate: Gate) -> None:
    """Raises CheckFailedError where the model is off PyTorch, beyond what its own two types differ by."""
    remedy = "not published; try --fourier matmul or a tile with power-of-two sides"
    report.float64.require(gate, f"{report.model} against PyTorch in float64", remedy)
    slack = report.rounding
    widened = Gate(gate.relative_l2 + slack.relative_l2, gate.peak_share + slack.peak_share)
    report.float32.require(widened, f"{report.model} against PyTorch in float32", remedy)


def _home(source: Path) -> dict[str, tuple[float, ...]]:
    """The home ground, from the record of training."""
    recorded = checkpoint.load(source).training.get("home")
    if not isinstance(recorded, dict):
        return {}
    return {str(name): tuple(float(bound) for bound in bounds) for name, bounds in recorded.items()}


def _exportable(source: Path, tile: Tile) -> SFIIN:
    network = checkpoint.load_sfiin(source, (tile.height, tile.width))
    config = network.config
    if (config.branches, config.interaction) != ("both", "dual"):
        raise CheckpointError(
            f"{source}: an ablated network (branches {config.branches}, interaction {config.interaction}) "
            "is for experiments and is not exported; train one with both branches and their interaction"
        )
    return network


def _choose(
    network: SFIIN, contract: Contract, tiles: GoldenTiles, wanted: Target | None, gate: Gate
) -> tuple[Choice, onnx.ModelProto]:
    """The choice for the target, which has read the graph, and that graph."""
    models: dict[Lowering, onnx.ModelProto] = {}
    for lowering in CANDIDATES:
        own = dataclasses.replace(contract, lowering=lowering)
        models[lowering] = _graph(network, own)
        with_contract(models[lowering], own)
    choice = choose(models, tiles, float(network.sensor.peak), wanted or targets()["ort"], gate)
    return choice, models[choice.lowering]


def report_beside(model: Path) -> Path:
    """Where the report on a model of lower precision lies."""
    return model.with_suffix(".precision.json")


def compare(model: Path, network: SFIIN, tiles: GoldenTiles) -> tuple[Parity, Parity, Parity]:
    """The model against PyTorch float64 and float32, and these two against each other.

    It runs in ONNX Runtime on the CPU, or with the reference of the plugin's node in ONNX's evaluator.
    """
    with _open(model) as session:
        output, peak = tiles.through(session.run), float(network.sensor.peak)
    single = golden.reference(network, tiles.ms, tiles.pan, torch.float32)
    pairs = ((output, tiles.hrms), (output, single), (single, tiles.hrms))
    first, second, third = (parity(tiles.names, a, b, peak) for a, b in pairs)
    return first, second, third


def _open(model: Path) -> OnnxSession | ReferenceSession:
    lowering = models.contract(model).lowering
    return ReferenceSession(onnx.load(model)) if lowering == "plugin" else OnnxSession(model)

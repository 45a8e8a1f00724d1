"""How does an FP32 model become an INT8 one that may be published? Tiles, ranges, a search, and the gate.

Ranges are measured on representative tiles (`sfiin.calibration.tiles`), the search is judged on patches with
truth (`sfiin.calibration.search_patches`), and the result on pairs that neither has seen, if there are any:
it must be within the gate there, or nothing is written. What stays is FP16 (`rest`), judged with every FP16
value rounded, or FP32.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import onnx

from sfiin.calibration import cache, tiles
from sfiin.calibration.quantize import OPSET, at_opset, candidates, quantized
from sfiin.calibration.ranges import Method, thresholds
from sfiin.calibration.search_patches import patches
from sfiin.calibration.sensitivity import JudgementLog, Nodes, Search, pareto, search
from sfiin.calibration.tiles import Calibration
from sfiin.data.pairs import Pair
from sfiin.export import vouched
from sfiin.export.exporter import report_beside
from sfiin.export.lower_precision import pairs_with_truth
from sfiin.export.precision import rounded, typed
from sfiin.export.precision_loss import Judge, Loss, LossGate, on_golden
from sfiin.export.precision_rules import Graph, KeptNode
from sfiin.export.ranges import as_inputs, audit
from sfiin.export.rewritten import as_exported
from sfiin.runtime import documents, golden
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.check import GATES, parity
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import CheckFailedError, MismatchError
from sfiin.runtime.files import check_target, publish, sha256
from sfiin.runtime.golden import GoldenTiles

Rest = Literal["fp16", "fp32"]
Watch = Callable[[int, int], None]

AUTO: tuple[Method, ...] = ("minmax", "percentile", "mse")
"""What `auto` compares; ONNX Runtime's entropy takes minutes."""

GATE = LossGate(psnr=0.2, sam=0.05, ergas=0.03, shift=1.0)

REMEDY = "not published; loosen --gate, try another --method or more --tiles, or stay with FP16"


@dataclass(frozen=True)
class CalibrationOptions:
    """What a user decides: the ranges' method, None for the best of `AUTO`; number of tiles and of patches,
    and seed; the gate; what the rest is; whether to search, or to quantise all that the rules leave.
    """

    method: Method | None = None
    tiles: int = 48
    patches: int = 24
    seed: int = 0
    gate: LossGate = field(default_factory=lambda: GATE)
    rest: Rest = "fp16"
    search: bool = True


@dataclass(frozen=True)
class ChosenTiles:
    """The tiles that ranges were measured on: a digest of all, how many of each stratum, and whence."""

    digest: str
    strata: Mapping[str, int]
    places: tuple[str, ...]


@dataclass(frozen=True)
class CurvePoint:
    """A point of the curve: convolutions held back, the share of multiply-adds in INT8, and the loss."""

    held: int
    mac_share: float
    loss: Loss


@dataclass(frozen=True)
class CalibrationReport:
    """What lies beside an INT8 model as JSON; the names are the document's, see `Result`.

    `nodes` and `branches`: the loss of each convolution and of each branch quantised alone; `pareto`: the
    points of the search that no other beats; `int8`: the model's own loss.
    """

    tiles: ChosenTiles
    method: Method
    methods: Mapping[str, Loss]
    gate: LossGate
    kept: tuple[KeptNode, ...]
    nodes: Mapping[str, Loss]
    branches: Mapping[str, Loss]
    pareto: tuple[CurvePoint, ...]
    judged_on: str
    mac_share: float
    plain_mac_share: float
    rest: Loss
    plain: Loss
    int8: Loss


@dataclass(frozen=True)
class Result:
    """A published INT8 model and how it came about.

    `methods`: the loss on patches of everything quantised, by the ranges' method; `found`: the search, None
    without; `plain`, `chosen` and `rest`: losses of everything quantised, of the result, and of nothing
    quantised, on the pairs in `judged_on`.
    """

    contract: Contract
    calibration: Calibration
    method: Method
    methods: Mapping[str, Loss]
    kept: tuple[KeptNode, ...]
    found: Search | None
    mac_share: float
    plain_share: float
    plain: Loss
    chosen: Loss
    rest: Loss
    judged_on: str

    def document(self, gate: LossGate) -> dict[str, Any]:
        """The report as JSON: tiles, method, what stays and why, costs, the curve, and losses."""
        found = self.found
        points = pareto(found.points, gate) if found else []
        report = CalibrationReport(
            tiles=ChosenTiles(self.calibration.digest, self.calibration.strata, self.calibration.places),
            method=self.method,
            methods=self.methods,
            gate=gate,
            kept=self.kept,
            nodes=found.nodes if found else {},
            branches=found.branches if found else {},
            pareto=tuple(CurvePoint(point.held, point.mac_share, point.loss) for point in points),
            judged_on=self.judged_on,
            mac_share=self.mac_share,
            plain_mac_share=self.plain_share,
            rest=self.rest,
            plain=self.plain,
            int8=self.chosen,
        )
        encoded: dict[str, Any] = documents.document(report)
        return encoded


class Work:
    """An FP32 model and what is known of it before anything is quantised; see `calibrate` for what it
    raises."""

    def __init__(self, path: Path, data: Path, options: CalibrationOptions, check: Path | None) -> None:
        self.options = options
        self.path = path
        model, self.contract, _ = vouched.load(path)
        _require_float32(path, self.contract)
        self.model = as_exported(model, path)
        self.golden = golden.read(golden.beside(path), self.contract)
        self.check = pairs_with_truth(check, self.contract) if check else []
        forbidden = tiles.digests(self.check, self.golden)
        self.calibration = tiles.choose(data, self.contract, options.tiles, options.seed, forbidden)
        self.patches = patches(data, self.contract, options.patches, options.seed)
        self.graph = graph_of(self.model, self.golden)
        self.candidates, self.kept = candidates(self.graph)
        self.macs = sum(map(self.graph.macs, self.graph.nodes))

    @property
    def everything(self) -> Nodes:
        """All that the rules leave to be quantised."""
        return frozenset(candidate.node for candidate in self.candidates)

    def share(self, nodes: Nodes) -> float:
        """The share of the network's multiply-adds in some convolutions."""
        return sum(candidate.macs for candidate in self.candidates if candidate.node in nodes) / self.macs

    def reach(self, method: Method) -> dict[str, float]:
        """The threshold of each candidate's activation, by the value's name."""
        names = list(dict.fromkeys(candidate.activation for candidate in self.candidates))
        return thresholds(self.model, names, self.calibration.tiles, method)

    @cached_property
    def base(self) -> onnx.ModelProto:
        """The model with the rest in its type, nothing quantised."""
        if self.options.rest == "fp32":
            return at_opset(self.model)
        audited = [*as_inputs(self.golden.ms, self.golden.pan), *self.calibration.tiles[:8]]
        return at_opset(typed(self.model, "fp16", audited).model)

    def lower(self, nodes: Nodes, reach: Mapping[str, float]) -> onnx.ModelProto:
        """The model with some convolutions in INT8."""
        thresholds_by_node = {candidate.node: reach[candidate.activation] for candidate in self.candidates}
        return quantized(self.base, nodes, thresholds_by_node)

    def judged(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """The graph to judge a model by: with every FP16 value rounded, where there are any."""
        return rounded(model) if self.options.rest == "fp16" else model

    def digest(self, method: Method) -> str:
        """Of all that a judgement depends on."""
        parts = (
            sha256(self.path),
            self.calibration.digest,
            method,
            self.options.rest,
            *(tiles.digest(pair.ms, pair.pan) for pair in self.patches),
        )
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def calibrate(
    path: Path,
    data: Path,
    out: Path,
    options: CalibrationOptions,
    *,
    check: Path | None = None,
    cache_file: Path | None = None,
    watch: Watch = lambda _done, _of: None,
) -> tuple[Result, Work]:
    """Write an INT8 model of an FP32 one, its golden tiles and its report; or nothing.

    `data`: pairs and scenes to calibrate on, of which some have a truth; `check`: a folder of pairs with
    truth that neither calibration nor search sees; `cache_file` gets the same ranges for TensorRT 8. The
    golden tiles keep their inputs and hold the INT8 model's own results. Raises InputError or ContractError
    for what is no exported model or no usable data, MismatchError for a model that is not FP32,
    CheckFailedError beyond the gate, OutputError.
    """
    for target in (out, *([cache_file] if cache_file else [])):
        check_target(target)
    work = Work(path, data, options, check)
    judge = Judge(work.model, work.contract, work.patches)
    method, methods, reach = _best_method(work, judge)
    log = JudgementLog(out.with_name(f".{out.stem}.search.jsonl"), work.digest(method))
    cost = log.remembering(lambda nodes: judge(work.judged(work.lower(nodes, reach))))
    found = search(work.candidates, work.macs, cost, options.gate, watch) if options.search else None
    nodes = found.chosen.quantised if found else work.everything
    if not nodes:
        log.remove()
        raise CheckFailedError(f"{path}: no convolution can be INT8 within the gate; {REMEDY}")
    last = Judge(work.model, work.contract, work.check) if work.check else judge
    lower = work.lower(nodes, reach)
    held = [
        KeptNode(candidate.node, "Conv", "gate", "quantising it costs more than was asked")
        for candidate in work.candidates
        if candidate.node not in nodes
    ]
    result = Result(
        _contract(work.contract),
        work.calibration,
        method,
        methods,
        (*work.kept, *held),
        found,
        work.share(nodes),
        work.share(work.everything),
        last(work.judged(work.lower(work.everything, reach))),
        last(work.judged(lower)),
        last(work.judged(work.base)),
        f"{len(work.check)} pairs of --check" if work.check else "the search's patches",
    )
    result.chosen.require(f"{out.name} on {result.judged_on}", options.gate, REMEDY)
    contract = _publish(out, work, lower, result, (cache_file, reach))
    log.remove()
    return dataclasses.replace(result, contract=contract), work


def graph_of(model: onnx.ModelProto, tiles: GoldenTiles) -> Graph:
    """A float32 model's nodes, with the range of each value on the first golden tile."""
    return Graph(model, audit(model, as_inputs(tiles.ms[:1], tiles.pan[:1])))


def _require_float32(path: Path, contract: Contract) -> None:
    if contract.precision != "fp32":
        raise MismatchError(
            f"{path}: precision: {contract.precision}; calibrate the fp32 model it was made from"
        )
    if contract.lowering == "plugin":
        raise MismatchError(
            f"{path}: lowering: ONNX Runtime does not run the plugin; export it with --fourier matmul"
        )
    if contract.block > 1:
        raise MismatchError(f"{path}: block: it is arranged for CPUs; export it without --target ort")


def _best_method(work: Work, judge: Judge) -> tuple[Method, dict[str, Loss], dict[str, float]]:
    """The ranges' method that loses least with everything quantised, each one's loss, and the thresholds."""
    asked = work.options.method
    reaches = {method: work.reach(method) for method in ([asked] if asked else AUTO)}
    models = {method: work.lower(work.everything, reach) for method, reach in reaches.items()}
    losses = {method: judge(work.judged(model)) for method, model in models.items()}
    best = min(losses, key=lambda method: losses[method].share(work.options.gate))
    return best, {str(method): loss for method, loss in losses.items()}, reaches[best]


def _contract(contract: Contract) -> Contract:
    return dataclasses.replace(contract, precision="int8", opset=max(contract.opset, OPSET))


def _publish(
    out: Path,
    work: Work,
    lower: onnx.ModelProto,
    result: Result,
    ranges: tuple[Path | None, Mapping[str, float]],
) -> Contract:
    own = dataclasses.replace(work.golden, hrms=on_golden(work.judged(lower), work.golden))
    cache_file, reach = ranges
    with ExitStack() as parts:
        report, tiles_part = (
            parts.enter_context(publish(path)) for path in (report_beside(out), golden.beside(out))
        )
        cache_part = parts.enter_context(publish(cache_file)) if cache_file else None
        part = parts.enter_context(publish(out))
        golden.write(tiles_part, own)
        contract = dataclasses.replace(result.contract, golden=sha256(tiles_part))
        contract = vouched.with_contract(lower, contract)
        onnx.save(lower, part)
        with OnnxSession(part) as session:
            distance = parity(own.names, own.through(session.run), own.hrms, float(contract.sensor.peak))
        distance.require(
            GATES["int8"],
            f"{out} in ONNX Runtime against the same with every value rounded",
            "not published; report it",
        )
        report.write_text(json.dumps(result.document(work.options.gate), indent=1), encoding="utf-8")
        if cache_part:
            cache.write(cache_part, reach)
    return contract


def pictures(work: Work, model: onnx.ModelProto) -> tuple[Pair, dict[str, Any]]:
    """The most square of the pairs judged, and what FP32, the rest alone and INT8 make of it: (B, H, W),
    DN."""
    pair = min(work.check or work.patches, key=lambda pair: max(pair.size) / min(pair.size))
    judge = Judge(work.model, work.contract, [pair])
    graphs = {
        "FP32": work.model,
        work.options.rest.upper(): work.judged(work.base),
        "INT8": work.judged(model),
    }
    if work.options.rest == "fp32":
        del graphs["FP32"]
    return pair, {name: next(judge.products(graph)) for name, graph in graphs.items()}

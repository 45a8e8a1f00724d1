"""What did INT8 cost, and where? A calibration as one HTML file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx

from sfiin.calibration.advisor import Advice
from sfiin.calibration.calibrate import Result, Work, pictures
from sfiin.calibration.sensitivity import Point, pareto
from sfiin.evaluation import figures
from sfiin.evaluation.document import Document, Paragraph, Picture, Section, Table, table, to_html
from sfiin.evaluation.judging import as_delivered
from sfiin.export.precision_loss import Loss, LossGate
from sfiin.export.precision_rules import KeptNode
from sfiin.runtime.files import publish

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Parts = Iterable[Paragraph | Picture | Table]

_LOSS = ("PSNR dB", "SAM deg", "ERGAS", "bias DN", "shift DN", "largest DN")


def write(
    path: Path, work: Work, result: Result, model: onnx.ModelProto, advice: Sequence[Advice] = ()
) -> None:
    """Write the report; `model` is the INT8 model. Raises OutputError."""
    gate = work.options.gate
    parts: dict[str, Parts] = {
        "Result": _outcome(work, result),
        "Does it pay?": map(_advised, advice),
        "Calibration": _calibration(result),
        "What each part costs": _costs(result, gate),
        "Quality against quantised work": _curve(result, gate),
        "What stays, and why": [_kept(result.kept)],
        "Error maps": _maps(work, model),
    }
    sections = [Section(title, tuple(content)) for title, content in parts.items()]
    filled = tuple(section for section in sections if section.parts)
    document = Document(f"Calibration of {work.path.name}", filled)
    with publish(path) as part:
        part.write_text(to_html(document), encoding="utf-8")


def rows(result: Result, rest: str) -> list[tuple[str, ...]]:
    """FP32, the rest's type, INT8 throughout and INT8 as published: multiply-adds in INT8 and losses."""
    single = result.chosen.single
    first = (
        "FP32",
        "0 %",
        *(f"{measure:.3f}" for measure in (single.psnr, single.sam, single.ergas, single.bias)),
        "",
        "",
    )
    found = [first]
    if rest != "fp32":
        found.append((rest.upper(), "0 %", *_figures(result.rest)))
    found.append(("INT8, all that the rules leave", f"{result.plain_share:.1%}", *_figures(result.plain)))
    if result.found:
        found.append(("INT8, after the search", f"{result.mac_share:.1%}", *_figures(result.chosen)))
    return found


def _outcome(work: Work, result: Result) -> Parts:
    gate = work.options.gate
    yield Paragraph(
        f"Judged on {result.judged_on}, beside FP32. The gate: {gate.psnr:g} dB PSNR, {gate.sam:g} degrees "
        f"SAM, {gate.ergas:.0%} ERGAS, a shift of any band of {gate.shift:g} DN. What is not INT8 is "
        f"{work.options.rest}."
    )
    yield table("Quality", ("", "multiply-adds in INT8", *_LOSS), rows(result, work.options.rest))


def _advised(advice: Advice) -> Table:
    reasons = [("against it", reason) for reason in advice.reasons]
    return table(advice.summary(), ("", ""), [*reasons, ("figures from", advice.device.source)])


def _calibration(result: Result) -> Parts:
    tiles = result.calibration
    strata = ", ".join(f"{name}: {count}" for name, count in tiles.strata.items())
    yield Paragraph(f"{len(tiles.tiles)} tiles ({strata}), digest {tiles.digest}. Ranges by {result.method}.")
    compared = [(name, *_figures(loss)) for name, loss in result.methods.items()]
    yield table(
        "Ranges' methods, everything quantised, on the search's patches", ("method", *_LOSS), compared
    )


def _costs(result: Result, gate: LossGate) -> Parts:
    if result.found is None:
        return
    for what, found in (("branch", result.found.branches), ("convolution", result.found.nodes)):
        order = sorted(found, key=lambda name, found=found: -found[name].share(gate))  # type: ignore[misc]
        listed = [(name, f"{found[name].share(gate):.1%}", *_figures(found[name])) for name in order]
        yield table(
            f"Each {what} quantised alone, on the search's patches", (what, "of the gate", *_LOSS), listed
        )


def _curve(result: Result, gate: LossGate) -> Parts:
    if result.found is None:
        return
    best = pareto(result.found.points, gate)
    yield Picture(
        figures.png(curve(result.found.points, best, result.found.chosen, gate)),
        "Loss as a share of the gate against the share of multiply-adds in INT8, on the search's patches; "
        "the line joins what no other point beats.",
    )
    listed = [
        (f"{point.mac_share:.1%}", str(point.held), f"{point.loss.share(gate):.2f}", *_figures(point.loss))
        for point in best
    ]
    yield table("The best points", ("multiply-adds in INT8", "held back", "of the gate", *_LOSS), listed)


def curve(points: Sequence[Point], best: Sequence[Point], chosen: Point, gate: LossGate) -> Figure:
    """The Pareto curve, with the gate and the chosen point."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    for group, style in ((points, "o"), (best, "-"), ([chosen], "s")):
        label = {"o": "judged", "-": "best", "s": "chosen"}[style]
        at = [100 * point.mac_share for point in group], [point.loss.share(gate) for point in group]
        axes.plot(*at, style, label=label, alpha=0.5 if style == "o" else 1.0)
    axes.axhline(1, linestyle="--", color="black", linewidth=1, label="gate")
    axes.set_xlabel("multiply-adds in INT8, %")
    axes.set_ylabel("largest loss, as a share of the gate")
    axes.legend()
    return figure


def _kept(kept: Sequence[KeptNode]) -> Table:
    listed = [(node.rule, node.node, node.reason) for node in kept]
    return table("Convolutions that are not INT8", ("rule", "node", "reason"), listed)


def _maps(work: Work, model: onnx.ModelProto) -> Parts:
    pair, products = pictures(work, model)
    assert pair.truth is not None
    truth, peak = pair.truth, work.contract.sensor.peak
    errors = {
        name: ((as_delivered(product, peak) - truth) ** 2).mean(0) for name, product in products.items()
    }
    yield _error_maps(errors, f"{pair.name}: squared error against the truth")
    first = products[next(iter(products))].astype(np.float64)
    changes = {name: ((product - first) ** 2).mean(0) for name, product in list(products.items())[:0:-1]}
    yield _error_maps(changes, f"{pair.name}: squared difference from FP32")


def _error_maps(maps: Mapping[str, np.ndarray], title: str) -> Picture:
    numbers = "; ".join(f"{name} {errors.mean():.4g}" for name, errors in maps.items())
    return Picture(figures.png(figures.error_maps(maps, title=title)), f"{title}, mean in DN²: {numbers}.")


def _figures(loss: Loss) -> tuple[str, ...]:
    lower = loss.lower
    measures = (f"{lower.psnr:.3f}", f"{lower.sam:.4f}", f"{lower.ergas:.4f}", f"{lower.bias:.3f}")
    return (*measures, f"{loss.shift:.3f}", f"{loss.largest:.1f}")

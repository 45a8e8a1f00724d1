"""What does a benchmark look like? Its document as one HTML file, with plots.

The roofline's floor is what this machine does at most: the rate of a large matrix product and of a large
copy, measured when the report is made, in NumPy, so it is for models on this CPU; a GPU's limits are not
measured here. The graph's multiply-adds and bytes are `sfiin.export.cost`'s.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from sfiin.evaluation import figures
from sfiin.evaluation.document import Document, Paragraph, Picture, Section, Table, table, to_html
from sfiin.export.cost import cost, total
from sfiin.runtime import documents
from sfiin.runtime.bench.environment import Moment
from sfiin.runtime.bench.result import BenchResult, ModelResult
from sfiin.runtime.commands.bench import table as rows_of
from sfiin.runtime.files import publish, sha256
from sfiin.runtime.models import shipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Parts = Iterable[Paragraph | Picture | Table]


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the report of a document of `sfiin bench`. Raises InputError for another document, OutputError."""
    result = BenchResult.from_document(document)
    parts = {
        "Result": _result(result),
        "Latency": _latency(result),
        "Conditions": _conditions(result),
        "Against the machine's limits": _limits(result),
    }
    sections = [Section(title, tuple(content)) for title, content in parts.items()]
    page = Document(f"Benchmark of {result.model}", tuple(section for section in sections if section.parts))
    with publish(path) as part:
        part.write_text(to_html(page), encoding="utf-8")


def _result(result: BenchResult) -> Parts:
    yield Paragraph(f"{result.verdict.state}. " + "; ".join(result.verdict.reasons))
    header, *rows = rows_of(result)
    yield table("Models in turns on the same machine", header, rows)
    for model in result.models:
        listed = [
            (f"{found.percent:g} %", f"{found.value:.3f}", _known(found.low), _known(found.high))
            for found in model.total.quantiles
        ]
        yield table(f"{model.model}: percentiles, ms, with 95 % intervals", ("", "ms", "from", "to"), listed)
    if result.energy:
        used = documents.document(result.energy)
        rows = [(name, _known(value)) for name, value in used.items() if not isinstance(value, dict)]
        yield table("Energy", ("", ""), rows)


def _latency(result: BenchResult) -> Parts:
    runs = {f"{model.model}, {model.backend}": model.samples for model in result.models if model.samples}
    if runs:
        caption = "Latency of each batch: its distribution, and run by run."
        yield Picture(figures.png(latencies(runs)), caption)


def latencies(runs: Mapping[str, Sequence[float]]) -> Figure:
    """Distribution and timeline of each model's milliseconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    top = max(float(np.percentile(values, 99.5)) for values in runs.values())
    for name, values in runs.items():
        left.hist(np.minimum(values, top), bins=60, histtype="step", label=name)
        right.plot(values, linewidth=0.6, label=name)
    left.set(xlabel="ms", ylabel="runs")
    right.set(xlabel="run", ylabel="ms")
    right.set_ylim(bottom=0)
    left.legend(fontsize="small")
    return figure


def _conditions(result: BenchResult) -> Parts:
    machine = documents.document(result.environment)
    rows = [(name, "unknown" if value is None else str(value)) for name, value in machine.items()]
    yield table("Machine", ("", ""), rows)
    moments = [dataclasses.replace(result.before, seconds=0.0), *result.timeline]
    listed = [
        (
            f"{moment.seconds:.0f} s",
            _known(moment.cpu_mhz),
            _known(moment.gpu_mhz),
            _known(moment.load),
            ", ".join(f"{zone} {value:.0f}" for zone, value in moment.temperatures.items()) or "unknown",
            "unknown" if moment.throttled is None else str(moment.throttled),
        )
        for moment in moments[:: max(1, len(moments) // 12)]
    ]
    header = ("after", "CPU MHz", "GPU MHz", "load", "degrees C", "throttled")
    yield table("While it ran", header, listed)
    watched = result.power_timeline or any(moment.temperatures or moment.cpu_mhz for moment in moments)
    if len(moments) > 2 and watched:
        drawn = over_time(moments, result.power_timeline)
        yield Picture(figures.png(drawn), "Clocks, temperatures and power over time.")


def over_time(moments: Sequence[Moment], power: Sequence[Sequence[float]]) -> Figure:
    """Clocks, temperatures and power over seconds; `power` has pairs of seconds and watts."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    clocks, heat, watts = figure.subplots(1, 3)
    at = [moment.seconds for moment in moments]
    for label, values in (
        ("CPU", [moment.cpu_mhz for moment in moments]),
        ("GPU", [moment.gpu_mhz for moment in moments]),
    ):
        if any(values):
            clocks.plot(at, values, label=label)
            clocks.legend(fontsize="small")
    for zone in sorted({zone for moment in moments for zone in moment.temperatures}):
        heat.plot(at, [moment.temperatures.get(zone) for moment in moments], label=zone)
    if power:
        watts.plot(*zip(*power, strict=True))
    for axes, label in ((clocks, "MHz"), (heat, "degrees C"), (watts, "W")):
        axes.set(xlabel="s", ylabel=label)
    return figure


def _limits(result: BenchResult) -> Parts:
    """Where the graph is at hand: of the shipped models, by their digest."""
    known = {sha256(path): path for path, _ in shipped()}
    placed = [
        _place(model, known[model.model_sha256])
        for model in result.models
        if model.model_sha256 in known and model.backend.endswith("cpu")
    ]
    if not placed:
        return
    rates = _rates()
    yield Paragraph(
        f"This machine does {rates.macs / 1e9:.1f} G multiply-adds/s in a large matrix product and "
        f"{rates.moved / 1e9:.1f} GB/s in a large copy. Bytes are those of each node by itself, an upper "
        "bound; caches are faster."
    )
    header = ("model", "G multiply-adds", "MB moved", "per byte", "roofline, ms", "measured, ms", "share")
    yield table("Roofline", header, [place.row(rates) for place in placed])
    drawn = roofline({place.model: place.point for place in placed}, rates)
    yield Picture(figures.png(drawn), "Multiply-adds a second against multiply-adds per byte.")


@dataclass(frozen=True)
class Rates:
    """What a machine does at most: multiply-adds a second, and bytes a second."""

    macs: float
    moved: float


@dataclass(frozen=True)
class Place:
    """Where a model lies under the roofline: its multiply-adds, the bytes that it moves, its median seconds."""

    model: str
    macs: float
    moved: float
    seconds: float

    @property
    def point(self) -> tuple[float, float]:
        """Multiply-adds per byte, and a second."""
        return self.macs / self.moved, self.macs / self.seconds

    def row(self, rates: Rates) -> tuple[str, ...]:
        """A row of the report's table."""
        computing, moving = self.macs / rates.macs, self.moved / rates.moved
        floor, bound = max((computing, "arithmetic"), (moving, "memory"))
        return (
            self.model,
            f"{self.macs / 1e9:.3f}",
            f"{self.moved / 1e6:.0f}",
            f"{self.macs / self.moved:.2f}",
            f"{1e3 * floor:.2f} ({bound})",
            f"{1e3 * self.seconds:.2f}",
            f"{floor / self.seconds:.0%}",
        )


def _place(model: ModelResult, path: Path) -> Place:
    found = total(cost(onnx.load(path), model.batch))
    return Place(model.model, found.macs, found.moved, model.total.median / 1e3)


def roofline(points: Mapping[str, tuple[float, float]], rates: Rates) -> Figure:
    """Models as points (multiply-adds per byte, and a second) under what arithmetic and memory allow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    intensity = np.geomspace(0.05, 50, 100)
    axes.loglog(
        intensity, np.minimum(rates.macs, rates.moved * intensity) / 1e9, color="black", label="this machine"
    )
    for name, (per_byte, per_second) in points.items():
        axes.loglog([per_byte], [per_second / 1e9], "o", label=name)
    axes.set(xlabel="multiply-adds per byte", ylabel="G multiply-adds a second")
    axes.legend(fontsize="small")
    return figure


def _rates() -> Rates:
    """Multiply-adds a second of a product of 1024 x 1024 float32, and bytes a second of a copy of 256 MB,
    read and written; medians of five.
    """
    a = np.ones((1024, 1024), np.float32)
    block = np.ones(64 << 20, np.float32)
    other = np.empty_like(block)
    return Rates(
        1024**3 / median(_timed(lambda: a @ a) for _ in range(5)),
        2 * block.nbytes / median(_timed(lambda: np.copyto(other, block)) for _ in range(5)),
    )


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _known(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"

"""What does a benchmark look like? Its document as one HTML file, with plots.

The roofline's floor is what this machine does at most: the rate of a large matrix product and of a large
copy, measured when the report is made, in NumPy, so it is for models on this CPU; a GPU's limits are not
measured here. The graph's multiply-adds and bytes are `sfiin.export.cost`'s.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from sfiin.evaluation import figures
from sfiin.evaluation.document import Document, Paragraph, Picture, Section, Table, table, to_html
from sfiin.export.cost import cost, total
from sfiin.runtime.commands.bench import table as rows_of
from sfiin.runtime.files import publish, sha256
from sfiin.runtime.models import shipped

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Parts = Iterable[Paragraph | Picture | Table]


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the report of a document of `sfiin bench`. Raises OutputError."""
    parts = {
        "Result": _result(document),
        "Latency": _latency(document),
        "Conditions": _conditions(document),
        "Against the machine's limits": _limits(document),
    }
    sections = tuple(Section(title, found) for title, it in parts.items() if (found := tuple(it)))
    with publish(path) as part:
        part.write_text(to_html(Document(f"Benchmark of {document['model']}", sections)), encoding="utf-8")


def _result(document: Mapping[str, Any]) -> Parts:
    verdict = document["verdict"]
    yield Paragraph(f"{verdict['state']}. " + "; ".join(verdict["reasons"]))
    header, *rows = rows_of(document)
    yield table("Models in turns on the same machine", header, rows)
    for it in (document, *document["against"]):
        quantiles = it["milliseconds"]["total"]["quantiles"]
        listed = [
            (f"{q['percent']:g} %", f"{q['value']:.3f}", _bound(q["low"]), _bound(q["high"]))
            for q in quantiles
        ]
        yield table(f"{it['model']}: percentiles, ms, with 95 % intervals", ("", "ms", "from", "to"), listed)
    energy = document["energy"]
    if energy:
        figures_of = [(name, _bound(value)) for name, value in energy.items() if not isinstance(value, dict)]
        yield table("Energy", ("", ""), figures_of)


def _latency(document: Mapping[str, Any]) -> Parts:
    runs = {f"{it['model']}, {it['backend']}": it["samples"] for it in (document, *document["against"])}
    yield Picture(figures.png(latencies(runs)), "Latency of each batch: its distribution, and run by run.")


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


def _conditions(document: Mapping[str, Any]) -> Parts:
    fixed = document["environment"]
    rows = [(name, "unknown" if value is None else str(value)) for name, value in fixed.items()]
    yield table("Machine", ("", ""), rows)
    moments = [{"seconds": 0.0, **document["before"]}, *document["timeline"]]
    listed = [
        (
            f"{it['seconds']:.0f} s",
            _bound(it["cpu_mhz"]),
            _bound(it["gpu_mhz"]),
            _bound(it["load"]),
            ", ".join(f"{zone} {value:.0f}" for zone, value in it["temperatures"].items()) or "unknown",
            "unknown" if it["throttled"] is None else str(it["throttled"]),
        )
        for it in moments[:: max(1, len(moments) // 12)]
    ]
    header = ("after", "CPU MHz", "GPU MHz", "load", "degrees C", "throttled")
    yield table("While it ran", header, listed)
    power = document["power_timeline"]
    if len(moments) > 2 and (power or any(it["temperatures"] or it["cpu_mhz"] for it in moments)):
        yield Picture(figures.png(course(moments, power)), "Clocks, temperatures and power over time.")


def course(moments: Sequence[Mapping[str, Any]], power: Sequence[Sequence[float]]) -> Figure:
    """Clocks, temperatures and power over seconds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 3.4), layout="constrained")
    clocks, heat, watts = figure.subplots(1, 3)
    at = [it["seconds"] for it in moments]
    for key, label in (("cpu_mhz", "CPU"), ("gpu_mhz", "GPU")):
        if any(it[key] for it in moments):
            clocks.plot(at, [it[key] for it in moments], label=label)
            clocks.legend(fontsize="small")
    for zone in sorted({zone for it in moments for zone in it["temperatures"]}):
        heat.plot(at, [it["temperatures"].get(zone) for it in moments], label=zone)
    if power:
        watts.plot([it[0] for it in power], [it[1] for it in power])
    for axes, label in ((clocks, "MHz"), (heat, "degrees C"), (watts, "W")):
        axes.set(xlabel="s", ylabel=label)
    return figure


def _limits(document: Mapping[str, Any]) -> Parts:
    """Where the graph is at hand: of the shipped models, by their digest."""
    known = {sha256(path): path for path, _ in shipped()}
    rates = _rates()
    rows: list[tuple[str, ...]] = []
    points: dict[str, tuple[float, float]] = {}
    for it in (document, *document["against"]):
        path = known.get(it["model_sha256"])
        if path is None or not it["backend"].endswith("cpu"):
            continue
        found = total(cost(onnx.load(path), it["batch"]))
        seconds = it["milliseconds"]["total"]["quantiles"][0]["value"] / 1e3
        floor = max(found.macs / rates[0], found.moved / rates[1])
        points[it["model"]] = found.macs / found.moved, found.macs / seconds
        bound = "arithmetic" if found.macs / rates[0] > found.moved / rates[1] else "memory"
        rows.append(
            (
                it["model"],
                f"{found.macs / 1e9:.3f}",
                f"{found.moved / 1e6:.0f}",
                f"{found.macs / found.moved:.2f}",
                f"{1e3 * floor:.2f} ({bound})",
                f"{1e3 * seconds:.2f}",
                f"{floor / seconds:.0%}",
            )
        )
    if rows:
        yield Paragraph(
            f"This machine does {rates[0] / 1e9:.1f} G multiply-adds/s in a large matrix product and "
            f"{rates[1] / 1e9:.1f} GB/s in a large copy. Bytes are those of each node by itself, an upper "
            "bound; caches are faster."
        )
        header = ("model", "G multiply-adds", "MB moved", "per byte", "roofline, ms", "measured, ms", "share")
        yield table("Roofline", header, rows)
        yield Picture(
            figures.png(roofline(points, rates)), "Multiply-adds a second against multiply-adds per byte."
        )


def roofline(points: Mapping[str, tuple[float, float]], rates: tuple[float, float]) -> Figure:
    """Models as points (multiply-adds per byte, and a second) under what arithmetic and memory allow."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    intensity = np.geomspace(0.05, 50, 100)
    axes.loglog(
        intensity, np.minimum(rates[0], rates[1] * intensity) / 1e9, color="black", label="this machine"
    )
    for name, (per_byte, per_second) in points.items():
        axes.loglog([per_byte], [per_second / 1e9], "o", label=name)
    axes.set(xlabel="multiply-adds per byte", ylabel="G multiply-adds a second")
    axes.legend(fontsize="small")
    return figure


def _rates() -> tuple[float, float]:
    """Multiply-adds a second of a product of 1024 x 1024 float32, and bytes a second of a copy of 256 MB,
    read and written; medians of five.
    """
    a = np.ones((1024, 1024), np.float32)
    block = np.ones(64 << 20, np.float32)
    other = np.empty_like(block)
    return (
        1024**3 / median(_timed(lambda: a @ a) for _ in range(5)),
        2 * block.nbytes / median(_timed(lambda: np.copyto(other, block)) for _ in range(5)),
    )


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _bound(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"

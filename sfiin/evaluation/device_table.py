"""Which of several artefacts of one network to run on this device? What each costs here, and how good it is.

Every artefact, model or plan, is opened as a run opens it, measured in turn with the others, held to its
golden tiles, and judged on the same pairs. No torch is needed. The largest difference is between products, in
DN, to the first artefact's.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from sfiin.data.pairs import Pair
from sfiin.evaluation import judging
from sfiin.evaluation.judging import JudgedModel, Product
from sfiin.runtime import golden
from sfiin.runtime.backends import plan
from sfiin.runtime.backends.select import open_session
from sfiin.runtime.backends.session import Session
from sfiin.runtime.bench.measure import BenchOptions, bench
from sfiin.runtime.bench.result import BenchResult
from sfiin.runtime.check import GATES, parity
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError

HEADER = (
    "artefact",
    "precision",
    "backend",
    "ms",
    "J",
    "MB",
    "PSNR dB",
    "SAM deg",
    "ERGAS",
    "largest DN",
    "golden tiles",
)


@dataclass(frozen=True)
class Row:
    """One artefact here.

    `milliseconds`: median for a tile; `joules` for a tile, None where no rail is measured; `largest_dn`: the
    largest difference to the first artefact's products; `gate`: what became of its golden tiles, "within",
    "beyond" or "not tried", and why; `relative_l2` and `peak_share` are None where they were not tried.
    """

    artefact: str
    sha256: str
    precision: str
    backend: str
    milliseconds: float
    joules: float | None
    megabytes: float
    psnr: float
    sam: float
    ergas: float
    largest_dn: float
    gate: str
    relative_l2: float | None
    peak_share: float | None


@dataclass(frozen=True)
class Table:
    """All artefacts, over so many pairs, and whether the times may be believed (a benchmark's verdict)."""

    rows: tuple[Row, ...]
    pairs: int
    verdict: str
    reasons: tuple[str, ...]


def measure(
    paths: Sequence[Path],
    pairs: Sequence[Pair],
    options: BenchOptions | None = None,
    watch: Callable[[str], None] = lambda _: None,
) -> Table:
    """Measure and judge artefacts for one sensor on pairs with truth; `watch` is told each artefact's name.

    Raises MismatchError for artefacts of other sensors, and as opening and judging them does.
    """
    options = options or BenchOptions(seconds=3.0, samples=200)
    rows: list[Row] = []
    timed: list[BenchResult] = []
    first: list[Product] = []
    for path in paths:
        judged = _judged(path, pairs, paths[0], first)
        first = first or judged.products
        timed.append(bench([path], options))
        rows.append(_row(path, judged, timed[-1]))
        watch(path.name)
    states = [result.verdict.state for result in timed]
    state = next(state for state in ("INVALID", "UNKNOWN", "VALID") if state in states)
    reasons = dict.fromkeys(reason for result in timed for reason in result.verdict.reasons)
    return Table(tuple(rows), len(pairs), state, tuple(reasons))


@dataclass(frozen=True)
class _Judged:
    contract: Contract
    sha256: str
    products: list[Product]
    means: Mapping[str, float]
    largest: float
    gate: tuple[str, float | None, float | None]


def _judged(path: Path, pairs: Sequence[Pair], reference: Path, first: list[Product]) -> _Judged:
    """An artefact's quality, and its distance from the products of the first one, which is for the same
    sensor."""
    with closing(open_session(path, "auto" if plan.is_plan(path) else "cpu")) as session:
        contract = session.contract
        if path != reference and contract.sensor != plan.contract_of(reference).sensor:
            raise MismatchError(f"{path}: sensor: '{contract.sensor.name}' is not that of {reference}")
        method = judging.by_model(JudgedModel(path.name, contract.sensor, contract.tile, session.run))
        products = [judging.product_of(method, pair, contract.sensor) for pair in pairs]
        gate = _gate(path, session)
        digest = getattr(session, "sha256", "")
    scores = [
        judging.judge(pair, path.name, product, contract.sensor).quality
        for pair, product in zip(pairs, products, strict=True)
    ]
    means = {name: fmean(getattr(score, name) for score in scores) for name in ("psnr", "sam", "ergas")}
    largest = max(
        float(np.abs(own - other).max()) for own, other in zip(products, first or products, strict=True)
    )
    return _Judged(contract, digest, products, means, largest, gate)


def _row(path: Path, judged: _Judged, timed: BenchResult) -> Row:
    gate, relative_l2, peak_share = judged.gate
    return Row(
        artefact=path.name,
        sha256=judged.sha256,
        precision=judged.contract.precision,
        backend=timed.backend,
        milliseconds=timed.total.median / timed.batch,
        joules=timed.energy.joules_per_tile if timed.energy else None,
        megabytes=path.stat().st_size / 1e6,
        largest_dn=judged.largest,
        gate=gate,
        relative_l2=relative_l2,
        peak_share=peak_share,
        **judged.means,
    )


def _gate(path: Path, session: Session) -> tuple[str, float | None, float | None]:
    """What an artefact makes of its golden tiles, beside the gate of its precision."""
    contract = session.contract
    try:
        tiles = golden.read(golden.beside(path), contract)
    except (InputError, MismatchError) as error:
        return f"not tried: {error}", None, None
    found = parity(tiles.names, tiles.through(session.run), tiles.hrms, float(contract.sensor.peak))
    return (
        "within" if found.within(GATES[contract.precision]) else "beyond",
        found.relative_l2,
        found.peak_share,
    )


def cells(row: Row) -> tuple[str, ...]:
    """A row as text, in the order of `HEADER`."""
    return (
        row.artefact,
        row.precision,
        row.backend,
        f"{row.milliseconds:.2f}",
        "-" if row.joules is None else f"{row.joules:.3f}",
        f"{row.megabytes:.2f}",
        f"{row.psnr:.2f}",
        f"{row.sam:.3f}",
        f"{row.ergas:.3f}",
        f"{row.largest_dn:.0f}",
        row.gate,
    )


def summary(table: Table) -> str:
    """What the table is of, and whether its times may be believed."""
    reasons = f": {'; '.join(table.reasons)}" if table.reasons else ""
    return f"{table.pairs} pairs; times are {table.verdict}{reasons}"


def as_html(table: Table) -> str:
    """The table as a page by itself."""

    def line(tag: str, texts: Sequence[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{html.escape(text)}</{tag}>' for text in texts)}</tr>"

    body = "\n".join([line("th", HEADER), *(line("td", cells(row)) for row in table.rows)])
    said = html.escape(summary(table))
    style = (
        "table{border-collapse:collapse}"
        "td,th{padding:.3em .8em;text-align:right;border-bottom:1px solid #ccc}"
    )
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Artefacts on this device</title>'
        f"<style>{style}</style></head><body><h1>Artefacts on this device</h1><table>{body}</table>"
        f"<p>{said}</p></body></html>\n"
    )

"""Which command judges? `evaluate`.

Imported for `sfiin --help` even where torch is not installed, so what is heavy is imported inside the
command.
"""

from __future__ import annotations

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfiin.commands.data_options import Bands, Bits, given_by
from sfiin.runtime import files
from sfiin.runtime.cli import requires
from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_json, print_table, progress, say, tally
from sfiin.runtime.errors import CheckFailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sfiin.data.dataset import Given
    from sfiin.evaluation.judging import Score
    from sfiin.evaluation.report_data import Request
    from sfiin.runtime.contract import Tile

Several = list[Path] | None


def evaluate(
    *,
    model: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="A checkpoint (.safetensors), a model (.onnx) or a plan."),
    ] = None,
    data: Annotated[
        Path,
        typer.Option(
            "--data",
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="A folder of pairs: .npz, .h5, .mat or images.",
        ),
    ],
    tile: Annotated[
        int, typer.Option(min=16, help="A checkpoint's tile in PAN pixels; a model knows its own.")
    ] = 128,
    overlap: Annotated[int, typer.Option(min=0, help="PAN pixels that a checkpoint's tiles share.")] = 32,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html", help="Write a report with all classical methods; a Markdown goes beside it."
        ),
    ] = None,
    beside: Annotated[
        Several,
        typer.Option(metavar="FILE", help="In the report: another model to compare with, several times."),
    ] = None,
    ablation: Annotated[
        Several,
        typer.Option(metavar="RUNS.json", help="In the report: what 'sfiin ablate' wrote, several times."),
    ] = None,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough",
            help="By source, beside all classical methods: as given, PAN as crisp as the truth, and without "
            "truth.",
        ),
    ] = False,
    gate: Annotated[
        bool,
        typer.Option(
            "--gate", help="As --thorough; exit with 6 where a classical method leads by over 0.2 dB."
        ),
    ] = False,
    artefact: Annotated[
        Several,
        typer.Option(
            metavar="FILE",
            help="A model or plan to measure here beside others, several times; without torch.",
        ),
    ] = None,
    bands: Bands = None,
    bits: Bits = None,
    as_json: options.Json = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Score a model on pairs with known truth, beside bicubic and Brovey; or write a full report."""
    if artefact:
        beside_it = [*([model] if model else []), *artefact]
        _device_table(beside_it, data, given_by(bands, bits), report, overwrite, quiet=quiet, as_json=as_json)
        return
    if model is None:
        raise typer.BadParameter("name a checkpoint, a model or a plan", param_hint="FILE")
    thorough = thorough or gate
    _require_together(report, thorough=thorough, for_report=bool(beside or ablation))
    if report is not None:
        _check_target(report, overwrite)
    requires("report", "scipy")
    if report is not None or not _is_model(model):
        requires("train", "torch", "safetensors")
    from sfiin.runtime.contract import Tile

    size, notes = Tile(tile, tile, overlap), list[str]()
    if thorough:
        _tell_sources(model, _thorough(model, data, size, quiet), gate=gate, as_json=as_json, quiet=quiet)
        return
    if report is None:
        scores = _scores(model, data, size, given_by(bands, bits), notes, quiet=quiet)
    else:
        requires("train", "matplotlib")
        from sfiin.evaluation.report_data import Request

        command = shlex.join(["sfiin", *sys.argv[1:]])
        scores = _report(
            report, Request(model, data, size, tuple(beside or ()), tuple(ablation or ()), command), quiet
        )
    _print_scores(model, scores, notes, as_json=as_json, quiet=quiet)
    if report is not None and not as_json:
        say(f"{report}: written, and {report.with_suffix('.md')}", quiet)


def _require_together(report: Path | None, *, thorough: bool, for_report: bool) -> None:
    """Raises typer.BadParameter for options that do not go together."""
    if thorough and report is not None:
        raise typer.BadParameter("goes without --report", param_hint="--thorough, --gate")
    if report is None and for_report:
        raise typer.BadParameter(
            "belongs to a report; give --report FILE.html", param_hint="--beside, --ablation"
        )


def _scores(
    model: Path, data: Path, tile: Tile, given: Given, notes: list[str], *, quiet: bool
) -> Sequence[Score]:
    """Of the model, bicubic and Brovey on every pair."""
    from sfiin.evaluation import api

    with tally("evaluating", quiet) as advance:
        return api.evaluate(
            model,
            data,
            tile=tile.height,
            overlap=tile.overlap,
            progress=lambda done, total, _pair: advance(done, total),
            given=given,
            notes=notes,
        )


def _check_target(report: Path, overwrite: bool) -> None:
    """Refuse, before the work, what could not be written after it."""
    if report.suffix != ".html":
        raise typer.BadParameter(f"{report}: a report's name ends in .html", param_hint="--report")
    for path in (report, report.with_suffix(".md")):
        files.check_target(path)
        options.refuse_existing(path, overwrite)


def _thorough(model: Path, data: Path, tile: Tile, quiet: bool) -> dict[str, Any]:
    from sfiin.data import pairs
    from sfiin.evaluation import judging, off_home

    opened = judging.open_model(model, tile)
    found = pairs.load_folder(data, len(opened.sensor.bands), opened.sensor.ratio)
    with progress("evaluating", len(found), quiet) as advance:
        rows = list(off_home.rows(opened, found, lambda pair: advance(1, pair)))
    return {"model": str(model), **off_home.as_document(rows, opened.name)}


def _tell_sources(model: Path, document: dict[str, Any], *, gate: bool, as_json: bool, quiet: bool) -> None:
    """Raises CheckFailedError, with `gate`, for a model that is not fit to be a default."""
    if as_json:
        print_json(document)
    elif not quiet:
        _print_sources(document)
    if gate and document["shortfalls"]:
        raise CheckFailedError(f"{model}: not fit to be a default: " + "; ".join(document["shortfalls"]))


def _print_sources(document: dict[str, Any]) -> None:
    """A table against the truth, and one without, a line for each source, way and method."""
    for title, keys, heads in (
        ("against the truth", ("psnr", "sam", "ergas"), ("PSNR dB", "SAM deg", "ERGAS")),
        (
            "at full resolution",
            ("fine", "correlation", "inconsistency", "hqnr"),
            ("fine detail", "its correlation", "inconsistency %", "HQNR"),
        ),
    ):
        rows = [
            (mean["source"], mean["way"], name, *(f"{values[key]:.3f}" for key in keys))
            for mean in document["means"]
            for name, values in mean["methods"].items()
            if keys[0] in values
        ]
        if rows:
            print_table(title, rows, ("source", "way", "method", *heads))


def _report(path: Path, request: Request, quiet: bool) -> Sequence[Score]:
    from sfiin.evaluation import report, report_data

    found = report_data.gather(request)
    with progress("report", found.steps + len(report.SECTIONS), quiet) as advance:
        measured = report_data.measure(found, lambda pair: advance(1, pair))
        document = report.assemble(found, measured, lambda section: advance(1, section))
    report.write(path, document)
    return measured.scores


def _device_table(
    paths: list[Path],
    data: Path,
    said: Given,
    page: Path | None,
    overwrite: bool,
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    """Measure and judge artefacts on this device, in terminal, JSON or as a page."""
    if page is not None:
        files.check_target(page)
        options.refuse_existing(page, overwrite)
    requires("report", "scipy")
    from sfiin.data import dataset, pairs
    from sfiin.evaluation import device_table
    from sfiin.runtime.backends import plan

    sensor = plan.contract_of(paths[0]).sensor
    found = dataset.read(data, sensor, said)
    known = [pair for pair in found.pairs if pair.truth is not None]
    with tally("artefacts", quiet or as_json) as advance:
        done: list[str] = []

        def watch(name: str) -> None:
            done.append(name)
            advance(len(done), len(paths))

        table = device_table.measure(
            paths, known or [pairs.reduced(pair) for pair in found.pairs], watch=watch
        )
    if page is not None:
        with files.publish(page) as part:
            part.write_text(device_table.as_html(table), encoding="utf-8")
    if as_json:
        print_json(dataclasses.asdict(table) | {"notes": list(found.notes)})
    elif not quiet:
        print_table("on this device", map(device_table.cells, table.rows), device_table.HEADER)
        for text in (device_table.summary(table), *found.notes):
            say(f"  {text}")
    if any(row.gate == "beyond" for row in table.rows):
        worst = next(row for row in table.rows if row.gate == "beyond")
        raise CheckFailedError(f"{worst.artefact}: beyond the gate of {worst.precision} on its golden tiles")


def _is_model(path: Path) -> bool:
    """Whether a file is a model or a plan, which run without torch."""
    from sfiin.runtime.backends import plan

    return path.suffix == ".onnx" or plan.is_plan(path)


def _print_scores(
    model: Path, scores: Sequence[Score], notes: Sequence[str], *, as_json: bool, quiet: bool
) -> None:
    from sfiin.evaluation import judging

    means = judging.means(scores)
    if as_json:
        keys = ("sensor", "method", "pairs", "mean")
        document: dict[str, Any] = {
            "model": str(model),
            "notes": list(notes),
            "means": [dict(zip(keys, row, strict=True)) for row in means],
            "scores": [dataclasses.asdict(score) for score in scores],
        }
        print_json(document)
    elif not quiet:
        rows = [(s, m, n, f"{q['psnr']:.2f}", f"{q['sam']:.3f}", f"{q['ergas']:.3f}") for s, m, n, q in means]
        print_table("mean quality", rows, ("sensor", "method", "pairs", "PSNR dB", "SAM deg", "ERGAS"))
        for note in notes:
            say(f"  {note}")

"""How is a model benchmarked from the command line? `sfiin bench`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_json, print_table, say, tally
from sfiin.runtime.commands.scene_options import spread
from sfiin.runtime.files import check_target, publish

if TYPE_CHECKING:
    from sfiin.runtime.backends.select import Choice
    from sfiin.runtime.bench.measure import BenchOptions
    from sfiin.runtime.bench.result import BenchResult, ModelResult


@dataclass(frozen=True)
class MeasuringOptions:
    """How to measure; each field is one of `sfiin.runtime.bench.measure.BenchOptions`."""

    provider: options.Provider = "auto"
    threads: options.Threads = 0
    batch: options.Batch = 1
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure each model.")] = 20.0
    samples: Annotated[int, typer.Option(min=2, help="How many runs at most.")] = 100_000
    percent: Annotated[
        float,
        typer.Option("--percentile", min=50, max=99.9, help="The highest percentile that must be trusted."),
    ] = 99.0
    gsd: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="METRES", help="PAN's ground sample distance, for square km."),
    ] = None


@spread
def bench(
    *,
    models: Annotated[
        list[Path] | None,
        typer.Argument(metavar="MODEL", help="A model or a plan; with --compare two results."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="MODEL", help="Another one to run in turns with it; again for more."),
    ] = None,
    suite: Annotated[
        bool,
        typer.Option(
            "--suite", help="All given models, or the shipped ones, on all backends that are usable."
        ),
    ] = False,
    compare: Annotated[
        bool,
        typer.Option(
            "--compare",
            help="Compare two results; exit code 6 if the second is slower, 4 if that is undecided.",
        ),
    ] = False,
    how: MeasuringOptions,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result (.json) as well.")
    ] = None,
    markdown: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a table (.md).")] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write a report with plots (.html).")
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Measure latency, throughput and energy of models here, and say whether the figures may be believed."""
    for path in (output, markdown, report):
        if path is not None:
            check_target(path)
            options.refuse_existing(path, overwrite)
    given = models or []
    if compare:
        _compare(given, quiet=quiet, as_json=as_json)
        return
    if not given and not suite:
        raise typer.BadParameter("name a model, or --suite", param_hint="MODEL")
    if len(given) > 1 and not suite:
        raise typer.BadParameter("one model; others go behind --against", param_hint="MODEL")
    from sfiin.runtime.bench.measure import BenchOptions
    from sfiin.runtime.reports import renderer

    render = renderer("bench") if report else None
    measuring = BenchOptions(**vars(how))
    result = (
        _suite(given, measuring, quiet or as_json)
        if suite
        else _one([*given, *(against or [])], measuring, quiet or as_json)
    )
    document = result.document()
    _write(output, json.dumps(document, allow_nan=False) + "\n")
    _write(markdown, as_markdown(result))
    if render and report:
        render(document, report)
    if as_json:
        print_json(document)
    elif not quiet:
        header, *rows = table(result)
        print_table(result.environment.cpu or "this machine", rows, header)
        _print_rest(result)


def _write(path: Path | None, text: str) -> None:
    if path is not None:
        with publish(path) as part:
            part.write_text(text, encoding="utf-8")


def _one(paths: Sequence[Path], how: BenchOptions, silent: bool) -> BenchResult:
    from sfiin.runtime.bench.measure import bench as measure

    with tally("measuring, seconds", silent) as progress:
        return measure(paths, how, lambda done, of: progress(int(done), int(of)))


def _suite(paths: Sequence[Path], how: BenchOptions, silent: bool) -> BenchResult:
    """Each model on each backend by itself, as one result: the first, and the others as if against it."""
    import dataclasses

    from sfiin.runtime.backends import machine, plan
    from sfiin.runtime.backends.providers import PROVIDERS
    from sfiin.runtime.bench.verdict import merged
    from sfiin.runtime.errors import UnavailableError
    from sfiin.runtime.models import shipped

    found: list[BenchResult] = []
    usable = [name for name in PROVIDERS if machine.backend(name)["usable"]]
    for path in paths or [path for path, _ in shipped()]:
        backends: list[Choice] = ["auto"] if plan.is_plan(path) else [*usable]
        found += [_one([path], dataclasses.replace(how, provider=name), silent) for name in backends]
    if not found:
        raise UnavailableError("no backend here runs a model; 'sfiin doctor' says why")
    first, *others = found
    verdict = merged([(result.model, result.verdict) for result in found])
    return dataclasses.replace(first, against=tuple(others), verdict=verdict)


def table(result: BenchResult) -> list[tuple[str, ...]]:
    """A header and a row for each model."""
    return [("model", "backend", "median ms", "p99 ms", "CV", "MP/s", "ratio"), *map(_row, result.models)]


def _row(model: ModelResult) -> tuple[str, ...]:
    percentiles = {quantile.percent: f"{quantile.value:.2f}" for quantile in model.total.quantiles}
    return (
        f"{model.model}, {model.precision}",
        model.backend,
        percentiles[50.0],
        percentiles.get(99.0, "-"),
        f"{model.total.variation:.1%}",
        f"{model.throughput.megapixels_per_second:.3f}",
        f"{model.ratio.value:.3f}x" if model.ratio else "",
    )


def budget(model: ModelResult) -> str:
    """What a large scene takes at a model's rate."""
    scene, area = model.scene, model.throughput.square_kilometres_per_second
    square = f", {area:.4f} square km/s" if area else ""
    return (
        f"{model.model}: {model.throughput.tiles_per_second:.1f} tiles/s{square}; "
        f"a scene of {scene.side:,} x {scene.side:,} pixels takes {scene.seconds / 60:.0f} minutes "
        f"and {'fits' if scene.fits else 'does not fit'} into a pass of {scene.pass_seconds / 60:.0f}"
    )


def as_markdown(result: BenchResult) -> str:
    """The table, what a scene takes, and the verdict."""
    header, *rows = table(result)
    lines = [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]
    verdict = result.verdict
    judged = f"{verdict.state}{': ' if verdict.reasons else ''}{'; '.join(verdict.reasons)}"
    return "\n".join([*lines, "", *map(budget, result.models), "", judged, ""])


def _print_rest(result: BenchResult) -> None:
    for model in result.models:
        say(budget(model))
    parts = {name: found for name, found in result.milliseconds.items() if name != "total"}
    if parts:
        say(f"of the first: {', '.join(f'{name} {found.median:.3f} ms' for name, found in parts.items())}")
    energy = result.energy
    if energy:
        say(
            f"{energy.watts:.1f} W, {energy.joules_per_tile:.3f} J a tile, "
            f"{energy.joules_per_megapixel:.2f} J a megapixel"
        )
    if result.device_bytes is not None:
        say(f"{result.device_bytes / 2**20:.0f} MiB of the device's memory")
    say(
        f"loaded in {result.load_seconds:.2f} s, first result after {result.first_result_seconds:.2f} s, "
        f"at most {result.peak_host_bytes / 2**20:.0f} MiB"
    )
    say(result.verdict.state)
    for reason in result.verdict.reasons:
        say(f"  {reason}")


def _compare(paths: Sequence[Path], *, quiet: bool, as_json: bool) -> None:
    import dataclasses

    from sfiin.runtime.bench import compare as comparison

    if len(paths) != 2:
        raise typer.BadParameter("two results are wanted: before and after", param_hint="--compare")
    found = comparison.compare(*map(comparison.read, paths))
    if as_json:
        print_json(
            dataclasses.asdict(found)
            | {"exceeds": found.exceeds, "slower": found.slower, "undecided": found.undecided}
        )
    else:
        spread = "more" if found.exceeds else "not more"
        say(
            f"the second median is {found.ratio:.3f} times the first, {spread} than the spread; verdicts: "
            f"{found.states[0]}, {found.states[1]}",
            quiet,
        )
        for name, (before, after) in found.changes.items():
            say(f"  {name}: {before} before, {after} after", quiet)
    found.require()

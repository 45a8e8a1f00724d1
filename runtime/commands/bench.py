"""How is a model benchmarked from the command line? `sfiin bench`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_json, print_table, say, tally
from sfiin.runtime.files import check_target, publish


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
        bool, typer.Option("--compare", help="Compare two results; exit code 6 if the second is slower.")
    ] = False,
    provider: options.Provider = "auto",
    threads: options.Threads = 0,
    batch: options.Batch = 1,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long to measure each model.")] = 20.0,
    samples: Annotated[int, typer.Option(min=2, help="How many runs at most.")] = 100_000,
    percent: Annotated[
        float,
        typer.Option("--percentile", min=50, max=99.9, help="The highest percentile that must be trusted."),
    ] = 99.0,
    gsd: Annotated[
        float | None,
        typer.Option(min=0.01, metavar="METRES", help="PAN's ground sample distance, for square km."),
    ] = None,
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
    from sfiin.runtime.bench.measure import Settings
    from sfiin.runtime.reports import renderer

    render = renderer("bench") if report else None
    settings = Settings(
        provider=provider,
        threads=threads,
        batch=batch,
        seconds=seconds,
        samples=samples,
        percent=percent,
        gsd=gsd,
    )
    document = (
        _suite(given, settings, quiet or as_json)
        if suite
        else _one([*given, *(against or [])], settings, quiet or as_json)
    )
    for path, text in (
        (output, json.dumps(document, allow_nan=False) + "\n"),
        (markdown, as_markdown(document)),
    ):
        if path is not None:
            with publish(path) as part:
                part.write_text(text, encoding="utf-8")
    if render and report:
        render(document, report)
    if as_json:
        print_json(document)
    elif not quiet:
        header, *rows = table(document)
        print_table(f"{document['environment']['cpu'] or 'this machine'}", rows, header)
        _print_rest(document)


def _one(paths: Sequence[Path], settings: Any, silent: bool) -> dict[str, Any]:
    from sfiin.runtime.bench.measure import bench as measure

    with tally("measuring, seconds", silent) as progress:
        return measure(paths, settings, lambda done, of: progress(int(done), int(of)))


def _suite(paths: Sequence[Path], settings: Any, silent: bool) -> dict[str, Any]:
    """One document: the first pair of model and backend, and the others as if they were against it."""
    import dataclasses

    from sfiin.runtime.backends import machine, plan
    from sfiin.runtime.errors import UnavailableError
    from sfiin.runtime.models import shipped

    found = []
    for path in paths or [it for it, _ in shipped()]:
        backends = (
            ["auto"]
            if plan.is_plan(path)
            else [name for name in ("cpu", "cuda", "tensorrt") if machine.backend(name)["usable"]]
        )
        found += [_one([path], dataclasses.replace(settings, provider=name), silent) for name in backends]
    if not found:
        raise UnavailableError("no backend here runs a model; 'sfiin doctor' says why")
    first, *others = found
    reasons = [f"{it['model']}: {reason}" for it in found for reason in it["verdict"]["reasons"]]
    states = {it["verdict"]["state"] for it in found}
    state = next(it for it in ("INVALID", "UNKNOWN", "VALID") if it in states)
    return first | {"against": others, "verdict": {"state": state, "reasons": list(dict.fromkeys(reasons))}}


def table(document: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """A header and a row for each model."""
    rows: list[tuple[str, ...]] = [("model", "backend", "median ms", "p99 ms", "CV", "MP/s", "ratio")]
    for it in (document, *document["against"]):
        total, ratio = it["milliseconds"]["total"], it.get("ratio")
        at = {found["percent"]: found["value"] for found in total["quantiles"]}
        rows.append(
            (
                f"{it['model']}, {it['precision']}",
                it["backend"],
                f"{at[50.0]:.2f}",
                f"{at[99.0]:.2f}" if 99.0 in at else "-",
                f"{total['variation']:.1%}",
                f"{it['throughput']['megapixels_per_second']:.3f}",
                f"{ratio['value']:.3f}x" if ratio else "",
            )
        )
    return rows


def budget(it: Mapping[str, Any]) -> str:
    """What a large scene takes at a model's rate."""
    scene, area = it["scene"], it["throughput"]["square_kilometres_per_second"]
    fits = "fits" if scene["fits"] else "does not fit"
    square = f", {area:.4f} square km/s" if area else ""
    rate, side = it["throughput"]["tiles_per_second"], f"{scene['side']:,}"
    return (
        f"{it['model']}: {rate:.1f} tiles/s{square}; a scene of {side} x {side} pixels takes "
        f"{scene['seconds'] / 60:.0f} minutes and {fits} into a pass of {scene['pass_seconds'] / 60:.0f}"
    )


def as_markdown(document: Mapping[str, Any]) -> str:
    """The table and the verdict."""
    header, *rows = table(document)
    lines = [f"| {' | '.join(row)} |" for row in (header, ("---",) * len(header), *rows)]
    verdict = document["verdict"]
    budgets = [budget(it) for it in (document, *document["against"])]
    return "\n".join(
        [
            *lines,
            "",
            *budgets,
            "",
            f"{verdict['state']}{': ' if verdict['reasons'] else ''}{'; '.join(verdict['reasons'])}",
            "",
        ]
    )


def _print_rest(document: Mapping[str, Any]) -> None:
    for it in (document, *document["against"]):
        say(budget(it))
    parts = {name: it for name, it in document["milliseconds"].items() if name != "total"}
    if parts:
        medians = (
            f"{name} {next(q['value'] for q in it['quantiles'] if q['percent'] == 50):.3f} ms"
            for name, it in parts.items()
        )
        say(f"of the first: {', '.join(medians)}")
    energy = document["energy"]
    if energy:
        say(
            f"{energy['watts']:.1f} W, {energy['joules_per_tile']:.3f} J a tile, "
            f"{energy['joules_per_megapixel']:.2f} J a megapixel"
        )
    device = document["device_bytes"]
    if device is not None:
        say(f"{device / 2**20:.0f} MiB of the device's memory")
    say(
        f"loaded in {document['load_seconds']:.2f} s, first result after {document['first_result_seconds']:.2f} s, "
        f"at most {document['peak_host_bytes'] / 2**20:.0f} MiB"
    )
    say(f"{document['verdict']['state']}")
    for reason in document["verdict"]["reasons"]:
        say(f"  {reason}")


def _compare(paths: Sequence[Path], *, quiet: bool, as_json: bool) -> None:
    import dataclasses

    from sfiin.runtime.bench import compare as comparison

    if len(paths) != 2:
        raise typer.BadParameter("two results are wanted: before and after", param_hint="--compare")
    found = comparison.compare(*map(comparison.read, paths))
    if as_json:
        print_json(dataclasses.asdict(found) | {"exceeds": found.exceeds, "slower": found.slower})
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

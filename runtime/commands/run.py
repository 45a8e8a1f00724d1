"""How are scenes sharpened from the command line? `sfiin run`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_json, say, tally
from sfiin.runtime.commands.scene_options import SceneOptions, spread
from sfiin.runtime.commands.signals import GRACE, ended, stopping

if TYPE_CHECKING:
    from sfiin.runtime.station.events import Event
    from sfiin.runtime.station.job import Job, Settings
    from sfiin.runtime.station.run_report import Prediction, RunReport


@spread
def run(
    *,
    pan: options.OnePan = None,
    ms: options.OneMs = None,
    scene: options.SceneFolder = None,
    output: options.OneOutput = None,
    jobs: options.Jobs = None,
    chosen: SceneOptions,
    scene_timeout: options.SceneTimeout = None,
    worker_memory: options.WorkerMemory = None,
    dry_run: options.DryRun = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Sharpen a scene: PAN and MS become a GeoTIFF of the MS bands with PAN's pixels; or many, from a
    list."""
    one = output is not None and (scene is not None or pan is not None)
    if jobs is None and (not one or (scene is not None and (pan or ms))):
        raise typer.BadParameter(
            "--pan, --ms and --output are wanted, or --scene and --output, or --jobs", param_hint="--pan"
        )
    if jobs is not None and (pan or ms or scene or output or dry_run):
        raise typer.BadParameter(
            "the list names the files; leave out --pan, --ms, --output and --dry-run", param_hint="--jobs"
        )
    bounds = (scene_timeout, options.parse_size(worker_memory) if worker_memory else None)
    settings = chosen.settings()
    if jobs is not None:
        _many(jobs, settings, chosen.model, bounds, quiet=quiet, as_json=as_json)
        return
    assert output is not None
    job = _job(scene, pan, ms or [], output, chosen.model)
    _one(job, settings, dry_run=dry_run, quiet=quiet, as_json=as_json)


def _job(scene: Path | None, pan: str | None, ms: list[str], output: str, model: Path | None) -> Job:
    """A job from two images, or from a delivery."""
    from sfiin.runtime.scenes import deliveries
    from sfiin.runtime.scenes.names import is_local, named
    from sfiin.runtime.station.job import Job
    from sfiin.runtime.station.remote import split

    place, upload = split(output)
    if pan is not None and ms:
        return Job(named(pan), tuple(map(named, ms)), place, model, upload=upload)
    if pan is not None and not (is_local(pan) and deliveries.is_delivery(pan)):
        raise typer.BadParameter("--ms is wanted, too, or a delivery's folder", param_hint="--pan")
    found = deliveries.find(scene or Path(pan or ""), trust=True)
    acquired = found.acquired.isoformat() if found.acquired else None
    return Job(found.pan, found.ms, place, model, None, found.bands, acquired, upload)


def _one(job: Job, settings: Settings, *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    from sfiin.runtime.station.run_report import Prediction
    from sfiin.runtime.station.runner import Station

    with Station(settings) as station:
        if dry_run:
            found: RunReport | Prediction = station.predict(job)
        else:
            with tally("sharpening", quiet or as_json) as progress:
                try:
                    found = station.run(job, progress, stopping(GRACE).is_set)
                finally:
                    ended()
    if as_json:
        print_json(found.document())
    elif isinstance(found, Prediction):
        say(predicted(found), quiet)
    elif found.standing == "equal":
        say(f"{found.output}: is there already, of the same inputs, model and options", quiet)
    else:
        say(summary(found), quiet)


def _many(
    jobs: Path,
    settings: Settings,
    model: Path | None,
    bounds: tuple[float | None, int | None],
    *,
    quiet: bool,
    as_json: bool,
) -> None:
    from sfiin.runtime.station.isolation import WorkerProcess
    from sfiin.runtime.station.jobs import read, run_all

    listed, (timeout, memory) = read(jobs, model), bounds
    setup = {"settings": settings.document(), "model": None, "inbox": False, "memory": memory}
    stop = stopping()
    with WorkerProcess(setup, timeout=timeout) as worker:
        worker.start(stop)
        run_all(
            listed, lambda wanted: worker.ask(wanted, stop), lambda event: tell(event, quiet, as_json), stop
        )


def tell(event: Event, quiet: bool, as_json: bool) -> None:
    """A line for each scene; as JSON, one document a line."""
    import json

    if event.event in ("look", "begin"):
        return
    if as_json:
        shown = event.with_(traceback=None, said=None).document()
        print(json.dumps(shown, ensure_ascii=False, allow_nan=False), flush=True)
        return
    texts = {
        "failed": f"{event.output}: failed: {event.error}",
        "done": summary(event.report) if event.report else "",
        "skipped": f"{event.output}: is there already",
        "given back": f"{event.scene}: taken over from a process that is no more",
        "incomplete": f"{event.scene}: waits: {event.error}",
        "try again": f"{event.scene}: {event.error}; will be tried again",
        "lost": f"{event.scene}: another process has taken it over",
        "waiting": f"waiting {event.seconds or 0:g} s: {event.error}",
        "end": f"{event.done} of {event.count} scenes sharpened, {event.failed} failed",
    }
    say(printable(texts[event.event]), quiet, flush=True)


def printable(text: str) -> str:
    """A text with what is no letter or sign escaped, but for the ends of its lines: names come from
    others."""
    return "".join(
        letter if letter.isprintable() or letter == "\n" else letter.encode("unicode_escape").decode()
        for letter in text
    )


def summary(report: RunReport) -> str:
    """What a run did, for people."""
    from sfiin.runtime.station.budget import in_mib

    clipped = ", ".join(f"{name} {count}" for name, count in report.clipped.items() if count)
    lines = [
        f"{report.output}: {report.pixels / 1e6:.2f} MP with {Path(report.model).name} in "
        f"{report.seconds:.1f} s ({report.megapixels_per_second:.2f} MP/s), at most "
        f"{in_mib(report.memory.peak or 0)}" + (f", by {report.backend}" if report.backend else ""),
        f"  {report.tiles} tiles, {report.nodata} pixels without data, clipped values: {clipped or 'none'}",
    ]
    seams = [
        f"  seams show between {found.axis} of tiles: steps there are {found.ratio:.2f} times those elsewhere"
        for found in report.seams or ()
        if found.shows
    ]
    return "\n".join([*lines, *seams, *(f"  {note}" for note in report.notes)])


def predicted(found: Prediction) -> str:
    """What a run would take, for people."""
    from sfiin.runtime.station.budget import in_mib

    (height, width), memory = found.size, found.memory
    lines = [
        f"{found.output}: {height} x {width} pixels with {Path(found.model).name}, {found.tiles} tiles, "
        "not written",
        f"  about {_duration(found.seconds)}; memory at most {in_mib(memory.total)} ({in_mib(memory.base)} "
        f"Python and model, {in_mib(memory.buffers)} rows of tiles, {in_mib(memory.cache)} GDAL, the rest "
        "for what is not counted)",
        f"  disk: the product, up to {in_mib(found.product_bytes_at_most)}, and as much again until it is "
        "complete",
    ]
    return "\n".join([*lines, *(f"  {note}" for note in found.notes)])


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return (
        f"{hours} h {minutes:02} min"
        if hours
        else f"{minutes} min {rest:02} s"
        if minutes
        else f"{seconds:.1f} s"
    )

"""How is a scene sharpened from the command line? `sfiin run`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from runtime import options
from runtime.console import say, tally

if TYPE_CHECKING:
    from runtime.pipeline import Report


def run(
    *,
    pan: options.Pan,
    ms: options.Ms,
    output: options.Output,
    model: options.Model = None,
    provider: options.Provider = "auto",
    threads: options.Threads = 0,
    batch: options.Batch = 1,
    overlap: options.Overlap = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Sharpen a scene: PAN and MS become a GeoTIFF of the MS bands with PAN's pixels."""
    options.refuse_existing(output, overwrite)
    from runtime import models
    from runtime.backends import open_session
    from runtime.pipeline import sharpen
    from runtime.scene import open_scene

    model = model or models.choose(*_bands_and_ratio(pan, ms))
    session = open_session(model, provider, threads)
    sensor = session.contract.sensor
    with closing(session), open_scene(pan, ms, sensor) as scene, tally("sharpening", quiet) as progress:
        report = sharpen(session, scene, output, batch=batch, overlap=overlap, progress=progress)
    say(_summary(output, model, report), quiet)
    for note in (*report.notes, *getattr(session, "notes", ())):
        say(f"  {note}", quiet)


def _bands_and_ratio(pan: Path, ms: Sequence[Path]) -> tuple[int, int]:
    """The scene's number of MS bands, and MS pixel size over PAN pixel size, by size where there is no georeference."""
    from runtime.scene import describe

    sharp, files = describe(pan), [describe(path) for path in ms]
    if sharp["pixel_size"] and files[0]["pixel_size"]:
        ratio = files[0]["pixel_size"][0] / sharp["pixel_size"][0]
    else:
        ratio = sharp["size"][0] / files[0]["size"][0]
    return sum(file["bands"] for file in files), round(ratio)


def _summary(output: Path, model: Path, report: Report) -> str:
    pixels, seconds = report.pixels / 1e6, report.seconds
    clipped = ", ".join(f"{name} {count}" for name, count in report.clipped.items() if count)
    return "\n".join(
        (
            f"{output}: {pixels:.2f} MP with {model.name} in {seconds:.1f} s ({pixels / max(seconds, 1e-9):.2f} MP/s)",
            f"  {report.tiles} tiles, {report.nodata} pixels without data, clipped values: {clipped or 'none'}",
        )
    )

"""How does a ground station run unattended? `sfiin watch`."""

from __future__ import annotations

import signal
from pathlib import Path
from threading import Event
from types import FrameType
from typing import Annotated

import typer

from sfiin.runtime.commands import options
from sfiin.runtime.commands.run import tell


def watch(
    *,
    inbox: Annotated[
        Path, typer.Argument(metavar="INBOX", help="A folder into which scenes come, a folder each.")
    ],
    outbox: Annotated[Path, typer.Argument(metavar="OUTBOX", help="A folder for the products.")],
    model: options.Model = None,
    provider: options.Provider = "auto",
    threads: options.Threads = 0,
    batch: options.Batch = 1,
    overlap: options.Overlap = None,
    force: options.Force = False,
    kind: options.Format = "gtiff",
    compress: options.Compress = "deflate",
    overviews: options.Overviews = False,
    gain: options.Gain = 1.0,
    memory: options.Memory = None,
    coregister: options.Coregister = "no",
    max_shift: options.MaxShift = 1.5,
    search: options.Search = 64,
    require_alignment: options.RequireAlignment = False,
    bands: options.Bands = None,
    method: options.Method = None,
    quicklook: options.Quicklook = False,
    stac: options.Stac = False,
    acquired: options.Acquired = None,
    report: options.Report = False,
    overwrite: options.Overwrite = False,
    settle: Annotated[
        float,
        typer.Option(
            min=0.0, metavar="SECONDS", help="A scene is complete when it has not changed for so long."
        ),
    ] = 10.0,
    poll: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How often to look for new scenes.")
    ] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Do what is there, and end.")] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Sharpen scenes as they arrive in a folder, until told to stop; bad ones are set aside with their
    error."""
    limit = options.parse_size(memory) if memory else None
    from sfiin.runtime.scenes.pipeline import Form
    from sfiin.runtime.station.inbox import Inbox
    from sfiin.runtime.station.inbox import watch as serve
    from sfiin.runtime.station.runner import Settings, Station

    settings = Settings(
        provider=provider,
        threads=threads,
        batch=batch,
        overlap=overlap,
        force=force,
        form=Form(kind, compress, overviews),
        gain=gain,
        memory=limit,
        coregister=coregister,
        max_shift=max_shift,
        search=search,
        require_alignment=require_alignment,
        bands=bands,
        method=method,
        quicklook=quicklook,
        stac=stac,
        acquired=acquired,
        report=report,
        overwrite=overwrite,
    )
    box, stop = Inbox(inbox, outbox, model, settle), _stopping()
    with Station(settings) as station:
        serve(box, station.run, lambda event: tell(event, quiet, as_json), poll=poll, once=once, stop=stop)


def _stopping() -> Event:
    """Set by the first SIGTERM or SIGINT; the second one ends the process as ever."""
    stop = Event()

    def handle(number: int, _frame: FrameType | None) -> None:
        stop.set()
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop

"""How does a ground station run unattended? `sfiin watch`."""

from __future__ import annotations

import sys
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Annotated

import typer

from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import silence
from sfiin.runtime.commands.run import tell
from sfiin.runtime.commands.scene_options import SceneOptions, spread
from sfiin.runtime.commands.signals import stopping


@spread
def watch(
    *,
    inbox: Annotated[
        Path, typer.Argument(metavar="INBOX", help="A folder into which scenes come, a folder each.")
    ],
    outbox: Annotated[Path, typer.Argument(metavar="OUTBOX", help="A folder for the products.")],
    chosen: SceneOptions,
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
    scene_timeout: options.SceneTimeout = None,
    worker_memory: options.WorkerMemory = None,
    trust_inbox: Annotated[
        bool,
        typer.Option(
            "--trust-inbox",
            help="Follow what uploads refer to: links, mosaics (VRT), network. For folders that only you "
            "write to.",
        ),
    ] = False,
    metrics: Annotated[
        str | None,
        typer.Option(
            "--metrics",
            metavar="FILE|PORT",
            help="Prometheus metrics: a file to rewrite, or a port (or HOST:PORT) to answer on.",
        ),
    ] = None,
    log: options.Log = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Sharpen scenes as they arrive in a folder, until told to stop; bad ones are set aside with their
    error."""
    settings = chosen.settings(otherwise="version")
    from sfiin.runtime.backends.triton_client import is_address
    from sfiin.runtime.station.events import Event
    from sfiin.runtime.station.inbox import Inbox
    from sfiin.runtime.station.isolation import LostError, WorkerProcess
    from sfiin.runtime.station.log import Log
    from sfiin.runtime.station.metrics import exporter
    from sfiin.runtime.station.service import Service

    for stream in (sys.stdout, sys.stderr):
        # The name of a folder that somebody uploads need not be text.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    model, box, stop = chosen.model, Inbox(inbox, outbox, settle), stopping()
    setup = {
        "settings": settings.document(),
        "model": None if model is None else str(model if is_address(model) else model.absolute()),
        "inbox": not trust_inbox,
        "memory": options.parse_size(worker_memory) if worker_memory else None,
    }
    with ExitStack() as stack:
        log_file = stack.enter_context(Log(log))
        exported = stack.enter_context(exporter(metrics))
        worker = stack.enter_context(
            WorkerProcess(setup, inherit=lambda: box.claim.descriptor, timeout=scene_timeout)
        )

        def told(event: Event) -> None:
            log_file.write(event)
            exported.count(event)
            try:
                tell(event, quiet, as_json)
            except OSError:  # whoever read it is gone, or its disk is full; the work goes on
                silence(sys.stdout)

        with suppress(OSError):  # the service waits for an inbox that cannot be used
            box.claim.hold()
        try:
            with suppress(LostError):  # and tries again; what is refused here would be refused again
                worker.start(stop)
        except BaseException:
            box.leave()
            raise
        Service(box, worker, told, poll=poll, once=once, stop=stop).serve()

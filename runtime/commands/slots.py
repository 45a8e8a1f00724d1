"""How does a new bundle get on board, and the old one back? `sfiin slots`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from sfiin.runtime.commands.console import print_json, print_table, say
from sfiin.runtime.commands.options import Json, Quiet


def slots(
    *,
    action: Annotated[
        Literal["init", "install", "promote", "rollback", "status"],
        typer.Argument(help="What to do.", show_default=False),
    ],
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of the slots.", show_default=False)
    ],
    source: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", help="The bundle, for init and install.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Install a bundle beside the one in use, try it, and roll it back.

    init makes the factory slot, which is never written to again. install unpacks a bundle into the slot that
    is not in use. promote puts it on trial. rollback takes the one before.
    """
    from sfiin.runtime.flight.slots import Slots, create

    if (source is not None) != (action in ("init", "install")):
        raise typer.BadParameter("init and install take a bundle, the other actions take none")
    found = create(folder, source) if action == "init" and source else Slots(folder)
    if action == "install" and source:
        done = f"installed in slot {found.install(source)}; 'sfiin slots promote {folder}' puts it on trial"
    elif action == "promote":
        done = f"slot {found.promote()} is on trial"
    elif action == "rollback":
        done = f"slot {found.rollback()} is in use"
    else:
        done = f"slot {found.state.active} is in use"
    if as_json:
        print_json({"folder": str(folder), **dataclasses.asdict(found.state), "slots": found.survey()})
    elif action == "status" and not quiet:
        rows = [(name, "yes" if not why else "no", why) for name, why in found.survey().items()]
        say(f"{folder}: {done}")
        print_table("Slots", rows, ("slot", "sound", "why not"))
    else:
        say(f"{folder}: {done}", quiet)

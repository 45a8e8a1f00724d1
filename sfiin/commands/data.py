"""What is in a folder of data? `sfiin data inspect`.

Imported for `sfiin --help` even where torch is not installed, so what is heavy is imported inside the
command.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sfiin.runtime.cli import requires
from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_json, say

if TYPE_CHECKING:
    from sfiin.data.survey import Kind, Survey


def data(
    *,
    action: Annotated[Literal["inspect"], typer.Argument(help="What to do.", show_default=False)],
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            exists=True,
            file_okay=False,
            help="Pairs and scenes, and folders of them.",
            show_default=False,
        ),
    ],
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what a folder of pairs holds, before a training is spent on it.

    inspect tells shapes, ranges, how PAN lies on MS, how crisp PAN is beside the truth, and which images show
    the same ground, above all in different folders or files, such as those to train on and to judge by.
    """
    assert action == "inspect"
    requires("report", "scipy")
    from sfiin.data import survey

    found = survey.survey(folder)
    if as_json:
        print_json(_document(found))
    elif not quiet:
        _tell(found)


def _document(found: Survey) -> dict[str, Any]:
    """As JSON, which has no NaN: the range of a pair that holds some is null."""
    document = dataclasses.asdict(found)
    for part in (*document["kinds"], *document["pairs"]):
        part |= {key: part[key] if abs(part[key]) < float("inf") else None for key in ("low", "high")}
    return document


def _tell(found: Survey) -> None:
    say(f"{found.folder}: {len(found.pairs)} pairs, {len(found.scenes)} scenes")
    for kind in found.kinds:
        _tell_kind(kind)
    if len(found.splits) > 1:
        parts = (f"{name or '(folder itself)'} {count}" for name, count in found.splits.items())
        say(f"  splits: {', '.join(parts)}")
    if found.scenes:
        say(f"  scenes: {', '.join(found.scenes)}")
    say(f"  {len(found.overlaps)} times two pairs share ground, {len(found.across)} times across splits")
    for text in found.findings:
        say(f"  found: {text}")


def _tell_kind(kind: Kind) -> None:
    bits = {None: "no digital numbers", 0: "fractions of 1"}.get(kind.bits, f"{kind.bits} bits")
    height, width = kind.pan
    say(
        f"  {kind.pairs} pairs: {kind.bands} bands at ratio {kind.ratio}, PAN {height} x {width}, "
        f"{kind.truth} with truth, {kind.stored}, {kind.low:g} to {kind.high:g} "
        f"({bits}{'' if kind.says_range else ', not named'})"
    )
    shift = "where PAN lies on MS cannot be told"
    if kind.shift is not None:
        row, column = kind.shift
        shift = (
            f"PAN lies {row:+.1f} rows, {column:+.1f} columns from MS (PAN pixels; median of {kind.told}, "
            f"{kind.shifted} too far)"
        )
    detail = "" if kind.detail is None else f"; PAN is {kind.detail:.2f} times as crisp as the truth"
    say(f"    {shift}{detail}")

"""How does a command speak? Results go to stdout, progress to stderr, and with --json stdout holds one
document."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, TextIO


class Advance(Protocol):
    """Tells a progress bar that `steps` more are done; `note`, if given, replaces the text behind it."""

    def __call__(self, steps: int = 1, note: str | None = None) -> None:
        """Move the bar."""
        ...


def say(text: str, quiet: bool = False, flush: bool = False) -> None:
    """Print a line of results to stdout, unless quiet; `flush` shows it at once, also in a log."""
    if not quiet:
        print(text, flush=flush)


def silence(stream: TextIO) -> None:
    """Let what is still to be printed go nowhere, so that a reader that is gone is met once."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:  # noqa: PTH123 - a device, not a path
        os.dup2(nowhere.fileno(), stream.fileno())


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document to stdout. Raises ValueError for NaN and infinity, which JSON does not have."""
    print(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False))


def print_table(title: str, rows: Iterable[Sequence[object]], header: Sequence[str] = ()) -> None:
    """Print a table to stdout; cells are shown as text, without rich's markup, and None as '-'."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    texts = [[Text("-" if cell is None else str(cell)) for cell in row] for row in rows]
    table = Table(title=title, title_justify="left", show_header=bool(header), box=box.SIMPLE)
    for i in range(max((len(row) for row in texts), default=len(header))):
        table.add_column(header[i] if header else "", overflow="fold")
    for row in texts:
        table.add_row(*row)
    Console(highlight=False).print(table)


@contextmanager
def progress(what: str, total: int | None, quiet: bool = False) -> Iterator[Advance]:
    """A bar of `total` steps on stderr while the block runs; nothing when quiet or when stderr is no
    terminal."""
    with _bar(what, total, quiet) as update:
        yield lambda steps=1, note=None: update(advance=steps, **({} if note is None else {"note": note}))


@contextmanager
def tally(what: str, quiet: bool = False) -> Iterator[Callable[[int, int], None]]:
    """Like `progress`, for work that reports how many of how many steps are done."""
    with _bar(what, None, quiet) as update:
        yield lambda done, total: update(completed=done, total=total)


@contextmanager
def _bar(what: str, total: int | None, quiet: bool) -> Iterator[Callable[..., None]]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    # In a log file a bar is noise: a line for each of hundreds of redraws.
    silent = quiet or not console.is_terminal
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True, disable=silent) as bar:
        task = bar.add_task(what, total=total, note="")
        yield lambda **changes: bar.update(task, **changes)

"""How are many scenes done, so that one bad scene does not cost the night? A list, one after another, and a
verdict.

The list is a CSV file (divided by commas, semicolons or tabs) with the columns `pan`, `ms` (several files
divided by ';' or '|'), `output` and, if not one for all, `model`; paths are relative to the list's folder.
It is checked as a whole before the first scene:
what it names must be there, and no two scenes may have one output. A scene whose output exists is left as it
is, so that a list that was stopped goes on where it was.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from rasterio.errors import RasterioError

from sfiin.runtime.errors import InputError, OutputError, PartialError, SfiinError, TotalError
from sfiin.runtime.scenes.beside import check_name
from sfiin.runtime.scenes.names import beside, is_local
from sfiin.runtime.station.runner import Job

Event = dict[str, Any]
Run = Callable[[Job], dict[str, Any]]

COLUMNS = ("pan", "ms", "output")

FAILURES = (SfiinError, OSError, RasterioError, MemoryError)
"""What ends one scene and not the others."""

_SHOWN = 5
_NAMED = {
    "panchromatic": "pan",
    "panfile": "pan",
    "mul": "ms",
    "multispectral": "ms",
    "msfile": "ms",
    "out": "output",
    "outfile": "output",
    "outputfile": "output",
    "product": "output",
}
"""Other names of columns, in lower case and letters only."""


def read(path: Path, model: Path | None = None) -> list[Job]:
    """The jobs of a list; `model` is for those that name none. Raises InputError that tells what is wrong
    with it."""
    try:
        jobs = {number: _job(row, path.parent, model) for number, row in _rows(path)}
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: no CSV file ({error})") from None
    if not jobs:
        raise InputError(f"{path}: names no scene")
    problems = list(_problems(jobs))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise InputError(f"{path}: {'; '.join(problems[:_SHOWN])}{more}")
    return list(jobs.values())


def run_all(jobs: Sequence[Job], run: Run, tell: Callable[[Event], None], overwrite: bool = False) -> None:
    """Run all jobs; `tell` is told of each one's end, and of the end of all.

    Raises PartialError when some failed, TotalError when all.
    """
    done = failed = 0
    for job in jobs:
        if job.output.exists() and not overwrite:
            tell({"event": "skipped", "output": str(job.output)})
            done += 1
            continue
        event = outcome(job, run)
        tell(event)
        done += event["event"] == "done"
        failed += event["event"] == "failed"
    tell({"event": "end", "count": len(jobs), "done": done, "failed": failed})
    require_all(failed, len(jobs))


def outcome(job: Job, run: Run) -> Event:
    """What became of a job: "done" with its report, or "failed" with its error and exit code."""
    try:
        return {"event": "done", "output": str(job.output), "report": run(job)}
    except FAILURES as error:
        text = " ".join(str(error).split()) or type(error).__name__
        return {
            "event": "failed",
            "output": str(job.output),
            "error": text,
            "kind": type(error).__name__,
            "exit_code": getattr(error, "exit_code", 1),
        }


def require_all(failed: int, count: int) -> None:
    """Raise PartialError or TotalError unless none failed."""
    if failed:
        kind, which = (TotalError, "all") if failed == count else (PartialError, f"{failed} of")
        raise kind(f"{which} {count} scenes failed; their errors stand above")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """The numbered lines of a list as spreadsheets write it: divided by commas, semicolons or tabs, in UTF-8 or
    UTF-16, with the columns' names in any spelling."""
    text = path.read_bytes()
    lines = text.decode("utf-16" if text[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig").splitlines(True)
    first = 0
    divider = ""
    if lines and lines[0].lower().startswith("sep="):  # a line for spreadsheets only
        first, divider = 1, lines[0][4:5]
    header = lines[first] if len(lines) > first else ""
    divider = divider or max(",;\t", key=header.count)
    named = [
        re.sub(r"[^a-z]", "", name.casefold()) for name in next(csv.reader([header], delimiter=divider), [])
    ]
    fields = [_NAMED.get(name, name) for name in named]
    missing = [name for name in COLUMNS if name not in fields]
    if missing:
        raise InputError(
            f"{path}: has no column {' and '.join(missing)}; the first line names the columns "
            "pan, ms, output and, if wanted, model"
        )
    table = csv.DictReader(lines[first + 1 :], fields, delimiter=divider)
    for row in table:
        yield table.line_num + first + 1, row


def _job(row: dict[str, Any], folder: Path, model: Path | None) -> Job:
    values = {name: (row.get(name) or "").strip() for name in (*COLUMNS, "model")}
    # Where semicolons divide the columns, files are divided by '|'.
    ms = tuple(beside(folder, name.strip()) for name in re.split(r"[;|]", values["ms"]) if name.strip())
    own = folder / values["model"] if values["model"] else model
    return Job(beside(folder, values["pan"]), ms, folder / values["output"], own)


def _problems(jobs: dict[int, Job]) -> Iterator[str]:
    outputs: dict[Path, int] = {}
    for line, job in jobs.items():
        folders = [name for name, path in (("pan", job.pan), ("output", job.output)) if Path(path).is_dir()]
        if folders or not job.ms:
            yield f"line {line}: no file under {' and '.join(folders) or 'ms'}"
        for path in (job.pan, *job.ms, *([job.model] if job.model else [])):
            if is_local(path) and not Path(path).exists():
                yield f"line {line}: {path}: no such file"
        if not job.output.parent.is_dir():
            yield f"line {line}: {job.output}: there is no folder {job.output.parent}"
        try:
            check_name(job.output)
        except OutputError as error:
            yield f"line {line}: {error}"
        first = outputs.setdefault(job.output.resolve(), line)
        if first != line:
            yield f"line {line}: {job.output}: line {first} has the same output"

"""How are many scenes done, so that one bad scene does not cost the night? A list, one after another, and a
verdict.

The list is a CSV file with the columns `pan`, `ms` (several files divided by ';'), `output` and, if not one
for all, `model`; paths are relative to the list's folder. It is checked as a whole before the first scene:
what it names must be there, and no two scenes may have one output. A scene that is done
(`sfiin.runtime.station.done`) is left as it is, and one that is not quite is completed, so that a list that
was stopped goes on where it was. Each is worked on by a process of its own
(`sfiin.runtime.station.isolation`).
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from threading import Event as Flag
from typing import Any, TextIO

from sfiin.runtime.backends.triton_client import is_address
from sfiin.runtime.errors import InputError, OutputError, PartialError, StoppedError, TotalError
from sfiin.runtime.scenes.beside import check_name
from sfiin.runtime.scenes.names import beside, is_local
from sfiin.runtime.station.attempts import MOST
from sfiin.runtime.station.events import Event, Tell
from sfiin.runtime.station.job import Job
from sfiin.runtime.station.remote import is_remote, split

Ask = Callable[[dict[str, Any]], Event]
"""Ask a worker (`sfiin.runtime.station.worker`) for a scene; what became of it."""

COLUMNS = ("pan", "ms", "output")

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
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = _table(file)
            missing = [name for name in COLUMNS if name not in (table.fieldnames or ())]
            if missing:
                raise InputError(
                    f"{path}: has no column {' and '.join(missing)}; the first line names the columns "
                    "pan, ms, output and, if wanted, model"
                )
            jobs: dict[int, Job] = {}
            for row in table:
                jobs[table.line_num + 1] = _job(row, path.parent, model)
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


def run_all(jobs: Sequence[Job], ask: Ask, tell: Tell, stop: Flag | None = None) -> None:
    """Run all jobs; `tell` is told of each one's end, and of the end of all.

    What nobody foresaw, such as a crash, is tried `MOST` times. Raises PartialError when some failed,
    TotalError when all, StoppedError when `stop` was set before the end.
    """
    done = failed = 0
    for job in jobs:
        event = _tried(job, ask)
        if event.event == "stopped" or (stop is not None and stop.is_set()):
            raise StoppedError(
                f"stopped; {done} of {len(jobs)} scenes are done, and what is done of the others is kept"
            )
        tell(event)
        done += event.event in ("done", "skipped")
        failed += event.event == "failed"
    tell(Event("end", count=len(jobs), done=done, failed=failed))
    require_all(failed, len(jobs))


def request(job: Job) -> dict[str, Any]:
    """What a worker is asked."""
    return {
        "job": {
            "pan": str(job.pan),
            "ms": [str(path) for path in job.ms],
            "output": job.target,
            "model": None if job.model is None else str(job.model),
        }
    }


def _tried(job: Job, ask: Ask) -> Event:
    for number in range(1, MOST + 1):
        event = ask(request(job)).with_(output=job.target)
        if event.report and event.report.standing == "equal":
            return Event("skipped", output=job.target)
        again = event.event == "crashed" or event.blame == "unknown"
        if not again or number == MOST:
            break
    if event.event == "crashed":
        event = event.with_(event="failed", kind="Crash", exit_code=1)
    return event


def require_all(failed: int, count: int) -> None:
    """Raise PartialError or TotalError unless none failed."""
    if failed:
        kind, which = (TotalError, "all") if failed == count else (PartialError, f"{failed} of")
        raise kind(f"{which} {count} scenes failed; their errors stand above")


def _table(file: TextIO) -> csv.DictReader[str]:
    """The rows, by names of columns in any spelling.

    Spreadsheets of many countries divide columns by ';' and not by ','. Then several MS files in one cell
    are within quotes, as the program that wrote the list has put them, or divided by '|'.
    """
    first = file.readline()
    if first.lower().startswith("sep="):  # a line for spreadsheets only
        first = file.readline()
    divider = max(",;\t", key=first.count)
    names = next(csv.reader([first], delimiter=divider, skipinitialspace=True), [])
    words = [re.sub(r"[^a-z]", "", name.casefold()) for name in names]
    fields = [_NAMED.get(word, word) for word in words]
    return csv.DictReader(file, fields, delimiter=divider, skipinitialspace=True)


def _job(row: dict[str, Any], folder: Path, model: Path | None) -> Job:
    values = {name: (row.get(name) or "").strip() for name in (*COLUMNS, "model")}
    ms = tuple(beside(folder, name.strip()) for name in re.split(r"[;|]", values["ms"]) if name.strip())
    named = Path(values["model"])
    own = (named if is_address(named) else folder / named) if values["model"] else model
    output = values["output"]
    place, upload = split(output if is_remote(output) else str(folder / output))
    return Job(beside(folder, values["pan"]), ms, place, own, upload=upload)


def _problems(jobs: dict[int, Job]) -> Iterator[str]:
    outputs: dict[str, int] = {}
    for line, job in jobs.items():
        named = {"pan": job.pan} | ({} if job.upload else {"output": job.output})
        folders = [name for name, path in named.items() if Path(path).is_dir()]
        if folders or not job.ms:
            yield f"line {line}: no file under {' and '.join(folders) or 'ms'}"
        for path in (job.pan, *job.ms, *([job.model] if job.model and not is_address(job.model) else [])):
            if is_local(path) and not Path(path).exists():
                yield f"line {line}: {path}: no such file"
        if not job.upload and not job.output.parent.is_dir():
            yield f"line {line}: {job.output}: there is no folder {job.output.parent}"
        try:
            check_name(job.output)
        except OutputError as error:
            yield f"line {line}: {error}"
        first = outputs.setdefault(job.upload or str(job.output.resolve()), line)
        if first != line:
            yield f"line {line}: {job.target}: line {first} has the same output"

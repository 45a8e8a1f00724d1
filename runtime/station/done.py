"""When is a scene done? When `NAME.done.json` says so, which is written last, and what it says is so.

Beside `sharp.tif` lies `sharp.done.json`: digests of the inputs, the model, the product and its companions
(quick-look, STAC item, report), the options, and the run's report. Its `run` is the digest of what the pixels
depend on: inputs, model, options; not names, places, threads or versions.

Just before a product appears, a draft of the document is written under a hidden name, `.sharp.tif.done`. So a
run that was killed at any moment is found as it was:

    no product                                absent       it is made (from the kept rows, if there are any)
    a product, and a draft with its digest    unfinished   what belongs beside it is made
    a product, and a document that is true    equal        nothing is made, or a companion that is missing
    anything else                             other        it is refused, replaced, or a version put beside it
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import sfiin
from sfiin.runtime.errors import InputError, OutputError
from sfiin.runtime.files import read_small, sha256, write_fresh
from sfiin.runtime.scenes import beside
from sfiin.runtime.scenes.identity import Input
from sfiin.runtime.scenes.journal import folder_of
from sfiin.runtime.station.run_report import RunReport

Existing = Literal["refuse", "overwrite", "version"]
"""What is done about another product of the same name."""

_SUFFIXES = {"quicklook": ".png", "stac": ".json", "report": ".html"}

_LIMIT = 64 << 20

_NO_DOCUMENT = (errno.ELOOP, errno.EINVAL, errno.EISDIR, errno.ENXIO)


@dataclass(frozen=True)
class Run:
    """What a product depends on; `key` names it."""

    inputs: tuple[Input, ...]
    model: Input
    options: Mapping[str, Any]

    @property
    def key(self) -> str:
        """SHA-256 of digests and options, in hex."""
        content = [
            [found.sha256 or found.name for found in self.inputs],
            self.model.sha256,
            dict(self.options),
        ]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Standing:
    """What was found at `output`; `missing` are companions to make, `report` is of the run that made it,
    where that is "equal" or "unfinished"."""

    output: Path
    state: Literal["absent", "unfinished", "equal", "other"]
    missing: tuple[str, ...] = ()
    report: RunReport | None = None
    why: str = ""


def companions(output: Path, wanted: Mapping[str, bool]) -> dict[str, Path]:
    """Where what lies beside a product goes, by name: `quicklook`, `stac`, `report`."""
    return {name: output.with_suffix(suffix) for name, suffix in _SUFFIXES.items() if wanted.get(name)}


def path_of(output: Path) -> Path:
    """Where the document of a product lies."""
    return output.with_suffix(".done.json")


def find(output: Path, run: Run, wanted: Mapping[str, bool], existing: Existing = "refuse") -> Standing:
    """What is there already of a run, and where its product goes.

    With "version" a product that is another one stays, and the next free name is taken, as `sharp.2.tif`.
    Raises OutputError, for "refuse", where something else is there.
    """
    for number in count(1):
        place = output if number == 1 else output.with_name(f"{output.stem}.{number}{output.suffix}")
        found = look(place, run, wanted)
        if existing == "version" and (found.state == "other" or _is_taken(place)):
            continue
        if found.state == "other" and existing == "refuse":
            raise OutputError(
                f"{found.why}: exists already, and is not this run's; give another name, or --overwrite to "
                "replace it"
            )
        return found
    raise AssertionError


def look(output: Path, run: Run, wanted: Mapping[str, bool]) -> Standing:
    """What is there under one name. Raises OutputError for what cannot be read."""
    places = companions(output, wanted)
    try:
        document = _read(path_of(output))
        if not output.exists():
            taken = [path for path in places.values() if os.path.lexists(path)]
            if os.path.lexists(path_of(output)) and "run" not in document:
                taken.append(path_of(output))  # no document of ours: it belongs to something else
            return Standing(output, "other", why=str(taken[0])) if taken else Standing(output, "absent")
        digest = _Lazy(output)
        if report := _report(document, run, digest):
            missing = tuple(name for name, path in places.items() if not os.path.lexists(path))
            changed = _changed(document, {name: path for name, path in places.items() if name not in missing})
            if changed is not None:
                return Standing(output, "other", why=str(changed))
            return Standing(output, "equal", missing, report)
        if report := _report(_read(_draft(output)), run, digest):
            return Standing(output, "unfinished", tuple(places), report)
    except OSError as error:
        raise OutputError(f"{output}: cannot be read ({error.strerror}); check the disk") from error
    return Standing(output, "other", why=str(output))


def draft(output: Path, part: Path, run: Run, report: RunReport) -> None:
    """Write down what is about to be published: `part`, as `output`. Raises OSError."""
    content = {
        "sfiin": sfiin.__version__,
        "run": run.key,
        "inputs": [asdict(found) for found in run.inputs],
        "model": asdict(run.model),
        "options": dict(run.options),
        "product": _entry(part) | {"name": output.name},
        "report": report.document(),
    }
    path_of(output).unlink(missing_ok=True)  # of what is replaced
    write_fresh(_draft(output), json.dumps(content))


def finish(output: Path, run: Run, wanted: Mapping[str, bool], report: RunReport) -> None:
    """Write the document, now that all is there. Raises OutputError."""
    try:
        known = _read(_draft(output)) or _read(path_of(output))
        made = {name: _entry(path) for name, path in companions(output, wanted).items()}
        kept = {
            name: entry
            for name, entry in known.get("companions", {}).items()
            if name not in made
            and isinstance(entry, dict)
            and (output.parent / str(entry.get("name"))).is_file()
        }
        known |= {"run": run.key, "companions": kept | made, "report": report.document()}
        write_fresh(path_of(output), json.dumps(known, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
        _draft(output).unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path_of(output)}: cannot be written ({error.strerror}); check the disk"
        ) from error


def _is_taken(output: Path) -> bool:
    """Whether something beside a free name would become a part of the product, or is in the way of its
    work."""
    if output.exists():
        return False
    folder = folder_of(output)
    return bool(beside.parts(output)) or folder.is_symlink() or (folder.exists() and not folder.is_dir())


def _changed(document: Mapping[str, Any], there: Mapping[str, Path]) -> Path | None:
    """A companion that is not what was written."""
    for name, path in there.items():
        entry = document.get("companions", {}).get(name)
        if entry is None:
            continue
        if path.is_symlink() or not path.is_file() or entry != _entry(path):
            return path
    return None


class _Lazy:
    """A file's digest, taken when it is asked for."""

    def __init__(self, path: Path) -> None:
        self._path, self._digest = path, ""

    def __str__(self) -> str:
        self._digest = self._digest or sha256(self._path)
        return self._digest


def _report(document: Mapping[str, Any], run: Run, digest: _Lazy) -> RunReport | None:
    """The report of a document that is of this run and tells the truth about the product, else None."""
    product = document.get("product")
    if document.get("run") != run.key or not isinstance(product, dict):
        return None
    if product.get("sha256") != str(digest):
        return None
    try:
        return RunReport.of(document.get("report"))
    except InputError:
        return None  # another version's, or damaged: what cannot be read vouches for nothing


def _entry(path: Path) -> dict[str, Any]:
    return {"name": path.name, "sha256": sha256(path), "bytes": path.stat().st_size}


def _draft(output: Path) -> Path:
    return output.with_name(f".{output.name}.done")


def _read(path: Path) -> dict[str, Any]:
    """A document, {} where there is none that can be understood; a link is none."""
    try:
        found = json.loads(read_small(path, _LIMIT))
    except (FileNotFoundError, ValueError, RecursionError):
        return {}
    except OSError as error:
        if error.errno in _NO_DOCUMENT:
            return {}
        raise
    parts = ("product", "companions", "report")
    is_document = isinstance(found, dict) and all(isinstance(found.get(part, {}), dict) for part in parts)
    return found if is_document else {}

"""How does a folder become a queue that several processes may serve? By renames, each of which only one can
make.

A scene is a folder in the inbox with `pan.tif` and `ms.tif`, or `ms-1.tif`, `ms-2.tif` and so on for a file a
band. It is taken when it is complete: when it holds a file `READY`, or when nothing in it has changed for
`settle` seconds. Who takes it renames it into its own hidden folder, and it ends in `.done` or, with its
error in `error.txt`, in `.failed`, from where nobody takes it by itself. What a process that is no more had
taken goes back into the inbox, and its product is gone on with (`sfiin.runtime.scenes.journal`).
"""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from threading import Event as Flag
from typing import Any

from sfiin.runtime.errors import InputError, OutputError
from sfiin.runtime.station.jobs import Event, Run, outcome, require_all
from sfiin.runtime.station.runner import Job

READY = "READY"
_CLAIM = re.compile(r"\.taken-(?P<host>.+)-(?P<process>\d+)")
_NUMBERED = re.compile(r"ms-(\d+)\.tiff?", re.IGNORECASE)


class Inbox:
    """A folder of scenes, seen by this process. Raises InputError where it is no folder."""

    def __init__(
        self,
        folder: Path,
        outbox: Path,
        model: Path | None = None,
        settle: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder to watch")
        if not outbox.is_dir():
            raise OutputError(f"{outbox}: no such folder to write to; create it first")
        self._folder, self._outbox, self._model = folder, outbox, model
        self._settle, self._clock = settle, clock
        self._own = folder / f".taken-{socket.gethostname()}-{os.getpid()}"

    def waiting(self) -> list[Path]:
        """Scenes that are complete, by name."""
        scenes = (path for path in self._folder.iterdir() if path.is_dir() and not path.name.startswith("."))
        return sorted(path for path in scenes if self._is_complete(path))

    def take(self, scene: Path) -> Job | None:
        """The job of a scene, which is now this process's; None where another one was faster."""
        self._own.mkdir(exist_ok=True)
        taken = self._own / scene.name
        try:
            scene.rename(taken)
        except OSError:
            return None
        files = {path.name.lower(): path for path in taken.iterdir()}
        numbered = {
            int(found[1]): path for name, path in files.items() if (found := _NUMBERED.fullmatch(name))
        }
        ms = [files[name] for name in ("ms.tif", "ms.tiff") if name in files][:1] or [
            numbered[number] for number in sorted(numbered)
        ]
        pan = next((files[name] for name in ("pan.tif", "pan.tiff") if name in files), taken / "pan.tif")
        return Job(pan, tuple(ms) or (taken / "ms.tif",), self._outbox / f"{scene.name}.tif", self._model)

    def end(self, job: Job, event: Event) -> None:
        """Put a scene where it ends: `.done`, or `.failed` with its error."""
        taken = Path(job.pan).parent
        where = self._folder / (".done" if event["event"] == "done" else ".failed")
        where.mkdir(exist_ok=True)
        if event["event"] == "failed":
            (taken / "error.txt").write_text(event["error"] + "\n", encoding="utf-8")
        taken.rename(_free(where / taken.name))
        self.leave()

    def leave(self) -> None:
        """Take this process's folder away where it is empty."""
        with suppress(OSError):
            self._own.rmdir()

    def give_back(self) -> list[str]:
        """Put back what processes of this machine that are no more had taken; the scenes' names."""
        found = []
        for claim in self._folder.glob(".taken-*"):
            name = _CLAIM.fullmatch(claim.name)
            if (
                claim == self._own
                or not name
                or name["host"] != socket.gethostname()
                or _lives(int(name["process"]))
            ):
                continue
            for scene in sorted(claim.iterdir()):
                with suppress(OSError):  # another process may be doing the same
                    scene.rename(_free(self._folder / scene.name))
                    found.append(scene.name)
            with suppress(OSError):
                claim.rmdir()
        return found

    def _is_complete(self, scene: Path) -> bool:
        with suppress(OSError):  # it may have been taken meanwhile
            if (scene / READY).exists():
                return True
            changed = max((it.stat().st_mtime for it in (scene, *scene.iterdir())), default=0.0)
            return self._clock() - changed >= self._settle
        return False


def watch(
    inbox: Inbox, run: Run, tell: Callable[[Event], None], *, poll: float, once: bool, stop: Flag
) -> None:
    """Do scenes as they come, until `stop` is set, or with `once` until none is left that is complete.

    The scene that is under way is finished first. Raises PartialError or TotalError when some failed, or all.
    """
    done = failed = 0
    while not stop.is_set():
        for name in inbox.give_back():
            tell({"event": "given back", "scene": name})
        found = False
        for job in _taken(inbox, stop):
            found = True
            event = outcome(job, run)
            inbox.end(job, event)
            tell(event)
            done += event["event"] == "done"
            failed += event["event"] == "failed"
        if once and not found:
            break
        if not found:
            stop.wait(poll)
    inbox.leave()
    tell({"event": "end", "count": done + failed, "done": done, "failed": failed})
    require_all(failed, done + failed)


def _taken(inbox: Inbox, stop: Any) -> Iterator[Job]:
    for scene in inbox.waiting():
        if stop.is_set():
            return
        job = inbox.take(scene)
        if job is not None:
            yield job


def _free(path: Path) -> Path:
    """The path, or one beside it that nothing has yet."""
    number = 1
    free = path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True

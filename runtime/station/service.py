"""How are scenes done as they come, unattended? One after another, by a worker that may be lost.

What a scene is refused for costs that scene, at once. What nobody foresaw (a crash, a hang, an exception) is
tried `attempts.MOST` times. What is not the scene's fault (an inbox that is gone, an outbox that is full, a
device that is lost) is waited for, with pauses that grow, and no scene is failed by it. With `once` there is
no waiting: the scenes stay where they are, and the error is the command's.
"""

from __future__ import annotations

import glob
import re
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event as Flag
from typing import Any, Protocol

from sfiin.runtime.errors import InputError, OutputError, SfiinError, StoppedError, UnavailableError
from sfiin.runtime.scenes.journal import discard
from sfiin.runtime.station import attempts
from sfiin.runtime.station.events import Event, Kind, Tell
from sfiin.runtime.station.inbox import Inbox
from sfiin.runtime.station.jobs import require_all

LONGEST = 60.0
"""Seconds of a pause at most."""

IN_A_ROW = 3
"""Scenes that are tried with `once` although none of them could be done."""

_STEP = 0.25


class Asked(Protocol):
    """Who works on scenes: `sfiin.runtime.station.isolation.WorkerProcess`, or a test's."""

    def ask(self, request: dict[str, Any], stop: Flag | None = None, timeout: float | None = None) -> Event:
        """What became of it."""
        ...

    def recycle(self) -> None:
        """End the process that works."""
        ...


@dataclass
class Tally:
    """Scenes that came to an end; `stuck` ones can be neither done nor set aside."""

    done: int = 0
    failed: int = 0
    stuck: int = 0


@dataclass
class _Trouble:
    """What the station waits for: `error` in words, how often it was waited for, how many scenes met it in a
    row, and which did, the last one last."""

    error: SfiinError | None = None
    times: int = 0
    in_a_row: int = 0
    behind: list[str] = field(default_factory=list)


class Service:
    """An inbox that is served. `tell` is told of everything that happens, as a document each."""

    def __init__(
        self,
        inbox: Inbox,
        worker: Asked,
        tell: Tell,
        *,
        poll: float,
        once: bool,
        stop: Flag,
    ) -> None:
        self._inbox, self._worker, self._tell = inbox, worker, tell
        self._poll, self._once, self._stop = poll, once, stop
        self._attempts = attempts.Attempts(inbox.folder)
        self._tally = Tally()
        self._trouble = _Trouble()

    def serve(self) -> None:
        """Do scenes as they come until told to stop, or with `once` until none is left that is complete.

        Raises PartialError or TotalError when some failed, or all; with `once` also OutputError, InputError
        or UnavailableError for what else would be waited for.
        """
        began = time.monotonic()
        try:
            while not self._stop.is_set():
                worked = self._round()
                if self._trouble.error:
                    self._wait(self._trouble.error)
                elif not worked:
                    if self._once and not self._more_to_come(began):
                        break
                    self._stop.wait(min(self._poll, _STEP) if self._once else self._poll)
        finally:
            self._inbox.leave()
        count = self._tally.done + self._tally.failed
        self._tell(Event("end", count=count, done=self._tally.done, failed=self._tally.failed))
        stuck = self._tally.stuck if self._once else 0
        require_all(self._tally.failed + stuck, count + stuck)

    def _round(self) -> bool:
        """Look at the inbox, and do what is complete; whether anything was."""
        self._trouble.error = None
        worked = False
        try:
            self._inbox.check_mounts()
            if self._inbox.claim.hold():
                self._worker.recycle()  # the next one inherits the new claim's lock
            for name in self._inbox.recover():
                self._tell(Event("given back", scene=name))
            for name in self._queue():
                if self._stop.is_set():
                    break
                worked |= self._do(name)
                if self._trouble.error and (not self._once or self._trouble.in_a_row >= IN_A_ROW):
                    break
        except OSError as error:
            self._trouble.error = self._unusable(error)
        if not self._trouble.error:
            self._trouble = _Trouble()
        return worked

    def _unusable(self, error: OSError) -> SfiinError:
        why = error.strerror or str(error)
        if str(error.filename) == str(self._inbox.outbox):
            return OutputError(f"{self._inbox.outbox}: the outbox cannot be used ({why}); check the share")
        return InputError(
            f"{self._inbox.folder}: the inbox cannot be used ({why}); check the share and permissions"
        )

    def _queue(self) -> Iterator[str]:
        """Scenes that are complete: those first that were tried least, then by name."""
        seen = self._inbox.look()
        self._tell(Event("look", waiting=len(seen)))
        counted = self._attempts.counted()

        behind = {name: number for number, name in enumerate(self._trouble.behind, start=1)}

        def order(name: str) -> tuple[int, int, str]:
            count = self._attempts.of(name) if counted else attempts.Count()
            return behind.get(name, 0), count.failed + count.interrupted + count.under_way, name

        for name in sorted(seen, key=order):
            found = seen[name]
            if found.error:
                self._tell_stuck(name)
            if self._inbox.is_settled(found) and (found.ready or self._is_complete(name)):
                yield name

    def _is_complete(self, name: str) -> bool:
        """Whether PAN and MS are there; looked at once for as long as the files stay the same."""
        seen = self._inbox.look_at(name)
        if seen.complete is None and not seen.files:
            seen.complete = False
        if seen.complete is None:
            answer = self._asked({"look": str(self._inbox.folder / name)}, timeout=60.0)
            if answer.event == "stopped":
                return False
            # What cannot even be looked at is taken, so that it ends with its reason.
            seen.complete = answer.event != "incomplete"
            if not seen.complete:
                self._tell(Event("incomplete", scene=name, error=answer.error))
        return seen.complete

    def _do(self, name: str) -> bool:
        """Take a scene and do it; False where another process was faster."""
        taken = self._inbox.take(name)
        if taken is None:
            if self._inbox.look_at(name).error:
                self._tell_stuck(name)
            return False
        count = self._attempts.begin(name)
        if count.failed >= attempts.MOST or count.interrupted >= attempts.MOST_INTERRUPTED:
            self._fail(taken, self._worn_out(count))
            return True
        self._tell(Event("begin", scene=name, attempt=count.failed + 1))
        try:
            name.encode()
        except UnicodeEncodeError:
            self._fail(taken, Event("failed", error="the folder's name is not UTF-8; rename it", exit_code=3))
            return True
        answer = self._asked({"scene": str(taken), "name": name, "outbox": str(self._inbox.outbox)})
        self._ended(taken, answer)
        return True

    def _tell_stuck(self, name: str) -> None:
        """Say, once, that a scene can neither be done nor be set aside."""
        seen = self._inbox.look_at(name)
        if not seen.told:
            seen.told = True
            self._tally.stuck += 1
            error = f"{name}: {seen.error}; give the watcher's user permission, or take it away"
            self._tell(Event("incomplete", scene=name, error=error))

    def _asked(self, request: dict[str, Any], timeout: float | None = None) -> Event:
        try:
            return self._worker.ask(request, self._stop, timeout)
        except SfiinError as error:  # no worker can be had
            return Event(
                "failed",
                error=str(error),
                blame="station",
                kind=type(error).__name__,
                exit_code=error.exit_code,
            )

    def _ended(self, taken: Path, answer: Event) -> None:
        name = taken.name
        if answer.event == "done":
            self._trouble.times = self._trouble.in_a_row = 0
            self._inbox.end(taken)
            self._attempts.forget(name)
            self._tally.done += 1
            self._tell(answer)
        elif not taken.is_dir():
            self._lost(name)
        elif answer.event == "stopped":
            self._give_back(taken)
        elif answer.blame == "station":
            self._give_back(taken)
            self._trouble.error = _as_error(answer)
            self._trouble.in_a_row += 1
            self._trouble.behind = [*(other for other in self._trouble.behind if other != name), name]
        elif answer.blame == "scene":
            self._fail(taken, answer)
        else:
            self._unforeseen(taken, answer)

    def _unforeseen(self, taken: Path, answer: Event) -> None:
        """A crash, a hang, an error that nobody foresaw: try again, but not for ever."""
        count = self._attempts.failed(taken.name)
        if count.failed >= attempts.MOST:
            self._fail(taken, answer.with_(error=f"{answer.error}; tried {count.failed} times"))
            return
        self._worker.recycle()  # what it has lost, such as a device, a new one has or says that it is gone
        self._tell(_told(answer, "try again", scene=taken.name, attempts=count.failed))
        self._inbox.put_back(taken)

    def _give_back(self, taken: Path) -> None:
        self._attempts.put_back(taken.name)
        self._inbox.put_back(taken)

    def _fail(self, taken: Path, answer: Event) -> None:
        self._inbox.end(taken, answer.error)
        self._attempts.forget(taken.name)
        self._tally.failed += 1
        self._discard(taken.name)
        output = self._inbox.outbox / f"{taken.name}.tif"
        self._tell(_told(answer, "failed", output=str(output), scene=taken.name))

    def _discard(self, name: str) -> None:
        """Take away the rows that a scene's crashed tries have kept in the outbox, or its versions'."""
        for folder in self._inbox.outbox.glob(f".{glob.escape(name)}*.tif.sfiin"):
            if re.fullmatch(rf"\.{re.escape(name)}(\.\d+)?\.tif\.sfiin", folder.name, re.DOTALL):
                discard(folder.with_name(folder.name[1:].removesuffix(".sfiin")))

    def _lost(self, name: str) -> None:
        """The scene is not in this process's folder any more: the share is away, or another one took it
        over."""
        if not self._inbox.folder.is_dir():
            raise FileNotFoundError(2, "is gone", str(self._inbox.folder))
        self._tell(Event("lost", scene=name))

    @staticmethod
    def _worn_out(count: attempts.Count) -> Event:
        if count.failed >= attempts.MOST:
            text = f"its process ended without a word {count.failed} times"
        else:
            text = f"the watcher was ended {count.interrupted} times while it was at work on it"
        return Event("failed", error=f"{text}; look at it by 'sfiin run'", exit_code=1)

    def _wait(self, error: SfiinError) -> None:
        if self._once:
            raise error
        self._trouble.times += 1
        pause = min(LONGEST, self._poll * 2 ** min(self._trouble.times - 1, 16))
        self._tell(Event("waiting", error=str(error), seconds=pause, times=self._trouble.times))
        self._stop.wait(pause)

    def _more_to_come(self, began: float) -> bool:
        """With `once`: whether something that is there will be known to be complete, or left, before long."""
        if self._inbox.undecided:
            return True
        if time.monotonic() - began > self._inbox.settle + 1.0:
            return False
        with suppress(OSError):
            return any(
                not seen.ready and seen.complete is None and seen.files
                for seen in self._inbox.look().values()
            )
        return False


def _told(answer: Event, event: Kind, **fields: Any) -> Event:
    """What is told of an answer that was an error."""
    kept = {name: getattr(answer, name) for name in ("error", "kind", "exit_code", "traceback", "said")}
    return Event(event, **kept, **fields)


def _as_error(answer: Event) -> SfiinError:
    text, code = answer.error or "", answer.exit_code
    if code == UnavailableError.exit_code:
        return UnavailableError(text)
    if code == StoppedError.exit_code:
        return StoppedError(text)
    return OutputError(text)

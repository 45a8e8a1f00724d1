"""What does a worker do? It works on the scenes that it is asked for, so that nothing they do reaches
further.

It is started by `sfiin.runtime.station.isolation` as a process of its own. Requests
come by standard input and replies go to the file descriptor that its argument names, a JSON document a line:

    {"settings": {...}, "model": ..., "inbox": bool, "memory": ...}     first; answered by ready or refused;
                                                      "rhythm" is how often a bundle's guard tests itself
    {"look": folder}                                  answered by complete, or by incomplete with a reason
    {"scene": folder, "name": ..., "outbox": ...}     a scene of an inbox
    {"job": {"pan": ..., "ms": [...], "output": ...}} a scene of a list
    {"test": true}                                    answered by tested, of a bundle
    {"stop": true}                                    at any time: finish the row at hand

The last answer to a scene is done, with its report, failed, whose `blame` is the scene's, the station's or
unknown, or stopped. When standard input ends, whoever asked is gone, and so is the worker.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
import time
import traceback
from contextlib import suppress
from pathlib import Path
from queue import Queue
from threading import Event as Flag
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any

from sfiin.runtime import children
from sfiin.runtime.errors import OutputError, SfiinError, StoppedError, UnavailableError, UntrustedError
from sfiin.runtime.station.events import Blame, Event

if TYPE_CHECKING:
    from sfiin.runtime.station.job import Job
    from sfiin.runtime.station.runner import Station

Request = dict[str, Any]

WRITERS = ("GTiff", "COG", "PNG", "MEM")
"""Drivers that a product needs."""

_OFTEN = 1.0  # seconds between signs of progress

_OF_THE_SCENE = (errno.ENAMETOOLONG, errno.EILSEQ, errno.ELOOP, errno.ENOTDIR)


class Worker:
    """The worker's side: models that stay open, and one scene after another."""

    def __init__(self, replies: int) -> None:
        self._replies, self._lock = replies, Lock()
        self._stop = Flag()
        self._requests: Queue[Request] = Queue()
        self._said = 0.0
        self._inbox = False
        self._model: Path | None = None
        self._station: Station | None = None

    def serve(self) -> None:
        """Answer requests until there are no more."""
        Thread(target=self._listen, name="requests", daemon=True).start()
        self._reply(self._set_up(self._requests.get()))
        while True:
            request = self._requests.get()
            self._reply(self._answer(request))
            self._stop.clear()

    def _listen(self) -> None:
        for line in sys.stdin.buffer:
            request = json.loads(line)
            if request.get("stop"):
                self._stop.set()
            else:
                self._requests.put(request)
        os._exit(0)  # whoever asked is gone; what is kept of the scene is on the disk

    def _reply(self, event: Event) -> None:
        with self._lock:
            content = json.dumps(event.document()).encode() + b"\n"
            while content:
                content = content[os.write(self._replies, content) :]

    def _set_up(self, setup: Request) -> Event:
        self._inbox = bool(setup["inbox"])
        try:
            limit_memory(setup["memory"])
            from sfiin.runtime.flight.guard import Rhythm
            from sfiin.runtime.station.job import Settings
            from sfiin.runtime.station.runner import Station

            rhythm = Rhythm(**setup["rhythm"]) if setup.get("rhythm") else None
            self._station = Station(Settings.of(setup["settings"]), rhythm)
            if setup["model"]:
                self._model = Path(setup["model"])
                self._station.open(self._model)
        except SfiinError as error:
            return Event("refused", error=one_line(error), exit_code=error.exit_code)
        except Exception as error:  # whatever a backend raises when it is loaded
            return Event("refused", error=unforeseen(error), exit_code=1)
        return Event("ready")

    def _answer(self, request: Request) -> Event:
        try:
            if "look" in request:
                return self._look(Path(request["look"]))
            if self._model and self._station:
                try:
                    self._station.open(self._model)
                except SfiinError as error:
                    return failure(error).with_(blame="station")
            return self._tested(self._station, self._model) if "test" in request else self._work(request)
        except StoppedError as error:
            return Event("stopped", error=str(error))
        except PermissionError as error:
            own = str(error.filename).startswith(f"{request.get('scene')}/")
            return failure(error).with_(blame="scene", error=_unreadable(error)) if own else failure(error)
        except Exception as error:  # this is what the worker is for: whatever a scene does ends that scene
            return failure(error)

    def _look(self, folder: Path) -> Event:
        from sfiin.runtime.scenes.access import Access
        from sfiin.runtime.station.delivery import delivery

        access = Access(folder) if self._inbox else None
        try:
            if access:
                access.check()
        except SfiinError:
            return Event("complete")  # no file to come makes it good; it is taken, and ends with its reason
        try:
            delivery(folder, self._bands(), access)
        except SfiinError as error:
            return Event("incomplete", error=one_line(error))
        return Event("complete")

    def _tested(self, station: Station | None, model: Path | None) -> Event:
        assert station is not None
        assert model is not None
        return Event("tested", guard=station.prove(model))

    def _work(self, request: Request) -> Event:
        assert self._station is not None
        job = self._job(request)
        report = self._station.run(job, self._progress, self._stop.is_set)
        return Event("done", output=report.output, report=report)

    def _job(self, request: Request) -> Job:
        from sfiin.runtime.scenes.access import Access
        from sfiin.runtime.scenes.names import named
        from sfiin.runtime.station.delivery import delivery
        from sfiin.runtime.station.job import Job
        from sfiin.runtime.station.remote import split

        if "job" in request:
            job = request["job"]
            model = Path(job["model"]) if job["model"] else self._model
            place, upload = split(job["output"])
            return Job(named(job["pan"]), tuple(map(named, job["ms"])), place, model, upload=upload)
        folder = Path(request["scene"])
        access = Access(folder) if self._inbox else None
        if access:
            access.check()
        found = delivery(folder, self._bands(), access)
        output = Path(request["outbox"]) / f"{request['name']}.tif"
        acquired = found.acquired.isoformat() if found.acquired else None
        return Job(found.pan, found.ms, output, self._model, access, found.bands, acquired)

    def _bands(self) -> int | None:
        """MS bands of the model, where one was given."""
        if self._model is None:
            return None
        assert self._station is not None
        return len(self._station.contract(self._model).sensor.bands)

    def _progress(self, done: int, total: int) -> None:
        now = time.monotonic()
        if now - self._said >= _OFTEN:
            self._said = now
            from sfiin.runtime.station.budget import peak

            self._reply(Event("progress", done=done, total=total, memory=peak()))


def failure(error: Exception) -> Event:
    """A scene's end by an error."""
    known = isinstance(error, (SfiinError, OSError, MemoryError))
    return Event(
        "failed",
        error=one_line(error) if known else unforeseen(error),
        kind=type(error).__name__,
        exit_code=getattr(error, "exit_code", 1),
        blame=blame(error),
        traceback="".join(traceback.format_exception(error)),
    )


def blame(error: BaseException) -> Blame:
    """Whose fault an error is.

    What a scene is refused for would be refused again; an error that nobody foresaw might not come again, nor
    a change in the middle; a disk or a device comes back.
    """
    from sfiin.runtime.scenes.identity import ChangedError

    if isinstance(error, (ChangedError, UntrustedError)):
        return "unknown"
    if isinstance(error, UnavailableError):
        return "station"
    if isinstance(error, OutputError):
        cause = error.__cause__
        of_scene = isinstance(cause, OSError) and cause.errno in _OF_THE_SCENE
        return "scene" if of_scene else "station"
    if isinstance(error, SfiinError):
        return "scene" if type(error) is not SfiinError else "unknown"
    if isinstance(error, OSError):
        return "scene" if error.errno in _OF_THE_SCENE else "station" if error.errno else "unknown"
    return "unknown"


def _unreadable(error: OSError) -> str:
    name = Path(str(error.filename)).name
    return (
        f"{name}: cannot be read ({error.strerror}); give the watcher's user permission, and deliver it again"
    )


def one_line(error: BaseException) -> str:
    """An error's text in one line, or its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__


def unforeseen(error: BaseException) -> str:
    """The same of an error that is no refusal: its kind, and where it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    at = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    return f"unforeseen {type(error).__name__}: {one_line(error)[:300]}{at}"


def limit_memory(limit: int | None) -> None:
    """Bound this process' data, so that it fails before the machine does, and be the first to go where it
    does not."""
    if limit:
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("800", encoding="ascii")


def restrict_drivers() -> None:
    """Start again with no other drivers of GDAL than uploads and products need, and no network.

    GDAL opens files by itself, such as overviews and masks, and goes by their content.
    """
    if os.environ.get(_RESTRICTED):
        return
    import rasterio

    from sfiin.runtime.scenes.access import DRIVERS

    with rasterio.Env() as env:
        unwanted = sorted(set(env.drivers()) - {*DRIVERS, *WRITERS})
    os.environ |= {
        _RESTRICTED: "1",
        "GDAL_SKIP": ",".join(unwanted),
        "CPL_VSIL_CURL_ALLOWED_EXTENSIONS": ".none",
        "GDAL_HTTP_PROXY": "127.0.0.1:1",
        "PROJ_NETWORK": "OFF",
        "GDAL_DRIVER_PATH": "disable",
    }
    os.execv(sys.executable, children.command("sfiin.runtime.station.worker", *sys.argv[1:]))


_RESTRICTED = "SFIIN_WORKER_RESTRICTED"


def main() -> None:
    """Serve; the arguments are the descriptor for replies and, for an inbox of uploads, "inbox"."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)  # who asked is told, and tells
    if "inbox" in sys.argv[2:]:
        restrict_drivers()
    Worker(int(sys.argv[1])).serve()


if __name__ == "__main__":
    main()

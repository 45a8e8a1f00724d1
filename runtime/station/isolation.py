"""How is a scene worked on, so that it can end nothing but its own work? By another process, which is asked.

The worker (`sfiin.runtime.station.worker`) keeps models open from scene to scene. Requests go to its standard
input and replies come through a pipe of their own, a JSON document a line; what native libraries print is
kept for the log. Where it crashes, is killed, or says nothing for too long, the answer is an event like any
other, and the next request starts a new one. A worker ends by itself when the process that started it is
gone.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from threading import Event as Flag
from threading import Thread
from typing import IO, Any, Literal

from sfiin.runtime import children
from sfiin.runtime.errors import SfiinError
from sfiin.runtime.station.events import Event

STALL = 1800.0
"""Seconds without a sign of progress after which a worker counts as hanging."""

GRACE = 8.0
"""Seconds that a worker has to finish the row at hand once it is told to stop."""

START = 120.0
"""Seconds that a worker has to load what it needs."""

_LOOK = 0.25
_KEPT = 4096  # bytes of what a worker printed


class RefusedError(SfiinError):
    """A worker could not be set up; the message and the exit code are the worker's."""

    def __init__(self, text: str, exit_code: int) -> None:
        super().__init__(text)
        self.exit_code = exit_code


class LostError(RefusedError):
    """A worker was lost while it was set up; another one may do better."""


class WorkerProcess:
    """One process for all scenes, replaced where it is lost. Close it, or use it as a context.

    `setup` is the worker's first line. `inherit` gives a file descriptor that lives as long as any worker
    does, as a claim's lock.
    """

    def __init__(
        self,
        setup: Mapping[str, Any],
        *,
        inherit: Callable[[], int | None] = lambda: None,
        timeout: float | None = None,
        stall: float = STALL,
    ) -> None:
        self._setup, self._inherit = setup, inherit
        self._timeout, self._stall = timeout, stall
        self._process: subprocess.Popen[bytes] | None = None
        self._replies: _Lines | None = None
        self._said = _Tail()
        self.peak = 0
        """Bytes of memory that workers have had at most, as they said."""

    def start(self, stop: Flag | None = None) -> None:
        """Have a worker that is ready. Raises RefusedError where it says that it cannot be."""
        if self._process is not None and self._process.poll() is None:
            return
        self.close()
        reading, writing = os.pipe()
        held = self._inherit()
        command = children.command("sfiin.runtime.station.worker", str(writing))
        if self._setup["inbox"]:
            command.append("inbox")
        try:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[writing, *([] if held is None else [held])],
            )
        except OSError as error:  # no memory, no processes left
            os.close(reading)
            raise LostError(f"the worker cannot be started ({error.strerror})", 1) from None
        finally:
            os.close(writing)
        self._replies = _Lines(reading)
        self._said = _Tail()
        assert self._process.stderr is not None
        self._said.follow(self._process.stderr)
        answer = self._ask(dict(self._setup), START, START, stop)
        if answer.event == "refused":
            raise RefusedError(answer.error or "", answer.exit_code or 1)
        if answer.event == "crashed":
            raise LostError(f"the worker cannot be started: {answer.error}", 1)

    def ask(
        self, request: Mapping[str, Any], stop: Flag | None = None, timeout: float | None = None
    ) -> Event:
        """The worker's answer: its own event, or "crashed" or "stopped"; `error` says how, in a line.

        Raises RefusedError where no worker can be started.
        """
        self.start(stop)
        return self._ask(request, timeout or self._timeout, self._stall, stop)

    def recycle(self) -> None:
        """End the worker; the next request starts another one, which inherits what is to be inherited
        then."""
        self.close()

    def close(self) -> None:
        """End the worker, gently if it is idle."""
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        try:
            process.wait(1.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if self._replies is not None:
            self._replies.close()
        self._said.end()

    def __enter__(self) -> WorkerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _ask(
        self, request: Mapping[str, Any], timeout: float | None, stall: float, stop: Flag | None
    ) -> Event:
        began = heard = time.monotonic()
        told: float | None = None
        if not self._send(request):
            return self._lost("ended before it was asked")
        assert self._replies is not None
        while True:
            answer = self._replies.next(_LOOK)
            now = time.monotonic()
            if answer == "ended":
                return self._lost("ended")
            if isinstance(answer, Event):
                if answer.event != "progress":
                    return answer
                heard = now
                self.peak = max(self.peak, answer.memory or 0)
            if told is None and stop is not None and stop.is_set():
                told = now
                self._send({"stop": True})
            if told is not None and now - told > GRACE:
                self._kill()
                return Event("stopped", error="stopped before its row of tiles was done")
            if timeout is not None and now - began > timeout:
                return self._hangs(f"was not done within {timeout:g} s")
            if now - heard > stall:
                return self._hangs(f"made no progress for {stall:g} s")

    def _send(self, request: Mapping[str, Any]) -> bool:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return False
        return True

    def _hangs(self, how: str) -> Event:
        self._kill()
        return Event("crashed", error=how, said=self._said.text())

    def _lost(self, how: str) -> Event:
        process = self._process
        assert process is not None
        with suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
        code = process.returncode
        if code is None:
            how = "fell silent"
        elif code < 0:
            how = f"was killed by {_signal(-code)}"
        elif code:
            how = f"ended with exit code {code}"
        self._kill()
        return Event("crashed", error=f"its process {how}", said=self._said.text())

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._said.end()
            self.close()


class _Lines:
    """JSON documents from a pipe, a line each."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor: int | None = descriptor
        self._buffer = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(descriptor, selectors.EVENT_READ)

    def next(self, wait: float) -> Event | Literal["ended"] | None:
        """The next one; None where none came within `wait` seconds, "ended" where none will come any more."""
        while b"\n" not in self._buffer:
            if self._descriptor is None:
                return "ended"
            if not self._selector.select(wait):
                return None
            more = os.read(self._descriptor, 1 << 16)
            if not more:
                return "ended"
            self._buffer += more
        line, _, self._buffer = self._buffer.partition(b"\n")
        return Event.of(json.loads(line))

    def close(self) -> None:
        if self._descriptor is not None:
            self._selector.close()
            os.close(self._descriptor)
            self._descriptor = None


class _Tail:
    """The last bytes that a process printed."""

    def __init__(self) -> None:
        self._bytes = b""
        self._thread: Thread | None = None

    def follow(self, stream: IO[bytes]) -> None:
        def read() -> None:
            with stream:
                while more := os.read(stream.fileno(), 1 << 14):
                    self._bytes = (self._bytes + more)[-_KEPT:]

        self._thread = Thread(target=read, name="stderr", daemon=True)
        self._thread.start()

    def end(self) -> None:
        if self._thread is not None:
            self._thread.join(1.0)

    def text(self) -> str:
        return self._bytes.decode("utf-8", errors="replace")


def _signal(number: int) -> str:
    with suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"

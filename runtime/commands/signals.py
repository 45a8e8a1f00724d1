"""How does a long command end when it is told to? By a flag that is looked at, or by an exception that lets
everything clean up after itself."""

from __future__ import annotations

import signal
import threading
from threading import Event
from types import FrameType

from sfiin.runtime.errors import StoppedError

GRACE = 6.0
"""Seconds in which the row of tiles at hand may be finished."""


class Terminated(SystemExit):
    """SIGTERM came; an exception, so that half-written files go on the way out."""


def stopping(patience: float | None = None) -> Event:
    """Set by the first SIGTERM or SIGINT; the second one ends the process as ever.

    With `patience`, StoppedError is raised in the main thread where the work has not ended so many seconds
    later.
    """
    stop = Event()

    def give_up(_number: int, _frame: FrameType | None) -> None:
        raise StoppedError("stopped; what is done is kept, start again to go on")

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        if patience is not None:
            signal.signal(signal.SIGALRM, give_up)
            signal.setitimer(signal.ITIMER_REAL, patience)
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


def ended() -> None:
    """The work of `stopping` has come to its end: nothing is raised any more."""
    signal.setitimer(signal.ITIMER_REAL, 0)


def raise_on_term() -> None:
    """Let SIGTERM raise `Terminated` in the main thread, with the shell's exit code for it, 143."""

    def handle(number: int, _frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)

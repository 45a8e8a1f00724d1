"""How does a long command end when it is told to? By a flag that is looked at, or by an exception that lets
everything clean up after itself."""

from __future__ import annotations

import signal
import threading
from threading import Event
from types import FrameType


class Terminated(SystemExit):
    """SIGTERM came; an exception, so that half-written files go on the way out."""


def stopping() -> Event:
    """Set by the first SIGTERM or SIGINT; the second one ends the process as ever."""
    stop = Event()

    def handle(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        for again in (signal.SIGTERM, signal.SIGINT):
            signal.signal(again, signal.default_int_handler)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    return stop


def raise_on_term() -> None:
    """Let SIGTERM raise `Terminated` in the main thread, with the shell's exit code for it, 143."""

    def handle(number: int, _frame: FrameType | None) -> None:
        raise Terminated(128 + number)

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handle)

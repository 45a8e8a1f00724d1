"""How does a long loop end in an orderly way when it is told to stop? At the end of the step that it is
at."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def stoppable() -> Iterator[Callable[[], bool]]:
    """Yield what says whether an interrupt (Ctrl-C) or a request to end has come.

    The second one ends the process as it would without this. Outside the main thread, which alone is told of
    signals, nothing ever comes.
    """
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told.is_set
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)

    def note(_number: int, _frame: FrameType | None) -> None:
        told.set()
        restore()

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield told.is_set
    finally:
        restore()

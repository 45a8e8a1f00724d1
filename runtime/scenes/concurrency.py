"""How do reading, computing and writing go on at once? A thread before the loop, and a thread behind it.

Both hold a bounded number of things, so memory stays bounded. What fails in a thread is raised in the loop,
as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from queue import Full, Queue
from threading import Event, Thread
from types import TracebackType
from typing import Any, TypeVar

_T = TypeVar("_T")

_WAIT = 0.1  # seconds between looks at whether the other side is still there


def ahead(items: Iterable[_T], depth: int) -> Generator[_T, None, None]:
    """The items in order, made in a thread of their own, at most `depth` of them before they are asked for.

    What the items raise is raised in their place. When the generator is closed the thread ends with the item
    that it is at.
    """
    queue: Queue[tuple[str, Any]] = Queue(depth)
    given_up = Event()

    def make() -> None:
        try:
            for item in items:
                if not _put(queue, ("item", item), given_up):
                    return
            _put(queue, ("end", None), given_up)
        except BaseException as error:
            _put(queue, ("error", error), given_up)

    thread = Thread(target=make, name="reader", daemon=True)
    thread.start()
    try:
        while (message := queue.get())[0] == "item":
            yield message[1]
        if message[0] == "error":
            raise message[1]
    finally:
        given_up.set()
        thread.join()


class Behind:
    """A thread that does what it is given, in order, at most `depth` pieces of work behind.

    After a failure nothing more is done, and the next call of `do`, or the end of the block, raises it. When
    the block ends with an error of its own, what is waiting is not done.
    """

    def __init__(self, depth: int) -> None:
        self._queue: Queue[Callable[[], object] | None] = Queue(depth)
        self._failure: BaseException | None = None
        self._stopped = Event()
        self._thread = Thread(target=self._work, name="writer", daemon=True)

    def do(self, work: Callable[[], object]) -> None:
        """Have something done, once there is room for it."""
        self._raise()
        self._queue.put(work)

    def __enter__(self) -> Behind:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if error is not None:
            self._stopped.set()
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def _work(self) -> None:
        while (work := self._queue.get()) is not None:
            if self._failure or self._stopped.is_set():
                continue  # so that nobody waits for room
            try:
                work()
            except BaseException as error:
                self._failure = error

    def _raise(self) -> None:
        if self._failure is not None:
            raise self._failure


def _put(queue: Queue[tuple[str, Any]], message: tuple[str, Any], given_up: Event) -> bool:
    """Whether there was room before the other side gave up."""
    while not given_up.is_set():
        try:
            queue.put(message, timeout=_WAIT)
        except Full:
            continue
        return True
    return False

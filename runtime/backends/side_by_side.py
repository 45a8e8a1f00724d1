"""How are tiles computed on several cores? Side by side, each by one thread, rather than one by all.

So a tile's bytes do not depend on the number of threads, no thread waits for another within a tile, and none
spins. What computes a tile must be able to do so in as many threads at once.
"""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Batch = tuple[NDArray[np.float32], NDArray[np.float32]]
"""`ms` (N, B, h, w) and `pan` (N, 1, H, W)."""

Compute = Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[np.float32]]
"""From a piece of a batch to its results, (N, B, H, W)."""


QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""Where Linux says how much CPU time a container gets: microseconds, or "max", of so many."""


def cores(threads: int = 0, quota: Path = QUOTA) -> int:
    """So many threads, or for 0 as many as the process may use CPUs: those that it may run on, or fewer where
    a container gets less of their time."""
    if threads:
        return threads
    there = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        time, period = map(int, quota.read_text().split())
    except (OSError, ValueError):  # no such file, or "max": all that there are
        return there
    return max(1, min(there, math.ceil(time / period)))


class SideBySide:
    """Computes batches in pieces of `piece` tiles, `threads` of them at once."""

    def __init__(self, compute: Compute, threads: int, piece: int = 1) -> None:
        self.threads, self._compute, self._piece = threads, compute, piece
        self._pool = ThreadPoolExecutor(threads, "tile")

    def run(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        """The results of one batch. Raises what computing raises."""
        if self.threads == 1 or len(ms) <= self._piece:
            return _joined([self._compute(*part) for part in self._parts(ms, pan)])
        return _finished(self._begun(ms, pan))

    def run_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """The results of each batch, in order; the next ones are under way meanwhile."""
        if self.threads == 1:
            yield from (self.run(*batch) for batch in batches)
            return
        waiting: deque[list[Future[NDArray[np.float32]]]] = deque()
        try:
            for batch in batches:
                waiting.append(self._begun(*batch))
                while len(waiting) > 1 and sum(map(len, waiting)) > self.threads:
                    yield _finished(waiting.popleft())
            while waiting:
                yield _finished(waiting.popleft())
        finally:  # of what nobody asks for any more, no more is begun
            for piece in (piece for pieces in waiting for piece in pieces):
                piece.cancel()

    def close(self) -> None:
        """End the threads, once they have done what is under way."""
        self._pool.shutdown()

    def _begun(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> list[Future[NDArray[np.float32]]]:
        return [self._pool.submit(self._compute, *part) for part in self._parts(ms, pan)]

    def _parts(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> Iterator[Batch]:
        size = self._piece
        return ((ms[at : at + size], pan[at : at + size]) for at in range(0, len(ms), size))


def _finished(pieces: Sequence[Future[NDArray[np.float32]]]) -> NDArray[np.float32]:
    return _joined([piece.result() for piece in pieces])


def _joined(pieces: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

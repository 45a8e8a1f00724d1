"""Tiles side by side: in order, one thread each, and what fails is raised."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfiin.runtime.backends.side_by_side import SideBySide, cores


def batch(first: int, count: int) -> tuple[Any, Any]:
    numbers = np.arange(first, first + count, dtype=np.float32)[:, None, None, None]
    return numbers, numbers * 10


def add(ms: Any, pan: Any) -> Any:
    return ms + pan


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("piece", [1, 3])
def test_results_come_in_order_and_whole(threads: int, piece: int) -> None:
    sizes = [1, 4, 2, 7, 1, 1]
    batches = [batch(10 * i, size) for i, size in enumerate(sizes)]
    tiles = SideBySide(add, threads, piece)
    try:
        found = list(tiles.run_many(iter(batches)))
        again = [tiles.run(*one) for one in batches]
    finally:
        tiles.close()
    for results in (found, again):
        assert all(np.array_equal(x, ms * 11) for x, (ms, _) in zip(results, batches, strict=True))


def test_so_many_are_computed_at_once() -> None:
    together = threading.Barrier(3)

    def meet(ms: Any, pan: Any) -> Any:
        together.wait(60)  # breaks unless three are here at once
        return ms

    tiles = SideBySide(meet, 3)
    try:
        assert len(tiles.run(*batch(0, 6))) == 6
        assert len(list(tiles.run_many(batch(i, 1) for i in range(3)))) == 3
    finally:
        tiles.close()


def test_a_failure_is_raised_and_no_more_is_begun() -> None:
    begun: list[float] = []

    def fail(ms: Any, pan: Any) -> Any:
        begun.append(float(ms[0, 0, 0, 0]))
        if begun[-1] == 1:
            raise ValueError("no")
        return ms

    tiles = SideBySide(fail, 2)
    try:
        with pytest.raises(ValueError, match="no"):
            list(tiles.run_many(batch(i, 1) for i in range(100)))
    finally:
        tiles.close()
    assert len(begun) < 10


@pytest.mark.parametrize(
    ("said", "wanted"),
    [("max 100000", 64), ("150000 100000", 2), ("50000 100000", 1), ("9900000 100000", 64), ("", 64)],
)
def test_as_many_as_the_process_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str, wanted: int
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: range(64))
    quota = tmp_path / "cpu.max"
    assert cores(0, quota) == 64
    quota.write_text(said)
    assert cores(0, quota) == wanted
    assert cores(3, quota) == 3

"""Counts of tries on the disk: what counts, what does not, and names that are hardly names."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfiin.runtime.station.attempts import Attempts, Count


def test_failures_are_counted_across_restarts(tmp_path: Path) -> None:
    for number in range(3):
        assert Attempts(tmp_path).begin("a") == Count(number, 0, True)
        assert Attempts(tmp_path).failed("a") == Count(number + 1, 0, False)
    assert Attempts(tmp_path).of("a").failed == 3
    Attempts(tmp_path).forget("a")
    assert Attempts(tmp_path).of("a") == Count()
    assert not list(tmp_path.iterdir())


def test_a_try_without_an_end_was_interrupted(tmp_path: Path) -> None:
    counts = Attempts(tmp_path)
    counts.begin("a")
    assert counts.begin("a") == Count(0, 1, True)
    counts.failed("a")
    assert counts.begin("a") == Count(1, 1, True)


def test_what_is_put_back_does_not_count(tmp_path: Path) -> None:
    counts = Attempts(tmp_path)
    for _ in range(5):
        counts.begin("a")
        counts.put_back("a")
    assert counts.of("a") == Count()
    counts.begin("a")
    counts.failed("a")
    counts.begin("a")
    counts.put_back("a")
    assert counts.of("a") == Count(1, 0, False)


@pytest.mark.parametrize("name", ["n" * 255, "\udce9t\udce9", "new\nline", ".."])
def test_any_name_can_be_counted(tmp_path: Path, name: str) -> None:
    counts = Attempts(tmp_path)
    counts.begin(name)
    assert counts.of(name).under_way
    assert not counts.of("other").under_way


@pytest.mark.parametrize("content", ["", "[]", '{"failed": "x"}', "{", '{"failed": null}'])
def test_what_cannot_be_read_counts_as_nothing(tmp_path: Path, content: str) -> None:
    counts = Attempts(tmp_path)
    counts.begin("a")
    (path,) = (tmp_path / ".attempts").iterdir()
    path.write_text(content)
    assert counts.of("a") == Count()


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inbox = tmp_path / "in"
    inbox.mkdir()
    (inbox / ".attempts").symlink_to(outside)
    assert Attempts(inbox).begin("a").under_way
    assert not list(outside.iterdir())
    assert not (inbox / ".attempts").is_symlink()

"""Whose fault an error is, and how it is told."""

from __future__ import annotations

import pytest

from sfiin.runtime.errors import (
    AlignmentError,
    InputError,
    MismatchError,
    OutputError,
    SceneError,
    SfiinError,
    UnavailableError,
)
from sfiin.runtime.scenes.identity import ChangedError
from sfiin.runtime.station.worker import blame, failure


def caused(number: int) -> OutputError:
    error = OutputError("cannot be written")
    error.__cause__ = OSError(number, "why")
    return error


@pytest.mark.parametrize(
    ("error", "whose"),
    [
        (SceneError("dark"), "scene"),
        (InputError("no model"), "scene"),
        (MismatchError("bands"), "scene"),
        (AlignmentError("shift"), "scene"),
        (UnavailableError("no GPU"), "station"),
        (OutputError("does not read back as written"), "station"),
        (caused(28), "station"),  # no space
        (caused(30), "station"),  # read only
        (caused(36), "scene"),  # the name is too long
        (OSError(116, "stale file handle"), "station"),
        (OSError(5, "input/output error"), "station"),
        (OSError(40, "too many links"), "scene"),
        (SfiinError("not finite"), "unknown"),
        (ChangedError("changed while it was read"), "unknown"),
        (MemoryError(), "unknown"),
        (ValueError("NaN"), "unknown"),
    ],
    ids=repr,
)
def test_blame(error: Exception, whose: str) -> None:
    assert blame(error) == whose
    assert failure(error).blame == whose


def test_what_nobody_foresaw_says_where_it_was() -> None:
    empty: dict[str, int] = {}
    try:
        empty["x"]
    except KeyError as error:
        found = failure(error)
    assert (found.error or "").startswith("unforeseen KeyError: 'x' (test_worker.py, line ")
    assert "Traceback" in (found.traceback or "")
    assert "\n" not in (found.error or "")

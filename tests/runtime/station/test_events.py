"""Events as JSON: there and back, and nothing but what belongs to them."""

from __future__ import annotations

import json

import pytest

from sfiin.runtime.errors import InputError
from sfiin.runtime.station.events import Event
from sfiin.runtime.station.run_report import RunReport


def test_there_and_back(report: RunReport) -> None:
    for event in (
        Event("done", output="a.tif", report=report),
        Event("waiting", error="no disk", seconds=2.5, times=3),
    ):
        assert Event.of(json.loads(json.dumps(event.document()))) == event


def test_what_is_none_is_left_out() -> None:
    assert Event("end", count=2, done=2, failed=0).document() == {
        "event": "end",
        "count": 2,
        "done": 2,
        "failed": 0,
    }


@pytest.mark.parametrize("document", [{}, {"event": "dance"}, {"event": "done", "tiles": 3}, []])
def test_what_is_no_event(document: object) -> None:
    with pytest.raises(InputError, match="event"):
        Event.of(document)  # type: ignore[arg-type]

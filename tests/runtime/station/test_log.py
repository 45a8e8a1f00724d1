"""A log of JSON lines."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

import pytest

from sfiin.runtime.errors import OutputError
from sfiin.runtime.station.events import Event
from sfiin.runtime.station.log import Log


def test_lines_are_documents_with_time_and_level(tmp_path: Path) -> None:
    path = tmp_path / "log"
    for _ in range(2):
        with Log(path) as log:
            log.write(Event("failed", error="new\nline \udce9", traceback="Traceback\n  ..."))
            log.write(Event("look", waiting=3))
            log.write(Event("done", output="a.tif"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(line["level"], line["event"]) for line in lines] == [("error", "failed"), ("info", "done")] * 2
    assert lines[0]["traceback"].startswith("Traceback")
    assert datetime.fromisoformat(lines[0]["time"]).tzinfo is not None


def test_stderr_and_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    Log(None).write(Event("done"))
    with Log(Path("-")) as log:
        log.write(Event("done"))
    assert json.loads(capsys.readouterr().err)["event"] == "done"


def test_a_folder_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"):
        Log(tmp_path / "none" / "log")

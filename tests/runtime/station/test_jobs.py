"""Lists of scenes: what is wrong with one is told before the first scene; then one bad scene costs itself
alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from threading import Event as Flag
from typing import Any

import pytest

from sfiin.runtime.errors import (
    InputError,
    OutputError,
    PartialError,
    SceneError,
    StoppedError,
    TotalError,
)
from sfiin.runtime.station.events import Event
from sfiin.runtime.station.job import Job
from sfiin.runtime.station.jobs import read, run_all
from sfiin.runtime.station.run_report import RunReport, Standing
from sfiin.runtime.station.worker import failure


def listed(folder: Path, text: str, *names: str) -> Path:
    for name in names:
        (folder / name).write_text("")
    (folder / "jobs.csv").write_text(text, encoding="utf-8")
    return folder / "jobs.csv"


def test_a_list_is_read_relative_to_its_folder(tmp_path: Path) -> None:
    path = listed(
        tmp_path,
        "\ufeffoutput,pan,ms,model\no.tif,p.tif,b.tif; g.tif,m.onnx\nq.tif,p.tif,b.tif,\n",
        "p.tif",
        "b.tif",
        "g.tif",
        "m.onnx",
    )
    default = tmp_path / "p.tif"
    assert read(path, default) == [
        Job(
            tmp_path / "p.tif",
            (tmp_path / "b.tif", tmp_path / "g.tif"),
            tmp_path / "o.tif",
            tmp_path / "m.onnx",
        ),
        Job(tmp_path / "p.tif", (tmp_path / "b.tif",), tmp_path / "q.tif", default),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "pan;ms;output\np.tif;b.tif;o.tif\n",
        'pan;ms;output\np.tif;"b.tif";o.tif\n',
        "PAN, MS, Output\np.tif, b.tif, o.tif\n",
        "\ufeff Pan ;Ms;OUTPUT;note\r\np.tif;b.tif;o.tif;x\r\n",
    ],
)
def test_a_list_as_spreadsheets_write_it(tmp_path: Path, text: str) -> None:
    path = listed(tmp_path, text, "p.tif", "b.tif")
    assert read(path) == [Job(tmp_path / "p.tif", (tmp_path / "b.tif",), tmp_path / "o.tif")]


@pytest.mark.parametrize("divider", [",", ";"])
def test_several_files_in_one_cell(tmp_path: Path, divider: str) -> None:
    row = divider.join(("p.tif", '"b.tif; g.tif"', "o.tif"))
    path = listed(tmp_path, divider.join(("pan", "ms", "output")) + f"\n{row}\n", "p.tif", "b.tif", "g.tif")
    assert read(path)[0].ms == (tmp_path / "b.tif", tmp_path / "g.tif")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "has no column pan and ms and output"),
        ("pan,output\n", "has no column ms"),
        ("pan,ms,output\n", "names no scene"),
        ("pan,ms,output\nno.tif,p.tif,o.tif\n", r"line 2: .*no\.tif: no such file"),
        ("pan,ms,output\np.tif,,o.tif\n", "line 2: no file under ms"),
        ("pan,ms,output\n,p.tif,o.tif\n", "line 2: no file under pan"),
        ("pan,ms,output\np.tif,p.tif,\n", "line 2: no file under output"),
        ("pan,ms,output\np.tif,p.tif,no/o.tif\n", "line 2: .*there is no folder"),
        ("pan,ms,output\np.tif,p.tif,o.tif\np.tif,p.tif,o.tif\n", "line 3: .*line 2 has the same output"),
        ("pan,ms,output\n" + "no.tif,p.tif,o.tif\n" * 9, "; and 12 more"),
    ],
)
def test_a_bad_list_is_refused_as_a_whole(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        read(listed(tmp_path, text, "p.tif"))


def test_what_is_no_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be read \(No such file"):
        read(tmp_path / "none.csv")
    (tmp_path / "bin.csv").write_bytes(b"pan,ms,output\n\xff\xfe,b,c\n")
    with pytest.raises(InputError, match="no CSV file"):
        read(tmp_path / "bin.csv")


def jobs(folder: Path, count: int) -> list[Job]:
    return [Job(folder / "p.tif", (folder / "m.tif",), folder / f"o{i}.tif") for i in range(count)]


def done(wanted: dict[str, Any], report: RunReport | None = None) -> Event:
    return Event("done", output=wanted["job"]["output"], report=report)


def number(wanted: dict[str, Any]) -> int:
    return int(Path(wanted["job"]["output"]).stem[1:])


@pytest.mark.parametrize(("bad", "kind"), [((), None), ((1,), PartialError), ((0, 1, 2), TotalError)])
def test_the_verdict_is_of_all(tmp_path: Path, bad: tuple[int, ...], kind: type[Exception] | None) -> None:
    def ask(wanted: dict[str, Any]) -> Event:
        return failure(SceneError("too\n  dark")) if number(wanted) in bad else done(wanted)

    events: list[Event] = []
    if kind is None:
        run_all(jobs(tmp_path, 3), ask, events.append)
    else:
        with pytest.raises(kind) as error:
            run_all(jobs(tmp_path, 3), ask, events.append)
        assert error.value.exit_code == (9 if kind is PartialError else 10)  # type: ignore[attr-defined]
    assert [event.event for event in events] == ["failed" if i in bad else "done" for i in range(3)] + ["end"]
    assert events[-1] == Event("end", count=3, done=3 - len(bad), failed=len(bad))
    for event in events:
        if event.event == "failed":
            assert (event.error, event.kind, event.exit_code) == ("too dark", "SceneError", 3)


@pytest.mark.parametrize(
    "error",
    [OSError(5, "Input/output error"), MemoryError(), KeyError("x"), RuntimeError("CUDA failure 700")],
)
def test_any_failure_is_one_scenes_failure(tmp_path: Path, error: Exception) -> None:
    events: list[Event] = []
    with pytest.raises(PartialError):
        run_all(
            jobs(tmp_path, 2),
            lambda wanted: done(wanted) if number(wanted) else failure(error),
            events.append,
        )
    assert events[0].exit_code == 1
    assert events[0].error


@pytest.mark.parametrize(
    ("answer", "tries"),
    [
        (Event("crashed", error="was killed by SIGSEGV"), 3),
        (failure(KeyError("x")), 3),
        (failure(SceneError("too dark")), 1),
        (failure(OutputError("exists already")), 1),
    ],
)
def test_what_nobody_foresaw_is_tried_three_times(tmp_path: Path, answer: Event, tries: int) -> None:
    asked: list[Any] = []
    events: list[Event] = []

    def ask(wanted: dict[str, Any]) -> Event:
        asked.append(wanted)
        return answer

    with pytest.raises(TotalError):
        run_all(jobs(tmp_path, 1), ask, events.append)
    assert len(asked) == tries
    assert [event.event for event in events] == ["failed", "end"]


def test_what_is_there_is_left(tmp_path: Path, report: RunReport) -> None:
    events: list[Event] = []
    standing: tuple[Standing, ...] = ("equal", "completed", "new")
    reports = [replace(report, standing=found) for found in standing]
    run_all(jobs(tmp_path, 3), lambda wanted: done(wanted, reports[number(wanted)]), events.append)
    assert [event.event for event in events] == ["skipped", "done", "done", "end"]
    assert events[-1].done == 3


def test_told_to_stop_it_says_how_far_it_is(tmp_path: Path) -> None:
    stop = Flag()
    events: list[Event] = []

    def ask(wanted: dict[str, Any]) -> Event:
        if number(wanted) == 1:
            stop.set()
            return Event("stopped", error="stopped")
        return done(wanted)

    with pytest.raises(StoppedError, match="1 of 3 scenes are done"):
        run_all(jobs(tmp_path, 3), ask, events.append, stop)
    assert len(events) == 1

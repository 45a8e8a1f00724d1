"""Lists of scenes: what is wrong with one is told before the first scene; then one bad scene costs itself
alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sfiin.runtime.errors import InputError, PartialError, SceneError, TotalError
from sfiin.runtime.station.jobs import read, run_all
from sfiin.runtime.station.runner import Job


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


@pytest.mark.parametrize(("bad", "kind"), [((), None), ((1,), PartialError), ((0, 1, 2), TotalError)])
def test_the_verdict_is_of_all(tmp_path: Path, bad: tuple[int, ...], kind: type[Exception] | None) -> None:
    def run(job: Job) -> dict[str, Any]:
        if int(job.output.stem[1:]) in bad:
            raise SceneError("too\n  dark")
        return {"tiles": 1}

    events: list[dict[str, Any]] = []
    if kind is None:
        run_all(jobs(tmp_path, 3), run, events.append)
    else:
        with pytest.raises(kind) as error:
            run_all(jobs(tmp_path, 3), run, events.append)
        assert error.value.exit_code == (9 if kind is PartialError else 10)  # type: ignore[attr-defined]
    assert [it["event"] for it in events] == ["failed" if i in bad else "done" for i in range(3)] + ["end"]
    assert events[-1] == {"event": "end", "count": 3, "done": 3 - len(bad), "failed": len(bad)}
    for it in events:
        if it["event"] == "failed":
            assert (it["error"], it["kind"], it["exit_code"]) == ("too dark", "SceneError", 3)


@pytest.mark.parametrize("error", [OSError(5, "Input/output error"), MemoryError()])
def test_a_failure_of_the_machine_is_one_scenes_failure(tmp_path: Path, error: Exception) -> None:
    def run(job: Job) -> dict[str, Any]:
        if job.output.stem == "o0":
            raise error
        return {}

    events: list[dict[str, Any]] = []
    with pytest.raises(PartialError):
        run_all(jobs(tmp_path, 2), run, events.append)
    assert events[0]["exit_code"] == 1
    assert events[0]["error"]


def test_a_mistake_of_ours_is_not_hidden(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        run_all(jobs(tmp_path, 2), lambda job: {}["x"], lambda event: None)


def test_what_is_there_is_left(tmp_path: Path) -> None:
    (tmp_path / "o0.tif").write_text("")
    ran, events = [], []
    run_all(jobs(tmp_path, 2), lambda job: ran.append(job.output.name) or {}, events.append)
    assert ran == ["o1.tif"]
    assert [it["event"] for it in events] == ["skipped", "done", "end"]
    run_all(jobs(tmp_path, 2), lambda job: ran.append(job.output.name) or {}, events.append, overwrite=True)
    assert ran == ["o1.tif", "o0.tif", "o1.tif"]

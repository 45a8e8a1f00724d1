"""What a station does about each end of a scene, and what it waits for; and real watchers side by side."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event as Flag
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.errors import InputError, OutputError, SceneError, SfiinError, UnavailableError
from sfiin.runtime.station.attempts import MOST_INTERRUPTED, Attempts
from sfiin.runtime.station.events import Event
from sfiin.runtime.station.inbox import READY, Inbox
from sfiin.runtime.station.service import Service
from sfiin.runtime.station.worker import failure

Document = dict[str, Any]


class Box:
    """Two folders."""

    def __init__(self, folder: Path) -> None:
        self.inbox, self.outbox = folder / "in", folder / "out"
        self.inbox.mkdir()
        self.outbox.mkdir()

    def scene(self, name: str, *files: str) -> Path:
        folder = self.inbox / name
        folder.mkdir()
        for file in files or ("pan.tif", "ms.tif", READY):
            (folder / file).write_text("")
        return folder

    @property
    def names(self) -> list[str]:
        return sorted(path.name for path in self.inbox.iterdir())


class FakeWorker:
    """Answers as it is told to, and counts how often it was replaced."""

    def __init__(self, answer: Callable[[Document], Event]) -> None:
        self.answer, self.recycled = answer, 0
        self.asked: list[str] = []

    def ask(self, request: Document, stop: Flag | None = None, timeout: float | None = None) -> Event:
        self.asked.append(request.get("name") or Path(request["look"]).name)
        return self.answer(request)

    def recycle(self) -> None:
        self.recycled += 1


def done(request: Document) -> Event:
    return Event("done", output=f"{request['outbox']}/{request['name']}.tif")


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def served(box: Box, answer: Any, **options: Any) -> tuple[list[Event], FakeWorker]:
    """What was told, with the error of the end as an event, and who was asked."""
    events: list[Event] = []
    worker = answer if isinstance(answer, FakeWorker) else FakeWorker(answer)
    given: dict[str, Any] = {"poll": 0.01, "once": True, "stop": Flag(), "settle": 0.0} | options
    inbox = Inbox(box.inbox, box.outbox, given.pop("settle"))
    try:
        Service(inbox, worker, events.append, **given).serve()
    except SfiinError as error:
        events.append(Event("stopped", kind=type(error).__name__, exit_code=error.exit_code))
    return [event for event in events if event.event not in ("look", "begin")], worker


def test_scenes_go_through(box: Box) -> None:
    for name in ("b", "a"):
        box.scene(name)
    events, worker = served(box, done)
    assert worker.asked == ["a", "b"]
    assert [event.event for event in events] == ["done", "done", "end"]
    assert box.names == [".done"]
    assert (box.inbox / ".done" / "a" / "pan.tif").exists()


def test_a_refused_scene_is_set_aside_at_once_and_not_tried_again(box: Box) -> None:
    for name in ("bad", "good"):
        box.scene(name)

    def answer(request: Document) -> Event:
        return failure(SceneError("it is dark")) if request["name"] == "bad" else done(request)

    events, worker = served(box, answer)
    assert worker.asked == ["bad", "good"]
    assert events[-1].exit_code == 9
    assert (box.inbox / ".failed" / "bad" / "error.txt").read_text() == "it is dark\n"
    assert served(box, answer)[0] == [Event("end", count=0, done=0, failed=0)]
    box.scene("bad")
    assert served(box, answer)[0][-1].exit_code == 10
    assert (box.inbox / ".failed" / "bad.2").is_dir()


UNFORESEEN = [
    Event("crashed", error="its process was killed by SIGSEGV", said=""),
    Event("crashed", error="made no progress for 1800 s", said=""),
    *map(failure, (KeyError("x"), ValueError("NaN"), MemoryError(), RecursionError(), RuntimeError("CUDA"))),
]


@pytest.mark.parametrize("bad", UNFORESEEN, ids=lambda event: event.error[:30])
def test_what_nobody_foresaw_is_tried_three_times_and_costs_itself_alone(box: Box, bad: Event) -> None:
    for name in ("a", "b"):
        box.scene(name)
    events, worker = served(box, lambda request: bad if request["name"] == "a" else done(request))
    assert worker.asked == ["a", "b", "a", "a"], "who was tried least comes first"
    assert worker.recycled >= 2
    assert [event.event for event in events] == [
        "try again",
        "done",
        "try again",
        "failed",
        "end",
        "stopped",
    ]
    assert "tried 3 times" in (box.inbox / ".failed" / "a" / "error.txt").read_text()
    assert box.names == [".done", ".failed"]


def test_what_is_set_aside_leaves_no_rows_in_the_outbox(box: Box) -> None:
    """Of itself and its versions; those of other scenes stay."""
    mine = [".a.tif.sfiin", ".a.2.tif.sfiin"]
    others = [".b.tif.sfiin", ".a.b.tif.sfiin", ".aa.tif.sfiin"]
    for name in mine + others:
        (box.outbox / name).mkdir()
        (box.outbox / name / "row-000000.npz").write_text("")
    box.scene("a")
    served(box, lambda _: failure(SceneError("it is dark")))
    assert sorted(path.name for path in box.outbox.iterdir()) == sorted(others)


def test_tries_are_counted_across_restarts(box: Box) -> None:
    box.scene("a")
    stop = Flag()

    def crash(_: Document) -> Event:
        stop.set()
        return UNFORESEEN[0]

    for left in (1, 1, 0):
        stop.clear()
        served(box, crash, once=False, stop=stop)
        assert (box.inbox / "a").exists() == bool(left)
    assert (box.inbox / ".failed" / "a").is_dir()


def test_a_scene_that_ends_every_watcher_is_set_aside_in_the_end(box: Box) -> None:
    box.scene("a")
    box.scene("b")

    def killed(request: Document) -> Event:
        if request["name"] == "a":
            raise KeyboardInterrupt
        return done(request)

    for number in range(MOST_INTERRUPTED):
        with pytest.raises(KeyboardInterrupt):
            served(box, killed)
        assert (box.inbox / ".done" / "b").exists() == (number > 0), "the other one comes first from then on"
    events, _ = served(box, killed)
    assert "ended 10 times" in next(event.error or "" for event in events if event.event == "failed")


STATION = [
    (OutputError("no space"), OutputError),
    (UnavailableError("no GPU"), UnavailableError),
    (OSError(28, "No space left on device"), OutputError),
]


@pytest.mark.parametrize(("error", "kind"), STATION)
def test_what_is_no_scenes_fault_fails_none(box: Box, error: Exception, kind: type[Exception]) -> None:
    for name in ("a", "b"):
        box.scene(name)
    events, worker = served(box, lambda _: failure(error))
    assert events[-1].kind == kind.__name__
    assert box.names == ["a", "b"]
    assert worker.asked == ["a", "b"]
    assert not Attempts(box.inbox).of("a").failed


def test_with_once_a_fault_of_one_output_keeps_no_other_from_being_done(box: Box) -> None:
    for name in ("a", "b", "c"):
        box.scene(name)

    def answer(request: Document) -> Event:
        return failure(OutputError("a link is in the way")) if request["name"] == "a" else done(request)

    events, _ = served(box, answer)
    assert events[-1].kind == OutputError.__name__
    assert box.names == [".done", "a"]


def test_with_once_a_fault_of_all_is_not_met_by_each(box: Box) -> None:
    for number in range(9):
        box.scene(f"s{number}")
    _, worker = served(box, lambda _: failure(OutputError("no space")))
    assert len(worker.asked) == 3


def test_it_is_waited_for_with_pauses_that_grow(box: Box) -> None:
    for name in ("a", "b"):
        box.scene(name)
    asked: list[str] = []

    def answer(request: Document) -> Event:
        asked.append(request["name"])
        return failure(OutputError("no space")) if len(asked) < 5 else done(request)

    stop = Flag()

    def until_done(events: list[Event]) -> Callable[[Event], None]:
        def tell(event: Event) -> None:
            events.append(event)
            if sum(event.event == "done" for event in events) == 2:
                stop.set()

        return tell

    events: list[Event] = []
    inbox = Inbox(box.inbox, box.outbox, 0.0)
    Service(inbox, FakeWorker(answer), until_done(events), poll=0.01, once=False, stop=stop).serve()
    pauses = [event.seconds for event in events if event.event == "waiting"]
    assert pauses == [0.01, 0.02, 0.04, 0.08]
    assert asked[:4] == ["a", "b", "a", "b"], "the one that failed last is behind"
    assert box.names == [".done"]


def test_an_inbox_that_is_gone_is_waited_for(box: Box) -> None:
    stop, events = Flag(), []
    away = box.inbox.with_name("away")

    def tell(event: Event) -> None:
        events.append(event)
        waits = sum(event.event == "waiting" for event in events)
        if event.event == "look" and not waits and box.inbox.exists():
            box.inbox.rename(away)
        if event.event == "waiting" and waits == 3:
            away.rename(box.inbox)
            box.scene("a")
        if event.event == "done":
            stop.set()

    inbox = Inbox(box.inbox, box.outbox, 0.0)
    Service(inbox, FakeWorker(done), tell, poll=0.01, once=False, stop=stop).serve()
    assert [event.event for event in events if event.event not in ("look", "begin")] == [
        *["waiting"] * 3,
        "done",
        "end",
    ]


@pytest.mark.parametrize(("which", "kind"), [("in", InputError), ("out", OutputError)])
def test_a_share_that_is_no_longer_mounted_is_not_the_folder_below(
    box: Box, monkeypatch: pytest.MonkeyPatch, which: str, kind: type[Exception]
) -> None:
    """An outbox whose share has gone is an empty folder of the system's own disk; no product must go
    there."""
    share = box.inbox if which == "in" else box.outbox
    mounted = {share}
    monkeypatch.setattr(Path, "is_mount", lambda path: path in mounted)
    inbox = Inbox(box.inbox, box.outbox, 0.0)
    events: list[Event] = []
    box.scene("a")
    mounted.clear()
    worker = FakeWorker(done)
    with pytest.raises(kind, match="mounted any more"):
        Service(inbox, worker, events.append, poll=0.01, once=True, stop=Flag()).serve()
    assert worker.asked == []
    mounted.add(share)
    Service(inbox, worker, events.append, poll=0.01, once=True, stop=Flag()).serve()
    assert worker.asked == ["a"]


def test_with_once_an_inbox_that_goes_is_an_error(box: Box) -> None:
    box.scene("a")

    def answer(_: Document) -> Event:
        box.inbox.rename(box.inbox.with_name("away"))
        return failure(SceneError("damaged or cut short"))

    events, _ = served(box, answer)
    assert events[-1].kind == InputError.__name__
    box.inbox.with_name("away").rename(box.inbox)
    assert [event.event for event in served(box, done)[0]] == ["given back", "done", "end"]


def test_a_scene_that_another_took_over_is_not_ended_by_this_one(box: Box) -> None:
    box.scene("a")

    def answer(request: Document) -> Event:
        Path(request["scene"]).rename(box.inbox.parent / "elsewhere")
        return failure(SceneError("no such file"))

    events, _ = served(box, answer)
    assert [event.event for event in events] == ["lost", "end"]


def test_what_is_not_complete_is_looked_at_once_and_waits(box: Box) -> None:
    box.scene("a", "pan.tif")

    def answer(request: Document) -> Event:
        return Event("incomplete", error="no MS") if "look" in request else done(request)

    events, worker = served(box, answer)
    assert events[0] == Event("incomplete", scene="a", error="no MS")
    assert worker.asked == ["a"]
    assert box.names == ["a"]


def test_with_once_quiet_is_waited_for(box: Box) -> None:
    box.scene("a", "pan.tif", "ms.tif")

    def answer(request: Document) -> Event:
        return Event("complete") if "look" in request else done(request)

    events, _ = served(box, answer, settle=0.3)
    assert [event.event for event in events] == ["done", "end"]


def test_told_to_stop_it_ends_with_the_scene_at_hand(box: Box) -> None:
    stop = Flag()
    for name in ("a", "b", "c"):
        box.scene(name)

    def answer(request: Document) -> Event:
        stop.set()
        return done(request)

    events, _ = served(box, answer, once=False, stop=stop)
    assert events[-1] == Event("end", count=1, done=1, failed=0)
    assert box.names == [".done", "b", "c"]


def test_a_stopped_scene_goes_back_uncounted(box: Box) -> None:
    stop = Flag()
    box.scene("a")

    def answer(_: Document) -> Event:
        stop.set()
        return Event("stopped", error="stopped")

    for _ in range(5):
        stop.clear()
        served(box, answer, once=False, stop=stop)
    assert box.names == ["a"]


def test_a_name_that_is_no_text_costs_itself_alone(box: Box) -> None:
    (box.inbox / "\udce9t\udce9").mkdir()
    (box.inbox / "\udce9t\udce9" / READY).touch()
    box.scene("good")
    events, worker = served(box, done)
    assert worker.asked == ["good"]
    assert events[-1].exit_code == 9
    assert "not UTF-8" in (box.inbox / ".failed" / "\udce9t\udce9" / "error.txt").read_text()


# --- real watchers ---


def command(box: Box, model: Path, *options: str) -> list[str]:
    start = [
        sys.executable,
        "-c",
        "from sfiin.runtime.cli import main; main()",
        "watch",
        str(box.inbox),
        str(box.outbox),
    ]
    return [*start, "--model", str(model), "--json", "--threads", "1", *options]


def real(box: Box, name: str, seed: int, size: int = 24) -> None:
    folder, random = box.inbox / f".{name}", np.random.default_rng(seed)
    folder.mkdir()
    for part, pixel, shape in (("pan", 1.0, (1, 4 * size, 4 * size)), ("ms", 4.0, (4, size, size))):
        profile = {
            "driver": "GTiff",
            "count": shape[0],
            "height": shape[1],
            "width": shape[2],
            "dtype": "uint16",
            "crs": "EPSG:32650",
            "transform": Affine(pixel, 0.0, 5e5, 0.0, -pixel, 4e6),
        }
        with rasterio.open(folder / f"{part}.tif", "w", **profile) as file:
            file.write(random.integers(100, 900, shape).astype(np.uint16))
    (folder / READY).write_text("")
    folder.rename(box.inbox / name)


def test_two_watchers_share_an_inbox(box: Box, small_model: Path) -> None:
    for i in range(8):
        real(box, f"s{i}", i)
    (box.inbox / "poison").mkdir()
    (box.inbox / "poison" / READY).write_text("")
    watchers = [
        subprocess.Popen(
            command(box, small_model, "--once"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ends = [watcher.communicate() for watcher in watchers]
    events = [json.loads(line) for said, _ in ends for line in said.splitlines()]
    done = [Path(event["output"]).stem for event in events if event["event"] == "done"]
    assert sorted(done) == [f"s{i}" for i in range(8)]
    assert [event["scene"] for event in events if event["event"] == "failed"] == ["poison"]
    assert sorted(watcher.returncode in (0, 9, 10) for watcher in watchers) == [True, True]
    made = [f"s{i}{suffix}" for i in range(8) for suffix in (".done.json", ".tif")]
    assert sorted(path.name for path in box.outbox.iterdir()) == made
    assert sorted(path.name for path in box.inbox.iterdir()) == [".done", ".failed"]


def test_a_signal_ends_a_watcher_gracefully(box: Box, small_model: Path) -> None:
    watcher = subprocess.Popen(command(box, small_model, "--poll", "0.1"), stdout=subprocess.PIPE, text=True)
    real(box, "s", 1)
    assert watcher.stdout is not None
    assert json.loads(watcher.stdout.readline())["event"] == "done"
    watcher.send_signal(signal.SIGTERM)
    said, _ = watcher.communicate(timeout=30)
    assert json.loads(said)["event"] == "end"
    assert watcher.returncode == 0


def test_a_signal_in_a_scene_keeps_its_rows_and_puts_it_back(box: Box, small_model: Path) -> None:
    real(box, "s", 1, 200)
    watcher = subprocess.Popen(command(box, small_model), stdout=subprocess.PIPE, text=True)
    rows = box.outbox / ".s.tif.sfiin"
    while not list(rows.glob("row-*")):
        assert watcher.poll() is None
        time.sleep(0.01)
    watcher.send_signal(signal.SIGTERM)
    began = time.monotonic()
    watcher.communicate(timeout=30)
    assert time.monotonic() - began < 10
    assert watcher.returncode == 0
    assert sorted(path.name for path in box.inbox.iterdir()) == ["s"]
    assert list(rows.glob("row-*"))
    done = subprocess.run(command(box, small_model, "--once"), capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[0])["report"]["resumed"] > 0


def test_a_worker_that_is_killed_costs_a_try_and_no_scene(box: Box, small_model: Path) -> None:
    for name in ("s", "t"):
        real(box, name, 1, 200)
    watcher = subprocess.Popen(command(box, small_model, "--once"), stdout=subprocess.PIPE, text=True)
    while not list((box.outbox / ".s.tif.sfiin").glob("row-*")):
        assert watcher.poll() is None
        time.sleep(0.01)
    children = Path(f"/proc/{watcher.pid}/task/{watcher.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    said, _ = watcher.communicate(timeout=120)
    events = [json.loads(line) for line in said.splitlines()]
    assert events[0]["event"] == "try again"
    assert "SIGKILL" in events[0]["error"]
    assert [event["event"] for event in events[1:]] == ["done", "done", "end"]
    assert [Path(event["output"]).stem for event in events[1:3]] == ["t", "s"], "the other one comes first"
    assert watcher.returncode == 0

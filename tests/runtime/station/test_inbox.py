"""Scenes as they come: completeness, claims, failures, a dead watcher's scenes; and real watchers side by
side."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.errors import InputError, OutputError, PartialError, SceneError, TotalError
from sfiin.runtime.station.inbox import READY, Inbox, watch
from sfiin.runtime.station.runner import Job


class Box:
    """Two folders, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.inbox, self.outbox = folder / "in", folder / "out"
        self.inbox.mkdir()
        self.outbox.mkdir()
        self.later = 0.0

    def open(self) -> Inbox:
        return Inbox(self.inbox, self.outbox, settle=10, clock=lambda: time.time() + self.later)

    def scene(self, name: str, *files: str) -> Path:
        folder = self.inbox / name
        folder.mkdir()
        for file in files or ("pan.tif", "ms.tif"):
            (folder / file).write_text("")
        return folder


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def served(box: Box, run: Any, **options: Any) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    options = {"poll": 0.01, "once": True, "stop": Event()} | options
    try:
        watch(box.open(), run, events.append, **options)
    except (PartialError, TotalError) as error:
        events.append({"event": "raised", "exit_code": error.exit_code})
    return events


def test_a_scene_is_taken_when_it_has_settled_or_says_so(box: Box) -> None:
    box.scene("b")
    box.scene("a", "pan.tif", "ms.tif", READY)
    (box.inbox / "file.txt").write_text("")
    assert [path.name for path in box.open().waiting()] == ["a"]
    box.later = 11
    assert [path.name for path in box.open().waiting()] == ["a", "b"]


def test_a_scene_goes_through(box: Box) -> None:
    box.scene("night", "PAN.TIF", "ms-10.tif", "ms-2.tif", READY)
    seen: list[Job] = []
    events = served(box, lambda job: seen.append(job) or {"tiles": 3})
    (job,) = seen
    assert job.pan.name == "PAN.TIF"
    assert [path.name for path in job.ms] == ["ms-2.tif", "ms-10.tif"]
    assert job.output == box.outbox / "night.tif"
    assert [it["event"] for it in events] == ["done", "end"]
    assert sorted(path.name for path in box.inbox.iterdir()) == [".done"]
    assert (box.inbox / ".done" / "night" / "PAN.TIF").exists()


def test_a_poison_scene_is_set_aside_with_its_error_and_not_tried_again(box: Box) -> None:
    for name in ("bad", "good"):
        box.scene(name, "pan.tif", "ms.tif", READY)
    tried = []

    def run(job: Job) -> dict[str, Any]:
        tried.append(job.output.stem)
        if tried[-1] == "bad":
            raise SceneError("it is dark")
        return {}

    events = served(box, run)
    assert tried == ["bad", "good"]
    assert events[-1] == {"event": "raised", "exit_code": 9}
    assert (box.inbox / ".failed" / "bad" / "error.txt").read_text() == "it is dark\n"
    assert served(box, run)[0] == {"event": "end", "count": 0, "done": 0, "failed": 0}
    box.scene("bad", READY)
    assert served(box, run)[-1] == {"event": "raised", "exit_code": 10}
    assert (box.inbox / ".failed" / "bad.2").is_dir()


def test_only_one_takes_a_scene(box: Box) -> None:
    scene = box.scene("a", READY)
    first = box.open()
    assert first.take(scene) is not None
    assert first.take(scene) is None


def test_what_a_dead_process_had_taken_comes_back(box: Box) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process, name in ((dead.pid, "lost"), (os.getppid(), "kept")):
        claim = box.inbox / f".taken-{socket.gethostname()}-{process}"
        (claim / name).mkdir(parents=True)
    (box.inbox / ".taken-elsewhere-1" / "far").mkdir(parents=True)
    assert box.open().give_back() == ["lost"]
    assert (box.inbox / "lost").is_dir()
    assert len(list(box.inbox.glob(".taken-*"))) == 2


def test_told_to_stop_it_ends_after_the_scene_at_hand(box: Box) -> None:
    stop = Event()
    for name in ("a", "b", "c"):
        box.scene(name, READY)
    events = served(box, lambda job: stop.set() or {}, once=False, stop=stop)
    assert events[-1] == {"event": "end", "count": 1, "done": 1, "failed": 0}
    assert sorted(path.name for path in box.inbox.iterdir()) == [".done", "b", "c"]


def test_folders_must_be_there(box: Box, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder to watch"):
        Inbox(tmp_path / "none", box.outbox)
    with pytest.raises(OutputError, match="no such folder to write to"):
        Inbox(box.inbox, tmp_path / "none")


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
    done = [Path(it["output"]).stem for it in events if it["event"] == "done"]
    assert sorted(done) == [f"s{i}" for i in range(8)]
    assert [Path(it["output"]).stem for it in events if it["event"] == "failed"] == ["poison"]
    assert sorted(watcher.returncode in (0, 9, 10) for watcher in watchers) == [True, True]
    assert sorted(path.name for path in box.outbox.iterdir()) == [f"s{i}.tif" for i in range(8)]
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

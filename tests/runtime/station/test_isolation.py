"""A worker that is lost in every way, and one that does its work; all with real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Event, Timer
from typing import Any

import pytest

from sfiin.runtime import signatures
from sfiin.runtime.errors import MismatchError
from sfiin.runtime.station import events, isolation
from sfiin.runtime.station.isolation import LostError, RefusedError, WorkerProcess
from sfiin.runtime.station.job import Settings

ECHO = """
import json, os, sys, time
replies = os.fdopen(int(sys.argv[1]), "w")
def say(**event):
    print(json.dumps(event), file=replies, flush=True)
sys.stdin.readline()
say(event="ready")
for line in sys.stdin:
    request = json.loads(line)
    exec(request.get("python", ""))
    say(event="done", said=str(os.getpid()))
"""


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """A worker whose process runs the Python that it is asked to."""
    script = tmp_path / "echo.py"
    script.write_text(ECHO)
    real = subprocess.Popen

    def popen(command: list[str], **options: Any) -> Any:
        return real([sys.executable, str(script), command[5]], **options)

    monkeypatch.setattr(subprocess, "Popen", popen)
    with WorkerProcess({"inbox": False}, timeout=20, stall=2) as found:
        yield found


def test_one_process_serves_until_it_is_lost(worker: WorkerProcess) -> None:
    first, second = worker.ask({}), worker.ask({})
    assert first == second
    worker.recycle()
    assert worker.ask({}).said != first.said


@pytest.mark.parametrize(
    ("python", "said"),
    [
        ("os.kill(os.getpid(), 9)", "was killed by SIGKILL"),
        ("os.kill(os.getpid(), 11)", "was killed by SIGSEGV"),
        ("os.abort()", "was killed by SIGABRT"),
        ("os._exit(7)", "ended with exit code 7"),
        ("os._exit(0)", "ended"),
        ("replies.close(); time.sleep(60)", "fell silent"),
    ],
)
def test_a_crash_is_an_answer(
    worker: WorkerProcess, python: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = worker.ask({}).said
    answer = worker.ask({"python": "os.write(2, b'last words'); " + python})
    assert answer.event == "crashed"
    assert said in (answer.error or "")
    assert answer.said == "last words"
    after = worker.ask({})
    assert after.event == "done"
    assert after.said != before
    assert not Path(f"/proc/{before}").exists()


def test_a_hang_is_ended(worker: WorkerProcess) -> None:
    began = time.monotonic()
    answer = worker.ask({"python": "time.sleep(60)"})
    assert answer.error == "made no progress for 2 s"
    assert time.monotonic() - began < 10
    answer = worker.ask({"python": "time.sleep(60)"}, timeout=0.5)
    assert answer.error == "was not done within 0.5 s"
    assert worker.ask({}).event == "done"


def test_progress_is_no_hang_but_time_is_bounded(worker: WorkerProcess) -> None:
    busy = "for i in range(40): say(event='progress', memory=i); time.sleep(0.1)"
    assert worker.ask({"python": busy}).event == "done"
    assert worker.peak == 39
    assert "was not done within 1 s" in str(worker.ask({"python": busy}, timeout=1).error)


def test_told_to_stop_it_has_a_while(worker: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    stop = Event()
    monkeypatch.setattr(isolation, "GRACE", 20.0)
    Timer(0.3, stop.set).start()
    asked = "assert json.loads(sys.stdin.readline()) == {'stop': True}; say(event='stopped'); time.sleep(9)"
    assert worker.ask({"python": asked}, stop) == events.Event("stopped")
    worker.recycle()
    stop.clear()
    monkeypatch.setattr(isolation, "GRACE", 0.5)
    Timer(0.3, stop.set).start()
    answer = worker.ask({"python": "time.sleep(60)"}, stop)
    assert answer.event == "stopped"


def test_one_that_is_lost_at_its_start_may_do_better(worker: WorkerProcess, tmp_path: Path) -> None:
    script = tmp_path / "echo.py"
    script.write_text("import os, time; time.sleep(0.1); os.kill(os.getpid(), 9)")
    with pytest.raises(LostError, match="SIGKILL"):
        worker.ask({})
    script.write_text(ECHO)
    assert worker.ask({}).event == "done"


# --- the real worker ---


def setup(**changes: Any) -> dict[str, Any]:
    base = {"settings": Settings(threads=1).document(), "model": None, "inbox": True, "memory": None}
    return base | changes


def test_a_model_that_cannot_be_opened_is_refused_at_the_start(tmp_path: Path) -> None:
    with (
        WorkerProcess(setup(model=str(tmp_path / "none.onnx"))) as worker,
        pytest.raises(RefusedError, match="no such model file") as error,
    ):
        worker.start()
    assert error.value.exit_code == 3


@pytest.mark.parametrize("how", ["option", "environment"])
def test_a_model_that_nobody_signed_is_refused_where_a_signature_is_wanted(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    pytest.importorskip("model_signing")
    key = signatures.make_keys(tmp_path / "k.pem")
    settings = Settings(threads=1, signed_by=key if how == "option" else None)
    if how == "environment":
        monkeypatch.setenv(signatures.SETTING, str(key))
    folder = tmp_path / "models"
    folder.mkdir()
    model = shutil.copy(small_model, folder)
    with (
        WorkerProcess(setup(model=str(model), settings=settings.document())) as worker,
        pytest.raises(RefusedError, match=r"signature: model\.sig cannot be read") as error,
    ):
        worker.start()
    assert error.value.exit_code == MismatchError.exit_code
    signatures.sign(folder, tmp_path / "k.pem")
    with WorkerProcess(setup(model=str(model), settings=settings.document())) as worker:
        worker.start()


def test_it_runs_nothing_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who starts a station in its inbox would else run what others upload there."""
    for name in ("sfiin", "numpy", "json", "rasterio"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise SystemExit('run from the current folder')")
    monkeypatch.chdir(tmp_path)
    with WorkerProcess(setup()) as worker:
        worker.start()


def test_it_has_no_driver_that_leads_elsewhere(tmp_path: Path) -> None:
    """The worker of an inbox opens no VRT, and none of the drivers of the network, by whatever name."""
    with WorkerProcess(setup()) as worker:
        worker.start()
        assert worker._process is not None
        content = Path(f"/proc/{worker._process.pid}/environ").read_bytes().split(b"\0")
        skipped = next(line for line in content if line.startswith(b"GDAL_SKIP="))[10:].split(b",")
        assert {b"VRT", b"WMS", b"WCS", b"HTTP", b"GTI", b"STACTA"} <= set(skipped)
        assert not {b"GTiff", b"COG", b"PNG", b"MEM", b"NITF", b"JP2OpenJPEG"} & set(skipped)
        (tmp_path / "pan.tif").write_text('<VRTDataset rasterXSize="4" rasterYSize="4"></VRTDataset>')
        (tmp_path / "ms.tif").write_text("")
        answer = worker.ask({"scene": str(tmp_path), "name": "a", "outbox": str(tmp_path)})
    assert (answer.event, answer.blame) == ("failed", "scene")
    assert "refers to other files" in (answer.error or "")


def test_it_goes_when_who_asked_is_gone(tmp_path: Path) -> None:
    code = (
        "import sys, time, json; from sfiin.runtime.station.isolation import WorkerProcess\n"
        "worker = WorkerProcess(json.loads(sys.argv[1])); worker.start(); print(worker._process.pid, "
        "flush=True)\ntime.sleep(60)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", code, json.dumps(setup())], stdout=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        if Path(f"/proc/{child}/stat").read_text().split()[2] == "Z":
            return
        time.sleep(0.05)
    pytest.fail("the worker outlives who started it")


def test_memory_beyond_its_limit_is_a_failure_and_no_more(tmp_path: Path, small_model: Path) -> None:
    with WorkerProcess(setup(memory=64 << 20, model=str(small_model))) as worker:
        try:
            worker.start()
        except RefusedError as error:
            assert error.exit_code

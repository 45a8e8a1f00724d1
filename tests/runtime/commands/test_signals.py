"""Told to end: a flag, or an exception that lets half-written files go."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

CODE = {
    "flag": (
        "from sfiin.runtime.commands.signals import stopping\n"
        "stop = stopping(); print('ready', flush=True)\n"
        "print('stopped' if stop.wait(20) else 'late', flush=True)\n"
        "import time; time.sleep(20)"
    ),
    "patience": (
        "from sfiin.runtime.commands.signals import ended, stopping\n"
        "from sfiin.runtime.errors import StoppedError\n"
        "import sys, time; stop = stopping(0.05); print('ready', flush=True)\n"
        "assert stop.wait(20)\n"
        "ended() if sys.argv[1] == 'in time' else None\n"
        "try:\n    time.sleep(2)\nexcept StoppedError as error:\n    sys.exit(error.exit_code)"
    ),
    "exception": (
        "import sys; from pathlib import Path\n"
        "from sfiin.runtime.commands.signals import raise_on_term\n"
        "from sfiin.runtime.files import publish\n"
        "raise_on_term()\n"
        "with publish(Path(sys.argv[1])) as part:\n"
        "    part.write_text('half'); print('ready', flush=True)\n"
        "    import time; time.sleep(20)"
    ),
}


def started(which: str, *arguments: object) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", CODE[which], *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def test_the_first_signal_sets_a_flag_and_the_second_ends() -> None:
    process = started("flag")
    assert process.stdout is not None
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "stopped\n"
    time.sleep(0.1)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode not in (0, None)


@pytest.mark.parametrize(("when", "code"), [("in time", 0), ("late", 143)])
def test_work_that_does_not_end_is_ended(when: str, code: int) -> None:
    process = started("patience", when)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == code


def test_a_half_written_file_goes(tmp_path: Path) -> None:
    process = started("exception", tmp_path / "out.onnx")
    assert len(list(tmp_path.iterdir())) == 1
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143
    assert not list(tmp_path.iterdir())

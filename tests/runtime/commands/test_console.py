from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import pytest

from sfiin.runtime.commands import console


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_json({"name": "Zürich", "none": None})
    out, err = capsys.readouterr()
    assert json.loads(out) == {"name": "Zürich", "none": None}
    assert not err


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="JSON"):
        console.print_json({"nodata": math.nan})


def test_quiet_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    console.say("one")
    console.say("two", quiet=True)
    assert capsys.readouterr() == ("one\n", "")


def test_a_table_shows_markup_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table("Extras", [("train", "pip install 'sfiin[train]'"), ("none", None)], ("extra", "how"))
    out = capsys.readouterr().out
    assert "pip install 'sfiin[train]'" in out
    assert "none    -" in out


def test_an_empty_table_prints(capsys: pytest.CaptureFixture[str]) -> None:
    console.print_table("Nothing", [])
    assert "Traceback" not in capsys.readouterr().out


def _work(quiet: bool) -> None:
    with console.progress("training", 3, quiet) as advance:
        advance(2, "loss 0.5")
        advance()
    with console.tally("sharpening", quiet) as report:
        report(1, 2)
        report(2, 2)


def test_without_a_terminal_there_is_no_bar(capsys: pytest.CaptureFixture[str]) -> None:
    _work(quiet=False)
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_the_bar_goes_to_stderr_unless_quiet(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then takes stderr for a terminal
    monkeypatch.delenv("NO_COLOR", raising=False)
    _work(quiet=True)
    assert capsys.readouterr() == ("", "")
    _work(quiet=False)
    out, err = capsys.readouterr()
    assert not out
    assert "training" in err
    assert "loss 0.5" in err


def test_a_reader_that_is_gone_is_met_once() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    script = """
import sys
from sfiin.runtime.commands.console import silence
try:
    print("lost", flush=True)
except OSError:
    silence(sys.stdout)
print("nobody reads this", flush=True)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], stdout=writing, stderr=subprocess.PIPE, check=False, text=True
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (0, "")

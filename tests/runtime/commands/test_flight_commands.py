"""`sfiin bundle` and `sfiin slots`, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

Invoke = Any


def test_a_bundle_from_the_command_line(invoke: Invoke, small_model: Path, tmp_path: Path) -> None:
    output, slots = tmp_path / "net.bundle", tmp_path / "slots"
    code, out, err = invoke("bundle", small_model, "--method", "gsa", "-o", output, "--json")
    assert (code, err) == (0, "")
    made = json.loads(out)
    assert made["chain"] == [f"file:{small_model.name}", "method:gsa"]
    assert invoke("bundle", small_model, "-o", output)[0] == 7
    code, out, _ = invoke("bundle", "verify", output)
    assert code == 0 and f"sound, 2 files, {made['bytes']} bytes, {made['sha256']}" in out
    code, out, _ = invoke("bundle", "inspect", output)
    assert code == 0 and "file:small.onnx -> method:gsa" in out

    assert invoke("slots", "status", slots)[0] == 3
    assert invoke("slots", "init", slots, output)[1] == f"{slots}: slot factory is in use\n"
    code, out, _ = invoke("slots", "install", slots, output, "--json")
    found = json.loads(out)
    assert (found["active"], found["trial"]) == ("factory", "")
    assert found["slots"]["factory"] == found["slots"]["a"] == ""
    assert "cannot be read" in found["slots"]["b"]
    assert "slot a is on trial" in invoke("slots", "promote", slots)[1]
    code, out, _ = invoke("slots", "status", slots)
    assert code == 0 and "factory is in use" in out
    assert "slot factory is in use" in invoke("slots", "rollback", slots)[1]
    assert invoke("slots", "promote", slots, "--quiet") == (0, "", "")


def test_wrong_words_are_refused(invoke: Invoke, small_model: Path, tmp_path: Path) -> None:
    for words in (["verify"], ["a", "b"], ["verify", "x", "-o", tmp_path / "y"], [small_model]):
        code, _, err = invoke("bundle", *words)
        assert code == 2 and "give a model and --output" in err
    for words in (["init", tmp_path], ["promote", tmp_path, small_model], ["fly", tmp_path]):
        assert invoke("slots", *words)[0] == 2
    assert invoke("bundle", "verify", small_model)[0] == 3
    assert not (tmp_path / "y").exists()

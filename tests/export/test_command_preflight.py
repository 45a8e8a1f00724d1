"""The command `preflight`, run as a user runs it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import onnx
import pytest
from onnx import TensorProto, helper

from sfiin.export.command_preflight import Name
from sfiin.export.targets import targets

Invoke = Callable[..., tuple[int, str, str]]
Model = Callable[..., onnx.ModelProto]


@pytest.fixture
def dft(model: Model, tmp_path: Path) -> Path:
    path = tmp_path / "dft.onnx"
    onnx.save(
        model([helper.make_node("DFT", ["x"], ["z"], "a/DFT")], {"x": (TensorProto.FLOAT, ("n", 8, 8, 2))}),
        path,
    )
    return path


def test_the_names_are_the_table(invoke: Invoke) -> None:
    assert list(get_args(Name)) == list(targets())
    code, output, _ = invoke("preflight", "--help")
    assert code == 0
    assert "trt11.2" in output


def test_errors_end_with_six_and_notes_with_nought(invoke: Invoke, dft: Path) -> None:
    code, output, errors = invoke("preflight", dft, "--target", "jetpack6")
    assert code == 6
    assert "a/DFT, node 0" in output
    assert "release/10.1-GA/docs/operators.md" in output
    assert (
        "JetPack 6.1 and 6.2 (TensorRT 10.3) will not read it: DFT 'a/DFT' (node 0): is not supported"
        in errors
    )
    code, output, errors = invoke("preflight", dft, "--target", "trt11.2")
    assert (code, errors) == (0, "")
    assert "FFTPlugin" in output
    assert invoke("preflight", dft, "--target", "trt11.2", "--quiet") == (0, "", "")


def test_json_is_one_document(invoke: Invoke, dft: Path) -> None:
    code, output, _ = invoke("preflight", dft, "--target", "rtx", "--json")
    document = json.loads(output)
    assert (code, document["ok"], document["target"]) == (6, False, "rtx")
    assert document["findings"][0]["node"] == "a/DFT"
    assert [finding["severity"] for finding in document["findings"]] == ["error", "note"]


def test_a_clean_model_says_so(invoke: Invoke, model: Model, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    onnx.save(model([helper.make_node("Relu", ["x"], ["z"])], {"x": (TensorProto.FLOAT, (1, 8))}), path)
    assert invoke("preflight", path, "--target", "rtx") == (
        0,
        f"{path} for TensorRT for RTX 1.7: nothing found\n",
        "",
    )


def test_what_cannot_be_checked_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"no model")
    code, _, errors = invoke("preflight", path, "--target", "rtx")
    assert code == 3
    assert "no ONNX model" in errors
    code, _, errors = invoke("preflight", path, "--target", "trt9")
    assert code == 2
    assert "trt8.5" in errors

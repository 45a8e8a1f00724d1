"""The commands `build` and `refit`, run as a user runs them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import pytest
import typer

from sfiin.export import command_build
from sfiin.export.command_build import parse_batch
from sfiin.export.trt_process import is_available
from sfiin.runtime.backends import plan

Invoke = Callable[..., tuple[int, str, str]]

needs_rtx = pytest.mark.skipif(not is_available(), reason="tensorrt-rtx-cu13 is not installed (extra 'dev')")


def test_the_names_are_the_plans() -> None:
    assert get_args(command_build.Flavour) == get_args(plan.Flavour)
    assert get_args(command_build.Compatibility) == get_args(plan.Compatibility)


@needs_rtx
def test_a_plan_for_people_and_for_machines(invoke: Invoke, small_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.plan"
    code, output, errors = invoke("build", small_model, "-o", out, "--flavour", "rtx", "--batch", "1,2,3")
    assert (code, errors) == (0, "")
    assert "for compute capability 8.9, fp32, " in output
    assert "not yet checked on a device; the first load there checks it" in output
    code, _, errors = invoke("build", small_model, "-o", out, "--flavour", "rtx")
    assert code == 7
    assert "--overwrite" in errors
    code, output, _ = invoke("build", small_model, "-o", out, "--flavour", "rtx", "--overwrite", "--json")
    document = json.loads(output)
    assert code == 0
    assert document["bytes"] == out.stat().st_size
    assert document["build"]["batch"] == [1, 1, 16]
    assert invoke("build", small_model, "-o", out, "--flavour", "rtx", "--overwrite", "--quiet") == (
        0,
        "",
        "",
    )
    code, _, errors = invoke(
        "run", "--pan", "p.tif", "--ms", "m.tif", "-o", tmp_path / "o.tif", "--model", out
    )
    assert code == 5
    assert "no NVIDIA driver" in errors or "cuda" in errors.lower()


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (["--dla"], 4, "--dla: a DLA has no MatMul"),
        (["--flavour", "rtx", "--refit"], 4, "on a GPU only"),
        (["--flavour", "rtx", "--compute-capability", "9.0"], 4, "9.0: TensorRT for RTX builds for"),
        (["--flavour", "trt"], 2, "--flavour"),
        (["--level", "6"], 2, "--level"),
        (["--flavour", "rtx", "--batch", "4,2,8"], 2, "three rising numbers"),
        (["--flavour", "rtx", "--workspace", "lots"], 2, "is no size"),
    ],
)
def test_bad_options_are_refused(
    invoke: Invoke, small_model: Path, tmp_path: Path, options: list[str], code: int, said: str
) -> None:
    found, _, errors = invoke("build", small_model, "-o", tmp_path / "net.plan", *options)
    assert (found, said in errors) == (code, True), errors
    assert not list(tmp_path.iterdir())


def test_what_is_no_model_is_refused(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no model")
    for name, said in (("none.onnx", "cannot be read"), ("text.onnx", "no ONNX model")):
        code, _, errors = invoke("build", tmp_path / name, "-o", tmp_path / "net.plan", "--flavour", "rtx")
        assert code == 3
        assert said in errors


def test_refit_refuses_what_is_no_plan(
    invoke: Invoke, small_checkpoint: Path, small_model: Path, tmp_path: Path
) -> None:
    code, _, errors = invoke("refit", small_model, small_checkpoint, "-o", tmp_path / "new.plan")
    assert code == 3
    assert "no plan of tensorrt or rtx" in errors


@pytest.mark.parametrize("text", ["", "1", "1,2", "0,1,2", "2,1,3", "1,3,2", "a,b,c", "1,2,3,4"])
def test_what_is_no_batch(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_batch(text)

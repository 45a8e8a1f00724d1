"""Which backend opens which file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfiin.runtime.backends import machine, native, select
from sfiin.runtime.backends.native import NativeSession
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.errors import InputError, MismatchError, UnavailableError


@pytest.fixture
def a_plan(tmp_path: Path) -> Path:
    """Bytes with a plan's header, under a model's name."""
    path = tmp_path / "net.onnx"
    path.write_bytes(b"ftrt" + bytes(20) + bytes((10, 3, 0, 26)))
    return path


def test_a_model_opens_on_the_cpu_where_there_is_no_gpu(
    small_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": "no NVIDIA driver"})
    session = select.open_session(small_model, threads=1)
    assert isinstance(session, OnnxSession if native.why_not() else NativeSession)
    assert session.run(np.ones((1, 4, 8, 8), np.float32), np.ones((1, 1, 32, 32), np.float32)).shape == (
        1,
        4,
        32,
        32,
    )
    session.close()


@pytest.mark.parametrize("why", [None, "libcudnn.so.9: cannot open shared object file"])
def test_a_gpu_that_cannot_be_used_leaves_the_cpu_and_a_note(
    small_model: Path, monkeypatch: pytest.MonkeyPatch, why: str | None
) -> None:
    """Whether that shows beforehand or when the session is made; here ONNX Runtime has no CUDA."""
    monkeypatch.setattr(machine, "backend", lambda _name: {"usable": not why, "why": why})
    monkeypatch.setattr(machine, "cuda_driver", lambda: {"why": None})
    session = select.open_session(small_model, threads=1)
    assert isinstance(session, NativeSession | OnnxSession)
    (note,) = session.notes
    assert note.startswith("on the CPU, for ONNX Runtime cannot use the GPU here: ")
    assert (why or "no CUDAExecutionProvider") in note
    session.close()


def test_a_gpu_is_taken_where_it_can_be(small_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []
    monkeypatch.setattr(machine, "backend", lambda _name: {"usable": True, "why": None})
    monkeypatch.setattr(select, "OnnxSession", lambda _model, provider, _threads: taken.append(provider))
    select.open_session(small_model)
    assert taken == ["cuda"]


@pytest.mark.parametrize("choice", ["cpu", "cuda"])
def test_a_plan_runs_in_tensorrt_only(a_plan: Path, choice: Any) -> None:
    with pytest.raises(MismatchError, match=f"only TensorRT runs; leave out --provider {choice}"):
        select.open_session(a_plan, choice)


def test_a_plan_is_known_by_its_bytes_and_wants_its_sidecar(a_plan: Path) -> None:
    for choice in ("auto", "tensorrt"):
        with pytest.raises(InputError, match=r"net\.onnx\.json: a plan's sidecar cannot be read"):
            select.open_session(a_plan, choice)


def test_a_missing_file_and_a_missing_provider_are_told(small_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such model"):
        select.open_session(tmp_path / "none.onnx")
    if machine.backend("tensorrt")["usable"]:
        pytest.skip("ONNX Runtime here has TensorRT")
    with pytest.raises(UnavailableError, match="no TensorrtExecutionProvider"):
        select.open_session(small_model, "tensorrt")

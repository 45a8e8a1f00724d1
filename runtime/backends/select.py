"""Which backend runs a model here? One protocol for all of them, chosen by the file and by the machine.

| file  | `auto`                                            | or by name                                              |
|-------|---------------------------------------------------|---------------------------------------------------------|
| .onnx | ONNX Runtime, on the GPU where it has one, or CPU | `cpu`, `cuda`, `tensorrt`: its execution providers      |
| plan  | TensorRT, or TensorRT for RTX, natively           | `tensorrt`                                              |

A model's name may also be the address of one that a Triton server runs (`grpc://HOST:PORT/NAME`). A file is
taken for what its first bytes say that it is, whatever its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sfiin.runtime.backends import machine, plan
from sfiin.runtime.backends.session import OnnxSession, Provider, Session
from sfiin.runtime.backends.triton_client import TritonSession, is_address
from sfiin.runtime.errors import InputError, MismatchError

Choice = Literal["auto", "cpu", "cuda", "tensorrt"]


def open_session(model: Path, choice: Choice = "auto", threads: int = 0) -> Session:
    """Open a model or a plan. `threads` bounds ONNX Runtime's on a CPU (0: its choice).

    Raises as `OnnxSession` and `sfiin.runtime.backends.tensorrt_session.open_plan`, InputError for a missing
    file, MismatchError for a plan that is asked to run elsewhere than in TensorRT; for an address as
    `sfiin.runtime.backends.triton_client.TritonSession`.
    """
    if is_address(model):
        if choice != "auto":
            raise MismatchError(f"{model}: the server decides what it runs on; leave out --provider {choice}")
        return TritonSession(str(model))
    if not model.is_file():
        raise InputError(f"{model}: no such model file")
    if not plan.is_plan(model):
        return OnnxSession(model, best_provider() if choice == "auto" else choice, threads)
    if choice not in ("auto", "tensorrt"):
        raise MismatchError(
            f"{model} is a TensorRT plan, which only TensorRT runs; leave out --provider {choice}"
        )
    from sfiin.runtime.backends.tensorrt_session import open_plan

    return open_plan(model)


def best_provider() -> Provider:
    """The GPU where ONNX Runtime and a driver are there for it, else the CPU."""
    return "cuda" if machine.backend("cuda")["usable"] else "cpu"

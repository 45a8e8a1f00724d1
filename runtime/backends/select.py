"""Which backend runs a model here? One protocol for all of them, chosen by the file and by the machine.

| file  | `auto`                                         | or by name                           |
|-------|------------------------------------------------|--------------------------------------|
| .onnx | ONNX Runtime on the GPU where it has one; else | `native`; ONNX Runtime's execution   |
|       | the native kernels where they know the model;  | providers `cpu`, `cuda`, `tensorrt`  |
|       | else ONNX Runtime on the CPU                   |                                      |
| plan  | TensorRT, or TensorRT for RTX, natively        | `tensorrt`                           |

A model's name may also be the address of one that a Triton server runs (`grpc://HOST:PORT/NAME`). A file is
taken for what its first bytes say that it is, whatever its name.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from sfiin.runtime import signatures
from sfiin.runtime.backends import machine, plan
from sfiin.runtime.backends.native import NativeSession
from sfiin.runtime.backends.session import OnnxSession, Session
from sfiin.runtime.backends.triton_client import TritonSession, is_address
from sfiin.runtime.errors import CheckFailedError, InputError, MismatchError, UnavailableError

Choice = Literal["auto", "native", "cpu", "cuda", "tensorrt"]


def open_session(
    model: Path, choice: Choice = "auto", threads: int = 0, *, key: Path | None = None
) -> Session:
    """Open a model or a plan. `threads` bounds those on a CPU (0: the backend's choice).

    With a `key`, or one that the environment names (`sfiin.runtime.signatures.SETTING`), the model's folder
    must be signed with it, and what runs must be what was signed. Raises as `signatures.verify`,
    `OnnxSession` and `sfiin.runtime.backends.tensorrt_session.open_plan`, InputError for a missing file,
    MismatchError for a plan that is asked to run elsewhere than in TensorRT; for an address as
    `sfiin.runtime.backends.triton_client.TritonSession`, and MismatchError where a key is wanted.
    """
    if is_address(model):
        if choice != "auto":
            raise MismatchError(f"{model}: the server decides what it runs on; leave out --provider {choice}")
        if signatures.required(key):
            raise MismatchError(
                f"{model}: signature: what a server runs cannot be verified here; leave the key out"
            )
        return TritonSession(str(model))
    if not model.is_file():
        raise InputError(f"{model}: no such model file")
    wanted = signatures.required(key)
    if wanted is None:
        return _opened(model, choice, threads)
    signed = signatures.verify(model.parent, wanted)
    session = _opened(model, choice, threads)
    if getattr(session, "sha256", "") != signed.get(model.name):
        session.close()
        raise MismatchError(f"{model}: signature: what would run is not among the files that are signed")
    return session


def _opened(model: Path, choice: Choice, threads: int) -> Session:
    if not plan.is_plan(model):
        return _open_model(model, choice, threads)
    if choice not in ("auto", "tensorrt"):
        raise MismatchError(
            f"{model} is a TensorRT plan, which only TensorRT runs; leave out --provider {choice}"
        )
    from sfiin.runtime.backends.tensorrt_session import open_plan

    return open_plan(model)


def _open_model(model: Path, choice: Choice, threads: int) -> Session:
    if choice == "native":
        return NativeSession(model, threads)
    if choice != "auto":
        return OnnxSession(model, choice, threads)
    why = machine.backend("cuda")["why"]
    if not why:
        try:
            return OnnxSession(model, "cuda", threads)
        except UnavailableError as error:
            why = str(error)
    session = _on_cpu(model, threads)
    if not machine.cuda_driver()["why"]:
        session.notes.append(f"on the CPU, for ONNX Runtime cannot use the GPU here: {why}")
    return session


def _on_cpu(model: Path, threads: int) -> NativeSession | OnnxSession:
    """By the native kernels, or by ONNX Runtime, whose notes then say why."""
    try:
        return NativeSession(model, threads)
    except (UnavailableError, CheckFailedError) as error:
        why = str(error)  # what is wrong with the model itself is said again below
    try:
        session = OnnxSession(model, "cpu", threads)
    except UnavailableError as error:
        raise UnavailableError(f"{error}; nor can the native kernels run it: {why}") from None
    session.notes.append(f"ONNX Runtime ran the model, which takes longer than the native kernels: {why}")
    return session

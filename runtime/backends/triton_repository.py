"""How does NVIDIA Triton serve a model? From a repository: a folder with the artefact and a configuration.

    repository/NAME/config.pbtxt      inputs, outputs, batching, instances, warm-up, contract, digests
    repository/NAME/1/model.onnx      or model.plan; for the Python backend model.py and the artefact
    repository/NAME/warmup/ms, pan    the first golden tile, raw

Triton's own backends (`onnxruntime`, `tensorrt`) run the artefact as it is. The Python backend (`python`)
runs it in sfiin's session, which holds it against its golden tiles before the server calls it ready. Clients
find the contract among the parameters, and refuse what does not fit (`sfiin.runtime.backends.triton_client`).

Source: Triton's documentation, "Model Configuration" (github.com/triton-inference-server/server).
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sfiin.runtime import golden, vouching
from sfiin.runtime.backends import plan, plugin
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError, OutputError
from sfiin.runtime.files import sha256

Backend = Literal["onnxruntime", "tensorrt", "python"]

CONTRACT, DIGEST, SERVED = "sfiin.contract", "sfiin.sha256", "sfiin.artefact"
"""Parameters of a served model: its contract as JSON, and the artefact's SHA-256 digest (hex) and file
name."""

MODEL_PY = '''"""Triton's Python backend looks here for the model's class."""

import os
import sys

try:
    import numpy  # noqa: F401
    import sfiin  # noqa: F401
except ImportError:  # some builds of Triton start Python without looking at PYTHONPATH
    sys.path += os.environ.get("PYTHONPATH", "").split(os.pathsep)

from sfiin.runtime.backends.triton_server import Model as TritonPythonModel  # noqa: E402, F401
'''

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_FILES: Mapping[Backend, str] = {"onnxruntime": "model.onnx", "tensorrt": "model.plan", "python": "model.py"}


@dataclass(frozen=True)
class Serving:
    """How a model is served.

    `batch`: the most tiles at once; `delay`: microseconds that a tile may wait for others to join it;
    `instances` of the model run side by side, on the CPU or on each GPU; `threads` of one instance of ONNX
    Runtime (0: its choice).
    """

    batch: int = 8
    delay: int = 2000
    instances: int = 1
    threads: int = 1


def write(
    artefact: Path,
    repository: Path,
    name: str,
    backend: Backend | None = None,
    serving: Serving | None = None,
) -> Path:
    """Add a model, as its version 1, to a repository, which is made if need be; the model's folder.

    `backend` None: Triton's own for the artefact. Raises InputError for what is neither model nor plan, or a
    name that is none; MismatchError for a backend that does not run it; OutputError for a model that is there
    already, or where nothing can be written. A folder appears under its name only when it is complete.
    """
    serving = serving or Serving()
    is_plan = plan.is_plan(artefact)
    own: Backend = "tensorrt" if is_plan else "onnxruntime"
    backend = backend or own
    if backend not in (own, "python"):
        raise MismatchError(f"{artefact}: Triton's backend {backend} does not run it; choose {own} or python")
    if not _NAME.fullmatch(name):
        raise InputError(f"'{name}' is no name for a model; use letters, digits, '.', '_' and '-'")
    folder, part = repository / name, repository / f".{name}.part"
    if folder.exists():
        raise OutputError(f"{folder}: exists already; give another --name, or remove it first")
    contract = plan.read(artefact).contract if is_plan else vouching.vouched_contract(artefact)
    tiles = golden.read(golden.beside(artefact), contract)
    try:
        shutil.rmtree(part, ignore_errors=True)
        (part / "1").mkdir(parents=True)
        _put(artefact, part / "1", backend, is_plan)
        (part / "warmup").mkdir()
        for key, tile in (("ms", tiles.ms[0]), ("pan", tiles.pan[0])):
            (part / "warmup" / key).write_bytes(np.ascontiguousarray(tile, "<f4").tobytes())
        served = {DIGEST: sha256(artefact), SERVED: artefact.name}
        text = configuration(name, backend, contract, served, serving)
        (part / "config.pbtxt").write_text(text, encoding="utf-8")
        part.replace(folder)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(
            f"{folder}: cannot be written ({error.strerror}); check the disk and permissions"
        ) from None
    return folder


def configuration(
    name: str, backend: Backend, contract: Contract, served: Mapping[str, str], serving: Serving
) -> str:
    """A model's `config.pbtxt`; `served` holds the parameters that tell of the artefact."""
    shapes = contract.shapes
    inputs = ",\n".join(_tensor(key, shapes[key]) for key in ("ms", "pan"))
    parameters = {CONTRACT: contract.to_json(), **served}
    parameters |= {"threads": str(serving.threads)} if backend == "python" else {}
    parameters |= {"intra_op_thread_count": str(serving.threads)} if backend == "onnxruntime" else {}
    kind = "KIND_GPU" if backend == "tensorrt" else "KIND_AUTO" if backend == "onnxruntime" else "KIND_CPU"
    warm = "".join(_warmup(key, shapes[key]) for key in ("ms", "pan"))
    return (
        f'name: "{name}"\n'
        f'backend: "{backend}"\n'
        f'default_model_filename: "{_FILES[backend]}"\n'
        f"max_batch_size: {serving.batch}\n"
        f"input [\n{inputs}\n]\n"
        f"output [\n{_tensor('hrms', shapes['hrms'])}\n]\n"
        f"dynamic_batching {{ max_queue_delay_microseconds: {serving.delay} }}\n"
        f"instance_group [ {{ count: {serving.instances} kind: {kind} }} ]\n"
        "version_policy { latest { num_versions: 1 } }\n"
        f'model_warmup [ {{\n  name: "golden tile"\n  batch_size: 1\n{warm}}} ]\n'
        + "".join(
            f"parameters {{ key: {_quoted(key)} value {{ string_value: {_quoted(value)} }} }}\n"
            for key, value in parameters.items()
        )
    )


def _put(artefact: Path, folder: Path, backend: Backend, is_plan: bool) -> None:
    """The artefact under the name that its backend looks for; for Python under its own, with all that it
    needs."""
    if backend != "python":
        shutil.copyfile(artefact, folder / _FILES[backend])
        return
    (folder / "model.py").write_text(MODEL_PY, encoding="utf-8")
    for path in (artefact, golden.beside(artefact), plan.beside(artefact), plugin.beside(artefact)):
        if path in (artefact, golden.beside(artefact)) or (is_plan and path.is_file()):
            shutil.copyfile(path, folder / path.name)


def _tensor(name: str, shape: tuple[int, ...]) -> str:
    return f'  {{ name: "{name}" data_type: TYPE_FP32 dims: {list(shape)} }}'


def _warmup(name: str, shape: tuple[int, ...]) -> str:
    value = f'{{ data_type: TYPE_FP32 dims: {list(shape)} input_data_file: "{name}" }}'
    return f'  inputs {{ key: "{name}" value {value} }}\n'


def _quoted(text: str) -> str:
    """A string of protobuf's text format; JSON's escapes are among its own but for those of other planes."""
    return json.dumps(text, ensure_ascii=True)

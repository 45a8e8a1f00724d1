"""Run by test_driver.py in a process whose libcuda.so.1 is the stand-in: a session over NVIDIA's real
bindings.

    session.py MODEL FOLDER cuda-bindings|pycuda

Prints one JSON document of what happened.
"""

from __future__ import annotations

import ctypes
import dataclasses
import inspect
import json
import re
import shutil
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np

from sfiin.runtime import golden, models
from sfiin.runtime.backends import plan
from sfiin.runtime.backends.cuda import CudaBindings, PyCuda
from sfiin.runtime.backends.fake_device import Call, FakeTensorRT
from sfiin.runtime.backends.plan import Build, Sidecar
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.backends.tensorrt_session import TensorRTSession
from sfiin.runtime.errors import SfiinError
from sfiin.runtime.files import sha256

DRIVER = ctypes.CDLL("libcuda.so.1")
WORK = ctypes.CFUNCTYPE(None)
DRIVER.standin_enqueue.argtypes = [ctypes.c_ulonglong, WORK]


class Standin:
    """What the stand-in of TensorRT asks of a device besides."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = [Call("none")]
        self._work: list[Any] = []

    def _call(self, name: Any, *arguments: Any) -> Any:
        self.calls.append(Call("begin_capture" if name == "cuStreamBeginCapture" else str(name)))
        return super()._call(name, *arguments)  # type: ignore[misc]

    def work(self, _name: str, stream: int, _seconds: float, effect: Callable[[], object]) -> None:
        self._work.append(WORK(effect))
        assert DRIVER.standin_enqueue(stream, self._work[-1]) == 0

    @staticmethod
    def bytes_at(address: int, size: int) -> Any:
        return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))


class OverBindings(Standin, CudaBindings):
    """NVIDIA's bindings."""


class OverPyCuda(Standin, PyCuda):
    """pycuda."""


def hasty(layer: type[Standin]) -> type[Standin]:
    """The same, without waiting."""

    class Hasty(layer):  # type: ignore[misc, valid-type]
        def synchronize(self, event: int) -> None:
            pass

    return Hasty


PYCUDA_CALLS = (
    *(
        "cuMemAlloc",
        "cuMemHostAlloc",
        "cuStreamCreate",
        "cuEventCreate",
        "cuEventRecord",
        "cuStreamWaitEvent",
    ),
    *("cuMemcpyHtoDAsync", "cuMemcpyDtoHAsync", "cuEventSynchronize"),
)
"""What pycuda calls of the driver for a session, without what gives back: it warns of that and goes on."""


def planned(model: Path, folder: Path) -> tuple[Path, Sidecar]:
    path = folder / "net.plan"
    path.write_bytes(b"ftrt" + bytes(20) + bytes((10, 3, 0, 26)) + b"the rest")
    shutil.copy(golden.beside(model), golden.beside(path))
    digests: dict[str, Any] = {"model": sha256(model), "plan": sha256(path)}
    fields: dict[str, Any] = {
        "flavour": "tensorrt",
        "tensorrt": "10.3.0.26",
        "device": "Orin",
        "compute_capabilities": ("8.7",),
        "batch": (1, 2, 4),
        "refittable": False,
        "stripped": False,
        "version_compatible": False,
        "hardware_compatibility": "none",
        "plugin": "",
        "plugin_inside": False,
        "options": {},
        "seconds": 1.0,
    }  # of a plan that no TensorRT has made
    sidecar = Sidecar(models.contract(model), Build(**fields, **digests))
    plan.update(path, sidecar)
    return path, sidecar


def batches(model: Path) -> list[tuple[Any, Any]]:
    shapes = models.contract(model).shapes
    random = np.random.default_rng(0)
    found = []
    for count in (4, 3, 4, 1, 2, 4):
        ms, pan = (
            random.integers(0, 2047, (count, *shapes[name])).astype(np.float32) for name in ("ms", "pan")
        )
        found.append((ms, pan))
    return found


def session_of(model: Path, made: tuple[Path, Sidecar], device: Standin) -> TensorRTSession:
    return TensorRTSession(*made, cast(Any, device), FakeTensorRT(cast(Any, device), model))


EXPECTED: list[Any] = []


def agrees(model: Path, made: tuple[Path, Sidecar], device: Standin) -> bool:
    """Whether many batches give what ONNX Runtime gives, with graphs and without; all is given back after."""
    if not EXPECTED:
        with OnnxSession(model, threads=1) as reference:
            EXPECTED.extend(reference.run(*batch) for batch in batches(model))
    expected = EXPECTED
    session = session_of(model, made, device)
    try:
        rounds = [list(session.run_many(batches(model))) for _ in range(3)]
    finally:
        session.close()
    return all(
        np.array_equal(one, other) for found in rounds for one, other in zip(found, expected, strict=True)
    )


def in_another_thread(model: Path, made: tuple[Path, Sidecar], device: Standin) -> list[Any]:
    """A session that was opened here, run there: what it gave, or its error."""
    with OnnxSession(model, threads=1) as reference:
        expected = reference.run(*batches(model)[0])
    found: list[Any] = []
    with session_of(model, made, device) as session:

        def run() -> None:
            try:
                found.append(np.array_equal(session.run(*batches(model)[0]), expected))
            except SfiinError as error:
                found.append(str(error))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    return found


def failures(model: Path, made: tuple[Path, Sidecar], layer: type[Standin]) -> dict[str, Any]:
    """By function of the layer: what a failure of its first, and of a later call ends in."""
    names = sorted(set(re.findall(r'_call\("(\w+)"', inspect.getsource(CudaBindings))))
    found: dict[str, Any] = {}
    for name in names if layer is OverBindings else PYCUDA_CALLS:
        for after in (1, 3):
            before = DRIVER.standin_living()
            DRIVER.standin_fail(exported(name), after)
            try:
                agrees(model, made, layer())
                found[f"{name} {after}"] = "went well"
            except SfiinError as error:
                found[f"{name} {after}"] = str(error)
            finally:
                DRIVER.standin_fail(b"", 0)
            found[f"{name} {after}"] = (found[f"{name} {after}"], DRIVER.standin_living() - before)
    return found


def exported(name: str) -> bytes:
    """The name that the stand-in knows a function by."""
    for end in ("_v2", ""):
        if hasattr(DRIVER, name + end):
            return (name + end).encode()
    return b"cuGraphInstantiateWithFlags" if name == "cuGraphInstantiate" else name.encode()


def main() -> None:
    model, folder = Path(sys.argv[1]), Path(sys.argv[2])
    layer: type[Standin] = OverBindings if sys.argv[3] == "cuda-bindings" else OverPyCuda
    made = planned(model, folder)
    device: Any = layer()
    document: dict[str, Any] = {"right": agrees(model, made, device), "left": DRIVER.standin_living()}
    document["thread"] = in_another_thread(model, made, layer())
    try:
        document["hasty"] = agrees(model, made, hasty(layer)())
    except SfiinError as error:
        document["hasty"] = str(error)
    document["failures"] = failures(model, made, layer)
    document["free"] = device.free_memory()
    document["sidecar"] = dataclasses.asdict(plan.read(made[0]).build)["checked"]
    print(json.dumps(document))


if __name__ == "__main__":
    main()

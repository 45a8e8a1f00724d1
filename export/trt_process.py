"""What does NVIDIA's compiler say of this graph? TensorRT, or TensorRT for RTX, in a process of its own.

TensorRT for RTX needs no GPU to build. It parses, checks types and compiles like TensorRT, so its word is the
proof of a graph in CI. Its plans run on desktop cards only (compute capability 7.5, 8.0, 8.6, 8.9, 12.x), not
on a Jetson, and it has no plugins. A crash of the compiler ends the other process and is a result here, not
the caller's end.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from subprocess import PIPE
from tempfile import TemporaryFile
from threading import Timer
from typing import Any, Literal

from sfiin.runtime.backends.plan import Flavour
from sfiin.runtime.errors import InputError, UnavailableError

ComputeCapability = Literal["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]
Batch = tuple[int, int, int]
Watch = Callable[[int, int], None]

LIBRARIES: Mapping[Flavour, str] = {"tensorrt": "tensorrt", "rtx": "tensorrt_rtx"}
"""The module that builds plans of each flavour."""


@dataclass(frozen=True)
class CompilerError:
    """One of the compiler's errors; `node` and `operator` are empty where it names none."""

    node: str
    operator: str
    text: str


@dataclass(frozen=True)
class Compiled:
    """What became of a model: whether it was taken, in how long (seconds), and why not.

    `layers` counts the network's layers after parsing, `plan_bytes` is the built plan's size; 0 where it did
    not come to that.
    """

    ok: bool
    seconds: float
    layers: int = 0
    plan_bytes: int = 0
    errors: tuple[CompilerError, ...] = ()


def compile_for_rtx(
    model: Path,
    compute_capability: ComputeCapability = "8.9",
    batch: Batch = (1, 1, 16),
    timeout: float = 600.0,
) -> Compiled:
    """Parse a model and build a plan for one compute capability; what is refused is in the result's errors.

    `batch` is the smallest, usual and largest extent of every input's first dimension where that is dynamic;
    other dynamic dimensions are refused. `timeout` in seconds. Raises UnavailableError without the compiler,
    InputError for a file that is missing.
    """
    return _results([model], timeout, {"compute_capabilities": [compute_capability], "batch": batch})[0]


def parse_for_rtx(models: Sequence[Path], timeout: float = 600.0) -> list[Compiled]:
    """Only parse, which tells what is not supported in a hundredth of the time; one process for all models.

    Raises as `compile_for_rtx`.
    """
    return _results(models, timeout, None)


def is_available() -> bool:
    """Whether the compiler is installed; it is not imported."""
    return find_spec("tensorrt_rtx") is not None


def _results(models: Sequence[Path], timeout: float, build: Mapping[str, Any] | None) -> list[Compiled]:
    if not is_available():
        raise UnavailableError(
            "TensorRT for RTX is not installed: pip install tensorrt-rtx-cu13 (Linux, x86_64)"
        )
    return compile_models(LIBRARIES["rtx"], models, build, timeout)[1]


def compile_models(
    library: str,
    models: Sequence[Path],
    build: Mapping[str, Any] | None,
    timeout: float,
    *,
    plugin_library: Path | None = None,
    log: Path | None = None,
    watch: Watch = lambda _done, _of: None,
) -> tuple[str, list[Compiled]]:
    """The library's version, and what became of each model in one process; without `build` they are only
    parsed.

    `build` holds what `sfiin.export.trt_worker.configured` takes, and `plan`, where to write.
    `plugin_library` is loaded before the first model is read; `log` gets all that the library says; `watch`
    its steps done, of how many. Raises InputError for a missing file, or a plugin's library that is none,
    UnavailableError when the library cannot be imported.
    """
    for model in models:
        if not model.is_file():
            raise InputError(f"{model}: no such file")
    request = {
        "library": library,
        "models": [str(path) for path in models],
        "build": build,
        "log": log and str(log),
        "plugin": plugin_library and str(plugin_library),
    }
    lines, why = _answers(json.dumps(request), timeout, watch)
    told = {key: value for line in lines for key, value in line.items()}
    if "unavailable" in told:
        raise UnavailableError(f"{library} cannot be imported: {told['unavailable']}")
    if "unusable" in told:
        raise InputError(told["unusable"])
    found = [_compiled(line["answer"]) for line in lines if "answer" in line]
    missing = Compiled(False, 0.0, errors=(CompilerError("", "", f"the compiler gave no answer: {why}"),))
    return str(told.get("version", "")), found + [missing] * (len(models) - len(found))


def _answers(request: str, timeout: float, watch: Watch) -> tuple[list[dict[str, Any]], str]:
    """What the other process told, without its progress, and how it ended."""
    command = [sys.executable, "-m", "sfiin.export.trt_worker"]
    with TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdin=PIPE, stdout=PIPE, stderr=errors, text=True)
        timer = Timer(timeout, process.kill)
        timer.start()
        try:
            lines = list(_told(process, request, watch))
            code = process.wait()
        except BaseException:  # an interrupt must not leave a compiler behind
            process.kill()
            process.wait()
            raise
        finally:
            late = timer.finished.is_set()
            timer.cancel()
        errors.seek(0)
        said = errors.read().strip()[-300:]
    return (
        lines,
        f"it took longer than {timeout:g} s"
        if late
        else f"its process ended with code {code} {said}".strip(),
    )


def _told(process: subprocess.Popen[str], request: str, watch: Watch) -> Iterator[dict[str, Any]]:
    assert process.stdin is not None
    assert process.stdout is not None
    with process.stdin as stdin, suppress(BrokenPipeError):
        stdin.write(request)
    with process.stdout as stdout:
        for line in stdout:
            told = json.loads(line) if line.startswith("{") else {}
            if "progress" in told:
                watch(*told["progress"])
            elif told:
                yield told


def _compiled(answer: dict[str, Any]) -> Compiled:
    errors = tuple(CompilerError(**error) for error in answer.pop("errors"))
    return Compiled(**answer, errors=errors)

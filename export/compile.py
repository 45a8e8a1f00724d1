"""What does NVIDIA's compiler say of this graph? TensorRT for RTX, whose builder needs no GPU, in a process of its own.

It parses, checks types and compiles like TensorRT, so its word is the proof of a graph in CI. Its plans run on desktop
cards only (compute capability 7.5, 8.0, 8.6, 8.9, 12.x), not on a Jetson, and it has no plugins. A crash of the
compiler ends the other process and is a result here, not the caller's end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from runtime.errors import InputError, UnavailableError

ComputeCapability = Literal["7.5", "8.0", "8.6", "8.9", "12.0", "12.1"]
Batch = tuple[int, int, int]


@dataclass(frozen=True)
class CompilerError:
    """One of the compiler's errors; `node` and `operator` are empty where it names none."""

    node: str
    operator: str
    text: str


@dataclass(frozen=True)
class Compiled:
    """What became of a model: whether it was taken, in how long (seconds), and why not.

    `layers` counts the network's layers after parsing, `plan_bytes` is the built plan's size; 0 where it did not come
    to that.
    """

    ok: bool
    seconds: float
    layers: int = 0
    plan_bytes: int = 0
    errors: tuple[CompilerError, ...] = ()


def compile_for_rtx(
    model: Path, compute_capability: ComputeCapability = "8.9", batch: Batch = (1, 1, 16), timeout: float = 600.0
) -> Compiled:
    """Parse a model and build a plan for one compute capability; what is refused is in the result's errors.

    `batch` is the smallest, usual and largest extent of every input's first dimension where that is dynamic; other
    dynamic dimensions are refused. `timeout` in seconds. Raises UnavailableError without the compiler, InputError for a
    file that is missing.
    """
    return _results([model], timeout, {"capability": compute_capability, "batch": batch})[0]


def parse_for_rtx(models: Sequence[Path], timeout: float = 600.0) -> list[Compiled]:
    """Only parse, which tells what is not supported in a hundredth of the time; one process for all models.

    Raises as `compile_for_rtx`.
    """
    return _results(models, timeout, {})


def is_available() -> bool:
    """Whether the compiler is installed; it is not imported."""
    return find_spec("tensorrt_rtx") is not None


def _results(models: Sequence[Path], timeout: float, build: dict[str, Any]) -> list[Compiled]:
    if not is_available():
        raise UnavailableError("TensorRT for RTX is not installed: pip install tensorrt-rtx-cu13 (Linux, x86_64)")
    for model in models:
        if not model.is_file():
            raise InputError(f"{model}: no such file")
    request = json.dumps({"models": [str(model) for model in models], **build})
    lines, why = _answers(request, timeout)
    missing = Compiled(False, 0.0, errors=(CompilerError("", "", f"the compiler gave no answer: {why}"),))
    found = [_compiled(json.loads(line)) for line in lines]
    return found + [missing] * (len(models) - len(found))


def _answers(request: str, timeout: float) -> tuple[list[str], str]:
    """The answers of the other process, one line each, and how it ended; fewer than asked for if it crashed."""
    command = [sys.executable, "-m", "export.compile"]
    try:
        done = subprocess.run(command, input=request, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return [], f"it took longer than {timeout:g} s"
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    return lines, f"its process ended with code {done.returncode} {done.stderr.strip()[-300:]}".strip()


def _compiled(answer: dict[str, Any]) -> Compiled:
    errors = tuple(CompilerError(**error) for error in answer.pop("errors"))
    return Compiled(**answer, errors=errors)


# --- in the other process ---------------------------------------------------------------------------------------------


class _Compiler:
    """The compiler and what it last complained of."""

    def __init__(self) -> None:
        import tensorrt_rtx as trt

        self._trt: Any = trt
        self._messages: list[str] = []
        self._logger = _logger(trt, self._messages)
        self._builder = trt.Builder(self._logger)

    def answer(self, model: str, request: dict[str, Any]) -> dict[str, Any]:
        """The fields of a `Compiled`."""
        start = time.monotonic()
        self._messages.clear()
        network = self._builder.create_network(1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
        errors, size = self._parse(network, model), 0
        ok = not errors
        if ok and "capability" in request:
            plan = self._builder.build_serialized_network(network, self._config(network, request))
            ok, size = (plan is not None), (0 if plan is None else plan.nbytes)
            errors = [] if ok else self._complaints()
        layers = network.num_layers if not errors or size else 0
        seconds = time.monotonic() - start
        return {"ok": ok, "seconds": seconds, "layers": layers, "plan_bytes": size, "errors": errors}

    def _parse(self, network: Any, model: str) -> list[dict[str, str]]:
        parser = self._trt.OnnxParser(network, self._logger)
        if parser.parse_from_file(model):
            return []
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        return [
            {"node": it.node_name(), "operator": it.node_operator(), "text": it.desc()} for it in found
        ] or self._complaints()

    def _config(self, network: Any, request: dict[str, Any]) -> Any:
        config = self._builder.create_builder_config()
        config.num_compute_capabilities = 1
        capability = "SM" + request["capability"].replace(".", "")
        config.set_compute_capability(getattr(self._trt.ComputeCapability, capability), 0)
        inputs = [network.get_input(i) for i in range(network.num_inputs)]
        if any(-1 in tuple(it.shape) for it in inputs):
            profile = self._builder.create_optimization_profile()
            for it in inputs:
                profile.set_shape(it.name, *(_extent(tuple(it.shape), batch) for batch in request["batch"]))
            config.add_optimization_profile(profile)
        return config

    def _complaints(self) -> list[dict[str, str]]:
        texts = self._messages or ["refused without a word"]
        return [{"node": "", "operator": "", "text": text} for text in texts]


def _extent(shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
    return (batch, *shape[1:]) if shape and shape[0] == -1 else shape


def _logger(trt: Any, messages: list[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors and drops the rest."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            """Called by the compiler."""
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(text)

    return Logger()


def _main() -> None:
    request, compiler = json.load(sys.stdin), _Compiler()
    for model in request["models"]:
        print(json.dumps(compiler.answer(model, request)), flush=True)


if __name__ == "__main__":
    _main()

"""What runs in the compiler's own process? TensorRT, or TensorRT for RTX, on one model after another.

`sfiin.export.trt_process` starts it as `python -m sfiin.export.trt_worker`, gives it a request as JSON on
stdin, and reads JSON lines from stdout: the library's version, progress where the version reports it, and an
answer for each model. Whatever ends this process, the other one lives.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, TextIO

from sfiin.export import weak_typing
from sfiin.runtime.backends import plugin
from sfiin.runtime.errors import InputError


def main() -> None:
    """Answer the request on stdin."""
    request = json.load(sys.stdin)
    try:
        trt = import_module(request["library"])
    except (ImportError, OSError) as error:  # the latter for a library of CUDA's that is missing
        _tell({"unavailable": " ".join(str(error).split())})
        return
    _tell({"version": trt.__version__})
    if not request["models"]:
        return
    plugin_library = Path(request["plugin"]) if request.get("plugin") else None
    log = Path(request["log"]).open("w", encoding="utf-8") if request.get("log") else None  # noqa: SIM115
    try:
        compiler = _Compiler(trt, log, plugin_library)
    except InputError as error:
        _tell({"unusable": str(error)})
        return
    for model in request["models"]:
        _tell({"answer": compiler.answer(model, request.get("build"))})


def _tell(line: Mapping[str, Any]) -> None:
    print(json.dumps(line), flush=True)


class _Compiler:
    """The library, and what it last complained of."""

    def __init__(self, trt: Any, log: TextIO | None, plugin_library: Path | None) -> None:
        self._trt = trt
        self._messages: list[str] = []
        self._logger = _logger(trt, self._messages, log)
        self._builder = trt.Builder(self._logger)
        if plugin_library:
            plugin.load(self._builder, plugin_library)

    def answer(self, model: str, build: Mapping[str, Any] | None) -> dict[str, Any]:
        """The fields of an `sfiin.export.trt_process.Compiled`."""
        start = time.monotonic()
        self._messages.clear()
        network = self._builder.create_network(network_flags(self._trt))
        errors, size = self._parse(network, model), 0
        ok = not errors
        if ok and build is not None:
            size = self._build(network, build)
            ok = bool(size)
            errors = [] if ok else self._complaints()
        layers = network.num_layers if not errors or size else 0
        return {
            "ok": ok,
            "seconds": time.monotonic() - start,
            "layers": layers,
            "plan_bytes": size,
            "errors": errors,
        }

    def _parse(self, network: Any, model: str) -> list[dict[str, str]]:
        parser = self._trt.OnnxParser(network, self._logger)
        if parser.parse_from_file(model):
            return []
        found = [parser.get_error(i) for i in range(parser.num_errors)]
        # Before 10 an error names its node by number only.
        return [
            {
                "node": error.node_name() if hasattr(error, "node_name") else f"number {error.node()}",
                "operator": error.node_operator() if hasattr(error, "node_operator") else "",
                "text": error.desc(),
            }
            for error in found
        ] or self._complaints()

    def _build(self, network: Any, build: Mapping[str, Any]) -> int:
        """Build, and write the plan where it is wanted; its size, 0 when nothing came of it."""
        config = configured(self._trt, self._builder, network, build)
        cache = Path(build["timing_cache"]) if build.get("timing_cache") else None
        if cache:
            config.set_timing_cache(
                config.create_timing_cache(cache.read_bytes() if cache.is_file() else b""), False
            )
        if hasattr(config, "progress_monitor"):
            config.progress_monitor = _monitor(self._trt)
        plan = self._builder.build_serialized_network(network, config)
        if plan is None:
            return 0
        if build.get("plan"):
            Path(build["plan"]).write_bytes(memoryview(plan))
        if cache:
            cache.write_bytes(memoryview(config.get_timing_cache().serialize()))
        return int(plan.nbytes)

    def _complaints(self) -> list[dict[str, str]]:
        texts = self._messages or ["refused without a word"]
        return [{"node": "", "operator": "", "text": text} for text in texts]


def network_flags(trt: Any) -> int:
    """A network's creation flags, by name: a name's number differs between versions, and 8 has no strong
    typing."""
    flags = trt.NetworkDefinitionCreationFlag
    return 1 << int(flags.STRONGLY_TYPED if hasattr(flags, "STRONGLY_TYPED") else flags.EXPLICIT_BATCH)


def configured(trt: Any, builder: Any, network: Any, build: Mapping[str, Any]) -> Any:
    """A builder's configuration; what `build` does not name is left as the library has it.

    TF32, which has the mantissa of FP16, is off: a graph's FP32 is meant.
    """
    config = builder.create_builder_config()
    config.clear_flag(trt.BuilderFlag.TF32)
    if not hasattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED"):
        weak_typing.constrain(trt, network, config)
    for flag in build.get("flags", ()):
        config.set_flag(getattr(trt.BuilderFlag, flag))
    if build.get("workspace"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, build["workspace"])
    if build.get("level") is not None:
        config.builder_optimization_level = build["level"]
    if build.get("hardware_compatibility", "none") != "none":
        levels = trt.HardwareCompatibilityLevel
        config.hardware_compatibility_level = getattr(levels, build["hardware_compatibility"].upper())
    if build.get("plugin_inside"):
        config.plugins_to_serialize = [build["plugin_inside"]]
    if build.get("compute_capabilities"):
        config.num_compute_capabilities = len(build["compute_capabilities"])
        for i, capability in enumerate(build["compute_capabilities"]):
            config.set_compute_capability(
                getattr(trt.ComputeCapability, "SM" + capability.replace(".", "")), i
            )
    inputs = [network.get_input(i) for i in range(network.num_inputs)]
    if any(-1 in tuple(tensor.shape) for tensor in inputs):
        profile = builder.create_optimization_profile()
        for tensor in inputs:
            profile.set_shape(tensor.name, *(_extent(tuple(tensor.shape), batch) for batch in build["batch"]))
        config.add_optimization_profile(profile)
    return config


def _extent(shape: tuple[int, ...], batch: int) -> tuple[int, ...]:
    return (batch, *shape[1:]) if shape and shape[0] == -1 else shape


def _logger(trt: Any, messages: list[str], log: TextIO | None) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors, and writes everything to the log if there is one."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            """Called by the library."""
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(text)
            if log:
                print(f"[{severity}] {text}", file=log, flush=True)

    return Logger()


def _monitor(trt: Any) -> Any:
    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        """Tells of the outermost phase only; the others come and go by the hundred."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self._outer: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            """Called by the library."""
            if not parent_phase:
                self._outer[phase_name] = num_steps

        def step_complete(self, phase_name: str, step: int) -> bool:
            """Called by the library; True lets it go on."""
            if phase_name in self._outer:
                _tell({"progress": [step + 1, self._outer[phase_name]]})
            return True

        def phase_finish(self, phase_name: str) -> None:
            """Called by the library."""

    return Monitor()


if __name__ == "__main__":
    main()

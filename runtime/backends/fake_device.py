"""How is a session tried without a GPU? A device in NumPy, and a TensorRT whose plans are ONNX models.

As a transport without a network stands in for one, `FakeCuda` stands in for a device layer and `FakeTensorRT`
for the library, behind the same calls. Memory is NumPy's, what a plan computes is ONNX Runtime's, and the
clock and the failures are the caller's. Work is done late, as on a GPU: a copy or a launch takes its time on
its stream, and its effect is there when the host has waited for it, in the order in which the work would have
ended. So a wait that is missing, or a buffer that is filled too early, gives wrong numbers here, too.

    device = FakeCuda()
    session = TensorRTSession(plan, sidecar, device, FakeTensorRT(device, model))
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.backends.cuda import Bytes, CudaError
from sfiin.runtime.backends.session import OnnxSession

COPY, COMPUTE = 1e-9, 1e-2
"""Seconds that a byte's copy and a launch take."""


@dataclass(frozen=True)
class Call:
    """One call of the device layer: its name, the stream if any, and when its work begins and ends
    (seconds)."""

    name: str
    stream: int = 0
    begin: float = 0.0
    end: float = 0.0


@dataclass
class _Stream:
    free_at: float = 0.0
    noted: list[Callable[[], None]] | None = None


@dataclass
class FakeCuda:
    """A device layer (`sfiin.runtime.backends.cuda.Cuda`) in NumPy.

    `fail_at` makes that call, counted from 0, raise CudaError; `broken` all from then on. `calls` lists what
    was called and when it would have run; `now` is the host's clock, which a test may move; `living` what was
    not given back.
    """

    has_graphs: bool = True
    fail_at: int | None = None
    broken: bool = False
    now: float = 0.0
    calls: list[Call] = field(default_factory=list)
    living: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = itertools.count(1)
        self._memory: dict[int, Bytes] = {}
        self._streams: dict[int, _Stream] = {}
        self._events: dict[int, float] = {}
        self._graphs: dict[int, list[Callable[[], None]]] = {}
        self._pending: list[tuple[float, int, Callable[[], None]]] = []

    def allocate(self, size: int) -> int:
        """As `Cuda.allocate`; the memory holds rubbish, as on a GPU."""
        address = self._made("memory", "allocate")
        self._memory[address] = np.full(size, 0xA5, np.uint8)
        return address

    def free(self, address: int) -> None:
        """As `Cuda.free`."""
        self._given_back(address, "free")
        del self._memory[address]

    def pinned(self, size: int) -> Bytes:
        """As `Cuda.pinned`."""
        self._call("pinned")
        memory = np.full(size, 0x5A, np.uint8)
        self.living[memory.ctypes.data] = "pinned"
        return memory

    def free_pinned(self, memory: Bytes) -> None:
        """As `Cuda.free_pinned`."""
        self._given_back(memory.ctypes.data, "free_pinned")

    def stream(self) -> int:
        """As `Cuda.stream`."""
        handle = self._made("stream", "stream")
        self._streams[handle] = _Stream()
        return handle

    def free_stream(self, stream: int) -> None:
        """As `Cuda.free_stream`."""
        self._given_back(stream, "free_stream")

    def event(self) -> int:
        """As `Cuda.event`."""
        handle = self._made("event", "event")
        self._events[handle] = 0.0
        return handle

    def free_event(self, event: int) -> None:
        """As `Cuda.free_event`."""
        self._given_back(event, "free_event")

    def upload(self, address: int, memory: Bytes, stream: int) -> None:
        """As `Cuda.upload`; host memory is read when the copy runs, not when it is asked for."""
        self.work("upload", stream, COPY * memory.nbytes, lambda: self._copy(self._memory[address], memory))

    def download(self, memory: Bytes, address: int, stream: int) -> None:
        """As `Cuda.download`."""
        self.work("download", stream, COPY * memory.nbytes, lambda: self._copy(memory, self._memory[address]))

    def record(self, event: int, stream: int) -> None:
        """As `Cuda.record`."""
        self._call("record", stream)
        self._events[event] = max(self.now, self._streams[stream].free_at)

    def wait(self, stream: int, event: int) -> None:
        """As `Cuda.wait`."""
        self._call("wait", stream)
        self._streams[stream].free_at = max(self._streams[stream].free_at, self._events[event])

    def synchronize(self, event: int) -> None:
        """As `Cuda.synchronize`."""
        self._call("synchronize")
        self._until(self._events[event])

    def free_memory(self) -> int:
        """As `Cuda.free_memory`, of a device of 8 GiB."""
        self._call("free_memory")
        return (8 << 30) - sum(memory.nbytes for memory in self._memory.values())

    def elapsed(self, first: int, second: int) -> float:
        """As `Cuda.elapsed`, by the fake clock."""
        self._call("elapsed")
        return 1e3 * (self._events[second] - self._events[first])

    def drain(self, stream: int) -> None:
        """As `Cuda.drain`."""
        self._call("drain", stream)
        self._until(self._streams[stream].free_at)

    def begin_capture(self, stream: int) -> None:
        """As `Cuda.begin_capture`."""
        self._call("begin_capture", stream)
        self._streams[stream].noted = []

    def end_capture(self, stream: int) -> int:
        """As `Cuda.end_capture`."""
        noted, self._streams[stream].noted = self._streams[stream].noted, None
        graph = self._made("graph", "end_capture")
        self._graphs[graph] = noted or []
        return graph

    def launch(self, graph: int, stream: int) -> None:
        """As `Cuda.launch`."""
        noted = self._graphs[graph]
        self.work("launch", stream, COMPUTE, lambda: [effect() for effect in noted])

    def free_graph(self, graph: int) -> None:
        """As `Cuda.free_graph`."""
        self._given_back(graph, "free_graph")

    def work(self, name: str, stream: int, seconds: float, effect: Callable[[], object]) -> None:
        """Work on a stream, for a fake library's use: `effect` comes about when the host has waited for
        its end."""
        self._call(name, stream, seconds)
        target = self._streams[stream]
        if target.noted is not None:
            target.noted.append(lambda: (effect(), None)[1])
        else:
            self._pending.append((target.free_at, len(self.calls), lambda: (effect(), None)[1]))

    def bytes_at(self, address: int, size: int) -> Bytes:
        """Device memory, for a fake library's use."""
        return self._memory[address][:size]

    def _call(self, name: str, stream: int = 0, seconds: float = 0.0) -> None:
        past = -1 if self.fail_at is None else len(self.calls) - self.fail_at
        if past == 0 or (past > 0 and self.broken):
            self.calls.append(Call(name, stream))
            raise CudaError(f"the fake GPU: {name}: cudaErrorIllegalAddress")
        target = self._streams.get(stream)
        if target is None or target.noted is not None or not seconds:
            self.calls.append(Call(name, stream, self.now, self.now))
            return
        begin = max(self.now, target.free_at)
        target.free_at = begin + seconds
        self.calls.append(Call(name, stream, begin, target.free_at))

    def _made(self, kind: str, name: str) -> int:
        self._call(name)
        handle = next(self._numbers) << 8
        self.living[handle] = kind
        return handle

    def _given_back(self, handle: int, name: str) -> None:
        del self.living[handle]  # even where the call then fails, there is nothing more to be done about it
        self._call(name)

    def _until(self, moment: float) -> None:
        self.now = max(self.now, moment)
        due = sorted(event for event in self._pending if event[0] <= self.now)
        self._pending = [event for event in self._pending if event[0] > self.now]
        for _, _, effect in due:
            effect()

    @staticmethod
    def _copy(to: Bytes, source: Bytes) -> None:
        size = min(len(to), len(source))
        to[:size] = source[:size]


class FakeTensorRT:
    """The TensorRT module, as far as a session uses it; the plan's bytes are ignored, `model` is what it
    computes.

    `types` gives inputs and outputs other types than float32; `refuses` makes `deserialize_cuda_engine` give
    None, `stalls` makes every launch report failure, `uncapturable` only those inside a capture. With
    `has_plugin` a runtime takes the plan only after a library has been loaded into its registry, or if it
    lets the plan bring its own. With `rtx` contexts come by a runtime configuration, as in TensorRT for RTX,
    and `compiled` counts the kernels that no cache had.
    """

    float32, float16, uint8, int32 = "float32", "float16", "uint8", "int32"
    __version__ = "10.3.0.26"

    class CudaGraphStrategy:
        """Whether TensorRT for RTX captures graphs."""

        DISABLED, WHOLE_GRAPH_CAPTURE = "disabled", "whole graph"

    class DynamicShapesKernelSpecializationStrategy:
        """When it finishes kernels for a shape."""

        LAZY, EAGER, NONE = "lazy", "eager", "none"

    class ILogger:
        """The base of loggers."""

        ERROR, INTERNAL_ERROR = "error", "internal error"

    def __init__(
        self,
        device: FakeCuda,
        model: Path,
        types: dict[str, str] | None = None,
        *,
        refuses: bool = False,
        stalls: bool = False,
        uncapturable: bool = False,
        has_plugin: bool = False,
        rtx: bool = False,
    ) -> None:
        self.device, self.types, self.rtx = device, types or {}, rtx
        self.compiled = 0
        self.config: Any = None
        self.refuses, self.stalls, self.uncapturable, self.has_plugin = (
            refuses,
            stalls,
            uncapturable,
            has_plugin,
        )
        self.session = OnnxSession(model, threads=1, check=False)

    def Runtime(self, logger: Any) -> Any:  # noqa: N802
        """TensorRT's name for what reads plans."""
        return _Runtime(self, logger)


class _Registry:
    """Plugins of one runtime."""

    def __init__(self) -> None:
        self.loaded: list[str] = []

    def load_library(self, path: str) -> object:
        """Note a library."""
        self.loaded.append(path)
        return object()

    def get_creator(self, _name: str, _version: str, _namespace: str) -> object | None:
        """What would make a plugin, once a library is there."""
        return object() if self.loaded else None


class _Runtime:
    """What reads plans."""

    def __init__(self, library: FakeTensorRT, logger: Any) -> None:
        self._library, self._logger = library, logger
        self._registry = _Registry()
        self.engine_host_code_allowed = False

    def get_plugin_registry(self) -> _Registry:
        """Its own."""
        return self._registry

    def deserialize_cuda_engine(self, _plan: bytes) -> _Engine | None:
        """The engine, or None and a word to the logger."""
        lacks = self._library.has_plugin and not (self._registry.loaded or self.engine_host_code_allowed)
        if self._library.refuses or lacks:
            why = "a plugin is missing" if lacks else "the engine plan file is not compatible"
            self._logger.log(self._library.ILogger.ERROR, why)
            return None
        return _Engine(self._library)


class _Engine:
    """The plan's tensors."""

    def __init__(self, library: FakeTensorRT) -> None:
        self._library = library
        self._shapes = library.session.contract.shapes
        self.num_io_tensors = len(self._shapes)

    def get_tensor_name(self, index: int) -> str:
        """The name of an input or output."""
        return list(self._shapes)[index]

    def get_tensor_dtype(self, name: str) -> str:
        """Its type."""
        return self._library.types.get(name, "float32")

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        """Its shape, the batch being -1."""
        return (-1, *self._shapes[name])

    def create_runtime_config(self) -> RuntimeConfig:
        """How a plan of TensorRT for RTX is to run."""
        assert self._library.rtx
        config = RuntimeConfig()
        self._library.config = config
        return config

    def create_execution_context(self, config: RuntimeConfig | None = None) -> _Context:
        """What runs it."""
        assert (config is not None) == self._library.rtx
        return _Context(self._library, self._shapes)


class RuntimeConfig:
    """TensorRT for RTX's runtime configuration: strategies, and the cache of kernels."""

    def __init__(self) -> None:
        self.cuda_graph_strategy = "disabled"
        self.dynamic_shapes_kernel_specialization_strategy = "lazy"
        self.cache: RuntimeCache | None = None

    def create_runtime_cache(self) -> RuntimeCache:
        """An empty one."""
        return RuntimeCache()

    def set_runtime_cache(self, cache: RuntimeCache) -> bool:
        """Take a cache."""
        self.cache = cache
        return True


class RuntimeCache:
    """Kernels by batch, as bytes after a header."""

    HEADER = b"kernels:"

    def __init__(self) -> None:
        self.kernels: set[int] = set()

    def deserialize(self, data: bytes) -> bool:
        """Take what was serialised; False for anything else."""
        if data.startswith(self.HEADER):
            self.kernels |= set(data[len(self.HEADER) :])
            return True
        return False

    def serialize(self) -> bytes:
        """All kernels."""
        return self.HEADER + bytes(sorted(self.kernels))


class _Context:
    """A plan that is being run: shapes and addresses as they were at each launch."""

    def __init__(self, library: FakeTensorRT, shapes: dict[str, tuple[int, ...]]) -> None:
        self._library, self._shapes = library, shapes
        self._batch: dict[str, int] = {}
        self._addresses: dict[str, int] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> None:
        """Fix an input's batch."""
        self._batch[name] = shape[0]

    def set_tensor_address(self, name: str, address: int) -> None:
        """Say where a tensor lies."""
        self._addresses[name] = address

    def execute_async_v3(self, stream: int) -> bool:
        """Launch; whether that went well."""
        library, (batch,) = self._library, set(self._batch.values())
        capturing = library.device.calls[-1].name == "begin_capture"
        if library.stalls or (library.uncapturable and capturing):
            return False
        if library.rtx and batch not in library.config.cache.kernels:
            library.config.cache.kernels.add(batch)
            library.compiled += 1
        addresses = dict(self._addresses)
        library.device.work("execute", stream, COMPUTE, lambda: self._compute(addresses, batch))
        return True

    def _compute(self, addresses: dict[str, int], batch: int) -> None:
        ms, pan = (self._tensor(name, addresses, batch).astype(np.float32) for name in ("ms", "pan"))
        self._tensor("hrms", addresses, batch)[...] = self._library.session.run(ms, pan)

    def _tensor(self, name: str, addresses: dict[str, int], batch: int) -> NDArray[Any]:
        dtype = np.dtype(self._library.types.get(name, "float32"))
        size = batch * int(np.prod(self._shapes[name])) * dtype.itemsize
        return (
            self._library.device.bytes_at(addresses[name], size)
            .view(dtype)
            .reshape(batch, *self._shapes[name])
        )

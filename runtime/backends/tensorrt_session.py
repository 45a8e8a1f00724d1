"""How does a plan run, lean and without a pause? A session in TensorRT, or TensorRT for RTX, with named
tensors.

Memory is taken once, for the plan's largest batch. Batches go through two slots in turn: each has buffers on
both sides, so that while one is computed the next is copied in and the last one out, each on its own stream,
and the caller reads its files. TensorRT computes one batch at a time, on one stream. Its launches are
captured as a CUDA graph for each slot and batch, where the device layer has graphs and the plan allows it;
TensorRT for RTX captures by itself (`sfiin.runtime.backends.rtx`).

Digital numbers cross the bus in the type that the plan's inputs have. FP16 holds whole numbers up to 2048, so
a plan with FP16 inputs gets 11-bit data exactly, and is refused for more bits.
"""

from __future__ import annotations

import hashlib
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime import golden
from sfiin.runtime.backends import cuda, machine, plan, plugin
from sfiin.runtime.backends.cuda import Bytes, Cuda, CudaError
from sfiin.runtime.backends.plan import Build, Sidecar
from sfiin.runtime.backends.rtx import Kernels
from sfiin.runtime.check import GATES, parity
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError, OutputError, SfiinError, UnavailableError
from sfiin.runtime.extras import install

Image = NDArray[np.float32]

_TYPES = ("float32", "float16", "uint8", "int32")


@dataclass
class _Tensor:
    """One of the plan's inputs or outputs: its name, type, shape without the batch, and its buffers in a
    slot."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    host: Bytes
    device: int

    def view(self, count: int) -> NDArray[Any]:
        """The first `count` items of the host buffer."""
        size = count * int(np.prod(self.shape)) * self.dtype.itemsize
        return self.host[:size].view(self.dtype).reshape(count, *self.shape)

    def bytes(self, count: int) -> Bytes:
        """The same memory, as bytes."""
        return self.host[: count * int(np.prod(self.shape)) * self.dtype.itemsize]


@dataclass
class _Slot:
    """Buffers for one batch on its way, the events that mark its stages, and graphs by batch."""

    ms: _Tensor
    pan: _Tensor
    hrms: _Tensor
    begun: int
    uploaded: int
    computed: int
    done: int
    graphs: dict[int, int] = field(default_factory=dict)


def open_plan(path: Path) -> TensorRTSession:
    """Open a plan, and check it on its golden tiles, whatever its sidecar says of earlier checks.

    Raises as `TensorRTSession`, MismatchError for a plan without weights, CheckFailedError when the check
    fails.
    """
    sidecar = plan.read(path)
    if sidecar.build.stripped:
        raise MismatchError(f"{path}: stripped: it holds no weights; put them in with 'sfiin refit'")
    session = TensorRTSession(path, sidecar)
    try:
        first_load(path, sidecar, session)
    except BaseException:
        session.close()
        raise
    return session


def first_load(path: Path, sidecar: Sidecar, session: TensorRTSession) -> None:
    """Run the golden tiles beside a plan through its session, and note the first time that they passed.

    Raises CheckFailedError beyond the gate of the model's precision, InputError or MismatchError for the
    tiles. A sidecar that cannot be written is left, and the check is made again next time.
    """
    contract = sidecar.contract
    tiles = golden.read(golden.beside(path), contract)
    distance = parity(tiles.names, tiles.through(session.run), tiles.hrms, float(contract.sensor.peak))
    remedy = "build it again on this device; nothing was run"
    distance.require(GATES[contract.precision], f"{path} against its golden tiles", remedy)
    if sidecar.build.checked:
        return
    try:
        plan.update(path, sidecar.checked(distance))
    except OutputError:
        session.notes.append(
            f"{plan.beside(path)} cannot be written: the plan will be checked again next time"
        )


def require_here(path: Path, sidecar: Sidecar) -> str:
    """The module that is to run a plan, once library, driver, device layer and device are known to fit it.

    Nothing is constructed. Raises UnavailableError for what is missing, MismatchError for what does not fit.
    """
    library = _library_for(path, sidecar.build)
    device = machine.gpu()
    cuda.require()
    version = str(import_module(library).__version__)
    plan.require_runs(path, sidecar.build, sidecar.build.flavour, version, device)
    return library


class TensorRTSession:
    """An open plan, for one thread. `notes` says what went otherwise than it might have, such as without
    graphs; `device_bytes` is what opening it took of the device's memory, for weights, scratch and buffers.

    `plugin_library` is where the plugin's library lies, if not beside the plan, for plans that need one.
    `device` and `library` stand in for the device layer and the TensorRT module; without them what is
    installed serves, once plan, library and device are known to fit. Raises UnavailableError for a library,
    driver or device layer that is missing, MismatchError, naming the field, for a plan of another version,
    device or contract, InputError for a plan that the library does not take, CudaError for what fails on the
    device. Whatever fails, all memory is given back, and from then on the session says that it has failed.
    """

    def __init__(
        self,
        path: Path,
        sidecar: Sidecar,
        device: Cuda | None = None,
        library: Any = None,
        *,
        graphs: bool = True,
        plugin_library: Path | None = None,
    ) -> None:
        self._contract, self._build = sidecar.contract, sidecar.build
        self._failure = ""
        self.notes: list[str] = []
        self.backend = f"{sidecar.build.flavour} {sidecar.build.tensorrt}"
        self._trt: Any = library or import_module(require_here(path, sidecar))
        self._cuda = device or cuda.open_cuda()
        self._wants_graphs = graphs
        self._kernels: Kernels | None = None
        self._graphs = graphs and self._cuda.has_graphs and self._build.flavour == "tensorrt"
        if graphs and not self._cuda.has_graphs and self._build.flavour == "tensorrt":
            self.notes.append("without CUDA graphs, which the device layer here has not")
        self._counts: set[int] = set()
        self._owned = ExitStack()
        self._streams: list[int] = []
        with self._guarded():
            free = self._cuda.free_memory()
            self._context = self._loaded(path, plugin_library or plugin.beside(path))
            for _ in range(3):
                self._streams.append(self._own(self._cuda.stream, self._cuda.free_stream))
            self._slots = [self._slot() for _ in range(2)]
            self.device_bytes = free - self._cuda.free_memory()

    @property
    def contract(self) -> Contract:
        """What the model promises."""
        return self._contract

    def run(self, ms: Image, pan: Image) -> Image:
        """Fuse a batch of tiles; shapes and units as in `sfiin.runtime.backends.session.Session.run`."""
        (result,) = self.run_many([(ms, pan)])
        return result

    def run_many(self, batches: Iterable[tuple[Image, Image]]) -> Iterator[Image]:
        """Fuse batches one after another, each as `run` would, with the next ones under way meanwhile.

        Results come in order. A batch larger than the plan's largest is divided, one smaller than its
        smallest filled up. Raises SfiinError when the session has failed; whatever is raised while batches
        are read ends it, too.
        """
        with self._guarded():
            flying: deque[tuple[_Slot, int]] = deque()
            counts: deque[int] = deque()
            parts: list[Image] = []
            for ms, pan in batches:
                counts.append(len(ms))
                for piece in self._pieces(ms, pan):
                    if len(flying) == len(self._slots):
                        parts.append(self._finished(*flying.popleft()))
                        yield from _whole(parts, counts)
                    slot = self._slots[0] if not flying or flying[-1][0] is self._slots[1] else self._slots[1]
                    self._start(slot, *piece)
                    flying.append((slot, len(piece[0])))
            while flying:
                parts.append(self._finished(*flying.popleft()))
                yield from _whole(parts, counts)

    def run_timed(self, ms: Image, pan: Image) -> tuple[Image, dict[str, float]]:
        """`run` of at most the plan's largest batch, and where its time went, ms.

        On the device: `upload`, `compute` and `download`; on the host: `enqueue`, until all was under way.
        """
        with self._guarded():
            slot = self._slots[0]
            began = time.perf_counter()
            self._start(slot, ms, pan)
            enqueue = 1e3 * (time.perf_counter() - began)
            result = self._finished(slot, len(ms))
            marks = slot.begun, slot.uploaded, slot.computed, slot.done
            parts = (self._cuda.elapsed(a, b) for a, b in pairwise(marks))
            return result, {
                "enqueue": enqueue,
                **dict(zip(("upload", "compute", "download"), parts, strict=True)),
            }

    def close(self) -> None:
        """Give all memory back; the session cannot be used afterwards."""
        if not self._failure:
            if self._kernels:
                self._kernels.save()
            self._failure = "it was closed"
            self._release()

    def __enter__(self) -> TensorRTSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    # --- set up ---

    def _loaded(self, path: Path, plugin_library: Path) -> Any:
        self._messages: list[str] = []
        runtime = self._trt.Runtime(_logger(self._trt, self._messages))
        data = path.read_bytes()
        self.sha256 = hashlib.sha256(data).hexdigest()
        if self.sha256 != self._build.plan:
            raise MismatchError(f"{path}: plan (SHA-256): changed since its sidecar was read; try again")
        plugin.provide(runtime, self._build, plugin_library, path)
        engine = runtime.deserialize_cuda_engine(data)
        context = self._context_of(engine) if engine is not None else None
        if context is None:
            said = f": {self._messages[-1]}" if self._messages else ""
            raise InputError(f"{path}: {self._build.flavour} does not take this plan{said}; build it again")
        self._owned.callback(self._forget)
        self._runtime, self._engine = runtime, engine
        return context

    def _context_of(self, engine: Any) -> Any:
        if self._build.flavour == "tensorrt":
            return engine.create_execution_context()
        card = machine.cuda_driver()["devices"][:1]
        key = "-".join([self.sha256[:16], *card, str(self._trt.__version__)])
        key = "".join(letter if letter.isalnum() or letter in "-." else "-" for letter in key)
        self._kernels = Kernels(self._trt, engine, key, self.notes, graphs=self._wants_graphs)
        return self._kernels.context

    def _forget(self) -> None:
        # In this order: TensorRT's objects may not outlive what made them.
        self._context = self._kernels = self._engine = self._runtime = None

    def _slot(self) -> _Slot:
        tensors = {}
        for i in range(self._engine.num_io_tensors):
            name = self._engine.get_tensor_name(i)
            tensors[name] = self._tensor(name)
        if set(tensors) != set(self._contract.shapes):
            found = ", ".join(sorted(tensors))
            raise MismatchError(f"the plan's tensors are {found}, not hrms, ms and pan; build it again")
        for name, shape in self._contract.shapes.items():
            if tensors[name].shape != shape:
                raise MismatchError(
                    f"tile: the plan's '{name}' is {tensors[name].shape}, its contract says {shape}; build "
                    "it again"
                )
        events = (self._own(self._cuda.event, self._cuda.free_event) for _ in range(4))
        return _Slot(tensors["ms"], tensors["pan"], tensors["hrms"], *events)

    def _tensor(self, name: str) -> _Tensor:
        kind = self._engine.get_tensor_dtype(name)
        known = {getattr(self._trt, kind): np.dtype(kind) for kind in _TYPES if hasattr(self._trt, kind)}
        if kind not in known:
            raise MismatchError(f"the plan's '{name}' is {kind}, which sfiin does not feed; build it again")
        dtype = known[kind]
        bits = self._contract.sensor.bits
        if dtype == np.float16 and name != "hrms" and bits > 11:
            raise MismatchError(
                f"sensor.bits: '{name}' is FP16 in the plan, which holds 11 bits, not {bits}; build again"
            )
        shape = tuple(self._engine.get_tensor_shape(name))[1:]
        size = self._build.batch[2] * int(np.prod(shape)) * dtype.itemsize
        host = self._own(lambda: self._cuda.pinned(size), self._cuda.free_pinned)
        return _Tensor(
            name, dtype, shape, host, self._own(lambda: self._cuda.allocate(size), self._cuda.free)
        )

    def _own(self, make: Callable[[], Any], free: Callable[[Any], None]) -> Any:
        made = make()
        self._owned.callback(free, made)
        return made

    # --- one batch ---

    def _pieces(self, ms: Image, pan: Image) -> Iterator[tuple[Image, Image]]:
        largest = self._build.batch[2]
        for first in range(0, len(ms), largest):
            yield ms[first : first + largest], pan[first : first + largest]

    def _start(self, slot: _Slot, ms: Image, pan: Image) -> None:
        """Send a batch on its way: copied in, computed and copied out by three streams, each waiting for
        the last."""
        upload, compute, download = self._streams
        count = max(len(ms), self._build.batch[0])
        self._cuda.record(slot.begun, upload)
        for tensor, values in ((slot.ms, ms), (slot.pan, pan)):
            tensor.view(count)[: len(values)] = values
            self._cuda.upload(tensor.device, tensor.bytes(count), upload)
        self._cuda.record(slot.uploaded, upload)
        self._cuda.wait(compute, slot.uploaded)
        self._compute(slot, count, compute)
        self._cuda.record(slot.computed, compute)
        self._cuda.wait(download, slot.computed)
        self._cuda.download(slot.hrms.bytes(count), slot.hrms.device, download)
        self._cuda.record(slot.done, download)

    def _compute(self, slot: _Slot, count: int, stream: int) -> None:
        """Launch by graph. It is captured behind a first, plain run, as TensorRT asks after a change of
        shapes."""
        if count in slot.graphs:
            self._cuda.launch(slot.graphs[count], stream)
            return
        self._enqueue(slot, count, stream)
        if self._graphs:
            try:
                slot.graphs[count] = self._own(
                    lambda: self._captured(slot, count, stream), self._cuda.free_graph
                )
            except SfiinError as error:
                self._graphs = False
                self.notes.append(f"without CUDA graphs: {error}")

    def _captured(self, slot: _Slot, count: int, stream: int) -> int:
        self._cuda.begin_capture(stream)
        try:
            self._enqueue(slot, count, stream)
        except SfiinError:
            # The stream must come out of the capture, whether there is anything in it or not.
            self._cuda.free_graph(self._cuda.end_capture(stream))
            raise
        return self._cuda.end_capture(stream)

    def _enqueue(self, slot: _Slot, count: int, stream: int) -> None:
        for tensor in (slot.ms, slot.pan):
            self._context.set_input_shape(tensor.name, (count, *tensor.shape))
        for tensor in (slot.ms, slot.pan, slot.hrms):
            self._context.set_tensor_address(tensor.name, tensor.device)
        if not self._context.execute_async_v3(stream):
            said = self._messages[-1] if self._messages else "without saying why"
            raise SfiinError(f"{self._build.flavour} did not run the plan: {said}")

    def _finished(self, slot: _Slot, count: int) -> Image:
        self._cuda.synchronize(slot.done)
        if self._kernels and count not in self._counts:  # a process may end without closing
            self._counts.add(count)
            self._kernels.save()
        return slot.hrms.view(count).astype(np.float32)  # a copy: the buffer goes to the next batch

    # --- failing ---

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever fails inside ends the session, and frees what it holds."""
        if self._failure:
            raise SfiinError(f"this session cannot run: {self._failure}; open the plan again")
        try:
            yield
        except GeneratorExit:
            for stream in self._streams:  # what is under way must not write into what comes next
                self._cuda.drain(stream)
            raise
        except BaseException as error:
            self._failure = " ".join(str(error).split()) or type(error).__name__
            self._release()
            raise

    def _release(self) -> None:
        """Free everything, in the opposite order; the device may be beyond answering, so its errors end
        here."""
        for stream in self._streams:
            with suppress(CudaError):
                self._cuda.drain(stream)
        with suppress(CudaError):
            self._owned.close()


def _whole(parts: list[Image], counts: deque[int]) -> Iterator[Image]:
    """The next batch's result, once all of its pieces are there."""
    if counts and sum(map(len, parts)) == counts[0]:
        counts.popleft()
        result = parts[0] if len(parts) == 1 else np.concatenate(parts)
        parts.clear()
        yield result


def _library_for(path: Path, build: Build) -> str:
    """The module that is to run a plan. Raises UnavailableError when none is installed that does."""
    full, *lean = machine.RUNS[build.flavour]
    usable = [full, *(lean if build.version_compatible else ())]
    installed: list[str] = [name for name in usable if find_spec(name)]
    if installed:
        return installed[0]
    how = install("rtx") if build.flavour == "rtx" else f"it comes with JetPack, or by {install('gpu')}"
    raise UnavailableError(f"{path} needs {' or '.join(usable)}, which is not installed; {how}")


def _logger(trt: Any, messages: list[str]) -> Any:
    class Logger(trt.ILogger):  # type: ignore[misc]
        """Keeps the errors."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            """Called by the library."""
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(" ".join(text.split()))

    return Logger()

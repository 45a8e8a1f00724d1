"""How does the runtime speak to a GPU? Buffers, streams, events and graphs, by cuda-bindings or by pycuda.

A session needs of a device layer what `Cuda` lists, and no more: addresses and handles are plain integers,
which is what TensorRT takes. Of the two that there are, cuda-bindings comes as a wheel and has graphs; pycuda
is what many Jetsons have, and has none, so that a session works without. `sfiin.runtime.backends.fake_device`
is a third, in NumPy, for tests.
"""

from __future__ import annotations

import ctypes
import threading
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.errors import SfiinError, UnavailableError
from sfiin.runtime.extras import install

Bytes = NDArray[np.uint8]


class CudaError(SfiinError):
    """A call to the GPU failed; the message holds CUDA's name of the error."""


class Cuda(Protocol):
    """What a device layer does. Every call may raise CudaError.

    Copies are asynchronous: host memory is `pinned`, and belongs to the copy until the stream has been waited
    for. All that was made is freed by its own call, in any order.
    """

    has_graphs: bool

    def allocate(self, size: int) -> int:
        """The address of `size` bytes of device memory."""
        ...

    def free(self, address: int) -> None:
        """Give device memory back."""
        ...

    def pinned(self, size: int) -> Bytes:
        """`size` bytes of host memory that the device can read and write."""
        ...

    def free_pinned(self, memory: Bytes) -> None:
        """Give pinned memory back; no view of it may be used afterwards."""
        ...

    def stream(self) -> int:
        """A new stream's handle."""
        ...

    def free_stream(self, stream: int) -> None:
        """Give a stream back."""
        ...

    def event(self) -> int:
        """A new event's handle."""
        ...

    def free_event(self, event: int) -> None:
        """Give an event back."""
        ...

    def upload(self, address: int, memory: Bytes, stream: int) -> None:
        """Copy pinned memory to the device, in the stream's order."""
        ...

    def download(self, memory: Bytes, address: int, stream: int) -> None:
        """Copy from the device to pinned memory, in the stream's order."""
        ...

    def record(self, event: int, stream: int) -> None:
        """The event happens when the stream has come to here."""
        ...

    def wait(self, stream: int, event: int) -> None:
        """The stream goes on when the event has happened."""
        ...

    def synchronize(self, event: int) -> None:
        """Return when the event has happened."""
        ...

    def elapsed(self, first: int, second: int) -> float:
        """Milliseconds on the device between two events that have happened."""
        ...

    def free_memory(self) -> int:
        """Bytes of the device's memory that nobody has; on a Jetson it is the board's."""
        ...

    def drain(self, stream: int) -> None:
        """Return when the stream has nothing left to do."""
        ...

    def begin_capture(self, stream: int) -> None:
        """From now on the stream's work is noted down, not done."""
        ...

    def end_capture(self, stream: int) -> int:
        """A graph of what was noted down."""
        ...

    def launch(self, graph: int, stream: int) -> None:
        """Do a graph's work, in the stream's order."""
        ...

    def free_graph(self, graph: int) -> None:
        """Give a graph back."""
        ...


def open_cuda() -> Cuda:
    """The first device layer that is installed and works here. Raises UnavailableError, with what to install
    or with what each came to, when there is none."""
    failures: list[str] = []
    layers = (_opened(name, failures) for name in require())
    found = next((layer for layer in layers if layer), None)
    if found is None:
        raise UnavailableError(f"no device layer works here: {'; '.join(failures)}")
    return found


def _opened(name: str, failures: list[str]) -> Cuda | None:
    """A device layer by its name, or None and a word on what it came to."""
    try:
        return CudaBindings() if name == "cuda-bindings" else PyCuda()
    except SfiinError as error:
        failures.append(f"{name}: {error}")
        return None


def require() -> list[str]:
    """The device layers that are installed, the better one first, without importing them.

    Raises UnavailableError, with what to install, when there is none.
    """
    known = {"cuda-bindings": ("cuda", "cuda.bindings"), "pycuda": ("pycuda",)}
    found = [name for name, modules in known.items() if all(map(find_spec, modules))]
    if not found:
        raise UnavailableError(
            "neither cuda-bindings nor pycuda is installed, by which plans get their data: on a Jetson "
            f"{install('jetson')}, elsewhere pip install cuda-bindings (of the major version of CUDA here)"
        )
    return found


class CudaBindings:
    """The CUDA driver by NVIDIA's cuda-bindings, in the first device's primary context, which TensorRT uses
    as well.

    The driver's interface, not the runtime's: a cuda-bindings of one major version then works on the driver
    of another, as far as the driver has the functions below, all of which are of CUDA 11 and before. Raises
    UnavailableError where module or driver cannot be used, CudaError where the driver refuses.
    """

    has_graphs = True

    def __init__(self) -> None:
        try:
            self._driver: Any = import_module("cuda.bindings.driver")
        except (ImportError, OSError, RuntimeError) as error:
            raise UnavailableError(f"cuda-bindings cannot be imported: {_line(error)}") from None
        self._here = threading.local()
        self._pinned: dict[int, int] = {}
        self._handles: dict[int, Any] = {}
        try:
            self._done(self._driver.cuInit(0), "cuInit")
            device = self._done(self._driver.cuDeviceGet(0), "cuDeviceGet")
            retained = self._driver.cuDevicePrimaryCtxRetain(device)
            self._context = self._done(retained, "cuDevicePrimaryCtxRetain")
        except (RuntimeError, OSError, ImportError) as error:  # the bindings', where there is no driver
            raise UnavailableError(f"no NVIDIA driver here: {_line(error)}") from None

    def allocate(self, size: int) -> int:
        """See `Cuda`."""
        return int(self._call("cuMemAlloc", size))

    def free(self, address: int) -> None:
        """See `Cuda`."""
        self._call("cuMemFree", address)

    def pinned(self, size: int) -> Bytes:
        """See `Cuda`."""
        address = int(self._call("cuMemHostAlloc", size, 0))
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        self._pinned[memory.ctypes.data] = address
        return memory

    def free_pinned(self, memory: Bytes) -> None:
        """See `Cuda`."""
        self._call("cuMemFreeHost", self._pinned.pop(memory.ctypes.data))

    def stream(self) -> int:
        """See `Cuda`."""
        flags = self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING.value
        return self._kept(self._call("cuStreamCreate", flags))

    def free_stream(self, stream: int) -> None:
        """See `Cuda`."""
        self._call("cuStreamDestroy", self._handles.pop(stream))

    def event(self) -> int:
        """See `Cuda`."""
        return self._kept(self._call("cuEventCreate", 0))

    def free_event(self, event: int) -> None:
        """See `Cuda`."""
        self._call("cuEventDestroy", self._handles.pop(event))

    def upload(self, address: int, memory: Bytes, stream: int) -> None:
        """See `Cuda`."""
        self._call("cuMemcpyHtoDAsync", address, memory.ctypes.data, memory.nbytes, stream)

    def download(self, memory: Bytes, address: int, stream: int) -> None:
        """See `Cuda`."""
        self._call("cuMemcpyDtoHAsync", memory.ctypes.data, address, memory.nbytes, stream)

    def record(self, event: int, stream: int) -> None:
        """See `Cuda`."""
        self._call("cuEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """See `Cuda`."""
        self._call("cuStreamWaitEvent", stream, event, 0)

    def synchronize(self, event: int) -> None:
        """See `Cuda`."""
        self._call("cuEventSynchronize", event)

    def elapsed(self, first: int, second: int) -> float:
        """See `Cuda`."""
        return float(self._call("cuEventElapsedTime", first, second))

    def free_memory(self) -> int:
        """See `Cuda`."""
        return int(self._call("cuMemGetInfo"))  # the first of two numbers

    def drain(self, stream: int) -> None:
        """See `Cuda`."""
        self._call("cuStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """See `Cuda`."""
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        """See `Cuda`."""
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return self._kept(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._call("cuGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """See `Cuda`."""
        self._call("cuGraphLaunch", self._handles[graph], stream)

    def free_graph(self, graph: int) -> None:
        """See `Cuda`."""
        self._call("cuGraphExecDestroy", self._handles.pop(graph))

    def _kept(self, handle: Any) -> int:
        self._handles[int(handle)] = handle
        return int(handle)

    def _call(self, name: str, *arguments: Any) -> Any:
        """A function's result, in the device's context: the driver wants it made current once in each
        thread."""
        if not getattr(self._here, "current", False):
            self._done(self._driver.cuCtxSetCurrent(self._context), "cuCtxSetCurrent")
            self._here.current = True
        try:
            returned = getattr(self._driver, name)(*arguments)
        except RuntimeError as error:  # the bindings', for a function that this driver has not
            raise CudaError(f"the GPU: {name}: {_line(error)}") from None
        return self._done(returned, name)

    def _done(self, returned: tuple[Any, ...], name: str) -> Any:
        """What a function returned, but for its error, which comes first."""
        error, *results = returned
        if error != self._driver.CUresult.CUDA_SUCCESS:
            raise CudaError(f"the GPU: {name}: {error.name}")
        return results[0] if results else None


class PyCuda:
    """The CUDA driver by pycuda, in the first device's primary context, which TensorRT uses as well.

    Raises UnavailableError where pycuda cannot be used.
    """

    has_graphs = False

    def __init__(self) -> None:
        try:
            self._driver: Any = import_module("pycuda.driver")
        except (ImportError, OSError) as error:  # such as for a library of another CUDA
            raise UnavailableError(f"pycuda cannot be imported: {_line(error)}") from None
        try:
            self._context: Any = import_module("pycuda.autoprimaryctx").context
        except (self._driver.Error, RuntimeError) as error:  # the latter where there is no device
            raise UnavailableError(f"pycuda finds no GPU: {_line(error)}") from None
        self._kept: dict[int, Any] = {}
        self._events = 0

    def allocate(self, size: int) -> int:
        """See `Cuda`."""
        allocation = self._call(self._driver.mem_alloc, size)
        self._kept[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        """See `Cuda`."""
        self._call(self._kept.pop(address).free)

    def pinned(self, size: int) -> Bytes:
        """See `Cuda`."""
        memory: Bytes = self._call(self._driver.pagelocked_empty, size, np.uint8)
        return memory

    def free_pinned(self, memory: Bytes) -> None:
        """See `Cuda`."""
        self._call(memory.base.free)  # type: ignore[union-attr]

    def stream(self) -> int:
        """See `Cuda`."""
        stream = self._call(self._driver.Stream)
        self._kept[stream.handle] = stream
        return int(stream.handle)

    def free_stream(self, stream: int) -> None:
        """See `Cuda`."""
        del self._kept[stream]

    def event(self) -> int:
        """See `Cuda`."""
        # pycuda's events do not tell their handle, and nobody else wants it: a number of our own will do.
        self._events += 1
        self._kept[-self._events] = self._call(self._driver.Event)
        return -self._events

    def free_event(self, event: int) -> None:
        """See `Cuda`."""
        del self._kept[event]

    def upload(self, address: int, memory: Bytes, stream: int) -> None:
        """See `Cuda`."""
        self._call(self._driver.memcpy_htod_async, address, memory, self._kept[stream])

    def download(self, memory: Bytes, address: int, stream: int) -> None:
        """See `Cuda`."""
        self._call(self._driver.memcpy_dtoh_async, memory, address, self._kept[stream])

    def record(self, event: int, stream: int) -> None:
        """See `Cuda`."""
        self._call(self._kept[event].record, self._kept[stream])

    def wait(self, stream: int, event: int) -> None:
        """See `Cuda`."""
        self._call(self._kept[stream].wait_for_event, self._kept[event])

    def synchronize(self, event: int) -> None:
        """See `Cuda`."""
        self._call(self._kept[event].synchronize)

    def elapsed(self, first: int, second: int) -> float:
        """See `Cuda`."""
        return float(self._call(self._kept[second].time_since, self._kept[first]))

    def free_memory(self) -> int:
        """See `Cuda`."""
        return int(self._call(self._driver.mem_get_info)[0])

    def drain(self, stream: int) -> None:
        """See `Cuda`."""
        self._call(self._kept[stream].synchronize)

    def begin_capture(self, stream: int) -> None:
        """Raises CudaError: pycuda has no graphs."""
        raise CudaError("pycuda has no CUDA graphs; cuda-bindings has")

    def end_capture(self, stream: int) -> int:
        """Raises CudaError: pycuda has no graphs."""
        raise CudaError("pycuda has no CUDA graphs; cuda-bindings has")

    def launch(self, graph: int, stream: int) -> None:
        """Raises CudaError: pycuda has no graphs."""
        raise CudaError("pycuda has no CUDA graphs; cuda-bindings has")

    def free_graph(self, graph: int) -> None:
        """Nothing to give back: pycuda has no graphs."""

    def _call(self, function: Any, *arguments: Any) -> Any:
        """A function's result. In a thread that has no context it gets one for the call: pycuda ends the
        process when a thread ends and has left one behind."""
        own = self._driver.Context.get_current() is None
        try:
            if own:
                self._context.push()
            try:
                return function(*arguments)
            finally:
                if own:
                    self._driver.Context.pop()
        except self._driver.Error as error:
            raise CudaError(f"the GPU: {_line(error)}") from None


def _line(error: Exception) -> str:
    """An error's text in one line, not too long."""
    return " ".join(str(error).split())[:200]

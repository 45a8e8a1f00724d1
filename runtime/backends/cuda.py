"""How does the runtime speak to a GPU? Buffers, streams, events and graphs, by cuda-bindings or by pycuda.

A session needs of a device layer what `Cuda` lists, and no more: addresses and handles are plain integers,
which is what TensorRT takes. Of the two that there are, cuda-bindings comes as a wheel and has graphs; pycuda
is what many Jetsons have, and has none, so that a session works without. `sfiin.runtime.backends.fake_device`
is a third, in NumPy, for tests.
"""

from __future__ import annotations

import ctypes
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
    """The device layer that is installed. Raises UnavailableError, with what to install, when there is
    none."""
    return CudaBindings() if require() == "cuda-bindings" else PyCuda()


def require() -> str:
    """The name of the device layer that `open_cuda` takes, without importing it. Raises as that."""
    if find_spec("cuda") and find_spec("cuda.bindings"):
        return "cuda-bindings"
    if find_spec("pycuda"):
        return "pycuda"
    raise UnavailableError(
        "neither cuda-bindings nor pycuda is installed, by which plans get their data: pip install cuda-bindings (of "
        f"the major version of CUDA here), or for pycuda {install('jetson')}"
    )


class CudaBindings:
    """The CUDA runtime by NVIDIA's cuda-bindings, in the first device's primary context."""

    has_graphs = True

    def __init__(self) -> None:
        from cuda.bindings import runtime

        self._rt: Any = runtime
        self._pinned: dict[int, int] = {}
        self._handles: dict[int, Any] = {}

    def allocate(self, size: int) -> int:
        """See `Cuda`."""
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        """See `Cuda`."""
        self._call("cudaFree", address)

    def pinned(self, size: int) -> Bytes:
        """See `Cuda`."""
        address = int(self._call("cudaHostAlloc", size, self._rt.cudaHostAllocDefault))
        memory = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address))
        self._pinned[memory.ctypes.data] = address
        return memory

    def free_pinned(self, memory: Bytes) -> None:
        """See `Cuda`."""
        self._call("cudaFreeHost", self._pinned.pop(memory.ctypes.data))

    def stream(self) -> int:
        """See `Cuda`."""
        return self._kept(self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking))

    def free_stream(self, stream: int) -> None:
        """See `Cuda`."""
        self._call("cudaStreamDestroy", self._handles.pop(stream))

    def event(self) -> int:
        """See `Cuda`."""
        return self._kept(self._call("cudaEventCreateWithFlags", self._rt.cudaEventDefault))

    def free_event(self, event: int) -> None:
        """See `Cuda`."""
        self._call("cudaEventDestroy", self._handles.pop(event))

    def upload(self, address: int, memory: Bytes, stream: int) -> None:
        """See `Cuda`."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, memory.ctypes.data, memory.nbytes, kind, stream)

    def download(self, memory: Bytes, address: int, stream: int) -> None:
        """See `Cuda`."""
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", memory.ctypes.data, address, memory.nbytes, kind, stream)

    def record(self, event: int, stream: int) -> None:
        """See `Cuda`."""
        self._call("cudaEventRecord", event, stream)

    def wait(self, stream: int, event: int) -> None:
        """See `Cuda`."""
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def synchronize(self, event: int) -> None:
        """See `Cuda`."""
        self._call("cudaEventSynchronize", event)

    def elapsed(self, first: int, second: int) -> float:
        """See `Cuda`."""
        return float(self._call("cudaEventElapsedTime", first, second))

    def free_memory(self) -> int:
        """See `Cuda`."""
        return int(self._call("cudaMemGetInfo"))  # the first of two numbers

    def drain(self, stream: int) -> None:
        """See `Cuda`."""
        self._call("cudaStreamSynchronize", stream)

    def begin_capture(self, stream: int) -> None:
        """See `Cuda`."""
        self._call(
            "cudaStreamBeginCapture", stream, self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        )

    def end_capture(self, stream: int) -> int:
        """See `Cuda`."""
        graph = self._call("cudaStreamEndCapture", stream)
        try:
            return self._kept(self._call("cudaGraphInstantiate", graph, 0))
        finally:
            self._call("cudaGraphDestroy", graph)

    def launch(self, graph: int, stream: int) -> None:
        """See `Cuda`."""
        self._call("cudaGraphLaunch", self._handles[graph], stream)

    def free_graph(self, graph: int) -> None:
        """See `Cuda`."""
        self._call("cudaGraphExecDestroy", self._handles.pop(graph))

    def _kept(self, handle: Any) -> int:
        self._handles[int(handle)] = handle
        return int(handle)

    def _call(self, name: str, *arguments: Any) -> Any:
        """The function's result; it returns its error first."""
        error, *results = getattr(self._rt, name)(*arguments)
        if error != self._rt.cudaError_t.cudaSuccess:
            raise CudaError(f"the GPU: {name}: {error.name}")
        return results[0] if results else None


class PyCuda:
    """The CUDA driver by pycuda, in the first device's primary context, which TensorRT uses as well."""

    has_graphs = False

    def __init__(self) -> None:
        import pycuda.autoprimaryctx
        import pycuda.driver

        self._driver: Any = pycuda.driver
        self._kept: dict[int, Any] = {}

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
        event = self._call(self._driver.Event)
        self._kept[event.handle] = event
        return int(event.handle)

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
        try:
            return function(*arguments)
        except self._driver.Error as error:
            raise CudaError(f"the GPU: {' '.join(str(error).split())}") from None

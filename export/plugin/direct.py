"""How are the kernels called without TensorRT? On arrays that lie on the GPU already, by their addresses.

An array is anything with `__cuda_array_interface__`: a PyTorch CUDA tensor, a CuPy or pycuda array. For tests
on a GPU and for comparison with other ways; a plan uses the plugin.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np

from sfiin.export.plugin import toolkit
from sfiin.export.plugin.host import INPUTS, SOURCES
from sfiin.model.network import SLOPE
from sfiin.model.spectrum import CUT, FADE, FLOOR
from sfiin.runtime.backends.cuda import Cuda, CudaError
from sfiin.runtime.errors import MismatchError, SfiinError, UnavailableError

TYPES = {"<f4": 0, "<f2": 1}


class OnGpu(Protocol):
    """An array in device memory (CUDA Array Interface, version 3)."""

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Shape, type, address and strides."""
        ...


class SpectralFusion:
    """The node for features of (N, C, H, W) in one type, with its tables and workspace on the GPU.

    Raises MismatchError for sizes that the kernels do not compute, CudaError for what fails on the device.
    Close it, or use it as a context.
    """

    def __init__(self, library: Path, device: Cuda, shape: Sequence[int]) -> None:
        self._library = opened(library)
        why = self._library.sfiin_unsupported(*shape)
        if why:
            raise MismatchError(f"SpectralFusion of {'x'.join(map(str, shape))}: {why.decode()}")
        self.shape = tuple(shape)
        self._owned = ExitStack()
        try:
            self._workspace = self._allocated(device, self._library.sfiin_workspace(*shape))
            self._turns = [self._table(device, length) for length in (shape[3], shape[2])]
        except CudaError:
            self.close()
            raise
        self.shared = shared_memory(self._library)

    def __call__(self, f: OnGpu, *inputs: OnGpu, stream: int = 0) -> None:
        """Compute into `f` from `m`, `p` and the 14 weights of `sfiin.export.spectral_fusion.WEIGHTS`, on a
        stream.

        Raises MismatchError for arrays of other shapes, types or strides; CudaError when a launch fails.
        """
        half, (out, *addresses) = checked(self.shape, f, *inputs)
        pointers = (ctypes.c_void_p * INPUTS)(*addresses)
        rule = (ctypes.c_float * 4)(FLOOR, CUT, FADE, SLOPE)
        error = self._library.sfiin_enqueue(
            half,
            (ctypes.c_int * 4)(*self.shape),
            rule,
            pointers,
            ctypes.c_void_p(out),
            ctypes.c_void_p(self._workspace),
            *map(ctypes.c_void_p, self._turns),
            self.shared,
            ctypes.c_void_p(stream),
        )
        if error:
            raise CudaError(f"the GPU: SpectralFusion: {error.decode()}")

    def close(self) -> None:
        """Give the device memory back."""
        self._owned.close()

    def __enter__(self) -> SpectralFusion:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _allocated(self, device: Cuda, size: int) -> int:
        address = device.allocate(size)
        self._owned.callback(device.free, address)
        return address

    def _table(self, device: Cuda, length: int) -> int:
        size = 8 * length
        address = self._allocated(device, size)
        with ExitStack() as stack:
            memory = device.pinned(size)
            stack.callback(device.free_pinned, memory)
            self._library.sfiin_turns(length, ctypes.c_void_p(memory.ctypes.data))
            stream = device.stream()
            stack.callback(device.free_stream, stream)
            device.upload(address, memory, stream)
            device.drain(stream)
        return address


def checked(shape: Sequence[int], f: OnGpu, *inputs: OnGpu) -> tuple[int, list[int]]:
    """Whether the arrays are half, and their addresses. Raises MismatchError, naming the array that does
    not fit."""
    channels = shape[1]
    sizes = [tuple(shape)] * 3
    for doubled in (1, 1, 2, 1, 2, 1, 1):
        sizes += [(channels, doubled * channels), (channels,)]
    arrays = [tensor.__cuda_array_interface__ for tensor in (f, *inputs)]
    if len(arrays) != len(sizes):
        raise MismatchError(f"SpectralFusion takes m, p and 14 weights, not {len(inputs)} arrays")
    kind = arrays[0]["typestr"]
    for i, (array, size) in enumerate(zip(arrays, sizes, strict=True)):
        name = "f" if not i else f"input {i - 1}"
        if array["typestr"] != kind or kind not in TYPES:
            raise MismatchError(f"{name}: all must be float32 or all float16, not {array['typestr']}")
        if tuple(array["shape"]) != size:
            raise MismatchError(f"{name}: shape {tuple(array['shape'])}, not {size}")
        if array.get("strides") not in (None, _packed(size, np.dtype(kind).itemsize)):
            raise MismatchError(f"{name}: its elements must lie one behind another")
    return TYPES[kind], [int(array["data"][0]) for array in arrays]


def _packed(size: Sequence[int], item: int) -> tuple[int, ...]:
    strides: list[int] = []
    for side in reversed(size):
        strides.insert(0, item)
        item *= side
    return tuple(strides)


def compiled(path: Path, architecture: str = "native") -> None:
    """Compile the library of `SpectralFusion`. Raises UnavailableError without nvcc, SfiinError with
    nvcc's error."""
    flags = ["-std=c++17", "-O3", f"-arch={architecture}", "-shared", "-Xcompiler", "-fPIC", "-o", str(path)]
    command = [str(toolkit.nvcc()), *flags, str(SOURCES / "spectral_fusion.cu")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SfiinError(f"the plugin's kernels do not compile: {done.stderr.strip().splitlines()[0]}")


def shared_memory(library: ctypes.CDLL) -> ctypes.Array[ctypes.c_size_t]:
    """Bytes of shared memory that a block may have on the current device, and those of a multiprocessor."""
    shared = (ctypes.c_size_t * 2)()
    library.sfiin_shared(shared)
    return shared


def opened(path: Path) -> ctypes.CDLL:
    """The compiled library, with its functions' types. Raises UnavailableError when it cannot be loaded."""
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be loaded ({error}); compile it on this machine") from None
    library.sfiin_unsupported.restype = library.sfiin_enqueue.restype = ctypes.c_char_p
    library.sfiin_workspace.restype = ctypes.c_size_t
    return library

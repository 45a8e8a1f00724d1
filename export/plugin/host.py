"""What do the plugin's kernels compute? Their own source, compiled for this machine's CPU and called on NumPy
arrays.

For tests of indices, twiddles, edges and barriers without a GPU; `sanitizer` compiles with AddressSanitizer
and UndefinedBehaviorSanitizer, or ThreadSanitizer, for a process that has loaded their library.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import numpy as np
from numpy.typing import NDArray

from sfiin.model.network import SLOPE
from sfiin.model.spectrum import CUT, FADE, FLOOR
from sfiin.runtime.errors import MismatchError, SfiinError, UnavailableError

SOURCES = Path(__file__).parent

Array = NDArray[np.floating]

INPUTS = 16


def spectral_fusion(m: Array, p: Array, *weights: Array, threads: int = 2, limit: int = 99 << 10) -> Array:
    """The node on `m` and `p` (N, C, H, W), float32 or float16, with the weights of
    `sfiin.export.spectral_fusion.WEIGHTS`.

    `threads` of a block run at once; `limit` is the bytes of shared memory that a block may have. Raises
    MismatchError for sizes and types that the kernels do not compute, UnavailableError without a C++
    compiler.
    """
    if why := unsupported(m.shape):
        raise MismatchError(f"SpectralFusion of {'x'.join(map(str, m.shape))}: {why}")
    dtype = np.dtype(m.dtype)
    arrays = [np.ascontiguousarray(array, dtype) for array in (m, p, *weights)]
    if dtype not in (np.float32, np.float16) or len(arrays) != INPUTS or p.shape != m.shape:
        raise MismatchError(
            "SpectralFusion takes m and p of one shape and 14 weights, all float32 or all float16"
        )
    result = np.empty(m.shape, dtype)
    pointers = (ctypes.c_void_p * INPUTS)(*(array.ctypes.data for array in arrays))
    shape, rule = (ctypes.c_int * 4)(*m.shape), (ctypes.c_float * 4)(FLOOR, CUT, FADE, SLOPE)
    half = int(dtype == np.float16)
    target = ctypes.c_void_p(result.ctypes.data)
    load().sfiin_spectral_fusion(half, shape, rule, pointers, target, ctypes.c_size_t(limit), threads)
    return result


def columns(channels: int, height: int, block: int, every: int) -> tuple[int, int]:
    """How many columns a block of `WholeColumns` takes, and how many such blocks run together, where a block
    may have `block` bytes of shared memory and a multiprocessor has `every`. 0: columns do not fit."""
    width, together = ctypes.c_int(), ctypes.c_int()
    sizes = (ctypes.c_size_t(block), ctypes.c_size_t(every))
    load().sfiin_columns(channels, height, *sizes, ctypes.byref(width), ctypes.byref(together))
    return width.value, together.value


def unsupported(shape: Sequence[int]) -> str:
    """Why a node of (N, C, H, W) cannot be computed, "" if it can."""
    why = load().sfiin_unsupported(*shape)
    return why.decode() if why else ""


@cache
def load() -> ctypes.CDLL:
    """The kernels as a library, compiled once in a process."""
    path = Path(mkdtemp(prefix="sfiin-plugin-")) / "host.so"
    compiled(path)
    library = ctypes.CDLL(str(path))
    library.sfiin_unsupported.restype = ctypes.c_char_p
    library.sfiin_workspace.restype = ctypes.c_size_t
    return library


def compiled(path: Path, *flags: str, sources: Sequence[str] = ("host.cpp",)) -> None:
    """Compile for this machine. Raises UnavailableError without a compiler, SfiinError with its first
    error."""
    compiler = shutil.which("g++")
    if compiler is None:
        raise UnavailableError("g++ is not installed, which compiles the plugin's kernels for this machine")
    shared = () if path.suffix == "" else ("-shared", "-fPIC")
    files = [str(SOURCES / name) for name in sources]
    command = [
        compiler,
        "-std=c++20",
        "-O2",
        "-pthread",
        "-Wall",
        "-Wextra",
        "-Wno-unknown-pragmas",
        "-Werror",
        *shared,
    ]
    done = subprocess.run(
        [*command, *flags, *files, "-o", str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SfiinError(f"the plugin's kernels do not compile: {done.stderr.strip().splitlines()[0]}")

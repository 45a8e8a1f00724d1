"""How is a model run by the project's own kernels? The native library, and sessions behind it.

The library is compiled where the package is installed, if a C++ compiler and Highway are there
(export/native); it needs no ONNX Runtime. A model whose graph it does not know is refused, and a program that
does not reproduce the model's golden tiles is, too: `auto` then goes on to ONNX Runtime.

A session computes each tile in one thread, and as many tiles at once as it has threads, so that a product's
bytes do not depend on their number.
"""

from __future__ import annotations

import ctypes
import math
from collections import deque
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime import golden, vouching
from sfiin.runtime.backends import native_steps, onnx_graph, side_by_side
from sfiin.runtime.backends.native_program import compile_graph
from sfiin.runtime.backends.side_by_side import Batch, SideBySide
from sfiin.runtime.check import GATES, parity
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError, SfiinError, UnavailableError

FOLDER = Path(__file__).parent / "library"  # no package, so that nothing imports what lies there
_PATTERN = "_native*.so"
_REASON = 256  # bytes of the library's reason


def why_not() -> str:
    """Why there is no native library here, "" if there is one."""
    try:
        library()
    except UnavailableError as error:
        return str(error)
    return ""


@cache
def library() -> ctypes.CDLL:
    """The native library. Raises UnavailableError where it was not compiled, or cannot be loaded."""
    found = sorted(FOLDER.glob(_PATTERN))
    if not found:
        raise UnavailableError(
            "the native kernels were not compiled when sfiin was installed; install g++ and Highway "
            "(on Debian and Ubuntu: apt install g++ libhwy-dev), then install sfiin again"
        )
    try:
        loaded = ctypes.CDLL(str(found[-1]))
        version = loaded.sfiin_native_version()
    except (OSError, AttributeError) as error:
        raise UnavailableError(f"{found[-1]} cannot be loaded ({error}); install sfiin again") from None
    if version != native_steps.VERSION:
        raise UnavailableError(f"{found[-1]} is of another version of sfiin; install sfiin again")
    loaded.sfiin_native_instruction_set.restype = ctypes.c_char_p
    loaded.sfiin_native_open.restype = ctypes.c_void_p
    loaded.sfiin_native_run.restype = None
    loaded.sfiin_native_close.restype = None
    return loaded


def instruction_set() -> str:
    """The vectors that are used here, in Highway's words, such as AVX3 (AVX-512), AVX2 or NEON."""
    return str(library().sfiin_native_instruction_set().decode())


def translated(model: vouching.VouchedModel) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """A model as the library takes it, and its constants. Raises `onnx_graph.UnknownGraphError` with the
    reason."""
    contract = model.contract
    if contract.precision != "fp32":
        raise onnx_graph.UnknownGraphError(f"its precision is {contract.precision}")
    if model.external:
        raise onnx_graph.UnknownGraphError("its weights lie outside the file")
    graph = onnx_graph.parse(model.data)
    if graph.inputs != {name: contract.shapes[name] for name in ("ms", "pan")}:
        raise onnx_graph.UnknownGraphError("its inputs are not what its contract says")
    return native_steps.encode(compile_graph(graph))


class Program:
    """A program in the library's memory; one thread at a time may run it."""

    def __init__(
        self, code: NDArray[np.int32], constants: NDArray[np.float32], sizes: tuple[int, int, int]
    ) -> None:
        why = ctypes.create_string_buffer(_REASON)
        self._sizes = [ctypes.c_size_t(size) for size in sizes]
        lengths = [ctypes.c_size_t(array.size) for array in (code, constants)]
        self._handle = library().sfiin_native_open(
            _address(code), lengths[0], _address(constants), lengths[1], why, ctypes.c_size_t(_REASON)
        )
        if not self._handle:
            raise onnx_graph.UnknownGraphError(why.value.decode())

    def run(
        self, ms: NDArray[np.float32], pan: NDArray[np.float32], hrms: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Fuse tiles into `hrms`, shapes as of `Session.run`, all contiguous; returns it."""
        arrays = zip((ms, pan, hrms), self._sizes, strict=True)
        arguments = [part for array, size in arrays for part in (_address(array), size)]
        library().sfiin_native_run(ctypes.c_void_p(self._handle), ctypes.c_size_t(len(ms)), *arguments)
        return hrms

    def close(self) -> None:
        """Free its memory."""
        if self._handle:
            library().sfiin_native_close(ctypes.c_void_p(self._handle))
        self._handle = None


class NativeSession:
    """A model in the native library.

    `threads` tiles are computed at once (0: as many as the process may use CPUs). With `prove` the file is
    judged (`sfiin.runtime.vouching`), and of its golden tiles the one with most contrast is computed first.
    `notes`, `sha256` and `backend` are what there is to be said of it, the digest of the file's bytes, and
    what runs it; `at_once` is the number of tiles. Raises UnavailableError without the library, without
    golden tiles, or for a model that it does not know; InputError for a file that is no ONNX model,
    ContractError for one without a valid contract, MismatchError or CheckFailedError for one whose contract
    does not vouch for it or whose golden tile is not reproduced.
    """

    def __init__(self, model: Path, threads: int = 0, *, prove: bool = True) -> None:
        library()
        if not model.is_file():
            raise InputError(f"{model}: no such model file")
        found = vouching.read(model)
        note = vouching.vouch(found) if prove else ""
        self._contract, self.sha256, self.notes = found.contract, found.sha256, [note] if note else []
        self.backend, self.at_once = f"native {instruction_set()}", side_by_side.cores(threads)
        self._programs: list[Program] = []
        try:
            self._compile(found, self.at_once)
        except onnx_graph.UnknownGraphError as error:
            self._release()
            raise UnavailableError(
                f"{model}: the native kernels do not know its graph ({error}); --provider cpu runs it in "
                "ONNX Runtime"
            ) from None
        self._free = deque(self._programs)
        self._tiles = SideBySide(self._tile, self.at_once)
        if prove:
            try:
                self._prove(model)
            except SfiinError:
                self.close()
                raise

    def _compile(self, model: vouching.VouchedModel, threads: int) -> None:
        code, constants = translated(model)
        ms, pan, hrms = (math.prod(self._contract.shapes[name]) for name in ("ms", "pan", "hrms"))
        for _ in range(threads):
            self._programs.append(Program(code, constants, (ms, pan, hrms)))

    @property
    def contract(self) -> Contract:
        """What the model promises."""
        return self._contract

    def run(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fuse a batch of tiles, as many at once as there are threads; as `Session.run`."""
        return self._tiles.run(ms, pan)

    def run_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Fuse batches one after another, in order, each as `run` would; as many tiles at once as threads."""
        return self._tiles.run_many(batches)

    def close(self) -> None:
        """Free the library's memory and the threads."""
        self._tiles.close()
        self._release()

    def _release(self) -> None:
        for program in self._programs:
            program.close()

    def __enter__(self) -> NativeSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()

    def _tile(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        shapes = self._contract.shapes
        if ms.shape[1:] != shapes["ms"] or pan.shape[1:] != shapes["pan"]:
            raise InputError(
                f"tiles of {ms.shape[1:]} and {pan.shape[1:]}, not {shapes['ms']} and {shapes['pan']}"
            )
        hrms = np.empty((len(ms), *shapes["hrms"]), np.float32)
        program = self._free.popleft()  # there are as many as threads
        try:
            return program.run(
                np.ascontiguousarray(ms, np.float32), np.ascontiguousarray(pan, np.float32), hrms
            )
        finally:
            self._free.append(program)

    def _prove(self, model: Path) -> None:
        beside = golden.beside(model)
        if not beside.is_file():
            raise UnavailableError(
                f"{model}: no golden tiles beside it, on which the native kernels would have to prove "
                "themselves; --provider cpu runs it in ONNX Runtime"
            )
        try:
            tiles = golden.read(beside, self._contract)
        except (InputError, MismatchError) as error:
            raise UnavailableError(f"{error}, and the native kernels prove themselves on them") from None
        best = int(np.argmax([pan.std() for pan in tiles.pan]))
        inputs = (array[best : best + 1].astype(np.float32) for array in (tiles.ms, tiles.pan))
        found = parity(
            (tiles.names[best],),
            self.run(*inputs),
            tiles.hrms[best : best + 1],
            float(self._contract.sensor.peak),
        )
        found.require(
            GATES[self._contract.precision],
            f"{model} in the native kernels",
            "--provider cpu runs it in ONNX Runtime",
        )


def _address(array: NDArray[Any]) -> ctypes.c_void_p:
    if not array.flags.c_contiguous:
        raise ValueError("an array that is not contiguous")
    return ctypes.c_void_p(array.ctypes.data)

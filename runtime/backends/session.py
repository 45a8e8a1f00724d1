"""How is an open model run, whatever the backend? The session protocol, and ONNX Runtime behind it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime import vouching
from sfiin.runtime.backends import providers, side_by_side
from sfiin.runtime.backends.providers import PROVIDERS, Provider
from sfiin.runtime.backends.side_by_side import Batch, SideBySide
from sfiin.runtime.contract import NEEDS, Contract
from sfiin.runtime.errors import CheckFailedError, InputError, SfiinError, UnavailableError
from sfiin.runtime.extras import install

OLDEST_ONNXRUNTIME = (1, 23)
"""The newest that Python 3.10 has, as on JetPack 6; models without a DFT run in it as in later ones."""

# 1.25 and 1.26 load an inverse one-sided DFT and return a result of the wrong width without a word.
OLDEST_WITH_DFT = (1, 27)


class Session(Protocol):
    """An open model. `run` may be called any number of times; `close` frees what the backend holds."""

    @property
    def contract(self) -> Contract:
        """What the model promises."""
        ...

    def run(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fuse a batch of tiles.

        `ms`: (N, B, h, w) float32, DN; `pan`: (N, 1, h * ratio, w * ratio) float32, DN, both of the
        contract's tile. Returns (N, B, h * ratio, w * ratio) float32, DN, neither rounded nor clipped.
        """
        ...

    def close(self) -> None:
        """Free the backend's memory; the session cannot be used afterwards."""
        ...


@runtime_checkable
class Pipelined(Session, Protocol):
    """A session that has the next batches under way while one is computed."""

    def run_many(
        self, batches: Iterable[tuple[NDArray[np.float32], NDArray[np.float32]]]
    ) -> Iterator[NDArray[np.float32]]:
        """Fuse batches one after another, each as `run` would, in order."""
        ...


@runtime_checkable
class Watched(Session, Protocol):
    """A session that looks after itself, such as a flight's guard."""

    def begin(self) -> None:
        """A scene begins; what was done before is no part of its record."""
        ...

    def vouch(self) -> Mapping[str, Any]:
        """What was done since the last call, once the session has proven itself; for a run's document.

        Raises CheckFailedError where it cannot: what it made since is not to be trusted.
        """
        ...


class OnnxSession:
    """A model in ONNX Runtime.

    The file is read once, judged (`sfiin.runtime.vouching`), and what was judged is what runs; with `check`
    off it is taken as it is. `notes` holds what is to be said of it, `sha256` the digest of its bytes. On a
    CPU `threads` tiles are computed at once (0: as many as the process may use CPUs), each by one thread;
    `at_once` is their number, `backend` what runs them. Raises InputError for a file that is no ONNX model,
    ContractError for one without a valid contract, MismatchError or CheckFailedError for one whose contract
    does not vouch for it, UnavailableError without onnxruntime or the provider, or for a model of the
    lowering `plugin`.
    """

    def __init__(
        self, model: Path, provider: Provider = "cpu", threads: int = 0, *, check: bool = True
    ) -> None:
        _require_provider(import_onnxruntime(), provider)
        if not model.is_file():
            raise InputError(f"{model}: no such model file")
        found = vouching.read(model)
        if found.contract.lowering == "plugin":
            raise _for_plugin(model)
        self._begin(found, provider, threads, vouching.vouch(found) if check else "")

    @classmethod
    def of(cls, model: vouching.VouchedModel, provider: Provider = "cpu", threads: int = 0) -> OnnxSession:
        """A session of a model that was read already, and is taken as it is."""
        session = cls.__new__(cls)
        session._begin(model, provider, threads, "")
        return session

    def _begin(self, model: vouching.VouchedModel, provider: Provider, threads: int, note: str) -> None:
        ort = import_onnxruntime()
        if model.contract.lowering == "dft" and _version(ort) < OLDEST_WITH_DFT:
            raise UnavailableError(
                f"{model.path}: its Fourier transforms are ONNX DFT, which onnxruntime {ort.__version__} "
                f"refuses or gets wrong; it needs {_text(OLDEST_WITH_DFT)} or later, or a model of --fourier "
                "matmul"
            )
        self._contract, self._batch = model.contract, model.batch
        self._types = {name: vouching.FED[dtype] for name, dtype in model.types.items()}
        self.sha256, self.notes = model.sha256, [note] if note else []
        self.backend = f"onnxruntime {ort.__version__} {provider}"
        # On a GPU a batch is one piece of work, and what little is left to the CPU may use its threads.
        alone = provider != "cpu"
        self.at_once = 1 if alone else side_by_side.cores(threads)
        options = session_options(ort, threads if alone else 1, self._contract.block)
        self._tiles = None if alone else SideBySide(self._run_piece, self.at_once, self._batch or 1)
        # Weights that lie outside the model are found by its path only.
        source = str(model.path) if model.external else model.data
        providers.require_loads(ort, provider)
        try:
            wanted = providers.wanted(provider)
            self._session: Any = ort.InferenceSession(source, options, providers=wanted)
        except load_errors() as error:
            raise _why_not(model.path, self._contract, error) from None
        if PROVIDERS[provider] not in self._session.get_providers():
            raise providers.refusal(provider, "it did not start, and did not say why")

    @property
    def contract(self) -> Contract:
        """What the model promises."""
        return self._contract

    def run(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        """Fuse a batch of tiles; shapes and units as in `Session.run`.

        Raises CheckFailedError where the graph does not run, or returns another shape than its contract's.
        """
        if self._tiles is not None:
            return self._tiles.run(ms, pan)
        if self._batch is None or self._batch == len(ms):
            return self._run(ms, pan)
        return np.concatenate([self._padded(ms[at], pan[at]) for at in self._pieces(len(ms))])

    def run_many(self, batches: Iterable[Batch]) -> Iterator[NDArray[np.float32]]:
        """Fuse batches one after another, in order, each as `run` would; on a CPU `at_once` tiles at once."""
        if self._tiles is not None:
            return self._tiles.run_many(batches)
        return (self.run(*batch) for batch in batches)

    def _run_piece(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        return self._run(ms, pan) if len(ms) == (self._batch or 1) else self._padded(ms, pan)

    def _pieces(self, count: int) -> Iterator[slice]:
        """A graph for a fixed number of tiles is given so many at a time."""
        size = self._batch or count
        return (slice(first, min(first + size, count)) for first in range(0, count, size))

    def _padded(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        lacking = (self._batch or len(ms)) - len(ms)
        more = (np.concatenate([image, np.repeat(image[-1:], lacking, 0)]) for image in (ms, pan))
        return self._run(*more)[: len(ms)]

    def _run(self, ms: NDArray[np.float32], pan: NDArray[np.float32]) -> NDArray[np.float32]:
        inputs = {
            "ms": ms.astype(self._types["ms"], copy=False),
            "pan": pan.astype(self._types["pan"], copy=False),
        }
        try:
            result = self._session.run(["hrms"], inputs)[0]
        except load_errors() as error:
            raise CheckFailedError(
                f"the model does not run in ONNX Runtime: {_first_line(error)}; export it again"
            ) from None
        wanted = (len(ms), *self._contract.shapes["hrms"])
        if not isinstance(result, np.ndarray) or result.shape != wanted:
            found = getattr(result, "shape", type(result).__name__)
            raise CheckFailedError(f"the model returns {found}, its contract says {wanted}; export it again")
        return result.astype(np.float32, copy=False)

    def close(self) -> None:
        """Drop the ONNX Runtime session, and end the threads."""
        if self._tiles is not None:
            self._tiles.close()
        self._session = None

    def __enter__(self) -> OnnxSession:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()


def _require_provider(ort: Any, provider: Provider) -> None:
    if PROVIDERS[provider] not in ort.get_available_providers():
        raise UnavailableError(
            f"onnxruntime here has no {PROVIDERS[provider]}; on a machine with CUDA {install('gpu')}, "
            "or use --provider cpu"
        )


def import_onnxruntime() -> Any:
    """The onnxruntime module. Raises UnavailableError when it is absent or older than 1.23."""
    try:
        import onnxruntime as ort
    except ImportError:
        raise UnavailableError(
            f"onnxruntime is not installed; {install('cpu')}, or with CUDA {install('gpu')}"
        ) from None
    if _version(ort) < OLDEST_ONNXRUNTIME:
        wanted = _text(OLDEST_ONNXRUNTIME)
        raise UnavailableError(
            f"onnxruntime {ort.__version__} is too old, sfiin was tried from {wanted} on; "
            f"pip install 'onnxruntime>={wanted}'"
        )
    return ort


def _version(ort: Any) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", ort.__version__)[:2])


def _text(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def session_options(ort: Any, threads: int = 0, block: int = 1) -> Any:
    """How sessions are set up: quiet, with so many threads inside an operator (0: ONNX Runtime's choice).

    The last level of graph optimisation lays tensors out in blocks of 8 or 16 channels. It is for models
    whose convolutions are arranged to fill them (`Contract.block`); in others, as narrow as this network, the
    blocks would be half empty, and the reordering cost more than it saves.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    levels = ort.GraphOptimizationLevel
    options.graph_optimization_level = levels.ORT_ENABLE_ALL if block > 1 else levels.ORT_ENABLE_EXTENDED
    return options


def load_errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises over a model that it cannot load or run."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    return (
        state.Fail,
        state.InvalidArgument,
        state.InvalidGraph,
        state.InvalidProtobuf,
        state.NoModel,
        state.NotImplemented,
        state.RuntimeException,
    )


def _why_not(model: Path, contract: Contract, error: Exception) -> SfiinError:
    """A model for the plugin is refused as such; of any other, ONNX Runtime's first line is told."""
    if contract.lowering == "plugin":
        return _for_plugin(model)
    return InputError(f"{model}: ONNX Runtime cannot load it: {_first_line(error)}")


def _for_plugin(model: Path) -> UnavailableError:
    return UnavailableError(
        f"{model}: its frequency branches are nodes of a plugin, which ONNX Runtime does not have; it needs "
        f"{NEEDS['plugin'].split(';')[0]}. Run it there, or export the checkpoint with --fourier matmul"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__

"""How does a station without a GPU sharpen? It sends tiles to a Triton server and takes back what comes.

A model's address is `grpc://HOST:PORT/NAME`. Any server that speaks KServe's protocol, version 2, will do, as
long as the model's configuration carries sfiin's contract (`sfiin.runtime.backends.triton_repository`).
Several batches are under way at a time, so that the server can join them and the network is not waited for;
how many bounds the memory on both sides. A call that takes longer than `DEADLINE`, or finds no server, is
tried again with growing pauses, each try on a new connection; after `TRIES` the session has failed, and says
what to do.
"""

from __future__ import annotations

import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.backends.triton_repository import CONTRACT, DIGEST
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import ContractError, MismatchError, SfiinError, UnavailableError
from sfiin.runtime.extras import missing

Tiles = NDArray[np.float32]
T = TypeVar("T")

IN_FLIGHT = 4
"""Batches under way at a time."""

DEADLINE = 60.0
"""Seconds that one batch may take."""

TRIES = 5
PAUSE = 0.5
"""Seconds before the second try; each later pause is twice as long."""

_ADDRESS = re.compile(r"grpc:/{1,2}([^/\s]+:\d+)/([A-Za-z0-9][A-Za-z0-9._-]*)")
# A server that is starting, overloaded or gone says one of these; all else is an answer.
_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "CANCELLED", "ABORTED")


def is_address(model: object) -> bool:
    """Whether a model's name is the address of one that is served. One slash will do: a path has no two."""
    return bool(_ADDRESS.fullmatch(str(model)))


class TritonSession:
    """A model that a server runs. Use as `Session`; `run_many` keeps several batches under way.

    Raises UnavailableError without the package tritonclient, or where no server answers; MismatchError for a
    server without this model, or whose model is not what its contract says; ContractError for one without a
    contract.
    """

    def __init__(
        self, address: str, *, tries: int = TRIES, pause: float = PAUSE, deadline: float = DEADLINE
    ) -> None:
        found = _ADDRESS.fullmatch(address)
        if not found:
            raise MismatchError(f"{address}: is no address of a served model; write grpc://HOST:PORT/NAME")
        self._host, self._name = found.groups()
        self._address = f"grpc://{self._host}/{self._name}"
        self._tries, self._pause, self._deadline = tries, pause, deadline
        self._grpc: Any = _library()
        self._mine = threading.local()
        self._clients: list[Any] = []
        self._pool = ThreadPoolExecutor(IN_FLIGHT, "sfiin-triton")
        self.backend, self.sha256 = "Triton", ""
        """Of the artefact that is served, as the server tells it."""
        try:
            self._contract, self._largest = self._patiently(self._agreed)
        except BaseException:
            self.close()
            raise

    @property
    def contract(self) -> Contract:
        """What the served model promises."""
        return self._contract

    def run(self, ms: Tiles, pan: Tiles) -> Tiles:
        """Fuse a batch of tiles; shapes and units as in `Session.run`. Raises SfiinError when the server
        fails."""
        (result,) = self.run_many([(ms, pan)])
        return result

    def run_many(self, batches: Iterable[tuple[Tiles, Tiles]]) -> Iterator[Tiles]:
        """Fuse batches, several under way at a time; results come in order. A batch may be of any size."""
        under_way: deque[list[Future[Tiles]]] = deque()
        try:
            for ms, pan in batches:
                under_way.append([self._pool.submit(self._one, *part) for part in self._divided(ms, pan)])
                while len(under_way) >= IN_FLIGHT:
                    yield _joined(under_way.popleft())
            while under_way:
                yield _joined(under_way.popleft())
        finally:
            for parts in under_way:
                for part in parts:
                    part.cancel()

    def close(self) -> None:
        """Let the connection go; batches under way are not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        while self._clients:
            self._clients.pop().close()

    def __enter__(self) -> TritonSession:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _divided(self, ms: Tiles, pan: Tiles) -> Iterator[tuple[Tiles, Tiles]]:
        """A batch in parts that the server takes at once."""
        for first in range(0, len(ms), self._largest):
            part = np.s_[first : first + self._largest]
            yield ms[part], pan[part]

    def _one(self, ms: Tiles, pan: Tiles) -> Tiles:
        return self._patiently(lambda client: self._infer(client, ms, pan))

    def _infer(self, client: Any, ms: Tiles, pan: Tiles) -> Tiles:
        inputs = []
        for name, tiles in (("ms", ms), ("pan", pan)):
            tensor = self._grpc.InferInput(name, list(tiles.shape), "FP32")
            tensor.set_data_from_numpy(np.ascontiguousarray(tiles, np.float32))
            inputs.append(tensor)
        wanted = [self._grpc.InferRequestedOutput("hrms")]
        answer = client.infer(self._name, inputs, outputs=wanted, client_timeout=self._deadline)
        expected = (len(ms), *self._contract.shapes["hrms"])
        try:
            hrms: Tiles | None = answer.as_numpy("hrms")
        except ValueError:  # fewer bytes than its shape says
            hrms = None
        if hrms is None or hrms.shape != expected or hrms.dtype != np.float32:
            raise SfiinError(
                f"{self._address}: answered with something else than HRMS of {expected}; look at the server. "
                "An older Triton may need NumPy 1 beside its Python backend"
            )
        return hrms

    def _agreed(self, client: Any) -> tuple[Contract, int]:
        """The served contract, once the model's configuration agrees with it, and the largest batch."""
        config = client.get_model_config(self._name, client_timeout=self._deadline).config
        if CONTRACT not in config.parameters:
            raise ContractError(
                f"{self._address}: carries no sfiin contract; make its repository with 'sfiin triton'"
            )
        contract = Contract.from_json(config.parameters[CONTRACT].string_value)
        found = {tensor.name: tuple(tensor.dims) for tensor in (*config.input, *config.output)}
        if found != contract.shapes:
            raise MismatchError(
                f"{self._address}: serves {found}, its contract says {contract.shapes}; make its repository "
                "anew"
            )
        self.sha256 = config.parameters[DIGEST].string_value if DIGEST in config.parameters else ""
        if not client.is_model_ready(self._name, client_timeout=self._deadline):
            raise _NotReadyError(f"{self._address}: the server has the model, but it is not ready")
        return contract, max(1, config.max_batch_size)

    def _patiently(self, call: Callable[[Any], T]) -> T:
        """What a call gives, tried again while the server is only away."""
        pause = self._pause
        for attempt in range(1, self._tries + 1):
            try:
                return call(self._connected())
            except self._grpc.InferenceServerException as error:
                passing = str(error.status()).rpartition(".")[2] in _PASSING
                if not passing:
                    raise MismatchError(
                        f"{self._address}: the server refuses: {_first_line(error)}"
                    ) from None
                why = _first_line(error)
            except _NotReadyError as error:
                why = str(error)
            self._disconnect()
            if attempt < self._tries:
                time.sleep(pause)
                pause *= 2
        raise UnavailableError(
            f"{self._address}: no server after {self._tries} tries ({why}); start it, or give a model file "
            "with --model"
        )

    def _connected(self) -> Any:
        """This thread's client: tritonclient's must not be shared between threads."""
        if getattr(self._mine, "client", None) is None:
            self._mine.client = self._grpc.InferenceServerClient(self._host)
            self._clients.append(self._mine.client)
        return self._mine.client

    def _disconnect(self) -> None:
        client = getattr(self._mine, "client", None)
        if client is not None:
            self._mine.client = None
            if client in self._clients:
                self._clients.remove(client)
            client.close()


class _NotReadyError(Exception):
    """The server is there, and the model is not yet."""


def _joined(parts: list[Future[Tiles]]) -> Tiles:
    results = [part.result() for part in parts]
    return results[0] if len(results) == 1 else np.concatenate(results)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _library() -> Any:
    try:
        from tritonclient import grpc
    except ImportError:
        raise UnavailableError(missing("tritonclient", "triton", "a served model")) from None
    return grpc

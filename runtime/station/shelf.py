"""Which models are open, and what were they opened from? Each once, until its file is another."""

from __future__ import annotations

import glob
import hashlib
from dataclasses import dataclass
from pathlib import Path

from sfiin.runtime import signatures
from sfiin.runtime.backends.select import Choice, open_session
from sfiin.runtime.backends.session import Session
from sfiin.runtime.backends.triton_client import is_address
from sfiin.runtime.errors import InputError
from sfiin.runtime.files import sha256
from sfiin.runtime.flight import bundle
from sfiin.runtime.flight.guard import Rhythm

_REPLACED = 3  # times that a model is opened again because its file changed meanwhile


@dataclass(frozen=True)
class ShelvedModel:
    """A model: its open session (None for a method, which has one only with its scene), the digests of all
    that it was opened from and of its file, and that file's state then."""

    own: Session | None
    sha256: str
    file_sha256: str
    state: tuple[int, ...] = ()

    @property
    def session(self) -> Session:
        """The open session."""
        assert self.own is not None
        return self.own


class Shelf:
    """Open models. `key` is a public key that they must be signed with, None for the environment's, if any;
    `rhythm` says how often a bundle's guard tests itself, None for before each product alone."""

    def __init__(
        self, provider: Choice, threads: int, key: Path | None, rhythm: Rhythm | None = None
    ) -> None:
        self._provider, self._threads, self._key, self._rhythm = provider, threads, key, rhythm
        self._open: dict[Path, ShelvedModel] = {}

    def get(self, model: Path) -> ShelvedModel:
        """A model, opened anew where its file has been replaced. Raises as `open_session`.

        A session that was had before is closed then: who works with one keeps to it until the work is done.
        """
        if is_address(model):
            return self._served(model)
        if not model.is_file():
            raise InputError(f"{model}: no such model file")
        found = self._open.get(model)
        if found is not None and found.state == _state(model):
            return found
        if found is not None:
            self._open.pop(model).session.close()
        for _ in range(_REPLACED):
            state, digest = _state(model), model_digest(model)
            session = self._session(model)
            if (_state(model), model_digest(model)) == (state, digest):
                break
            session.close()
        else:
            raise InputError(f"{model}: is being replaced all the time; wait until it is whole")
        self._open[model] = ShelvedModel(session, digest, sha256(model), state)
        return self._open[model]

    def close(self) -> None:
        """Close all of them."""
        while self._open:
            self._open.popitem()[1].session.close()

    def _served(self, address: Path) -> ShelvedModel:
        """A model that a server runs, by the digest that the server tells."""
        if address not in self._open:
            session = open_session(address, self._provider, key=self._key)
            digest = str(getattr(session, "sha256", ""))
            self._open[address] = ShelvedModel(session, digest, digest)
        return self._open[address]

    def _session(self, model: Path) -> Session:
        """A model's session; of a bundle's manifest, its chain behind a guard."""
        if model.name == bundle.MANIFEST:
            from sfiin.runtime.flight.chain import open_bundle

            if key := signatures.required(self._key):
                signatures.verify(model.parent, key)
            return open_bundle(model.parent, self._provider, self._threads, self._rhythm)
        return open_session(model, self._provider, self._threads, key=self._key)


def model_digest(model: Path) -> str:
    """SHA-256, in hex, of a model's file and of what belongs to it by its name: weights beside it, a plan's
    sidecar and plug-in. Raises InputError where they cannot be read."""
    digest = hashlib.sha256()
    try:
        for path in (model, *(path for path in _beside(model) if path.is_file())):
            digest.update(path.name.removeprefix(model.name).encode() + b"|" + sha256(path).encode())
    except OSError as error:
        raise InputError(f"{model}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def _beside(model: Path) -> list[Path]:
    """What lies beside a model and begins with its name."""
    return sorted(path for path in model.parent.glob(f"{glob.escape(model.name)}*") if path != model)


def _state(model: Path) -> tuple[int, ...]:
    """Changes whenever a model's file, or one that belongs to it, is replaced or written; not the other way
    round."""
    try:
        found = [path.stat() for path in (model, *_beside(model))]
    except OSError as error:
        raise InputError(f"{model}: cannot be read ({error.strerror})") from None
    return tuple(
        number for one in found for number in (one.st_ino, one.st_size, one.st_mtime_ns, one.st_ctime_ns)
    )

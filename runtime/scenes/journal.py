"""How does a run that was killed go on? From the rows of tiles that a hidden folder beside the product keeps.

`.sharp.tif.sfiin/` holds what the run is about (inputs, model, settings), each finished row's pixels and
counts, what the last row leaves for the next one to be blended with, and the GeoTIFF so far. Files appear by
rename, so each is whole or not there. The GeoTIFF itself is never continued: a resumed run writes it anew
from the kept rows, by the same sequence of writes, so that the product is the same to the byte. A row costs
its raw pixels on the disk until the end.

Against a kill that is enough; nothing is forced to the disk, so after a power cut a kept file may be damaged.
Each has a seal: a digest of its content, of its place in the order, and of what the run is about. A row that
is damaged, stands in another's place or comes from another run does not count, and then, or when the run is
about something else, it begins anew. The folder is locked while a process works in it; the lock goes with the
process. A symbolic link in the folder's place is refused: what lies elsewhere is neither read nor removed.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.errors import OutputError, SfiinError, StoppedError, UnavailableError
from sfiin.runtime.files import check_target, settle

Arrays = dict[str, NDArray[Any]]

_ABOUT, _LOCK, _SEAL = "about.json", "lock", "seal"

_PASSING = (OutputError, StoppedError, UnavailableError)
"""What is no verdict on a scene."""

_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


class _DamagedError(OSError):
    """A kept file is not what was kept."""


class Journal:
    """The kept rows of one run, and `part`, where its product is made. `begun` says how it began: "", or a
    note."""

    def __init__(self, folder: Path, suffix: str, about: str) -> None:
        self._folder = folder
        self._run = hashlib.sha256(about.encode()).digest()
        self.part = folder / f"product{suffix}"
        self.part.unlink(missing_ok=True)
        self.rows, self.begun = self._found(about)
        if not self.rows:
            self._clear()
            _write(folder / _ABOUT, about.encode())

    def row(self, index: int) -> Arrays:
        """A kept row."""
        return self._load(self._row(index))

    def left(self) -> Arrays:
        """What the last kept row leaves for the next one."""
        return self._load(self._left(self.rows - 1))

    def keep(self, row: Arrays, left: Arrays) -> None:
        """Keep the next row. Raises OSError."""
        index = self.rows
        self._save(self._left(index), left)
        self._save(self._row(index), row)
        self.rows += 1
        if index:
            self._left(index - 1).unlink(missing_ok=True)

    def _found(self, about: str) -> tuple[int, str]:
        there = self._folder / _ABOUT
        if not there.is_file():
            return 0, ""
        if there.read_text("utf-8", errors="replace") != about:
            return 0, "an unfinished run with other inputs, model or settings was dropped"
        count = 0
        while self._row(count).is_file():
            count += 1
        if count and not all(map(self._is_whole, [*map(self._row, range(count)), self._left(count - 1)])):
            return 0, "an unfinished run was dropped, as what it kept is damaged or not in its order"
        return count, f"resumed after {count} rows of tiles" if count else ""

    def _clear(self) -> None:
        for path in self._folder.iterdir():
            if path.name == _LOCK:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def _save(self, path: Path, arrays: Arrays) -> None:
        temporary = path.with_suffix(".new")
        seal = np.frombuffer(self._seal(path, arrays), np.uint8)
        with _fresh(temporary) as file:
            np.savez(file, **arrays, **{_SEAL: seal})  # type: ignore[arg-type]
        temporary.replace(path)

    def _load(self, path: Path) -> Arrays:
        try:
            with path.open("rb") as file, np.load(file) as content:
                arrays = dict(content)
        except (ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise _DamagedError(errno.EIO, f"{path.name} is damaged") from error
        if arrays.pop(_SEAL, np.zeros(0, np.uint8)).tobytes() != self._seal(path, arrays):
            raise _DamagedError(errno.EIO, f"{path.name} is not what was kept")
        return arrays

    def _seal(self, path: Path, arrays: Arrays) -> bytes:
        """A digest of the run, the file's place (its name), and its content."""
        digest = hashlib.sha256(self._run)
        digest.update(path.name.encode())
        for name in sorted(arrays):
            array = np.ascontiguousarray(arrays[name])
            digest.update(f"|{name}|{array.dtype.str}|{array.shape}|".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
        return digest.digest()

    def _is_whole(self, path: Path) -> bool:
        try:
            self._load(path)
        except OSError:
            return False
        return True

    def _row(self, index: int) -> Path:
        return self._folder / f"row-{index:06d}.npz"

    def _left(self, index: int) -> Path:
        return self._folder / f"left-{index:06d}.npz"


def folder_of(out: Path) -> Path:
    """Where the rows of the run that makes `out` are kept."""
    return out.with_name(f".{out.name}.sfiin")


@contextmanager
def journal(out: Path, about: Mapping[str, Any]) -> Iterator[Journal]:
    """The journal of the run that makes `out`; when the block ends well, its `part` becomes `out` and the
    rest goes.

    When the block fails, `out` is as it was. The rows stay, if there are any, where the next run would go on
    from them: not where a scene or a model is refused, which would be refused again. Raises OutputError when
    another process is at work on `out`, or for an OSError in the block.
    """
    check_target(out)
    folder = folder_of(out)
    try:
        with _locked(folder, out):
            book = None
            try:
                book = Journal(folder, out.suffix, json.dumps(about, sort_keys=True))
                yield book
                settle(book.part, out)
                shutil.rmtree(folder, ignore_errors=True)
            except BaseException as error:
                refused = isinstance(error, SfiinError) and not isinstance(error, _PASSING)
                _leave(folder, None if refused else book)
                raise
    except OSError as error:
        raise OutputError(
            f"{out}: cannot be written ({error.strerror or str(error).splitlines()[0]}); check the disk and "
            "permissions, then start again: what is done is kept"
        ) from error


def discard(out: Path) -> None:
    """Remove what the run that made `out` left where it was killed after it; nothing where one is at work on
    it."""
    folder = folder_of(out)
    if folder.is_dir() and not folder.is_symlink():
        with suppress(OSError, OutputError), _locked(folder, out):
            shutil.rmtree(folder, ignore_errors=True)


def _leave(folder: Path, book: Journal | None) -> None:
    with suppress(OSError):
        if book is None or not book.rows:
            shutil.rmtree(folder)
        else:
            book.part.unlink(missing_ok=True)


@contextmanager
def _locked(folder: Path, out: Path) -> Iterator[None]:
    while True:
        with suppress(FileExistsError):
            folder.mkdir()
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            raise OutputError(f"{folder}: is a link or a file in the way of the run's own folder; remove it")
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except FileNotFoundError:
            continue  # another process has just finished and taken the folder away
        try:
            _flock(descriptor)
            if _is_there(descriptor, folder / _LOCK):
                yield
                return
        except BlockingIOError:
            raise OutputError(
                f"{out}: another process is writing it; wait for it, or give another name"
            ) from None
        finally:
            os.close(descriptor)


def _flock(descriptor: int) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise
    except OSError as error:
        if error.errno not in _NO_LOCKS:  # a share without locks has other means, or none
            raise


def _is_there(descriptor: int, path: Path) -> bool:
    """Whether a lock's file is still the one by its name."""
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".new")
    with _fresh(temporary) as file:
        file.write(content)
    temporary.replace(path)


def _fresh(path: Path) -> BinaryIO:
    """A new file in the place of whatever has its name."""
    path.unlink(missing_ok=True)
    return path.open("xb")

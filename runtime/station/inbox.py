"""How does a folder become a queue that several processes may serve? By renames, each of which only one can
make.

A scene is a folder in the inbox with PAN and MS (`sfiin.runtime.station.delivery`). It is taken when it is
complete: when it holds a file `READY`, or when PAN and MS are there and nothing in it has changed for
`settle` seconds, as this process has seen by its own monotonic clock; what a file's date says does not count,
since dates are set by whoever copies. Who takes a scene renames it into a folder of its own
(`sfiin.runtime.station.claims`), and it ends in `.done` or, with its error in `error.txt`, in `.failed`, from
where nobody takes it by itself. What a process that is no more had taken goes back into the inbox, and its
product is gone on with (`sfiin.runtime.scenes.journal`).

Whoever may write to the inbox is not trusted: symbolic links are no scenes, the station's own folders are
folders and no links, and what it writes goes through fresh names.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from sfiin.runtime.errors import InputError, OutputError
from sfiin.runtime.files import own_folder, write_fresh
from sfiin.runtime.scenes.access import MOST_DEPTH, MOST_FILES
from sfiin.runtime.station import claims

READY = "READY"
DONE, FAILED = ".done", ".failed"

_OF_ONE_FOLDER = (errno.EACCES, errno.EPERM, errno.EBUSY, errno.EXDEV)

_LONGEST = 255  # bytes of a name

Signature = tuple[tuple[str, int, int], ...]
"""Name, bytes and time of change of each file."""


@dataclass
class Seen:
    """What this process saw of a scene: its files, since when they are so, and whether they were found
    complete; `error` says why it cannot be read or taken, and `told` whether anybody was told."""

    files: Signature
    since: float
    ready: bool
    complete: bool | None = None
    error: str = ""
    told: bool = False


class Inbox:
    """A folder of scenes, seen by this process. Raises InputError where it is no folder, OutputError where
    the outbox is none."""

    def __init__(
        self,
        folder: Path,
        outbox: Path,
        settle: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
        lease: float = claims.LEASE,
    ) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder to watch")
        if not outbox.is_dir():
            raise OutputError(f"{outbox}: no such folder to write to; create it first")
        inside = _within(outbox.resolve(), folder.resolve())
        if inside is not None and not inside.startswith("."):
            raise OutputError(
                f"{outbox}: lies in the inbox, where it would be taken for a scene; give a folder outside of "
                "it"
            )
        self.folder, self.outbox = folder, outbox
        self.settle, self._clock = settle, clock
        self.claim = claims.Claim(folder)
        self._observer = claims.Observer(folder, lease)
        self._seen: dict[str, Seen] = {}
        self._mounts = [path for path in (folder, outbox) if path.is_mount()]

    def check_mounts(self) -> None:
        """Raise OSError where a share that was mounted at the start is not: then what lies in its place is
        another folder, on another disk."""
        for path in self._mounts:
            if not path.is_mount():
                raise OSError(errno.ENODEV, "is not mounted any more", str(path))

    def look(self) -> dict[str, Seen]:
        """All scenes that are there, by name, and what was seen of them. Raises OSError where the inbox is
        gone."""
        now, found = self._clock(), {}
        with os.scandir(self.folder) as entries:
            folders = [
                entry
                for entry in entries
                if not entry.name.startswith(".") and entry.is_dir(follow_symlinks=False)
            ]
        for entry in folders:
            before = self._seen.get(entry.name)
            try:
                files = _signature(entry.path)
            except PermissionError as error:
                seen = Seen((), now, False, False, f"cannot be read ({error.strerror})")
            except OSError:  # it may have been taken meanwhile
                continue
            else:
                seen = Seen(files, now, any(name == READY for name, _, _ in files))
            same = before is not None and (before.files, before.ready) == (seen.files, seen.ready)
            found[entry.name] = before if before is not None and same else seen
        self._seen = found
        return found

    def look_at(self, name: str) -> Seen:
        """What was seen of a scene at the last look."""
        return self._seen[name]

    def is_settled(self, seen: Seen) -> bool:
        """Whether a scene says that it is ready, or has been quiet for long enough."""
        return seen.ready or self._clock() - seen.since >= self.settle

    def take(self, name: str) -> Path | None:
        """A scene's folder, which is now this process's; None where another one was faster, or where it
        cannot be moved, which `look_at` says then. Raises OSError where the inbox cannot be written."""
        self.claim.hold()
        taken = self.claim.folder / name
        try:
            (self.folder / name).rename(taken)
        except FileNotFoundError:
            if not self.folder.is_dir():
                raise
            return None
        except OSError as error:
            # Of another user, or a mount: that folder's own matter, if others can be moved.
            if error.errno not in _OF_ONE_FOLDER or not self._can_move():
                raise
            if name in self._seen:
                self._seen[name].error = f"cannot be moved ({error.strerror})"
            return None
        if taken.is_symlink() or not taken.is_dir():
            taken.unlink()  # it was exchanged for a link meanwhile; what that leads to is nobody's scene
            return None
        return taken

    def _can_move(self) -> bool:
        probe = self.folder / f".probe-{secrets.token_hex(4)}"
        moved = self.claim.folder / probe.name
        try:
            probe.mkdir()
            probe.rename(moved)
            moved.rmdir()
        except OSError:
            return False
        return True

    def end(self, taken: Path, error: str | None = None) -> None:
        """Put a scene where it ends: `.done`, or `.failed` with its error. Raises OSError."""
        where = own_folder(self.folder / (DONE if error is None else FAILED))
        if error is not None:
            write_fresh(taken / "error.txt", error + "\n")
        _rename(taken, where / taken.name)

    def put_back(self, taken: Path) -> None:
        """Give a scene back to the inbox. Raises OSError."""
        _rename(taken, self.folder / taken.name)

    def recover(self) -> list[str]:
        """Put back what processes that are no more had taken, and what is left in this one's own claim; the
        names. Raises OSError."""
        left = self._observer.left(self.claim.folder)
        found = [scene for claim in left for scene in claims.scenes_in(claim)] + self.claim.scenes()
        names = []
        for scene in found:
            # Another process may do the same; a claim that somebody else made up is not to be moved from.
            with suppress(FileNotFoundError, PermissionError):
                _rename(scene, self.folder / scene.name)
                names.append(scene.name)
        for claim in left:
            claims.clear(claim)
        return names

    @property
    def undecided(self) -> int:
        """Claims of which it is not known yet whether their owners live."""
        return self._observer.undecided

    def leave(self) -> None:
        """Take this process's folder away."""
        with suppress(OSError):
            self.claim.leave()


def _within(path: Path, folder: Path) -> str | None:
    """The first part of the way from a folder to what lies in it, None for what does not."""
    if path == folder or not path.is_relative_to(folder):
        return None
    return path.relative_to(folder).parts[0]


def _signature(folder: str) -> Signature:
    """What is in a scene's folder, and in those inside it; of very many files the first ones, which are too
    many anyhow."""
    return tuple(sorted(islice(_files(folder, "", MOST_DEPTH), MOST_FILES + 1)))


def _files(folder: str, prefix: str, depth: int) -> Iterator[tuple[str, int, int]]:
    with os.scandir(folder) as entries:
        for entry in entries:
            state = entry.stat(follow_symlinks=False)
            yield prefix + entry.name, state.st_size, state.st_mtime_ns
            if stat.S_ISDIR(state.st_mode) and depth > 1:
                yield from _files(entry.path, f"{prefix}{entry.name}/", depth - 1)


def _rename(source: Path, target: Path) -> None:
    """Rename to a name that nothing has yet; another process may take the same one first."""
    number, free = 1, target
    while True:
        if not os.path.lexists(free):
            try:
                source.rename(free)
            except (FileExistsError, NotADirectoryError, IsADirectoryError):
                pass
            except OSError as error:
                if error.errno != errno.ENOTEMPTY:
                    raise
            else:
                return
        number += 1
        free = target.with_name(_numbered(target.name, number))


def _numbered(name: str, number: int) -> str:
    """`NAME.NUMBER`, shortened where a name cannot be as long."""
    end = f".{number}"
    return os.fsdecode(os.fsencode(name)[: _LONGEST - len(end)]) + end

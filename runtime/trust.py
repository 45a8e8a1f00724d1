"""May a file be run as code here? If nobody but its owner could have written it, or a signature vouches for
it.

A library runs as it is loaded, before anything in it can be asked. A digest that stands in a file beside it
was written by whoever wrote the library. So it is loaded where it, its folder, and the folders above belong
to the user who runs it or to root, and no other user may write them; or where the file was part of a folder
whose signature was verified with a key (`sfiin.runtime.signatures`). It is opened once: what was looked at is
what is loaded.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sfiin.runtime.errors import InputError, MismatchError

SIGNED: set[str] = set()
"""SHA-256 digests (hex) of files whose signature this process has verified."""

REMEDY = "make it yours alone (chown, chmod go-w, its folders too), or have its folder signed ('sfiin sign')"


@dataclass
class Opened:
    """An opened file: a name under which it can be loaded, and its SHA-256 digest.

    Whoever loads it says so: then it stays open, for the loader knows libraries by their names, and another
    file must not get this one's.
    """

    name: Path
    digest: str
    loaded: bool = False


@contextmanager
def opened_code(path: Path, what: str) -> Iterator[Opened]:
    """Yield a file that may be run as code, opened.

    Raises InputError for a file that cannot be read, MismatchError for one that others may write.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    except OSError as error:
        raise InputError(
            f"{path}: {what} cannot be read ({error.strerror}); put it beside the plan, or build anew"
        ) from None
    try:
        digest = _digest(descriptor)
        if digest not in SIGNED:
            require_own(path, os.fstat(descriptor), what)
        name = Path(f"/proc/self/fd/{descriptor}")
        opened = Opened(name if name.exists() else path.resolve(), digest)
        yield opened
    except BaseException:
        os.close(descriptor)
        raise
    if not opened.loaded:
        os.close(descriptor)


def require_own(path: Path, found: os.stat_result, what: str) -> None:
    """Raise MismatchError unless the file, and all folders that lead to it, are the user's or root's alone.

    A folder above the file's own may be open to all where it is sticky, as /tmp is: there nobody can rename
    what belongs to others.
    """
    if not hasattr(os, "geteuid"):  # such as on Windows, whose rights are no bits
        return
    why = _why_not(found)
    if why:
        raise MismatchError(f"{path}: {what} is code, and {why}; it was not loaded: {REMEDY}")
    own, *above = path.resolve().parents
    for folder in (own, *above):
        state = folder.stat()
        sticky = folder != own and bool(state.st_mode & stat.S_ISVTX)
        why = "" if sticky else _why_not(state)
        if why:
            raise MismatchError(
                f"{path}: {what} is code, and its folder {folder} {why}; it was not loaded: {REMEDY}"
            )


def _why_not(found: os.stat_result) -> str:
    if found.st_uid not in (0, os.geteuid()):
        return f"belongs to another user ({found.st_uid})"
    if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"may be written by others (mode {stat.S_IMODE(found.st_mode):04o})"
    return ""


def _digest(descriptor: int) -> str:
    found = hashlib.sha256()
    at = 0
    while chunk := os.pread(descriptor, 1 << 20, at):
        found.update(chunk)
        at += len(chunk)
    return found.hexdigest()

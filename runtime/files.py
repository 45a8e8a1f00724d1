"""How does an output appear only when it is complete? Under another name until then, renamed at the very
end."""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sfiin.runtime.errors import OutputError

_CHUNK = 1 << 20


@contextmanager
def publish(path: Path) -> Iterator[Path]:
    """Yield a name beside `path` to write to; the file there replaces `path` when the block ends well.

    The name is hidden and keeps the extension, from which GDAL and others tell the format. Whatever ends the
    block otherwise, an interrupt included, the file is removed and `path` stays as it was. Raises OutputError
    for an OSError.
    """
    part = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.part{path.suffix}")
    try:
        check_target(path)
        yield part
        settle(part, path)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({_reason(error)}); check the disk and permissions"
        ) from error
    finally:
        with suppress(OSError):  # after success nothing is left there
            part.unlink()


def cache_folder() -> Path:
    """Where what can be made again is kept for this user: $XDG_CACHE_HOME/sfiin, or ~/.cache/sfiin."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sfiin"


def settle(part: Path, path: Path) -> None:
    """Give a complete file its final name, once it is on the disk. Raises OSError."""
    _flush(part)
    part.replace(path)


def sha256(path: Path) -> str:
    """The SHA-256 digest of a file, in hex. Raises OSError when the file cannot be read."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def write_fresh(path: Path, text: str) -> None:
    """Write a small text so that `path` is it or what it was: under a name of its own, then renamed. What a
    write that was killed left under that name is removed.

    A symbolic link, as the file or as its folder, is replaced or refused, never written through; `path` that
    is a folder is moved aside. Raises OSError.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    part = f".{path.name}.part"
    try:
        with suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(part, flags, 0o644, dir_fd=folder)
        # A name in the text need not be UTF-8; escaped, it is valid JSON, too.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except IsADirectoryError:
            aside = f"{path.name}.{secrets.token_hex(4)}"
            os.rename(path.name, aside, src_dir_fd=folder, dst_dir_fd=folder)
            os.replace(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        with suppress(OSError):
            os.unlink(part, dir_fd=folder)
        os.close(folder)


def own_folder(path: Path, mode: int = 0o777) -> Path:
    """A folder of ours where others may write: made where there is none. A link or a file in its place is
    moved aside, and never followed. Raises OSError."""
    if path.is_symlink() or (path.exists() and not path.is_dir()):
        path.rename(path.with_name(f"{path.name}.{secrets.token_hex(4)}"))
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
    if path.is_symlink() or not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is a link or a file where a folder is needed", str(path))
    return path


def read_small(path: Path, limit: int = 1 << 20) -> str:
    """A regular file's text, `limit` bytes at most, never through a symbolic link. Raises OSError, also for
    what is no regular file, or larger."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
            raise OSError(errno.EINVAL, "no regular file, or too large", str(path))
        return file.read(limit).decode("utf-8", errors="replace")


def check_target(path: Path) -> None:
    """Raise OutputError where `path` lies in no folder, or is one; long work calls it before it starts."""
    if not path.parent.is_dir():
        raise OutputError(f"{path}: cannot be written (there is no folder {path.parent}); create it first")
    if path.is_dir():
        raise OutputError(f"{path}: cannot be written (it is a folder); give a file name")


def _flush(part: Path) -> None:
    # Some file systems report a full disk only here; after the rename it would be too late.
    descriptor = os.open(part, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(error: OSError) -> str:
    return (error.strerror or str(error) or type(error).__name__).strip().splitlines()[0]

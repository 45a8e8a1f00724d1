"""How does an output appear only when it is complete? Under another name until then, renamed at the very
end."""

from __future__ import annotations

import hashlib
import os
import secrets
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

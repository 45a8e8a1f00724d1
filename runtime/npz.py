"""How are arrays read from a file of other hands? Judged by their headers before a byte is allocated."""

from __future__ import annotations

import math
import zipfile
import zlib
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

DAMAGED = (
    ValueError,
    KeyError,
    EOFError,
    OSError,
    NotImplementedError,
    RuntimeError,
    zipfile.BadZipFile,
    zlib.error,
)
"""What zipfile and NumPy raise over bytes that are no .npz, or a damaged one."""


def arrays(file: IO[bytes], limit: int) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz`, of `limit` bytes together at most. Raises one of `DAMAGED`.

    An array's size must be what its header says, and nothing in it may be a Python object.
    """
    with zipfile.ZipFile(file) as archive:
        members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
        total = sum(info.file_size for info in members)
        if total > limit:
            raise ValueError(f"holds {total} bytes, more than the {limit} that it can need")
        return {info.filename.removesuffix(".npy"): _array(archive, info) for info in members}


def _array(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(info) as member:
        version = npy.read_magic(member)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"'{info.filename}' is in a format {version} of NumPy that is not read")
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, in_columns, dtype = read(member)
        if dtype.hasobject:
            raise ValueError(f"'{info.filename}' holds Python objects")
        size = math.prod(shape) * dtype.itemsize
        if min(shape, default=0) < 0 or size != info.file_size - member.tell():
            raise ValueError(f"'{info.filename}' is not of the size that its header says")
        data = member.read(size + 1)  # to its end, where its checksum is compared
        if len(data) != size:
            raise ValueError(f"'{info.filename}' is not of the size that its header says")
        return np.frombuffer(data, dtype).reshape(shape, order="F" if in_columns else "C")

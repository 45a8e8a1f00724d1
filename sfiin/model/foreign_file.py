"""Which tensors lie in a file that another program wrote? Read so that nothing in it can run.

A `.pth` is a pickle, and a pickle is a program. PyTorch's restricted reader runs none of it: it knows tensors
and plain containers, and here the scalars and types of NumPy as well, in both of its versions' spellings,
which trainers keep beside the weights. Whatever else there is ends the reading, with the line that brings the
weights out where the file came from.
"""

from __future__ import annotations

import argparse
import collections
import datetime
import pathlib
import pickle
import pickletools
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor

from sfiin.runtime import npz
from sfiin.runtime.errors import CheckpointError

Allowed = Callable[..., Any] | tuple[Callable[..., Any], str]

_UNPICKLING = (
    pickle.UnpicklingError,
    RuntimeError,
    EOFError,
    OSError,
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    AssertionError,
    MemoryError,
    RecursionError,
    ImportError,
    struct.error,
)
"""What the restricted reader raises over bytes that are no pickle, or one that holds more than it knows."""

_KNOWN_MODULES = {
    "torch",
    "collections",
    "numpy",
    "builtins",
    "__builtin__",
    "_codecs",
    "argparse",
    "pathlib",
    "datetime",
}
_NUMPY_TYPES = (
    *(f"{kind}{size}" for kind in ("Int", "UInt") for size in (8, 16, 32, 64)),
    *("Bool", "Float16", "Float32", "Float64", "Str", "Bytes"),
)
_MOST_OPERATIONS = 2_000_000
_DEEPEST, _MOST_PARTS = 8, 1000  # of a document; a longer list is a record, not a place for weights
_NO_WEIGHTS: Mapping[bytes, str] = {
    b"\x89HDF": "no checkpoint of PyTorch; a data set is read by --data, not imported",
    b"\x93NUMPY": "no checkpoint of PyTorch; a data set is read by --data, not imported",
    b"MATLAB 5": "no checkpoint of PyTorch; a data set is read by --data, not imported",
    b"version ": "a pointer of Git LFS, not the file itself; fetch that with 'git lfs pull'",
    b"<!doctyp": "a web page, not the file; open the address in a browser, and download it from there",
    b"<html": "a web page, not the file; open the address in a browser, and download it from there",
}
"""How files begin that are mistaken for weights, in lower case, and what they are."""


def read(path: Path) -> Any:
    """What a file holds, with tensors on the CPU: a document of plain containers, numbers and tensors.

    Raises CheckpointError for a file that is missing or none of PyTorch's or safetensors', or one that holds
    a program, with what to do instead.
    """
    try:
        with path.open("rb") as file:
            head = file.read(9)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    if head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size:
        return _safetensors(path)
    _require_weights(path, head)
    return _restricted(path)


def tensors_in(document: Any, depth: int = 0) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every mapping of names to tensors in a document, with the keys that lead to it, from the outside in."""
    if isinstance(document, list | tuple) and len(document) <= _MOST_PARTS:
        document = {place: part for place, part in enumerate(document) if not _is_tensor(part)}
    if not isinstance(document, Mapping) or depth > _DEEPEST:
        return
    found = {str(key): _tensor(value) for key, value in document.items() if _is_tensor(value)}
    if found:
        yield (), found
    for key, value in document.items():
        for keys, inner in tensors_in(value, depth + 1):
            yield (str(key), *keys), inner


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "fiu")


def _tensor(value: Any) -> Tensor:
    return value.detach() if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))


def _safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return dict(load_safetensors(path.read_bytes()))
    except (SafetensorError, ValueError, OSError) as error:
        raise CheckpointError(
            f"{path}: a damaged .safetensors file ({_line(error)}); fetch it again"
        ) from None


def _require_weights(path: Path, head: bytes) -> None:
    """Raise CheckpointError, with the line that brings the weights out, for a file that is a program by its
    kind."""
    for beginning, what in _NO_WEIGHTS.items():
        if head.lower().startswith(beginning.lower()):
            raise CheckpointError(f"{path}: {what}")
    if not head:
        raise CheckpointError(f"{path}: empty; fetch it again")
    names: list[str] = []
    if zipfile.is_zipfile(path):
        try:
            with zipfile.ZipFile(path) as archive:
                names = archive.namelist()
        except npz.DAMAGED:
            raise CheckpointError(f"{path}: damaged; fetch it again") from None
    inner = {name.partition("/")[2] for name in names}
    new = path.with_suffix(".weights.pth").name
    if "constants.pkl" in inner:
        line = f"torch.save(torch.jit.load('{path.name}').state_dict(), '{new}')"
        raise CheckpointError(
            f"{path}: a TorchScript program, not weights; where you trust it, run in Python: {line}"
        )
    if "archive_format" in inner or "serialized_exported_program.json" in names:
        line = f"torch.save(torch.export.load('{path.name}').state_dict, '{new}')"
        raise CheckpointError(
            f"{path}: a program of torch.export, not weights; where you trust it, run in Python: {line}"
        )
    if names and not any(name.endswith("data.pkl") for name in names):
        raise CheckpointError(f"{path}: an archive, but none of PyTorch; unpack it and import the .pth in it")


def _restricted(path: Path) -> Any:
    try:
        with warnings.catch_warnings(), torch.serialization.safe_globals(_allowed()):
            warnings.simplefilter("ignore")  # torch warns of pickles that it is about to refuse
            return torch.load(path, map_location="cpu", weights_only=True)
    except _UNPICKLING as error:
        foreign = _foreign_names(path)
        if not foreign:
            raise CheckpointError(_no_pickle(path, error)) from None
    raise CheckpointError(_what_else(path, foreign))


def _no_pickle(path: Path, error: BaseException) -> str:
    """What to say of a file without anything foreign in it that the restricted reader still does not take."""
    with path.open("rb") as file:
        first, head = file.read(1), file.read(3)
    if first == b"\x80" and _is_plain_pickle(path):
        new = path.with_suffix(".weights.pth").name
        return (
            f"{path}: not a file of tensors only: a plain pickle, not of torch.save; if you trust it, import "
            f"what this Python writes: torch.save(pickle.load(open('{path.name}', 'rb')), '{new}')"
        )
    if first + head == b"PK\x03\x04":
        return f"{path}: not a file of tensors only: its archive is cut short or damaged; fetch it again"
    why = _line(error)
    told = (
        f" ({why})" if " " in why and not why.startswith("Weights only load failed") else ""
    )  # torch's advice
    return f"{path}: not a file of tensors only: no pickle of PyTorch, or a damaged one{told}; fetch it again"


def _is_plain_pickle(path: Path) -> bool:
    """Whether a file is one pickle to its end; torch's own of old begins with its number, and goes on behind
    it."""
    with path.open("rb") as file:
        data = file.read(1 << 26)
    try:
        *_, (last, _, at) = pickletools.genops(data)
    except (ValueError, EOFError, IndexError, OverflowError, MemoryError, KeyError):
        return False
    return last.name == "STOP" and at == len(data) - 1


def _what_else(path: Path, foreign: list[str]) -> str:
    named = ", ".join(foreign[:3])
    new = path.with_suffix(".weights.pth").name
    load = f"torch.load('{path.name}', weights_only=False)"
    if any("torch.nn.modules" in name for name in foreign):
        return (
            f"{path}: not a file of tensors only: a pickled module ({named}) is code; if you trust it and "
            f"have its source, import what this Python writes: torch.save({load}.state_dict(), '{new}')"
        )
    return (
        f"{path}: not a file of tensors only: it also holds {named}, which runs code when read; if you trust "
        f"it, import what this Python writes: torch.save({load}['net'], '{new}'), 'net' being the weights' "
        "key"
    )


def _foreign_names(path: Path) -> list[str]:
    """What a pickle names that the restricted reader does not know, without reading it as a pickle."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
                data = archive.open(name).read(1 << 26)
        else:
            with path.open("rb") as file:
                data = file.read(1 << 26)
    except (StopIteration, *npz.DAMAGED):
        return []
    found = dict.fromkeys(name for name in _names(data) if not _is_known(name))
    return list(found)


def _names(data: bytes) -> Iterator[str]:
    """The globals that a pickle names, as far as it can be followed."""
    strings: list[str] = []
    kept: dict[int, str] = {}
    stored = 0
    try:
        for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
            if count > _MOST_OPERATIONS:
                return
            if operation.name in ("GLOBAL", "INST"):
                yield str(argument).replace(" ", ".")[:100]
            elif operation.name == "STACK_GLOBAL" and len(strings) > 1:
                yield ".".join(strings[-2:])[:100]
                strings.append("")  # what is stored next is no text
            elif operation.name == "MEMOIZE":
                kept[stored], stored = strings[-1] if strings else "", stored + 1
            elif operation.name in ("BINGET", "LONG_BINGET") and kept.get(int(argument or 0)):
                strings = [*strings[-8:], kept[int(argument or 0)]]
            elif isinstance(argument, str):
                strings = [*strings[-8:], argument]
    except (ValueError, EOFError, IndexError, OverflowError, MemoryError, KeyError):
        return


def _is_known(name: str) -> bool:
    module = name.partition(".")[0]
    harmful = name in ("builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__")
    return module in _KNOWN_MODULES and not harmful and not name.startswith("torch.nn.modules")


def _allowed() -> list[Allowed]:
    """What may stand beside tensors: types that hold values and do nothing else."""
    kinds: list[Allowed] = [
        np.dtype,
        np.ndarray,
        argparse.Namespace,
        collections.defaultdict,
        datetime.datetime,
        datetime.date,
        datetime.timedelta,
        (pathlib.PurePosixPath, "pathlib.PosixPath"),
        (pathlib.PurePosixPath, "pathlib._local.PosixPath"),
        (pathlib.PureWindowsPath, "pathlib.WindowsPath"),
        (pathlib.PureWindowsPath, "pathlib._local.WindowsPath"),
        pathlib.PurePosixPath,
        pathlib.PureWindowsPath,
    ]
    types = (getattr(np.dtypes, f"{name}DType", None) for name in _NUMPY_TYPES)
    kinds += [kind for kind in types if kind is not None]
    multiarray = getattr(np, "_core", None) or np.core
    for module in ("numpy.core.multiarray", "numpy._core.multiarray"):  # NumPy 1's spelling, and NumPy 2's
        kinds.append((multiarray.multiarray.scalar, f"{module}.scalar"))
        kinds.append((multiarray.multiarray._reconstruct, f"{module}._reconstruct"))
    return kinds


def _line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]

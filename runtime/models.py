"""Which models come with the package, which one fits a scene, and what does a model's file say of itself?

The contract is read straight from the file's protobuf, so that neither onnx nor a backend is needed and no
weights are loaded. An ONNX file is a ModelProto: field 7 is the graph, field 14 the metadata, entries with a
key (1) and a value (2). A field begins with a varint, its number times 8 plus its wire type, which tells how
to skip it.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sfiin.runtime.contract import METADATA_KEY, Contract
from sfiin.runtime.errors import ContractError, InputError, MismatchError

FOLDER = Path(__file__).parent / "models"

_GRAPH, _METADATA = 7, 14
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class _NotProtobufError(ValueError):
    """The bytes are no protobuf message."""


def shipped() -> list[tuple[Path, Contract]]:
    """The package's models with their contracts, by file name."""
    return [(path, contract(path)) for path in sorted(FOLDER.glob("*.onnx"))]


def choose(bands: int, ratio: int) -> Path:
    """The shipped model for scenes of `bands` MS bands whose pixels are `ratio` PAN pixels wide.

    Raises MismatchError, naming what is shipped, when none fits.
    """
    models = shipped()
    for path, promise in models:
        if (len(promise.sensor.bands), promise.sensor.ratio) == (bands, ratio):
            return path
    offers = "; ".join(
        f"{path.name} for {len(promise.sensor.bands)} bands at ratio {promise.sensor.ratio}"
        for path, promise in models
    )
    raise MismatchError(
        f"no shipped model fits {bands} MS bands at ratio {ratio} (shipped: {offers or 'none'}); give one with --model"
    )


def contract(path: Path) -> Contract:
    """A model's contract. Raises InputError for what is no ONNX model, ContractError for one without a
    contract."""
    return read_contract(metadata(path), path)


def read_contract(metadata: dict[str, str], model: Path) -> Contract:
    """The contract in a model's ONNX metadata. Raises ContractError, naming the model and the field."""
    if METADATA_KEY not in metadata:
        raise ContractError(f"{model}: no sfiin contract inside; make the model with 'sfiin export'")
    try:
        return Contract.from_json(metadata[METADATA_KEY])
    except ContractError as error:
        raise ContractError(f"{model}: {error}") from None


def metadata(path: Path) -> dict[str, str]:
    """An ONNX model's metadata, without its weights. Raises InputError for a file that is missing or no
    model."""
    try:
        with path.open("rb") as file:
            return _metadata(file, path.stat().st_size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise InputError(f"{path}: no ONNX model, or a damaged one") from None


def _metadata(file: BinaryIO, size: int) -> dict[str, str]:
    found, entries = set(), {}
    for number, payload in _fields(file, size, {_METADATA}):
        found.add(number)
        if number == _METADATA:
            entry = dict(_fields(io.BytesIO(payload), len(payload), {_KEY, _VALUE}))
            entries[entry.get(_KEY, b"").decode()] = entry.get(_VALUE, b"").decode()
    if _GRAPH not in found:
        raise _NotProtobufError
    return entries


def _fields(file: BinaryIO, end: int, wanted: set[int]) -> Iterator[tuple[int, bytes]]:
    """Number and payload of each field up to `end`; payloads are read for wanted numbers only, else they
    are empty."""
    while file.tell() < end:
        number, wire = divmod(_varint(file), 8)
        length = _length(file, wire)
        if not number or file.tell() + length > end:
            raise _NotProtobufError
        if number in wanted and wire == _BYTES:
            yield number, file.read(length)
        else:
            file.seek(length, io.SEEK_CUR)
            yield number, b""


def _length(file: BinaryIO, wire: int) -> int:
    """How many bytes follow, for a varint none since it is consumed here."""
    if wire == _VARINT:
        _varint(file)
        return 0
    if wire == _BYTES:
        return _varint(file)
    if wire in (_FIXED64, _FIXED32):
        return 8 if wire == _FIXED64 else 4
    raise _NotProtobufError


def _varint(file: BinaryIO) -> int:
    """Seven bits per byte, lowest first; the eighth says that more follow, for ten bytes at most."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            raise _NotProtobufError
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _NotProtobufError

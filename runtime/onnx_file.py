"""What does an ONNX file hold, and what is the digest of its graph? Read without onnx and without a backend.

An ONNX file is a ModelProto: field 7 is the graph, field 14 the metadata, entries with a key (1) and a value
(2). A field begins with a varint, its number times 8 plus its wire type, which tells how to skip it. Only
what is asked for is looked into: a weight's bytes are stepped over, so no size that a file claims is
allocated.

The digest is SHA-256 over all fields of the ModelProto but the metadata, as they lie in the file, and over
the files that hold weights outside it. Metadata may be added to a model without a change of its digest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from sfiin.runtime.errors import InputError

_GRAPH, _METADATA = 7, 14
_KEY, _VALUE = 1, 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_NODE, _INITIALIZER, _INPUT, _OUTPUT = 1, 5, 11, 12
_DEEPEST = 16  # of graphs within graphs

TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
"""Names of ONNX's element types."""


class NotProtobufError(ValueError):
    """The bytes are no protobuf message."""


class Field(NamedTuple):
    """A field of a message: its number, where it begins, and its content in the data, first to last byte.

    `value` is a varint's value, 0 for other kinds.
    """

    number: int
    begin: int
    first: int
    last: int
    value: int


@dataclass(frozen=True)
class Value:
    """An input or output: the name of its type, and its sides, None where they are free."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True)
class Signature:
    """What goes into a graph, but for its constants, and what comes out."""

    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]


def metadata(data: bytes) -> dict[str, str]:
    """The metadata of an ONNX file. Raises ValueError for what is none."""
    found, entries = set(), {}
    for field in fields(data, 0, len(data)):
        found.add(field.number)
        if field.number == _METADATA:
            entry = {
                part.number: data[part.first : part.last] for part in fields(data, field.first, field.last)
            }
            entries[entry.get(_KEY, b"").decode()] = entry.get(_VALUE, b"").decode()
    if _GRAPH not in found:
        raise NotProtobufError
    return entries


def digest(data: bytes, folder: Path) -> str:
    """The digest of an ONNX file's graph, in hex; weights outside it are read from `folder`.

    Raises ValueError for what is no ONNX file, InputError for weights that are missing or lie elsewhere.
    """
    found = hashlib.sha256()
    view = memoryview(data)
    for field in fields(data, 0, len(data)):
        if field.number != _METADATA:
            found.update(view[field.begin : field.last])
    for name in external_files(data):
        found.update(f"\n{name}\n".encode())
        try:
            with within(folder, name).open("rb") as file:
                while chunk := file.read(1 << 20):
                    found.update(chunk)
        except OSError as error:
            raise InputError(
                f"{folder / name}: weights that lie outside the model cannot be read ({error.strerror}); put "
                "the file beside the model"
            ) from None
    return found.hexdigest()


def within(folder: Path, name: str) -> Path:
    """The file of weights of this name. Raises InputError for one outside the folder."""
    parts = PurePosixPath(name.replace("\\", "/"))
    path = folder / name
    if (
        not name
        or "\0" in name
        or parts.is_absolute()
        or ".." in parts.parts
        or not path.resolve().is_relative_to(folder.resolve())
    ):
        raise InputError(
            f"{folder}: a model with weights in {name[:80]!r}, outside its folder; put them beside it"
        )
    return path


def is_entry(data: bytes, field: Field, key: str) -> bool:
    """Whether a field of the file is the metadata's entry of this key."""
    return field.number == _METADATA and _text(data, field, _KEY) == key


def entry(key: str, value: str) -> bytes:
    """An entry of the metadata as a field, to be added to a file."""
    inside = b"".join(_tagged(number, text.encode()) for number, text in ((_KEY, key), (_VALUE, value)))
    return _tagged(_METADATA, inside)


def _tagged(number: int, payload: bytes) -> bytes:
    return _as_varint(8 * number + _BYTES) + _as_varint(len(payload)) + payload


def _as_varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def external_files(data: bytes) -> list[str]:
    """The names of the files that hold weights outside the model, sorted. Raises ValueError as `fields`."""
    if (
        b"location" not in data
    ):  # the key under which a tensor names its file; looking at all nodes takes longer
        return []
    names: set[str] = set()
    for field in fields(data, 0, len(data)):
        if field.number == _GRAPH:
            _graph_files(data, field, names, 0)
    return sorted(names)


def signature(data: bytes) -> Signature:
    """The inputs and outputs of an ONNX file's graph. Raises ValueError for what is no such file."""
    inputs: list[Value] = []
    outputs: list[Value] = []
    constants = set()
    for top in fields(data, 0, len(data)):
        if top.number != _GRAPH:
            continue
        for field in fields(data, top.first, top.last):
            if field.number in (_INPUT, _OUTPUT):
                (inputs if field.number == _INPUT else outputs).append(_value(data, field))
            elif field.number == _INITIALIZER:
                constants.add(_text(data, field, 8))
    return Signature(tuple(value for value in inputs if value.name not in constants), tuple(outputs))


def fields(data: bytes, at: int, end: int) -> Iterator[Field]:
    """The fields of the message in data[at:end], in order. Raises NotProtobufError where it is none."""
    while at < end:
        begin = at
        tag, at = _varint(data, at, end)
        number, wire = divmod(tag, 8)
        value = length = 0
        if wire == _VARINT:
            value, at = _varint(data, at, end)
        elif wire == _BYTES:
            length, at = _varint(data, at, end)
        elif wire in (_FIXED64, _FIXED32):
            length = 8 if wire == _FIXED64 else 4
        else:
            raise NotProtobufError
        if not number or at + length > end:
            raise NotProtobufError
        yield Field(number, begin, at, at + length, value)
        at += length


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """Seven bits per byte, lowest first; the eighth says that more follow, for ten bytes at most."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            break
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
    raise NotProtobufError


def _graph_files(data: bytes, graph: Field, names: set[str], depth: int) -> None:
    """Add the files of a graph's initialisers, of tensors in its nodes' attributes, and of graphs in
    those."""
    if depth > _DEEPEST:
        raise NotProtobufError
    for field in fields(data, graph.first, graph.last):
        if field.number == _INITIALIZER:
            _tensor_files(data, field, names)
        elif field.number == 15:  # a sparse initialiser: values and indices are tensors
            for part in fields(data, field.first, field.last):
                if part.number in (1, 2):
                    _tensor_files(data, part, names)
        elif field.number == _NODE:
            for attribute in fields(data, field.first, field.last):
                if attribute.number == 5:
                    _attribute_files(data, attribute, names, depth)


def _attribute_files(data: bytes, attribute: Field, names: set[str], depth: int) -> None:
    for part in fields(data, attribute.first, attribute.last):
        if part.number in (5, 10):  # a tensor, or several
            _tensor_files(data, part, names)
        elif part.number in (6, 11):  # a graph, or several
            _graph_files(data, part, names, depth + 1)


def _tensor_files(data: bytes, tensor: Field, names: set[str]) -> None:
    parts = list(fields(data, tensor.first, tensor.last))
    if not any(part.number == 14 and part.value == 1 for part in parts):  # its data lie in the model
        return
    for part in parts:
        if part.number == 13:
            entry = {
                field.number: data[field.first : field.last] for field in fields(data, part.first, part.last)
            }
            if entry.get(_KEY) == b"location":
                names.add(entry.get(_VALUE, b"").decode())


def _value(data: bytes, field: Field) -> Value:
    name, dtype, shape = _text(data, field, 1), "", None
    for kind in _parts(data, field, 2):
        for tensor in _parts(data, kind, 1):
            for part in fields(data, tensor.first, tensor.last):
                if part.number == 1:
                    dtype = TYPES.get(part.value, f"type {part.value}")
                elif part.number == 2:
                    shape = tuple(_side(data, side) for side in _parts(data, part, 1))
    return Value(name, dtype, shape)


def _side(data: bytes, field: Field) -> int | None:
    return next((part.value for part in fields(data, field.first, field.last) if part.number == 1), None)


def _parts(data: bytes, field: Field, number: int) -> Iterator[Field]:
    return (part for part in fields(data, field.first, field.last) if part.number == number)


def _text(data: bytes, field: Field, number: int) -> str:
    return next((data[part.first : part.last].decode() for part in _parts(data, field, number)), "")

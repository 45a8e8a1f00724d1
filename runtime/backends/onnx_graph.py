"""Which nodes and constants does an ONNX file have? Read without onnx, for a backend of the project's own.

Numbers are those of ONNX's protobuf definition, as in `sfiin.runtime.onnx_file`. Only what models of sfiin
hold is understood: constants inside the file, and attributes that are numbers, strings or lists of integers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.onnx_file import Field, NotProtobufError, fields, signature

Attribute = float | int | str | tuple[int, ...]

_DTYPES: dict[int, np.dtype[Any]] = {1: np.dtype("<f4"), 7: np.dtype("<i8")}


class UnknownGraphError(ValueError):
    """The graph holds something that is not understood here; the message says what."""


@dataclass(frozen=True)
class Node:
    """One operator: names of values that go in and come out, "" for one left out."""

    op: str
    domain: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Attribute]


@dataclass(frozen=True)
class Graph:
    """Nodes in order, constants by name, and the shapes of inputs without the batch."""

    nodes: tuple[Node, ...]
    constants: dict[str, NDArray[Any]]
    inputs: dict[str, tuple[int, ...]]
    outputs: tuple[str, ...]


def parse(data: bytes) -> Graph:
    """The graph in an ONNX file's bytes. Raises UnknownGraphError for what is not understood."""
    try:
        return _read(data)
    except (NotProtobufError, UnicodeDecodeError, struct.error) as error:
        raise UnknownGraphError(f"no ONNX model, or a damaged one ({error})") from None


def _read(data: bytes) -> Graph:
    nodes: list[Node] = []
    constants: dict[str, NDArray[Any]] = {}
    for top in fields(data, 0, len(data)):
        for part in fields(data, top.first, top.last) if top.number == 7 else ():
            if part.number == 1:
                nodes.append(_node(data, part))
            elif part.number == 5:
                name, value = _tensor(data, part)
                constants[name] = value
    ends = signature(data)
    inputs: dict[str, tuple[int, ...]] = {}
    for fed in ends.inputs:
        sides = fed.shape[1:] if fed.shape else ()
        if fed.dtype != "float32" or len(sides) != 3 or None in sides:
            raise UnknownGraphError(f"input '{fed.name}' is not float32 of one size")
        inputs[fed.name] = tuple(side for side in sides if side is not None)
    return Graph(tuple(nodes), constants, inputs, tuple(made.name for made in ends.outputs))


def _node(data: bytes, field: Field) -> Node:
    texts: dict[int, list[str]] = {1: [], 2: [], 3: [], 4: [], 7: []}
    attributes: dict[str, Attribute] = {}
    for part in fields(data, field.first, field.last):
        if part.number in texts:
            texts[part.number].append(data[part.first : part.last].decode())
        elif part.number == 5:
            name, value = _attribute(data, part)
            attributes[name] = value
    name, op, domain = ("".join(texts[number]) for number in (3, 4, 7))
    return Node(op, domain, name, tuple(texts[1]), tuple(texts[2]), attributes)


def _attribute(data: bytes, field: Field) -> tuple[str, Attribute]:
    name, kind, whole, real, text = "", 0, 0, 0.0, ""
    integers: list[int] = []
    for part in fields(data, field.first, field.last):
        if part.number == 1:
            name = data[part.first : part.last].decode()
        elif part.number == 2:
            real = struct.unpack("<f", data[part.first : part.last])[0]
        elif part.number == 3:
            whole = _signed(part.value)
        elif part.number == 4:
            text = data[part.first : part.last].decode()
        elif part.number == 8:
            integers += _integers(data, part)
        elif part.number == 20:
            kind = part.value
    found: dict[int, Attribute] = {1: real, 2: whole, 3: text, 7: tuple(integers)}
    if kind not in found:
        raise UnknownGraphError(f"attribute '{name}' of kind {kind}")
    return name, found[kind]


def _tensor(data: bytes, field: Field) -> tuple[str, NDArray[Any]]:
    name, kind, raw, outside = "", 0, b"", False
    sides: list[int] = []
    for part in fields(data, field.first, field.last):
        if part.number == 1:
            sides += _integers(data, part)
        elif part.number == 2:
            kind = part.value
        elif part.number == 8:
            name = data[part.first : part.last].decode()
        elif part.number == 9:
            raw = data[part.first : part.last]
        elif part.number == 14:
            outside = part.value == 1
    dtype = _DTYPES.get(kind)
    if outside or dtype is None or len(raw) != dtype.itemsize * int(np.prod(sides, dtype=np.int64)):
        raise UnknownGraphError(f"constant '{name}' is not float32 or int64 inside the file")
    return name, np.frombuffer(raw, dtype).reshape(sides)


def _integers(data: bytes, field: Field) -> list[int]:
    """One value, or several that are packed into bytes."""
    if field.first == field.last or field.value:
        return [_signed(field.value)]
    values, shift, value = [], 0, 0
    for byte in data[field.first : field.last]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            values.append(_signed(value))
            shift = value = 0
    return values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value

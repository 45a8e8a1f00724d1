"""What does a flight tell the ground, in how few bytes? CCSDS space packets with a fixed layout.

A packet is a CCSDS 133.0-B-2 space packet: a primary header of 6 bytes, fields in network order as the tables
`LAYOUTS` say, and a checksum of 2 bytes (CRC-16/CCITT-FALSE) over all before it. Each kind has an application
process identifier of its own, counted from the base that the mission gives. Layout and documentation come
from the same tables. A beat has at most 64 bytes, a scene at most 256.
"""

from __future__ import annotations

import binascii
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sfiin.runtime.errors import InputError, MismatchError, UnavailableError
from sfiin.runtime.extras import missing

Kind = Literal["beat", "scene", "event"]
Value = int | float | str | bytes | tuple[int, ...]

VERSION = 1
BASE_APID = 0x2F0

OUTCOMES = ("done", "done in part", "undone: deadline", "undone: input", "undone: failed")
SLOTS = ("factory", "a", "b")
ALARMS = ("not finite", "range", "inconsistent", "self-test", "scrub", "deadline", "crash", "other")
EVENTS = ("start", "stop", "rollback", "promoted", "installed", "backend left", "repaired", "budget", "error")

_HEADER, _CHECKSUM = 6, 2


@dataclass(frozen=True)
class Field:
    """A field: its name, its form as in `struct`, its unit, what it says, and for a number that stands for a
    word the words."""

    name: str
    form: str
    unit: str
    about: str
    words: Sequence[str] = ()

    @property
    def size(self) -> int:
        """In bytes."""
        return struct.calcsize(f">{self.form}")


_COMMON = (
    Field("version", "B", "", "of this layout"),
    Field("seconds", "I", "s", "since 1970-01-01 UTC"),
    Field("slot", "B", "", "what is in use", SLOTS),
    Field("bundle", "8s", "", "first bytes of the SHA-256 of the bundle's manifest, in hex"),
)

LAYOUTS: Mapping[Kind, tuple[Field, ...]] = {
    "beat": (
        *_COMMON,
        Field("uptime", "I", "s", "since the flight was started"),
        Field("scenes", "I", "", "done since then"),
        Field("undone", "I", "", "given up since then"),
        Field("waiting", "H", "", "in the inbox"),
        Field("link", "B", "", "place in the chain that the next tile begins with, 0 first"),
        Field("alarms", "I", "", "since the start"),
        Field("temperature", "h", "0.1 degrees C", "highest now; -32768: unknown"),
        Field("power", "H", "0.1 W", "now; 65535: unknown"),
        Field("free", "I", "MiB", "on the disk of the outbox"),
    ),
    "scene": (
        *_COMMON,
        Field("scene", "8s", "", "first bytes of the SHA-256 of the scene's name, in hex"),
        Field("outcome", "B", "", "how it ended", OUTCOMES),
        Field("product", "8s", "", "first bytes of the SHA-256 of the product, in hex; zeros: none"),
        Field("tiles", "I", "", "of the scene"),
        Field("again", "I", "", "tiles computed more than once"),
        Field("origins", "6I", "tiles", "made by each link of the chain"),
        Field("alarms", "8H", "", f"by kind: {', '.join(ALARMS)}"),
        Field("clipped_low", "I", "", "samples below 0, clipped"),
        Field("clipped_high", "I", "", "samples above the type, clipped"),
        Field("milliseconds", "I", "ms", "from files to product"),
        Field("energy", "I", "0.1 J", "above idle; 4294967295: unknown"),
        Field("temperature", "h", "0.1 degrees C", "highest during the scene; -32768: unknown"),
        Field("attempts", "B", "", "of this scene"),
    ),
    "event": (
        *_COMMON,
        Field("event", "B", "", "what happened", EVENTS),
        Field("number", "H", "", "a number that belongs to it, such as a link's place"),
        Field("text", "64s", "", "in plain words, UTF-8, cut off"),
    ),
}
"""What each packet holds, after the primary header and before the checksum."""

KINDS: tuple[Kind, ...] = ("beat", "scene", "event")


def size(kind: Kind) -> int:
    """Bytes of a packet, header and checksum included."""
    return _HEADER + sum(field.size for field in LAYOUTS[kind]) + _CHECKSUM


def encode(kind: Kind, values: Mapping[str, Value], count: int, base: int = BASE_APID) -> bytes:
    """A packet. `values` names every field but `version`; numbers beyond a field are cut to what it can hold.

    `count` is the packet's sequence count. Raises KeyError for a field that is missing, UnavailableError
    without the package spacepackets.
    """
    header = _library().SpacePacketHeader(
        packet_type=_library().PacketType.TM,
        apid=base + KINDS.index(kind),
        seq_count=count & 0x3FFF,
        data_len=size(kind) - _HEADER - 1,
    )
    body = b"".join(
        _packed(field, VERSION if field.name == "version" else values[field.name]) for field in LAYOUTS[kind]
    )
    packet = bytes(header.pack()) + body
    return packet + struct.pack(">H", binascii.crc_hqx(packet, 0xFFFF))


def decode(packet: bytes, base: int = BASE_APID) -> dict[str, Any]:
    """A packet as a document: `kind`, `count`, and its fields by name.

    Raises InputError for bytes that are no such packet, or whose checksum is wrong, MismatchError for the
    packet of another application or version, UnavailableError without the package spacepackets.
    """
    if len(packet) < _HEADER:
        raise InputError(f"{len(packet)} bytes are no space packet")
    header = _library().SpacePacketHeader.unpack(packet)
    place = header.apid - base
    if not 0 <= place < len(KINDS):
        raise MismatchError(
            f"a packet of application {header.apid}, not of {base} to {base + len(KINDS) - 1}"
        )
    kind = KINDS[place]
    if len(packet) != size(kind):
        raise InputError(f"a packet '{kind}' of {len(packet)} bytes, not {size(kind)}")
    if binascii.crc_hqx(packet[:-_CHECKSUM], 0xFFFF) != struct.unpack(">H", packet[-_CHECKSUM:])[0]:
        raise InputError(f"a packet '{kind}' whose checksum is wrong")
    document: dict[str, Any] = {"kind": kind, "count": header.seq_count}
    at = _HEADER
    for field in LAYOUTS[kind]:
        document[field.name] = _unpacked(field, packet[at : at + field.size])
        at += field.size
    if document.pop("version") != VERSION:
        raise MismatchError(f"a packet '{kind}' of another version of this layout than {VERSION}")
    return document


def split(stream: bytes) -> Iterator[bytes]:
    """The packets of a stream, one after another, by the lengths in their headers.

    Raises InputError where the stream ends within one; what came before has been given by then.
    """
    at = 0
    while at < len(stream):
        length = _HEADER + 1 + int.from_bytes(stream[at + 4 : at + 6], "big")
        if at + length > len(stream):
            raise InputError(f"the stream ends {at + length - len(stream)} bytes before its last packet does")
        yield stream[at : at + length]
        at += length


def layout_table(kind: Kind) -> str:
    """A kind's layout as a Markdown table, for the documentation."""
    lines = ["| byte | field | bytes | unit | says |", "|---|---|---|---|---|"]
    at = _HEADER
    for field in LAYOUTS[kind]:
        words = "".join(f"; {number}: {word}" for number, word in enumerate(field.words))
        lines.append(f"| {at} | `{field.name}` | {field.size} | {field.unit} | {field.about}{words} |")
        at += field.size
    return "\n".join([*lines, f"| {at} | checksum | {_CHECKSUM} | | CRC-16/CCITT-FALSE |"])


def _packed(field: Field, value: Value) -> bytes:
    form = f">{field.form}"
    if field.words:
        return struct.pack(form, list(field.words).index(str(value)))
    if field.form.endswith("s"):
        raw = value.encode() if isinstance(value, str) and field.name == "text" else _digest_bytes(value)
        return struct.pack(form, raw[: field.size])
    numbers = value if isinstance(value, tuple) else (value,)
    kind = field.form[-1]
    return struct.pack(form, *(_cut(number, kind) for number in numbers))


def _unpacked(field: Field, raw: bytes) -> Any:
    if field.form.endswith("s"):
        return raw.rstrip(b"\0").decode("utf-8", "ignore") if field.name == "text" else raw.hex()
    numbers = struct.unpack(f">{field.form}", raw)
    if field.words:
        return field.words[numbers[0]] if numbers[0] < len(field.words) else f"unknown ({numbers[0]})"
    return list(numbers) if len(field.form) > 1 else numbers[0]


def _digest_bytes(value: Value) -> bytes:
    return bytes.fromhex(value[:16]) if isinstance(value, str) else bytes(value)  # type: ignore[arg-type]


def _cut(number: Any, kind: str) -> int:
    bits = 8 * struct.calcsize(f">{kind}")
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind.islower() else (0, (1 << bits) - 1)
    return int(max(low, min(high, round(number))))


def _library() -> Any:
    try:
        from spacepackets.ccsds import spacepacket
    except ImportError:
        raise UnavailableError(missing("spacepackets", "flight", "telemetry")) from None
    return spacepacket

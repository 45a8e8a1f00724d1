"""Telemetry: what goes in comes out, another library reads the headers, and a damaged packet is no packet."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.flight import telemetry
from sfiin.runtime.flight.telemetry import (
    ALARMS,
    KINDS,
    LAYOUTS,
    OUTCOMES,
    Field,
    Kind,
    decode,
    encode,
    size,
    split,
)

spacepackets = pytest.importorskip("spacepackets")


def of(field: Field) -> st.SearchStrategy[Any]:
    """Values that a field holds."""
    if field.words:
        return st.sampled_from(list(field.words))
    if field.name == "text":
        return st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=20)
    if field.form.endswith("s"):
        return st.binary(min_size=field.size, max_size=field.size).map(bytes.hex)
    bits = 8 * field.size // (int(field.form[:-1]) if len(field.form) > 1 else 1)
    signed = field.form[-1].islower()
    one = st.integers(-(1 << bits - 1), (1 << bits - 1) - 1) if signed else st.integers(0, (1 << bits) - 1)
    many = int(field.form[:-1]) if len(field.form) > 1 else 0
    return st.tuples(*[one] * many) if many else one


def values(kind: Kind) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(
        {field.name: of(field) for field in LAYOUTS[kind] if field.name != "version"}
    )


@pytest.mark.parametrize("kind", KINDS)
def test_what_goes_in_comes_out(kind: Kind) -> None:
    @given(values(kind), st.integers(0, 1 << 20))
    def check(told: dict[str, Any], count: int) -> None:
        packet = encode(kind, told, count)
        assert len(packet) == size(kind)
        found = decode(packet)
        assert found.pop("kind") == kind
        assert found.pop("count") == count % (1 << 14)
        assert found == {
            name: list(value) if isinstance(value, tuple) else value for name, value in told.items()
        }

    check()


def test_a_beat_has_64_bytes_and_a_scene_256() -> None:
    assert size("beat") <= 64
    assert size("scene") <= 256
    assert size("event") <= 256
    scene = {field.name: field for field in LAYOUTS["scene"]}
    assert scene["alarms"].form == f"{len(ALARMS)}H"


BEAT: dict[str, Any] = {
    "seconds": 1_700_000_000,
    "slot": "a",
    "bundle": "00112233445566778899",
    "uptime": 5,
    "scenes": 1,
    "undone": 0,
    "waiting": 2,
    "link": 0,
    "alarms": 0,
    "temperature": -400,
    "power": 123,
    "free": 1 << 40,
}


def test_another_library_reads_the_header() -> None:
    """The bytes by hand, as CCSDS 133.0-B-2 lays them out."""
    packet = encode(
        "scene",
        dict.fromkeys([f.name for f in LAYOUTS["scene"]], 0)
        | {
            "slot": "b",
            "bundle": "00" * 8,
            "scene": "11" * 8,
            "product": "22" * 8,
            "outcome": OUTCOMES[0],
            "origins": (0,) * 6,
            "alarms": (0,) * 8,
        },
        count=5,
    )
    first, second, length = (int.from_bytes(packet[at : at + 2], "big") for at in (0, 2, 4))
    assert first == telemetry.BASE_APID + 1, "version 0, telemetry, no secondary header"
    assert second == 0b11 << 14 | 5
    assert length == len(packet) - 7


def test_numbers_are_cut_to_what_a_field_holds() -> None:
    found = decode(encode("beat", BEAT, 0))
    assert found["free"] == (1 << 32) - 1
    assert (found["temperature"], found["bundle"]) == (-400, "0011223344556677")
    assert decode(encode("beat", BEAT | {"temperature": -1e9, "waiting": -3}, 0))["waiting"] == 0


def test_every_flipped_bit_is_noticed() -> None:
    packet = encode("beat", BEAT, 7)
    for place in range(8 * len(packet)):
        changed = bytearray(packet)
        changed[place // 8] ^= 1 << place % 8
        with pytest.raises((InputError, MismatchError)):
            decode(bytes(changed))


def test_a_stream_is_split_into_its_packets() -> None:
    event: dict[str, int | str] = {
        "seconds": 1,
        "slot": "factory",
        "bundle": "ff" * 8,
        "event": "rollback",
        "number": 1,
        "text": "häufig" * 20,
    }
    stream = encode("beat", BEAT, 0) + encode("event", event, 1) + encode("beat", BEAT, 2)
    found = [decode(packet) for packet in split(stream)]
    assert [packet["kind"] for packet in found] == ["beat", "event", "beat"]
    assert found[1]["text"].startswith("häufighäufig")
    cut = split(stream[:-3])
    assert [decode(next(cut))["kind"] for _ in range(2)] == ["beat", "event"]
    with pytest.raises(InputError, match="the stream ends 3 bytes before"):
        next(cut)


def test_noise_is_no_packet() -> None:
    generator = random.Random(1)
    for length in (0, 3, 6, 7, size("beat"), size("scene")):
        with pytest.raises((InputError, MismatchError)):
            decode(generator.randbytes(length))
    with pytest.raises(MismatchError, match="of application"):
        decode(encode("beat", BEAT, 0, base=0x100))
    with pytest.raises(KeyError):
        encode("beat", {}, 0)


def test_the_layout_table_has_every_byte() -> None:
    for kind in KINDS:
        rows = telemetry.layout_table(kind).splitlines()[2:]
        assert len(rows) == len(LAYOUTS[kind]) + 1
        cells = [row.split(" | ") for row in rows]
        assert int(cells[-1][0].removeprefix("| ")) + 2 == size(kind)

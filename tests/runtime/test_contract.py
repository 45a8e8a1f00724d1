"""The contract: round trip, and every way in which one is refused by the name of its field."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.errors import ContractError

SENSOR = SensorProfile("test", ("blue", "green"), 4, 11, 2047.0)
CONTRACT = Contract(
    SENSOR, Tile(128, 64, 32), "matmul", "fp32", 17, {"blocks": 5, "spatial": "convolution"}, "c", "g", {}
)


def test_round_trip() -> None:
    assert Contract.from_json(CONTRACT.to_json()) == CONTRACT
    assert SENSOR.peak == 2047
    chosen = dataclasses.replace(CONTRACT, lowering_choice={"target": "ort", "matmul.ms": 30.5})
    assert Contract.from_json(chosen.to_json()) == chosen


def changed(path: str, value: Any) -> str:
    document = json.loads(CONTRACT.to_json())
    *parents, leaf = path.split(".")
    place = document
    for key in parents:
        place = place[key]
    if value is KeyError:
        del place[leaf]
    else:
        place[leaf] = value
    return json.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "text"),
    [
        ("tile", KeyError, "contract.tile: missing"),
        ("tile.height", KeyError, "contract.tile.height: missing"),
        ("tile.depth", 3, "contract.tile.depth: unknown"),
        ("tile.height", "128", "contract.tile.height: expected int"),
        ("tile.height", True, "contract.tile.height: expected int"),
        ("tile.height", 126, "no multiple of the ratio 4"),
        ("tile.height", 0, "must be positive"),
        ("tile.overlap", 64, "tile.overlap"),
        ("sensor.bands", "blue", "contract.sensor.bands: expected a list"),
        ("sensor.bands", [1], r"contract.sensor.bands\[0\]: expected str"),
        ("sensor.bands", [], "sensor.bands"),
        ("sensor.ratio", 1, "sensor.ratio"),
        ("sensor.bits", 0, "sensor.bits"),
        ("sensor.scale", 0, "sensor.scale"),
        ("sensor.scale", "x", "contract.sensor.scale"),
        ("lowering", "fft", "contract.lowering: expected 'matmul' or 'dft' or 'plugin'"),
        ("lowering_choice", [], "contract.lowering_choice: expected an object"),
        ("lowering_choice.ms", True, "contract.lowering_choice.ms: expected"),
        ("network", [], "contract.network: expected an object"),
        ("network.blocks", None, "contract.network.blocks"),
        ("format", "sfiin-contract/9", "format: this version reads"),
    ],
)
def test_a_contract_with_a_flaw_is_refused_by_its_field(path: str, value: Any, text: str) -> None:
    with pytest.raises(ContractError, match=text) as failure:
        Contract.from_json(changed(path, value))
    assert failure.value.exit_code == 4


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
def test_what_is_no_document_is_refused(text: str) -> None:
    with pytest.raises(ContractError, match="contract:"):
        Contract.from_json(text)


def test_an_integer_does_for_a_float() -> None:
    assert Contract.from_json(changed("sensor.scale", 2047)) == CONTRACT

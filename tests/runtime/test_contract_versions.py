"""Contracts of older versions are read; what cannot be read names the version that wrote it.

`contracts_of_older_versions.jsonl` holds, as they were, the contracts of the models that were shipped before
today's, oldest first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import sfiin
from sfiin.runtime import contract, documents
from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.contract_versions import written_by
from sfiin.runtime.errors import ContractError

OLDER = (Path(__file__).parent / "contracts_of_older_versions.jsonl").read_text("utf-8").splitlines()
ADDED = {"lowering_choice": {}, "block": 1, "influence": {}, "home": {}, "graph": "", "derived": {}}
TODAY = Contract(
    SensorProfile("test", ("blue", "green"), 4, 11, 2047.0),
    Tile(128, 64, 32),
    "matmul",
    "fp32",
    17,
    {},
    "c",
    "g",
    {},
)


@pytest.mark.parametrize("text", OLDER)
def test_every_contract_since_the_first_is_read(text: str) -> None:
    read, written = Contract.from_json(text), json.loads(text)
    document = documents.document(read)
    assert {key: document[key] for key in written} == written
    assert {key: document[key] for key in document.keys() - written.keys()} == {
        key: value for key, value in ADDED.items() if key not in written
    }
    assert Contract.from_json(read.to_json()) == read


def test_the_oldest_lacks_what_was_added_since() -> None:
    assert not ADDED.keys() & json.loads(OLDER[0]).keys()
    assert "influence" in json.loads(OLDER[-1])


def of_later_version(**changes: Any) -> str:
    return json.dumps(json.loads(OLDER[-1]) | {"versions": {"sfiin": "9.1.0"}} | changes)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        (
            {"format": "sfiin-contract/2"},
            "format: this version reads 'sfiin-contract/1', not 'sfiin-contract/2'",
        ),
        ({"atmosphere": "none"}, "contract.atmosphere: unknown field"),
        ({"lowering": "winograd"}, "contract.lowering: expected"),
    ],
)
def test_what_a_later_version_wrote_is_refused_by_its_name(changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(ContractError) as failure:
        Contract.from_json(of_later_version(**changes))
    text = str(failure.value)
    assert reason in text
    assert text.endswith(f"(written by sfiin 9.1.0, this is {sfiin.__version__})")


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"versions": 3},
        {"versions": {"sfiin": 3}},
        {"versions": {"sfiin": "1\n2"}},
        {"contract": []},
    ],
)
def test_a_document_that_does_not_say_gets_no_version(document: Any) -> None:
    assert written_by(document) == ""


def test_a_contract_inside_another_document_tells_its_version() -> None:
    assert "written by sfiin 9.1.0" in written_by({"contract": json.loads(of_later_version())})
    assert written_by({"versions": {"sfiin": sfiin.__version__}}) == ""


def test_a_digest_is_of_the_fields_that_were_written() -> None:
    """A version to come adds a field; what this one wrote is as whole as before."""

    @dataclass(frozen=True)
    class Tomorrow(Contract):
        clouds: int = field(default=0, metadata=documents.LATER)

    read = contract.decode_sealed(Tomorrow, TODAY.to_json(), "contract")
    assert dataclasses.asdict(read) == dataclasses.asdict(TODAY) | {"clouds": 0}
    changed = json.loads(TODAY.to_json()) | {"opset": 18}
    with pytest.raises(ContractError, match="digest: a field was changed"):
        contract.decode_sealed(Tomorrow, json.dumps(changed), "contract")


def test_the_digest_is_that_of_the_document_without_it() -> None:
    document = json.loads(TODAY.to_json())
    digest = document.pop("digest")
    assert digest == hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()

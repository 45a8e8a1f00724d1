"""A benchmark's document is read and written without loss, and every other one is refused by its field."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sfiin.runtime.bench.result import BenchResult
from sfiin.runtime.errors import InputError


def test_a_document_comes_back_the_same(measured_result: BenchResult) -> None:
    document = json.loads(json.dumps(measured_result.document(), allow_nan=False))
    assert BenchResult.from_document(document) == measured_result


def test_the_document_is_the_first_models_with_the_others_under_against(measured_result: BenchResult) -> None:
    document = measured_result.document()
    assert document["format"] == "sfiin-bench/1"
    assert document["model"] == measured_result.model
    assert "ratio" not in document
    assert all(other["ratio"]["value"] > 0 for other in document["against"])
    assert "seconds" not in document["before"]
    assert all("seconds" in moment for moment in document["timeline"])
    assert [model.model for model in measured_result.models] == [
        document["model"],
        *(other["model"] for other in document["against"]),
    ]


def test_whole_results_may_stand_under_against(measured_result: BenchResult) -> None:
    """As in a suite, whose models were measured one after the other."""
    suite = replace(measured_result, against=(replace(measured_result, model="other", against=()),))
    found = BenchResult.from_document(suite.document())
    assert found == suite
    assert isinstance(found.against[0], BenchResult)


@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("format", "sfiin-bench/2", "format: expected 'sfiin-bench/1'"),
        ("warm_up", {"windows": [], "settled": "yes"}, "warm_up.settled: expected bool"),
        ("milliseconds", None, "milliseconds: expected an object"),
        ("speed", 1, "speed: unknown field"),
    ],
)
def test_another_document_is_refused(
    measured_result: BenchResult, field: str, value: object, said: str
) -> None:
    with pytest.raises(InputError) as caught:
        BenchResult.from_document(measured_result.document() | {field: value})
    assert said in str(caught.value)


def test_a_missing_time_is_named(measured_result: BenchResult) -> None:
    document = measured_result.document()
    del document["milliseconds"]["total"]["mean"]
    with pytest.raises(InputError, match=r"benchmark\.milliseconds\.total\.mean: missing field"):
        BenchResult.from_document(document)

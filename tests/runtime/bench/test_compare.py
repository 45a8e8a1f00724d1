"""What has become slower by more than its spread is told; what is no benchmark is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sfiin.runtime.bench.compare import compare, read
from sfiin.runtime.bench.result import BenchResult
from sfiin.runtime.bench.statistics import Quantile
from sfiin.runtime.errors import CheckFailedError, InputError, UndecidedError


@pytest.fixture
def measured_result(measured_result: BenchResult) -> BenchResult:
    """The same, of a quiet machine."""
    return with_state(measured_result, "VALID")


def with_state(result: BenchResult, state: Any) -> BenchResult:
    return replace(result, verdict=replace(result.verdict, state=state))


def times(result: BenchResult, *quantiles: Quantile) -> BenchResult:
    return replace(result, milliseconds={"total": replace(result.total, quantiles=quantiles)})


def test_a_result_beside_itself(measured_result: BenchResult) -> None:
    same = compare(measured_result, measured_result)
    assert (same.ratio, same.exceeds, same.slower, dict(same.changes)) == (1.0, False, False, {})
    same.require()


def test_what_is_slower_by_more_than_its_spread_is_told(measured_result: BenchResult) -> None:
    before = times(measured_result, Quantile(50.0, 10.0, 9.9, 10.1))
    slow = times(measured_result, Quantile(50.0, 12.0, 11.9, 12.1), Quantile(90.0, 15.0, None, None))
    after = replace(slow, environment=replace(slow.environment, governor="powersave"))
    found = compare(before, after)
    assert found.ratio == pytest.approx(1.2)
    assert found.low == pytest.approx(11.9 / 10.1)
    assert found.high == pytest.approx(12.1 / 9.9)
    assert found.changes == {"environment.governor": (before.environment.governor, "powersave")}
    with pytest.raises(CheckFailedError, match=r"slower: 1\.200 times the median before"):
        found.require()
    compare(after, before).require()


def test_too_few_samples_tell_nothing(measured_result: BenchResult) -> None:
    before = times(measured_result, Quantile(50.0, 10.0, 9.9, 10.1))
    found = compare(before, times(measured_result, Quantile(50.0, 20.0, 19.0, None)))
    assert (found.low, found.high, found.exceeds) == (None, None, False)
    with pytest.raises(UndecidedError, match="undecided: the spread of a result is not known"):
        found.require()


@pytest.mark.parametrize(
    ("first", "second"), [("INVALID", "INVALID"), ("VALID", "INVALID"), ("INVALID", "VALID")]
)
def test_invalid_results_are_undecided_however_far_apart(
    measured_result: BenchResult, first: str, second: str
) -> None:
    before = with_state(times(measured_result, Quantile(50.0, 10.0, 9.9, 10.1)), first)
    after = with_state(times(measured_result, Quantile(50.0, 22.7, 22.6, 22.8)), second)
    found = compare(before, after)
    assert not found.slower
    with pytest.raises(UndecidedError, match=r"undecided: . of the two results (is|are) INVALID") as failure:
        found.require()
    assert failure.value.exit_code == 4


def test_a_result_is_read_from_its_file(measured_result: BenchResult, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(json.dumps(measured_result.document()), encoding="utf-8")
    assert read(path) == measured_result


@pytest.mark.parametrize(
    "content", [None, "no JSON", "[]", '{"format": "other"}', '{"format": "sfiin-bench/1", "model": 7}']
)
def test_what_is_no_result_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "r.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"r\.json"):
        read(path)

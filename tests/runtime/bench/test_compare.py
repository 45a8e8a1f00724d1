"""What has become slower by more than its spread is told; what is no benchmark is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from sfiin.runtime.bench.compare import compare, read
from sfiin.runtime.bench.result import BenchResult
from sfiin.runtime.bench.statistics import Quantile
from sfiin.runtime.errors import CheckFailedError, InputError


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
    assert (found.low, found.high) == (pytest.approx(11.9 / 10.1), pytest.approx(12.1 / 9.9))
    assert found.changes == {"environment.governor": (before.environment.governor, "powersave")}
    with pytest.raises(CheckFailedError, match=r"slower: 1\.200 times the median before"):
        found.require()
    compare(after, before).require()


def test_too_few_samples_tell_nothing(measured_result: BenchResult) -> None:
    before = times(measured_result, Quantile(50.0, 10.0, 9.9, 10.1))
    found = compare(before, times(measured_result, Quantile(50.0, 20.0, 19.0, None)))
    assert (found.low, found.high, found.exceeds) == (None, None, False)


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

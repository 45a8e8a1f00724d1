"""A benchmark that was measured: that of the shipped models in this repository."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfiin.runtime.bench.result import BenchResult

MEASURED = Path(__file__).parents[3] / "benchmarks" / "suite-epyc.json"


@pytest.fixture(scope="session")
def measured_result() -> BenchResult:
    document = json.loads(MEASURED.read_text(encoding="utf-8"))["backends"]["cpu"]
    return BenchResult.from_document(document)

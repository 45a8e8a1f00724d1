"""A benchmark's report holds what its document says."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfiin.export.bench_report import Rates, latencies, over_time, roofline, write
from sfiin.runtime import models
from sfiin.runtime.bench.measure import BenchOptions, bench
from sfiin.runtime.bench.result import BenchResult
from sfiin.runtime.errors import OutputError


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Of the shipped model here, with the conditions of a warm Jetson."""
    options = BenchOptions(seconds=0.5, idle=0, warm_up=0.2, threads=1, percent=50, provider="cpu")
    found = bench([models.choose(4, 4)], options).document()
    warm = {
        "cpu_mhz": 1900.0,
        "gpu_mhz": 900.0,
        "gpu_highest_mhz": 918.0,
        "temperatures": {"GPU-therm": 61.0},
        "throttled": False,
        "load": 0.1,
    }
    timeline = [warm | {"seconds": float(i), "gpu_mhz": 900.0 - i} for i in range(1, 4)]
    energy = {
        "watts": 12.0,
        "idle_watts": None,
        "joules": 24.0,
        "rails": {"VDD_IN": 24.0},
        "joules_per_tile": 0.5,
        "joules_per_megapixel": 30.5,
        "joules_per_tile_above_idle": None,
        "joules_per_megapixel_above_idle": None,
        "sampler_duty": 0.01,
        "samples": 40,
    }
    return found | {
        "before": warm,
        "timeline": timeline,
        "energy": energy,
        "power_timeline": [[float(i), 11.0 + i] for i in range(4)],
    }


def test_it_tells_and_draws(
    document: dict[str, Any], tmp_path: Path, html_page: Callable[[str], Any]
) -> None:
    write(document, tmp_path / "r.html")
    page = html_page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert page.tags.count("img") == 3  # latency, conditions over time, roofline
    assert document["verdict"]["state"] in page.text
    rows = {row[0]: row for row in page.rows if row}
    assert rows["watts"] == ["watts", "12.000"]
    assert rows["idle_watts"] == ["idle_watts", "unknown"]
    assert rows["3 s"][2] == "897.000"
    share = float(rows[document["model"]][-1].rstrip("%"))
    assert 5 < share <= 100


def test_figures_hold_the_values(document: dict[str, Any]) -> None:
    figure = latencies({"a": [1.0, 2.0, 3.0], "b": [2.0, 2.0]})
    np.testing.assert_array_equal(figure.axes[1].lines[0].get_ydata(), [1.0, 2.0, 3.0])
    result = BenchResult.from_document(document)
    drawn = over_time(
        [dataclasses.replace(result.before, seconds=0.0), *result.timeline], result.power_timeline
    )
    assert [axes.get_ylabel() for axes in drawn.axes] == ["MHz", "degrees C", "W"]
    np.testing.assert_array_equal(drawn.axes[2].lines[0].get_ydata(), [11.0, 12.0, 13.0, 14.0])
    roof = roofline({"m": (2.0, 5e9)}, Rates(10e9, 4e9)).axes[0].lines
    assert np.asarray(roof[0].get_ydata(), np.float64).max() == pytest.approx(10)
    np.testing.assert_allclose(np.asarray(roof[1].get_xydata(), np.float64), np.array([[2.0, 5.0]]))


def test_a_model_that_is_not_at_hand_has_no_roofline(
    document: dict[str, Any], tmp_path: Path, html_page: Callable[[str], Any]
) -> None:
    write(document | {"model_sha256": "0" * 64}, tmp_path / "r.html")
    assert html_page((tmp_path / "r.html").read_text(encoding="utf-8")).tags.count("img") == 2


def test_a_folder_that_is_not_there(document: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write(document, tmp_path / "no" / "r.html")

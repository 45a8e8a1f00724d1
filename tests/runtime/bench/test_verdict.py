"""Every cause for doubt is named, and the worst one decides."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from sfiin.runtime.bench.environment import Moment, PowerMode
from sfiin.runtime.bench.result import BenchResult, Verdict, WarmUp
from sfiin.runtime.bench.statistics import enough
from sfiin.runtime.bench.verdict import SPREAD, merged, verdict

CALM = Moment(
    cpu_mhz=1900.0, gpu_mhz=918.0, gpu_highest_mhz=918.0, temperatures={}, throttled=False, load=0.1
)


def judged(result: BenchResult, *moments: Moment, percent: float = 90.0, **machine: Any) -> Verdict:
    """Of a Jetson that is mended in every respect, but for what is given."""
    whole = {
        "platform": {"jetson": "Orin"},
        "power_mode": PowerMode(0, "MAXN", True),
        "on_battery": False,
    } | machine
    first = replace(result, against=())
    return verdict([first], replace(result.environment, **whole), moments or (CALM, CALM), percent)


def test_nothing_to_doubt(measured_result: BenchResult) -> None:
    assert judged(measured_result) == Verdict("VALID", ())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"gpu_mhz": 600.0}, "the GPU's clock moved between 600 and 918 MHz"),
        ({"cpu_mhz": 1000.0}, "the CPU's clock moved between 1000 and 1900 MHz"),
        ({"throttled": True}, "it was throttled"),
    ],
)
def test_what_changes_on_the_way(measured_result: BenchResult, change: Any, reason: str) -> None:
    assert judged(measured_result, CALM, replace(CALM, **change), CALM) == Verdict("INVALID", (reason,))


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"cpu_mhz": None}, "the CPU's clock"),
        ({"gpu_mhz": None}, "the GPU's clock"),
        ({"throttled": None}, "whether it was throttled"),
    ],
)
def test_what_cannot_be_read(measured_result: BenchResult, change: Any, what: str) -> None:
    found = judged(measured_result, CALM, replace(CALM, **change))
    assert found == Verdict("UNKNOWN", (f"{what} cannot be read",))


def test_only_load_before_the_start_counts(measured_result: BenchResult) -> None:
    busy = replace(CALM, load=0.5)
    assert judged(measured_result, CALM, busy).state == "VALID"
    assert judged(measured_result, busy, CALM).reasons == ("other load: 0.50 for each CPU before the start",)


def test_a_machine_without_a_gpu_is_not_asked_for_its_clock(measured_result: BenchResult) -> None:
    blind = replace(CALM, gpu_mhz=None)
    assert judged(measured_result, blind, blind, platform={}, power_mode=None) == Verdict("VALID", ())


@pytest.mark.parametrize(
    ("machine", "found"),
    [
        (
            {"power_mode": PowerMode(1, "10W", False)},
            Verdict("INVALID", ("the power mode is 10W, not the highest",)),
        ),
        (
            {"power_mode": PowerMode(1, None, None)},
            Verdict("UNKNOWN", ("the power mode cannot be read",)),
        ),
        ({"power_mode": None}, Verdict("UNKNOWN", ("the power mode cannot be read",))),
        ({"on_battery": True}, Verdict("INVALID", ("it runs on a battery",))),
        ({"on_battery": None}, Verdict("UNKNOWN", ("whether it runs on a battery cannot be read",))),
    ],
)
def test_the_machine_decides(measured_result: BenchResult, machine: Any, found: Verdict) -> None:
    assert judged(measured_result, **machine) == found


def test_times_decide(measured_result: BenchResult) -> None:
    name, count = measured_result.model, measured_result.total.count
    restless = replace(
        measured_result,
        warm_up=WarmUp((2.0, 1.0), False),
        milliseconds={"total": replace(measured_result.total, variation=2 * SPREAD)},
    )
    assert judged(restless, percent=99.9).reasons == (
        f"{name}: {count} samples do not bound the 99.9th percentile; {enough(99.9)} would",
        f"{name}: it did not settle in the warm-up",
        f"{name}: times vary by 50%, as by other work",
    )


def test_the_worst_of_several_with_all_reasons() -> None:
    unknown, invalid = Verdict("UNKNOWN", ("x cannot be read",)), Verdict("INVALID", ("it was throttled",))
    assert merged([("a", Verdict("VALID", ()))]) == Verdict("VALID", ())
    assert merged([("a", unknown), ("b", invalid), ("a", unknown)]) == Verdict(
        "INVALID", ("a: x cannot be read", "b: it was throttled")
    )

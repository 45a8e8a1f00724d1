"""Rails of boards whose files are known, and energy against closed forms."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfiin.runtime.bench.power import Rail, Sampler, rails, whole


class Clock:
    """Moves by what it is told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("board", "expected", "total"),
    [
        ("orin", {"VDD_IN": 10.08, "VDD_CPU_GPU_CV": 4.0, "VDD_SOC": 2.0}, 10.08),
        ("xavier", {"GPU": 1.9, "CPU": 3.8, "SOC": 0.95, "CV": 0.19, "VDDRQ": 0.38, "SYS5V": 2.5}, 9.72),
        ("nano", {"POM_5V_IN": 4.2, "POM_5V_GPU": 0.9, "POM_5V_CPU": 1.1}, 4.2),
    ],
)
def test_a_boards_rails_by_name(
    boards: Any, tmp_path: Path, board: str, expected: dict[str, float], total: float
) -> None:
    found = {rail.name: rail.watts() for rail in rails(getattr(boards, board)(tmp_path))}
    assert found == pytest.approx(expected)
    assert whole(found) == pytest.approx(total)


def test_a_pcs_counter_becomes_watts_also_where_it_wraps(boards: Any, tmp_path: Path) -> None:
    root, clock = boards.pc(tmp_path), Clock()
    (rail,) = rails(root, clock)
    counter = root / "sys/class/powercap/intel-rapl:0/energy_uj"
    clock.now = 2.0
    counter.write_text("31000000")
    assert (rail.name, rail.watts()) == ("package-0", pytest.approx(15.0))
    counter.write_text("262143328850")
    clock.now = 3.0
    rail.watts()
    counter.write_text("9999999")
    clock.now = 4.0
    assert rail.watts() == pytest.approx(10.0)
    with pytest.raises(ValueError, match="asked twice"):
        rail.watts()


def test_where_nothing_can_be_read_there_is_nothing(tmp_path: Path) -> None:
    assert rails(tmp_path) == []
    sampler = Sampler([])
    with sampler:
        pass
    assert sampler.between(0, 1) is None


def sampled(watts: list[float], period: float = 0.5) -> Sampler:
    clock, values = Clock(), iter(watts)
    sampler = Sampler([Rail("a", lambda: next(values))], clock=clock)
    for _ in watts:
        sampler.sample()
        clock.now += period
    return sampler


def test_a_constant_power_is_its_product_with_time() -> None:
    found = sampled([7.0] * 11).between(0, 5)
    assert found is not None
    assert (found.whole, found.watts, found.samples) == (pytest.approx(35.0), pytest.approx(7.0), 11)


def test_a_ramp_is_its_mean() -> None:
    found = sampled([float(i) for i in range(11)]).between(1.0, 4.0)
    assert found is not None
    assert found.whole == pytest.approx((2 + 8) / 2 * 3)


@given(st.lists(st.floats(0, 100), min_size=2, max_size=40))
def test_energy_lies_between_the_least_and_the_most(watts: list[float]) -> None:
    found = sampled(watts).between(0, 0.5 * (len(watts) - 1))
    assert found is not None
    assert min(watts) - 1e-9 <= found.watts <= max(watts) + 1e-9


def test_a_rail_that_fails_is_left_out() -> None:
    def broken() -> float:
        raise OSError("gone")

    sampler = Sampler([Rail("a", lambda: 2.0), Rail("b", broken)], clock=Clock())
    sampler.sample()
    assert sampler.readings == [{"a": 2.0}]


def test_a_thread_samples_while_a_block_runs(boards: Any, tmp_path: Path) -> None:
    sampler = Sampler(rails(boards.orin(tmp_path)), period=0.005)
    start = time.perf_counter()
    with sampler:
        time.sleep(0.1)
    found = sampler.between(start, time.perf_counter())
    assert found is not None
    assert found.samples > 3
    assert found.watts == pytest.approx(10.08)
    assert 0 < found.duty < 1
    assert "power" not in {thread.name for thread in threading.enumerate()}

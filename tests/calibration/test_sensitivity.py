"""The search on costs that are known, and its log."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from itertools import combinations, pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sfiin.calibration.quantize import Candidate
from sfiin.calibration.sensitivity import STEPS, JudgementLog, Nodes, pareto, search
from sfiin.export.precision_loss import Figures, Loss, LossGate

GATE = LossGate(psnr=0.2, sam=0.05, ergas=0.03, shift=1.0)
SINGLE = Figures(40.0, 1.0, 1.0, 0.0)


def loss(psnr: float) -> Loss:
    return Loss(1, SINGLE, dataclasses.replace(SINGLE, psnr=SINGLE.psnr - psnr), 0.0, 1.0)


def named(macs: Mapping[str, int]) -> list[Candidate]:
    return [Candidate(name, f"x{name}", count) for name, count in macs.items()]


class Additive:
    """Each convolution costs so many dB, and together their sum; asks are counted."""

    def __init__(self, costs: Mapping[str, float]) -> None:
        self.costs, self.asked = costs, 0

    def __call__(self, nodes: Nodes) -> Loss:
        self.asked += 1
        return loss(sum(self.costs[name] for name in nodes))


def test_as_few_as_possible_are_held_back() -> None:
    costs = {f"block0/spatial/c{i}": 0.01 for i in range(10)} | {"block1/refine/bad": 0.15, "worse": 0.3}
    found = search(named(dict.fromkeys(costs, 10)), 240, Additive(costs), GATE)
    assert found.chosen.quantised == costs.keys() - {"worse", "block1/refine/bad"}
    assert found.chosen.held == 2
    assert found.chosen.mac_share == pytest.approx(100 / 240)
    assert found.nodes["worse"].lower.psnr == pytest.approx(39.7)
    assert found.branches.keys() == {"spatial", "refine", "trunk"}
    assert found.branches["spatial"].lower.psnr == pytest.approx(39.9)


def test_nothing_is_held_back_where_all_are_within_the_gate() -> None:
    found = search(named({"a": 1, "b": 1}), 4, Additive({"a": 0.05, "b": 0.1}), GATE)
    assert found.chosen.held == 0
    assert found.chosen.mac_share == 0.5


def test_all_are_held_back_where_each_is_too_much() -> None:
    found = search(named({"a": 1, "b": 1}), 2, Additive({"a": 0.5, "b": 0.3}), GATE)
    assert found.chosen.quantised == frozenset()
    assert found.chosen.mac_share == 0


def test_what_is_not_finite_is_held_back() -> None:
    found = search(named({"a": 1, "b": 1}), 2, Additive({"a": float("nan"), "b": 0.1}), GATE)
    assert found.chosen.quantised == {"b"}


@given(
    st.dictionaries(
        st.text("abcdefgh", min_size=1, max_size=3),
        st.tuples(st.floats(0, 0.3), st.integers(1, 50)),
        min_size=1,
        max_size=9,
    )
)
def test_the_result_is_within_the_gate_and_nothing_more_fits(given_: dict[str, tuple[float, int]]) -> None:
    costs = {name: cost for name, (cost, _) in given_.items()}
    cost = Additive(costs)
    found = search(named({name: macs for name, (_, macs) in given_.items()}), 1000, cost, GATE)
    assert cost(found.chosen.quantised).share(GATE) <= 1
    for name in costs.keys() - found.chosen.quantised:
        assert cost(found.chosen.quantised | {name}).share(GATE) > 1
    fewest = next(
        size
        for size in range(len(costs) + 1)
        if any(cost(frozenset(costs) - set(held)).share(GATE) <= 1 for held in combinations(costs, size))
    )
    assert found.chosen.held == fewest


def test_the_curve_holds_what_no_other_point_beats() -> None:
    costs = {f"c{i}": 0.001 * 2**i for i in range(9)}
    found = search(named(dict.fromkeys(costs, 1)), 9, Additive(costs), GATE)
    assert len(found.points) > STEPS / 2
    best = pareto(found.points, GATE)
    shares = [(point.mac_share, point.loss.share(GATE)) for point in best]
    assert shares == sorted(shares)
    assert all(a[1] < b[1] for a, b in pairwise(shares))
    for point in found.points:
        assert any(
            other.mac_share >= point.mac_share and other.loss.share(GATE) <= point.loss.share(GATE)
            for other in best
        )


def test_progress_counts_convolutions_and_branches() -> None:
    seen: list[tuple[int, int]] = []
    search(named({"a": 1, "b/c": 1}), 2, Additive({"a": 0, "b/c": 0}), GATE, lambda *step: seen.append(step))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_search_that_was_stopped_goes_on_where_it_was(tmp_path: Path) -> None:
    costs = {f"c{i}": 0.03 * i for i in range(6)}
    nodes = named(dict.fromkeys(costs, 1))
    whole = Additive(costs)
    expected = search(nodes, 6, JudgementLog(tmp_path / "whole", "it").remembering(whole), GATE)

    class Stopped(Additive):
        def __call__(self, nodes: Nodes) -> Loss:
            if self.asked == 7:
                raise KeyboardInterrupt
            return super().__call__(nodes)

    path = tmp_path / "log"
    with pytest.raises(KeyboardInterrupt):
        search(nodes, 6, JudgementLog(path, "it").remembering(Stopped(costs)), GATE)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"key": "cut o')
    rest = Additive(costs)
    log = JudgementLog(path, "it")
    assert len(log) == 7
    assert search(nodes, 6, log.remembering(rest), GATE) == expected
    assert rest.asked == whole.asked - 7
    log.remove()
    assert not path.exists()


def test_a_journal_of_something_else_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    JudgementLog(path, "one model").remembering(Additive({"a": 0.1}))(frozenset("a"))
    assert len(JudgementLog(path, "one model")) == 1
    assert len(JudgementLog(path, "another")) == 0
    assert len(JudgementLog(path, "one model")) == 0
    path.write_text("")
    assert len(JudgementLog(path, "one model")) == 0

"""What does quantising each convolution cost, and which few must stay for the model to be as good as was
asked?

Every convolution is quantised alone, then each branch, and judged on tiles with truth beside FP32. Its cost
is the largest of its losses as a share of the gate. Then the most costly ones are held back, as few as do:
the number is found by bisection, and each one held back is tried again, the largest first, since the cheap
way in may have been too strict.

Every judgement is noted in a log as soon as it is made, so a search that was stopped goes on where it
was.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sfiin.calibration.quantize import Candidate
from sfiin.export.precision_loss import Figures, Loss, LossGate

Nodes = frozenset[str]
Cost = Callable[[Nodes], Loss]
"""What quantising a set of convolutions loses."""

STEPS = 8
"""Points of the Pareto curve between nothing and everything quantised, beside those of the search."""


@dataclass(frozen=True)
class Point:
    """One set of quantised convolutions: how many are held back, the share of the network's multiply-adds
    that is INT8, and the loss.
    """

    quantised: Nodes
    held: int
    mac_share: float
    loss: Loss


@dataclass(frozen=True)
class Search:
    """What came out: the cost of each convolution alone and of each branch, all points judged, and the
    chosen one."""

    nodes: Mapping[str, Loss]
    branches: Mapping[str, Loss]
    points: tuple[Point, ...]
    chosen: Point


class JudgementLog:
    """Judgements by the set of convolutions, in a file of JSON lines that begins with what they are about.

    A file about something else is begun anew; a last line that was cut off is dropped.
    """

    def __init__(self, path: Path, about: str) -> None:
        self._path, self._known = path, _read(path, about)
        lines = [json.dumps({"about": about}), *(_line(key, loss) for key, loss in self._known.items())]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __len__(self) -> int:
        return len(self._known)

    def remembering(self, cost: Cost) -> Cost:
        """The same cost, asked once for each set."""

        def remembered(nodes: Nodes) -> Loss:
            key = _key(nodes)
            if key not in self._known:
                self._known[key] = cost(nodes)
                with self._path.open("a", encoding="utf-8") as file:
                    file.write(_line(key, self._known[key]) + "\n")
            return self._known[key]

        return remembered

    def remove(self) -> None:
        """Delete the file."""
        self._path.unlink(missing_ok=True)


def search(
    candidates: Sequence[Candidate],
    total_macs: int,
    cost: Cost,
    gate: LossGate,
    watch: Callable[[int, int], None] = lambda _done, _of: None,
) -> Search:
    """Find the smallest set to hold back so that the rest is within the gate, and the curve from nothing to
    all.

    `watch` is told how many convolutions and branches of all have been judged. The chosen point is within the
    gate, if only because nothing is quantised in it.
    """
    macs = {candidate.node: candidate.macs for candidate in candidates}
    groups = {
        branch: frozenset(candidate.node for candidate in candidates if candidate.branch == branch)
        for branch in dict.fromkeys(candidate.branch for candidate in candidates)
    }
    single = [frozenset({name}) for name in macs]
    found = []
    for i, nodes in enumerate([*single, *groups.values()], 1):
        found.append(cost(nodes))
        watch(i, len(single) + len(groups))
    alone = dict(zip(macs, found, strict=False))
    order = sorted(macs, key=lambda name: _burden(alone[name], gate), reverse=True)
    points: dict[Nodes, Point] = {}

    def judge(nodes: Nodes) -> Point:
        if nodes not in points:
            share = sum(macs[name] for name in nodes) / max(total_macs, 1)
            points[nodes] = Point(nodes, len(macs) - len(nodes), share, cost(nodes))
        return points[nodes]

    for i in range(STEPS + 1):
        judge(frozenset(order[round(i * len(order) / STEPS) :]))
    chosen = _given_back(judge(frozenset(order[_fewest(order, judge, gate) :])), macs, judge, gate)
    return Search(
        alone, dict(zip(groups, found[len(macs) :], strict=True)), _by_share(points.values()), chosen
    )


def pareto(points: Collection[Point], gate: LossGate) -> list[Point]:
    """The points that no other beats in both share and loss, by rising share."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (-point.mac_share, _burden(point.loss, gate))):
        if not best or _burden(point.loss, gate) < _burden(best[-1].loss, gate):
            best.append(point)
    return best[::-1]


def _fewest(order: Sequence[str], judge: Callable[[Nodes], Point], gate: LossGate) -> int:
    """How many of the first must be held back, by bisection: fewer are taken to cost more."""
    low, high = 0, len(order)
    while low < high:
        middle = (low + high) // 2
        if judge(frozenset(order[middle:])).loss.share(gate) <= 1:
            high = middle
        else:
            low = middle + 1
    return high


def _given_back(
    point: Point, macs: Mapping[str, int], judge: Callable[[Nodes], Point], gate: LossGate
) -> Point:
    """The point with every convolution quantised after all that the gate has room for, those of most work
    first."""
    for name in sorted(macs.keys() - point.quantised, key=lambda name: (-macs[name], name)):
        more = judge(point.quantised | {name})
        if more.loss.share(gate) <= 1:
            point = more
    return point


def _burden(loss: Loss, gate: LossGate) -> float:
    share = loss.share(gate)
    return math.inf if math.isnan(share) else share  # what is not finite costs the most


def _by_share(points: Collection[Point]) -> tuple[Point, ...]:
    return tuple(sorted(points, key=lambda point: point.mac_share))


def _key(nodes: Nodes) -> str:
    return hashlib.sha256("\n".join(sorted(nodes)).encode()).hexdigest()


def _line(key: str, loss: Loss) -> str:
    return json.dumps({"key": key, "loss": dataclasses.asdict(loss)})


def _read(path: Path, about: str) -> dict[str, Loss]:
    if not path.is_file():
        return {}
    known: dict[str, Loss] = {}
    first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if first != json.dumps({"about": about}):
        return {}
    for line in lines:
        try:
            entry = json.loads(line)
        except ValueError:
            break
        single, lower = (Figures(**entry["loss"].pop(name)) for name in ("single", "lower"))
        known[entry["key"]] = Loss(single=single, lower=lower, **entry["loss"])
    return known

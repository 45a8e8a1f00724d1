"""How does a session notice its own errors, and go on? A chain of sessions behind one, each result looked at.

A `Guard` is a session whose every tile is checked before it is given away. What happens on an alarm:

1. the tile again, in the same session: a passing upset of memory or logic is gone then;
2. the tile in the next session of the chain, and so on to the last, which cannot fail: interpolated MS;
3. a session that had a tile taken from it is opened anew before the next one; the second time it is left for
   good, and the next of the chain is the one to begin with. What it had given away before is not trusted
   unless it still passes its self-test.

Before the first tile, every so many tiles and seconds, after each alarm, and before a product is published a
session proves itself on the golden tiles of its artefact: to the bit against what it gave when it was opened,
where its backend gives the same bits each time, and always within the gate of its contract. A flip of any
weight shows there, since every weight takes part in every tile. NaN and infinity alone would show next to
nothing: they are about one in a hundred silent errors.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.backends.session import Session
from sfiin.runtime.check import GATES, parity
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import CheckFailedError, SfiinError, UntrustedError
from sfiin.runtime.flight.checks import Alarm, Limits, alarms
from sfiin.runtime.golden import GoldenTiles

Tiles = NDArray[np.float32]

_FAILED = (
    "the session did not pass its self-test on the golden tiles; it was opened anew, what it made is thrown "
    "away, and the scene is to be done again"
)


@dataclass(frozen=True)
class Link:
    """A session that a chain may fall back on: its name, how it is opened, and its golden tiles, None
    without.

    `same_bits`: whether the backend gives the same bits for the same tile each time.
    """

    name: str
    open: Callable[[], Session]
    golden: GoldenTiles | None = None
    same_bits: bool = True


@dataclass(frozen=True)
class Rhythm:
    """How often a session is to prove itself while it works: after so many `tiles`, after so many `seconds`,
    and then after each alarm, too. With 0 and 0 only before a product is published."""

    tiles: int = 0
    seconds: float = 0.0


@dataclass
class Log:
    """What a guard did since the log was last taken. `origins` names, tile after tile, the link that made
    it."""

    origins: list[str] = field(default_factory=list)
    alarms: Counter[Alarm | str] = field(default_factory=Counter)
    again: int = 0
    tests: int = 0
    opened: int = 0
    left: list[str] = field(default_factory=list)


class Guard:
    """A session over a chain of others; the last of them is taken at its word.

    Raises what opening the last link raises; an earlier one that cannot be opened is left for the next.
    """

    def __init__(self, links: Sequence[Link], limits: Limits, rhythm: Rhythm | None = None) -> None:
        self._links, self._limits = list(links), limits
        self._rhythm = rhythm or Rhythm()
        self._at = 0
        self._since, self._proved = 0, time.monotonic()
        self._made: set[int] = set()
        self._doubted = False
        self._open: dict[str, _Proven] = {}
        self._strikes: Counter[str] = Counter()
        self._log = Log()
        self._contract = self._first_contract()

    @property
    def contract(self) -> Contract:
        """What the first session that opened promises."""
        return self._contract

    @property
    def at(self) -> str:
        """The link that the next tile begins with."""
        return self._links[self._at].name

    def run(self, ms: Tiles, pan: Tiles) -> Tiles:
        """Fuse a batch of tiles; shapes and units as in `Session.run`.

        Raises UntrustedError where it was time for a self-test and the session did not pass it; else only
        what the last link raises.
        """
        start, alarms_before = self._at, self._log.alarms.total()
        results = self._attempt(start, ms, pan)
        for index in range(len(ms)):
            tile = np.s_[index : index + 1]
            found = None if results is None else results[tile]
            wrong = found is None or self._alarmed(found, ms[tile], pan[tile])
            if not wrong:
                self._gave(start)
                continue
            made = self._instead(start, ms[tile], pan[tile])
            results = np.empty((len(ms), *made.shape[1:]), np.float32) if results is None else results
            results[tile] = made
        assert results is not None
        self._since += len(ms)
        if self._is_time(self._log.alarms.total() > alarms_before) and not self.self_test():
            raise UntrustedError(_FAILED)
        return results

    def _is_time(self, alarmed: bool) -> bool:
        rhythm = self._rhythm
        often = 0 < rhythm.tiles <= self._since or 0 < rhythm.seconds <= time.monotonic() - self._proved
        return often or (alarmed and bool(rhythm.tiles or rhythm.seconds))

    def self_test(self) -> bool:
        """Prove every session that made tiles since the last test, and the one in use; whether all passed.

        One that does not is opened anew, or replaced. What it made since the last test that it passed is not
        to be trusted then.
        """
        passed = not self._doubted
        self._log.tests += 1
        for place in sorted(self._made - {self._at}):
            passed &= self._tested(place)
        while not self._is_last(self._at):
            if self._session(self._at) is None:
                self._strike(self._at)
            elif self._tested(self._at):
                break
            else:
                passed = False
        self._since, self._proved, self._doubted = 0, time.monotonic(), False
        self._made.clear()
        return passed

    def _tested(self, place: int) -> bool:
        if self._is_last(place) or self._proven(place):
            return True
        self._log.alarms["self-test"] += 1
        self._made.discard(place)  # it is known by now; `_strike` need not ask again
        self._strike(place)
        return False

    def prove(self) -> Mapping[str, Any]:
        """What was done since the last call, as a document, and whether the session has `passed` a self-test
        now.

        It holds the `chain`, tiles by the link that made them, alarms by kind, tiles computed `again`,
        self-`tests`, links that were `left`, the link that the next tile begins with (`at`), and `origins`:
        link and number of tiles, one run of tiles after another, in the order in which they were computed.
        """
        passed, log = self.self_test(), self.take_log()
        return {
            "passed": passed,
            "chain": [link.name for link in self._links],
            "at": self.at,
            "tiles": dict(Counter(log.origins)),
            "alarms": {str(kind): number for kind, number in log.alarms.items()},
            "again": log.again,
            "tests": log.tests,
            "left": log.left,
            "origins": run_lengths(log.origins),
        }

    def begin(self) -> None:
        """A scene begins; what was done before is no part of its record."""
        self.take_log()

    def vouch(self) -> Mapping[str, Any]:
        """As `prove`. Raises UntrustedError where the session did not pass."""
        found = self.prove()
        if not found["passed"]:
            raise UntrustedError(_FAILED)
        self._strikes.pop(self.at, None)  # upsets that lie far apart are no sign of a session that is no good
        return found

    def take_log(self) -> Log:
        """What was done since the last call."""
        log, self._log = self._log, Log()
        return log

    def close(self) -> None:
        """Close every session of the chain."""
        while self._open:
            self._open.popitem()[1].session.close()

    def _first_contract(self) -> Contract:
        for place in range(self._at, len(self._links)):
            if proven := self._session(place):
                return proven.session.contract
        raise CheckFailedError(
            "no session of the chain can be opened; look at the bundle with 'sfiin bundle verify'"
        )

    def _attempt(self, place: int, ms: Tiles, pan: Tiles) -> Tiles | None:
        """What a link makes of tiles; None where it cannot be opened or fails."""
        proven = self._session(place)
        if proven is None:
            return None
        try:
            return np.array(proven.session.run(ms, pan), np.float32)
        except (SfiinError, RuntimeError, MemoryError, OSError) as error:
            if self._is_last(place):
                raise
            self._log.alarms[type(error).__name__] += 1
            return None

    def _instead(self, place: int, ms: Tiles, pan: Tiles) -> Tiles:
        """A tile that was not right at first: again there, then from link to link."""
        self._log.again += 1
        for here in range(place, len(self._links)):
            made = self._attempt(here, ms, pan)
            if made is not None and (self._is_last(here) or not self._alarmed(made, ms, pan)):
                self._gave(here)
                if here > place:
                    self._strike(place)
                return made
        raise AssertionError("the last link is taken at its word")

    def _gave(self, place: int) -> None:
        """A tile of this link's is given away."""
        self._log.origins.append(self._links[place].name)
        self._made.add(place)

    def _alarmed(self, hrms: Tiles, ms: Tiles, pan: Tiles) -> bool:
        found = alarms(hrms[0], ms[0], pan[0], self._contract.sensor, self._limits)
        self._log.alarms.update(found)
        return bool(found)

    def _strike(self, place: int) -> None:
        """A session that failed is closed: the first time to be opened anew, the second time for good.

        Before that it is asked to prove itself, for the sake of the tiles that it has given away.
        """
        name = self._links[place].name
        self._strikes[name] += 1
        if name in self._open:
            self._doubted |= place in self._made and not self._proven(place)
            self._made.discard(place)
            self._open.pop(name).session.close()
        if self._strikes[name] > 1 and place == self._at:
            self._log.left.append(name)
            self._at = min(self._at + 1, len(self._links) - 1)

    def _session(self, place: int) -> _Proven | None:
        """A link's session, opened and proven; None where that fails."""
        link = self._links[place]
        if link.name not in self._open:
            try:
                self._open[link.name] = _Proven.of(link)
                self._log.opened += 1
            except (SfiinError, RuntimeError, MemoryError, OSError) as error:
                if self._is_last(place):
                    raise
                self._log.alarms[type(error).__name__] += 1
                return None
        return self._open[link.name]

    def _proven(self, place: int) -> bool:
        proven = self._session(place)
        try:
            return proven is not None and proven.holds(self._links[place])
        except (SfiinError, RuntimeError, MemoryError, OSError):
            return False

    def _is_last(self, place: int) -> bool:
        return place == len(self._links) - 1


def run_lengths(names: Iterable[str]) -> list[list[str | int]]:
    """Names one after another as runs: each name with how often it follows itself."""
    return [[name, len(list(same))] for name, same in groupby(names)]


def laid_out(runs: Sequence[Sequence[Any]], skipped: Iterable[int], tiles: int) -> list[list[str | int]]:
    """The origins of all tiles of a scene, row after row, from those of the computed ones: runs as
    `run_lengths` gives them, with "none" for those that were `skipped`, by their numbers."""
    computed = (name for name, count in runs for _ in range(count))
    left_out = set(skipped)
    return run_lengths("none" if number in left_out else next(computed) for number in range(tiles))


@dataclass(frozen=True)
class _Proven:
    """A session, and what it made of its golden tiles when it was opened."""

    session: Session
    first: Tiles | None

    @classmethod
    def of(cls, link: Link) -> _Proven:
        """Open a link and hold it against its golden tiles. Raises CheckFailedError outside of the gate."""
        session = link.open()
        if link.golden is None:
            return cls(session, None)
        try:
            made = link.golden.through(session.run)
            _distance(session.contract, link.golden, made)
        except BaseException:
            session.close()
            raise
        return cls(session, made)

    def holds(self, link: Link) -> bool:
        """Whether the session still makes the same of the golden tiles."""
        if link.golden is None or self.first is None:
            return True
        made = link.golden.through(self.session.run)
        if link.same_bits:
            return bool(np.array_equal(made.view(np.uint32), self.first.view(np.uint32)))
        _distance(self.session.contract, link.golden, made)
        return True


def _distance(contract: Contract, golden: GoldenTiles, made: Tiles) -> None:
    distance = parity(golden.names, made, golden.hrms, float(contract.sensor.peak))
    distance.require(GATES[contract.precision], "self-test on the golden tiles", "the session is not used")

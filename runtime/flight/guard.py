"""How does a session notice its own errors, and go on? A chain of sessions behind one, each result looked at.

A `Guard` is a session whose every tile is checked before it is given away. What happens on an alarm:

1. the tile again, in the same session: a passing upset of memory or logic is gone then;
2. the tile in the next session of the chain, and so on to the last, which cannot fail: interpolated MS;
3. a session that had a tile taken from it is opened anew before the next one; the second time it is left for
   good, and the next of the chain is the one to begin with.

Before the first tile, and whenever it is asked to, a session proves itself on the golden tiles of its artefact:
to the bit against what it gave when it was opened, where its backend gives the same bits each time, and always
within the gate of its contract. A flip of any weight shows there, since every weight takes part in every tile.
NaN and infinity alone would show next to nothing: they are about one in a hundred silent errors.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime.backends.session import Session
from sfiin.runtime.check import GATES, parity
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import CheckFailedError, SfiinError
from sfiin.runtime.flight.checks import Alarm, Limits, alarms
from sfiin.runtime.golden import GoldenTiles

Tiles = NDArray[np.float32]


@dataclass(frozen=True)
class Link:
    """A session that a chain may fall back on: its name, how it is opened, and its golden tiles, None without.

    `same_bits`: whether the backend gives the same bits for the same tile each time.
    """

    name: str
    open: Callable[[], Session]
    golden: GoldenTiles | None = None
    same_bits: bool = True


@dataclass
class Log:
    """What a guard did since the log was last taken. `origins` names, tile after tile, the link that made it."""

    origins: list[str] = field(default_factory=list)
    alarms: Counter[Alarm | str] = field(default_factory=Counter)
    again: int = 0
    opened: int = 0
    left: list[str] = field(default_factory=list)


class Guard:
    """A session over a chain of others; the last of them is taken at its word.

    Raises what opening the last link raises; an earlier one that cannot be opened is left for the next.
    """

    def __init__(self, links: Sequence[Link], limits: Limits) -> None:
        self._links, self._limits = list(links), limits
        self._at = 0
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
        """Fuse a batch of tiles; shapes and units as in `Session.run`. Never raises but for the last link."""
        start = self._at
        results = self._attempt(start, ms, pan)
        for index in range(len(ms)):
            tile = np.s_[index : index + 1]
            found = None if results is None else results[tile]
            wrong = found is None or self._alarmed(found, ms[tile], pan[tile])
            if not wrong:
                self._log.origins.append(self._links[start].name)
                continue
            made = self._instead(start, ms[tile], pan[tile])
            results = np.empty((len(ms), *made.shape[1:]), np.float32) if results is None else results
            results[tile] = made
        assert results is not None
        return results

    def self_test(self) -> bool:
        """Prove the session in use on its golden tiles; whether it passed.

        One that does not is opened anew, or replaced. What it made since the last test that it passed is not to be
        trusted then.
        """
        passed = True
        while not self._is_last(self._at) and not self._proven(self._at):
            passed = False
            self._log.alarms["self-test"] += 1
            self._strike(self._at)
        return passed

    def vouch(self) -> Mapping[str, Any]:
        """What was done since the last call, as a document: tiles by the link that made them, alarms by kind, tiles
        computed again, links that were left. Raises CheckFailedError where the session did not pass its test."""
        passed, log = self.self_test(), self.take_log()
        if not passed:
            raise CheckFailedError(
                "the session did not pass its self-test after the scene; it was opened anew, and the scene is to be "
                "done again"
            )
        counts = {
            "tiles": dict(Counter(log.origins)),
            "alarms": {str(kind): n for kind, n in log.alarms.items()},
        }
        return counts | {"again": log.again, "left": log.left}

    def take_log(self) -> Log:
        """What was done since the last call."""
        log, self._log = self._log, Log()
        return log

    def close(self) -> None:
        """Close every session of the chain."""
        while self._open:
            self._open.popitem()[1].session.close()

    def _first_contract(self) -> Contract:
        for place in range(len(self._links)):
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
                self._log.origins.append(self._links[here].name)
                if here > place:
                    self._strike(place)
                return made
        raise AssertionError("the last link is taken at its word")

    def _alarmed(self, hrms: Tiles, ms: Tiles, pan: Tiles) -> bool:
        found = alarms(hrms[0], ms[0], pan[0], self._contract.sensor, self._limits)
        self._log.alarms.update(found)
        return bool(found)

    def _strike(self, place: int) -> None:
        """A session that failed is closed: the first time to be opened anew, the second time for good."""
        name = self._links[place].name
        self._strikes[name] += 1
        if name in self._open:
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

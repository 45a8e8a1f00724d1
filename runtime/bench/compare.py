"""What changed between two benchmarks, in conditions and in result, and is it more than their spread?"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfiin.runtime.bench.measure import FORMAT
from sfiin.runtime.errors import CheckFailedError, InputError

LEAST = 0.03
"""A share by which a median must have grown to count as slower, whatever the spread."""

_KEPT = (
    "environment",
    "backend",
    "precision",
    "lowering",
    "tile",
    "batch",
    "threads",
    "version",
    "model_sha256",
)


@dataclass(frozen=True)
class Comparison:
    """`ratio`: the second median over the first; `low` and `high` what their intervals allow it to be, None
    where one is not bounded; `changes`: fields of the conditions, with both values; `states`: both verdicts.
    """

    ratio: float
    low: float | None
    high: float | None
    changes: Mapping[str, tuple[Any, Any]]
    states: tuple[str, str]

    @property
    def exceeds(self) -> bool:
        """Whether the difference is more than the spread."""
        return self.low is not None and self.high is not None and not self.low <= 1 <= self.high

    @property
    def slower(self) -> bool:
        """Whether the second is slower by more than the spread and by more than a little."""
        return self.exceeds and self.ratio > 1 + LEAST

    def require(self) -> None:
        """Raise CheckFailedError for a second that is slower."""
        if self.slower:
            raise CheckFailedError(
                f"slower: {self.ratio:.3f} times the median before ({self.low:.3f} to {self.high:.3f} by the spread); "
                f"{len(self.changes)} conditions differ"
            )


def read(path: Path) -> dict[str, Any]:
    """A benchmark's document. Raises InputError for anything else."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise InputError(f"{path}: no document of 'sfiin bench --json' of this version ({FORMAT})")
    return found


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> Comparison:
    """The second beside the first."""
    one, other = (_median(it) for it in (first, second))
    bounds = [it[key] for it in (one, other) for key in ("low", "high")]
    low = high = None
    if None not in bounds:
        low, high = other["low"] / one["high"], other["high"] / one["low"]
    a, b = (dict(_flat({key: it.get(key) for key in _KEPT}, "")) for it in (first, second))
    changes = {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}
    states = first["verdict"]["state"], second["verdict"]["state"]
    return Comparison(other["value"] / one["value"], low, high, changes, states)


def _median(document: Mapping[str, Any]) -> Mapping[str, Any]:
    quantiles = document["milliseconds"]["total"]["quantiles"]
    found: Mapping[str, Any] = next(it for it in quantiles if it["percent"] == 50)
    return found


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    else:
        yield name, value

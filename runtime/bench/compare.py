"""What changed between two benchmarks, in conditions and in result, and is it more than their spread?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfiin.runtime import documents
from sfiin.runtime.bench.result import BenchResult
from sfiin.runtime.errors import CheckFailedError, InputError, UndecidedError

LEAST = 0.03
"""The share by which a median must have grown to count as slower, whatever the spread."""

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
    def undecided(self) -> str:
        """Why nothing can be said of the difference, "" where something can."""
        invalid = [state for state in self.states if state == "INVALID"]
        if invalid:
            return f"{len(invalid)} of the two results {'is' if len(invalid) == 1 else 'are'} INVALID"
        if self.low is None or self.high is None:
            return "the spread of a result is not known; measure longer"
        return ""

    @property
    def slower(self) -> bool:
        """Whether the second is slower by more than the spread and by more than a little, as far as can be
        said."""
        return not self.undecided and self.exceeds and self.ratio > 1 + LEAST

    def require(self) -> None:
        """Raise CheckFailedError for a second that is slower, UndecidedError where that cannot be said."""
        if self.undecided:
            raise UndecidedError(
                f"undecided: {self.undecided}; the second median is {self.ratio:.3f} times the first"
            )
        if self.slower:
            raise CheckFailedError(
                f"slower: {self.ratio:.3f} times the median before ({self.low:.3f} to {self.high:.3f} by "
                f"the spread); {len(self.changes)} conditions differ"
            )


def read(path: Path) -> BenchResult:
    """A benchmark's result. Raises InputError for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not JSON ({error})") from None
    found = documents.parse(text, str(path), InputError)
    version = found.get("format") if isinstance(found, dict) else None
    if version != BenchResult.format:
        raise InputError(
            f"{path}: no document of 'sfiin bench --json' of this version ({BenchResult.format})"
        )
    return BenchResult.from_document(found, str(path))


def compare(first: BenchResult, second: BenchResult) -> Comparison:
    """The second beside the first."""
    one, other = first.total.at(50.0), second.total.at(50.0)
    low = high = None
    if one.low is not None and one.high is not None and other.low is not None and other.high is not None:
        low, high = other.low / one.high, other.high / one.low
    a, b = _conditions(first), _conditions(second)
    changes = {key: (a.get(key), b.get(key)) for key in sorted({*a, *b}) if a.get(key) != b.get(key)}
    return Comparison(
        other.value / one.value, low, high, changes, (first.verdict.state, second.verdict.state)
    )


def _conditions(result: BenchResult) -> dict[str, Any]:
    """What was measured under, each value by its path in the document."""
    return dict(_flat({key: documents.document(getattr(result, key)) for key in _KEPT}, ""))


def _flat(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else key)
    else:
        yield name, value

"""What does a benchmark hold? Times, energy, conditions and verdict as dataclasses, and their JSON document.

The document of several models is that of the first, with the others under `against`. Its format is
`sfiin-bench/1`; fields of the dataclasses are fields of the document.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from sfiin.runtime import documents
from sfiin.runtime.bench.environment import Machine, Moment
from sfiin.runtime.bench.statistics import Quantile, Summary
from sfiin.runtime.documents import LATER, LEFT_OUT
from sfiin.runtime.errors import InputError

State = Literal["INVALID", "UNKNOWN", "VALID"]


@dataclass(frozen=True)
class WarmUp:
    """Median milliseconds of each window of runs before the measurement, and whether the last ones agree."""

    windows: tuple[float, ...]
    settled: bool


@dataclass(frozen=True)
class Throughput:
    """What the median time amounts to; square kilometres are None where the ground sample distance is
    unknown.
    """

    tiles_per_second: float
    megapixels_per_second: float
    square_kilometres_per_second: float | None


@dataclass(frozen=True)
class SceneBudget:
    """A square scene of `side` PAN pixels: its tiles, the seconds that they take, and whether these fit into
    a pass.
    """

    side: int
    tiles: int
    seconds: float
    pass_seconds: float
    fits: bool


@dataclass(frozen=True, kw_only=True)
class ModelResult:
    """One model's: what it is, how fast it was loaded, and how long its batches took.

    `milliseconds` are those of a batch, `total` and, where the session tells, its parts; `samples` are the
    totals one by one. `ratio` is the median of its times over the first model's, None for the first.
    """

    model: str
    model_sha256: str
    model_bytes: int
    backend: str
    precision: str
    lowering: str
    tile: tuple[int, ...]
    batch: int
    threads: int
    device_bytes: int | None = field(default=None, metadata=LATER)
    load_seconds: float
    first_result_seconds: float
    warm_up: WarmUp
    milliseconds: Mapping[str, Summary]
    samples: tuple[float, ...] = field(default=(), metadata=LATER)
    throughput: Throughput
    scene: SceneBudget
    ratio: Quantile | None = field(default=None, metadata=LEFT_OUT)

    @property
    def total(self) -> Summary:
        """Of the milliseconds of whole batches."""
        return self.milliseconds["total"]


@dataclass(frozen=True)
class EnergyUse:
    """Of all models in turns: mean watts, joules by rail and in all, and what a tile and a megapixel take;
    raw, and above what the machine draws when idle, None where that is unknown.

    `sampler_duty` is the share of time that reading the rails took, `samples` their number.
    """

    watts: float
    idle_watts: float | None
    joules: float
    rails: Mapping[str, float]
    joules_per_tile: float
    joules_per_megapixel: float
    joules_per_tile_above_idle: float | None
    joules_per_megapixel_above_idle: float | None
    sampler_duty: float
    samples: int


@dataclass(frozen=True)
class Verdict:
    """Whether the figures may be believed, and every reason why not."""

    state: State
    reasons: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class BenchResult(ModelResult, documents.Encoded):
    """The first model's result, and what holds for all that took turns with it.

    `timeline` has the conditions about every second, `power_timeline` pairs of seconds and watts.
    """

    format: Literal["sfiin-bench/1"] = "sfiin-bench/1"
    version: str
    environment: Machine
    before: Moment
    after: Moment
    timeline: tuple[Moment, ...]
    energy: EnergyUse | None
    peak_host_bytes: int
    power_timeline: tuple[tuple[float, ...], ...]
    against: tuple[BenchResult | ModelResult, ...]
    verdict: Verdict

    @property
    def models(self) -> Iterator[ModelResult]:
        """The first one, and the others."""
        yield self
        yield from self.against

    @classmethod
    def from_document(cls, found: object, what: str = "benchmark") -> BenchResult:
        """Read `document`'s values. Raises InputError, naming `what` and the field, for anything else."""
        return documents.build(cls, found, what, InputError)

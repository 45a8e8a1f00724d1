"""What did a run of one scene do? The report that is printed, kept beside the product, and rendered.

Its JSON document is that of `sfiin.runtime.documents`; a field that comes to it later has a default, so that
what an older version has written beside a product is still read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from sfiin.runtime import documents
from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.documents import LEFT_OUT, Encoded
from sfiin.runtime.errors import InputError

if TYPE_CHECKING:  # a worker reads events before it loads GDAL
    from sfiin.runtime.scenes.alignment import Shift
    from sfiin.runtime.scenes.seams import Seams
    from sfiin.runtime.station.budget import Budget

Standing = Literal["new", "equal", "completed"]


@dataclass(frozen=True)
class DriftNumbers:
    """A shift as a function of place (`sfiin.runtime.scenes.drift`)."""

    numbers: tuple[tuple[float, ...], ...]
    size: tuple[int, ...]


@dataclass(frozen=True)
class Alignment:
    """How PAN's content lies to MS' (`sfiin.runtime.scenes.alignment.Shift`), in PAN pixels.

    `verdict` and `said` are that in words; `corrected` is how MS was moved: "", "shift" or "local".
    """

    row: float
    col: float
    spread: float
    windows: int
    looked: int
    seen: int
    known: bool
    constant: bool
    most: float
    search: float
    drift: DriftNumbers | None
    verdict: str
    said: str
    corrected: str

    @classmethod
    def of(cls, shift: Shift, limit: float, corrected: str) -> Alignment:
        """From what was found; shifts up to `limit` count as aligned."""
        found = shift.document(limit)
        if found["drift"] is not None:
            numbers = tuple(tuple(row) for row in found["drift"]["numbers"])
            found["drift"] = DriftNumbers(numbers, tuple(found["drift"]["size"]))
        return cls(**found, corrected=corrected)


@dataclass(frozen=True)
class Memory:
    """Bytes: what was planned, and `peak`, what the process has had at most; None before the work."""

    base: int
    buffers: int
    cache: int
    total: int
    peak: int | None = field(default=None, metadata=LEFT_OUT)

    @classmethod
    def of(cls, planned: Budget, peak: int | None = None) -> Memory:
        """From a budget."""
        return cls(planned.base, planned.buffers, planned.cache, planned.total, peak)


@dataclass(frozen=True)
class Reading:
    """How the scene's files were read: which of MS' bands were chosen, what metadata say of them, and whether
    any ratio of pixel sizes was let in."""

    chosen: str | None
    stated: tuple[str | None, ...] | None
    any_ratio: bool


@dataclass(frozen=True)
class SeamLines:
    """The seam meter's word on borders of tiles along one axis; `ratio` and `error` are None where there are
    none."""

    axis: str
    ratio: float | None
    error: float | None
    lines: int
    shows: bool

    @classmethod
    def of(cls, found: Seams) -> SeamLines:
        """As JSON can hold it, which has neither NaN nor infinity."""
        ratio, error = (value if abs(value) < float("inf") else None for value in (found.ratio, found.error))
        return cls(found.axis, ratio, error, found.lines, found.shows)


@dataclass(frozen=True)
class RunReport(Encoded):
    """A run of one scene.

    `size` is (height, width) in PAN pixels, `lead` how many rows and columns the tiles begin before it;
    `pixels` of the product per band, of which `nodata` lack data; `clipped` counts, by band, samples that the
    product's type could not hold; wall-clock `seconds`; `resumed` rows of tiles came from an earlier run;
    `notes` are sentences; `backend` is what computed the tiles, "" where it does not say; `guard` is what a
    bundle's guard has to say; `seams` is there where a report was wanted; `standing` is "equal" where all was
    there already, "completed" where something beside the product was missing.
    """

    output: str
    pan: str
    ms: tuple[str, ...]
    model: str
    model_sha256: str
    precision: str
    sensor: SensorProfile
    gain: float
    bands: tuple[str, ...]
    size: tuple[int, ...]
    lead: tuple[int, ...]
    reading: Reading
    method: str | None
    overlap: int
    tiles: int
    pixels: int
    nodata: int
    clipped: Mapping[str, int]
    seconds: float
    megapixels_per_second: float
    resumed: int
    notes: tuple[str, ...]
    shift: Alignment
    acquired: str | None
    memory: Memory
    backend: str = ""
    guard: Mapping[str, Any] | None = field(default=None, metadata=LEFT_OUT)
    seams: tuple[SeamLines, ...] | None = field(default=None, metadata=LEFT_OUT)
    standing: Standing | None = field(default=None, metadata=LEFT_OUT)

    @classmethod
    def of(cls, document: Any) -> RunReport:
        """From `document`'s values. Raises InputError for what is no report, or another version's."""
        return documents.build(cls, document, "report", InputError)


@dataclass(frozen=True)
class Prediction(Encoded):
    """What a run would take, `seconds` by the median of some batches; disk in bytes."""

    output: str
    model: str
    tiles: int
    pixels: int
    size: tuple[int, ...]
    overlap: int
    shift: Alignment
    memory: Memory
    seconds: float
    product_bytes_at_most: int
    journal_bytes: int
    notes: tuple[str, ...]

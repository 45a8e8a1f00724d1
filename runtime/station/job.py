"""What is a station asked for? A scene's files, and how all scenes are done."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from sfiin.runtime.backends.select import Choice
from sfiin.runtime.scenes.access import Access
from sfiin.runtime.scenes.alignment import LIMIT, SEARCH
from sfiin.runtime.scenes.names import Name
from sfiin.runtime.scenes.pipeline import Form
from sfiin.runtime.scenes.place import Relief
from sfiin.runtime.station.done import Existing

Coregister = Literal["no", "shift", "local"]


@dataclass(frozen=True)
class Job:
    """One scene: its files, where the product goes, and the model, None for a shipped one that fits.

    `access` says which files may be opened (None: all that a user names); `stated` is what a vendor's
    metadata say of MS' bands, `acquired` of the time. With `upload`, a URL, the product goes there
    (`sfiin.runtime.station.remote`), and `output` is its name alone.
    """

    pan: Name
    ms: tuple[Name, ...]
    output: Path
    model: Path | None = None
    access: Access | None = None
    stated: tuple[str | None, ...] | None = None
    acquired: str | None = None
    upload: str | None = None

    @property
    def target(self) -> str:
        """What a user calls the product."""
        return self.upload or str(self.output)


@dataclass(frozen=True)
class Settings:
    """How all scenes are done.

    `overlap` is in PAN pixels, None for the model's, and refused below the model's safe one unless `force`;
    `gain` is how many DN make one of the files' numbers; `memory` in bytes bounds the process; a shift of PAN
    against MS above `max_shift` PAN pixels, looked for within `search`, is refused, or corrected with
    `coregister`, and with `require_alignment` one that could not be told is refused, too; `bands` says which
    of MS' bands the model's are, None for what the files state; `method` names a classical method in place of
    a model, `mtf` how the sensor blurs for it (`sfiin.runtime.quality.mtf`); RPCs place MS at a `height` in
    metres or over a `dem`; `acquired` is the time of acquisition for `stac`, None for what the files state;
    `existing` says what is done about another product of the same name; with `refuse_outliers`, values that
    no sensor delivers are an error instead of no data.
    """

    provider: Choice = "auto"
    threads: int = 0
    batch: int = 1
    overlap: int | None = None
    force: bool = False
    form: Form = field(default_factory=Form)
    gain: float = 1.0
    memory: int | None = None
    coregister: Coregister = "no"
    max_shift: float = LIMIT
    search: float = SEARCH
    require_alignment: bool = False
    bands: str | None = None
    method: str | None = None
    mtf: str | None = None
    height: float | None = None
    dem: str | None = None
    quicklook: bool = False
    stac: bool = False
    acquired: str | None = None
    report: bool = False
    existing: Existing = "refuse"
    refuse_outliers: bool = False
    signed_by: Path | None = None

    def document(self) -> dict[str, Any]:
        """As values that JSON knows, for another process; the inverse of `of`."""
        signed_by = None if self.signed_by is None else str(self.signed_by.absolute())
        return dataclasses.asdict(self) | {"signed_by": signed_by}

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Settings:
        """From a document of the same version."""
        signed_by = document["signed_by"]
        return cls(
            **dict(document)
            | {"form": Form(**document["form"]), "signed_by": None if signed_by is None else Path(signed_by)}
        )

    @property
    def relief(self) -> Relief:
        """Where the ground lies, for RPCs. Raises InputError for a height and a DEM, SceneError for a DEM
        that is none."""
        return Relief.of(self.height, self.dem)

    @property
    def companions(self) -> dict[str, bool]:
        """What is wanted beside the product, by name."""
        return {"quicklook": self.quicklook, "stac": self.stac, "report": self.report}

    @property
    def options(self) -> dict[str, Any]:
        """What a product's pixels and file depend on, beside inputs and model."""
        return {
            "overlap": self.overlap,
            "gain": self.gain,
            "coregister": self.coregister,
            "search": self.search,
            "bands": self.bands,
            "method": self.method,
            "mtf": self.mtf,
            "height": self.height,
            "dem": self.dem,
            "refuse_outliers": self.refuse_outliers,
            **dataclasses.asdict(self.form),
        }

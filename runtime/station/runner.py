"""What does a run of one scene comprise, from its files to its product with all that lies beside it?

A station keeps models open from scene to scene. For each job it opens the files, looks whether PAN and MS lie
on one another, divides memory, sharpens, and writes what else was asked for. What it did comes back as one
JSON document.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import rasterio

from sfiin.runtime import models, reports
from sfiin.runtime.backends.select import Choice, open_session
from sfiin.runtime.backends.session import Session
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError, OutputError, SfiinError
from sfiin.runtime.files import check_target, sha256
from sfiin.runtime.scenes import bands, beside, product, seams, stac
from sfiin.runtime.scenes.alignment import LIMIT, SEARCH, Shift, corrected, estimate
from sfiin.runtime.scenes.grid import is_located
from sfiin.runtime.scenes.names import Name, gdal, is_local
from sfiin.runtime.scenes.pipeline import Form, Progress, Report, sharpen
from sfiin.runtime.scenes.raster import open_raster
from sfiin.runtime.scenes.scene import Scene, open_scene
from sfiin.runtime.scenes.tiles import TilePlan, plan
from sfiin.runtime.station import budget

Document = dict[str, Any]
Coregister = Literal["no", "shift", "local"]

TRIED = 5
"""Batches that run before memory is divided, and from which a dry run predicts its time."""


@dataclass(frozen=True)
class Job:
    """One scene: its files, where the product goes, and the model, None for a shipped one that fits."""

    pan: Name
    ms: tuple[Name, ...]
    output: Path
    model: Path | None = None


@dataclass(frozen=True)
class Settings:
    """How all scenes are done.

    `overlap` is in PAN pixels, None for the model's, and refused below the model's safe one unless `force`;
    `gain` is how many DN make one of the files' numbers; `memory` in bytes bounds the process; a shift of PAN
    against MS above `max_shift` PAN pixels, looked for within `search`, is refused, or corrected with
    `coregister`, and with `require_alignment` one that could not be told is refused, too; `bands` says which of
    MS' bands the model's are, None for what the files state; `method` names a classical method in place of a
    model; `acquired` is the time of acquisition for `stac`, None for what the files state.
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
    quicklook: bool = False
    stac: bool = False
    acquired: str | None = None
    report: bool = False
    overwrite: bool = False


class Station:
    """Open models, and the way of a scene through them. Close it, or use it as a context."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[Path, Session] = {}
        self._base = 0
        product.require(settings.form.kind, settings.form.compress)
        self._render = reports.renderer("scene") if settings.report else None

    def run(self, job: Job, progress: Progress | None = None) -> Document:
        """Sharpen a scene; what was done, as JSON.

        Raises as `open_session`, `open_scene`, `alignment.Shift.require`, `budget` and `sharpen`; OutputError
        for what exists and may not be replaced. Nothing is published then, and what other scenes need stays
        open.
        """
        self._refuse_existing(job)
        with self._prepared(job) as (session, scene, shift, tiles):
            beside.refuse(job.output, self._settings.overwrite, scene.parts)
            memory = self._budget(session, scene, tiles)
            settings = self._settings
            when = stac.acquired(settings.acquired, scene.metadata.acquired) if settings.stac else None
            with rasterio.Env(GDAL_CACHEMAX=memory.cache):
                done = sharpen(
                    session,
                    scene,
                    job.output,
                    batch=settings.batch,
                    overlap=settings.overlap,
                    form=settings.form,
                    progress=progress,
                )
                document = self._document(job, session, scene, done) | {
                    "shift": self._shift(shift),
                    "memory": _memory(memory) | {"peak": budget.peak()},
                }
                self._beside(job, session.contract, tiles, document, when)
        return document

    def predict(self, job: Job) -> Document:
        """What a run would take, without writing anything: tiles, memory, bytes on the disk, and seconds."""
        with self._prepared(job) as (session, scene, shift, tiles):
            seconds = self._warm_up(session, scene, tiles)
            memory = self._budget(session, scene, tiles)
            pixels = scene.height * scene.width
            raw = pixels * len(scene.bands) * scene.dtype.itemsize
            batches = len(tiles.rows) * math.ceil(len(tiles.cols) / self._settings.batch)
            return {
                "output": str(job.output),
                "model": str(self._model(job)),
                "tiles": len(tiles),
                "pixels": pixels,
                "size": [scene.height, scene.width],
                "overlap": tiles.tile.overlap,
                "shift": self._shift(shift),
                "memory": _memory(memory),
                "seconds": seconds * batches,
                "product_bytes_at_most": raw,
                "journal_bytes": raw,
                "notes": list(scene.notes),
            }

    def close(self) -> None:
        """Close all models."""
        while self._open:
            self._open.popitem()[1].close()

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _prepared(self, job: Job) -> Iterator[tuple[Session, Scene, Shift, TilePlan]]:
        settings, session = self._settings, self._session(self._model(job))
        contract = session.contract
        require_safe(settings.overlap, session, settings.force)
        with ExitStack() as stack:
            scene = stack.enter_context(
                open_scene(job.pan, job.ms, contract.sensor, gain=settings.gain, chosen=settings.bands)
            )
            shift = estimate(scene, settings.search)
            scene = self._aligned(scene, shift)
            overlap = contract.tile.overlap if settings.overlap is None else settings.overlap
            tile = dataclasses.replace(contract.tile, overlap=overlap)
            yield session, scene, shift, plan(scene.height, scene.width, tile, contract.sensor.ratio)

    def _aligned(self, scene: Scene, shift: Shift) -> Scene:
        settings, found = self._settings, shift.sentence()
        if settings.coregister != "no":
            scene = corrected(scene, shift, settings.coregister, settings.max_shift)
            return scene.told(f"MS was moved onto PAN: {found}", SFIIN_ALIGNMENT=f"corrected: {found}")
        shift.require(settings.max_shift, settings.require_alignment)
        notes = [] if shift.known else [found]
        if shift.is_local(settings.max_shift):
            notes.append(f"{found}; --coregister local follows it")
        return scene.told(*notes, SFIIN_ALIGNMENT=f"{shift.verdict(settings.max_shift)}: {found}")

    def _session(self, model: Path) -> Session:
        if model not in self._open:
            self._open[model] = open_session(model, self._settings.provider, self._settings.threads)
        return self._open[model]

    def _model(self, job: Job) -> Path:
        return job.model or fitting(job.pan, job.ms, self._settings.bands)

    def _shift(self, shift: Shift) -> Document:
        how = self._settings.coregister
        return shift.document(self._settings.max_shift) | {"corrected": "" if how == "no" else how}

    def _warm_up(self, session: Session, scene: Scene, tiles: TilePlan) -> float:
        """Median seconds of reading and computing one of the scene's batches, after a first one."""
        taken = []
        side = tiles.tile.height, tiles.tile.width
        for i in range(TRIED):
            row = tiles.rows[i * (len(tiles.rows) - 1) // TRIED]
            began = time.perf_counter()
            ms, pan, _ = scene.read(row, tiles.cols[len(tiles.cols) // 2], *side)
            count = min(self._settings.batch, len(tiles.cols))
            session.run(ms[None].repeat(count, 0), pan[None].repeat(count, 0))
            taken.append(time.perf_counter() - began)
        return statistics.median(taken[1:])

    def _budget(self, session: Session, scene: Scene, tiles: TilePlan) -> budget.Budget:
        if not self._base:  # what later scenes leave behind is no part of it
            self._warm_up(session, scene, tiles)
            self._base = budget.resident()
        return budget.budget(scene, tiles, self._settings.batch, self._base, self._settings.memory)

    def _refuse_existing(self, job: Job) -> None:
        check_target(job.output)
        beside.check_name(job.output)
        for path in (job.output, *self._companions(job.output).values()):
            if path.exists() and not self._settings.overwrite:
                raise OutputError(f"{path}: exists already; give another name, or --overwrite to replace it")
        inputs = [Path(gdal(name)) for name in (job.pan, *job.ms) if is_local(name)]
        if any(path.exists() and job.output.exists() and path.samefile(job.output) for path in inputs):
            raise OutputError(f"{job.output}: is one of the scene's own files; give another name")

    def _companions(self, output: Path) -> dict[str, Path]:
        wanted = {
            "quicklook": self._settings.quicklook,
            "stac": self._settings.stac,
            "report": self._settings.report,
        }
        suffixes = {"quicklook": ".png", "stac": ".json", "report": ".html"}
        return {name: output.with_suffix(suffixes[name]) for name, on in wanted.items() if on}

    def _document(self, job: Job, session: Session, scene: Scene, done: Report) -> Document:
        contract = session.contract
        notes = (*done.notes, *getattr(session, "notes", ()))
        return dataclasses.asdict(done) | {
            "output": str(job.output),
            "pan": str(job.pan),
            "ms": [str(path) for path in job.ms],
            "model": str(self._model(job)),
            "model_sha256": sha256(self._model(job)),
            "precision": contract.precision,
            "sensor": dataclasses.asdict(contract.sensor),
            "gain": scene.gain,
            "bands": list(scene.bands),
            "size": [scene.height, scene.width],
            "megapixels_per_second": done.pixels / 1e6 / max(done.seconds, 1e-9),
            "notes": list(notes),
        }

    def _beside(self, job: Job, contract: Contract, tiles: TilePlan, document: Document, when: Any) -> None:
        """What lies beside the product; the product itself is there already."""
        companions = self._companions(job.output)
        if "quicklook" in companions:
            product.quicklook(job.output, companions["quicklook"])
        if "stac" in companions:
            item = stac.item(
                job.output, contract, when, sources=[job.pan, *job.ms], picture=companions.get("quicklook")
            )
            stac.write(companions["stac"], item)
        if self._render:
            found = seams.measure(job.output, tiles)
            document["seams"] = [
                {
                    "axis": it.axis,
                    "ratio": _number(it.ratio),
                    "error": _number(it.error),
                    "lines": it.lines,
                    "shows": it.shows,
                }
                for it in found
            ]
            self._render(document, companions["report"])


def require_safe(overlap: int | None, session: Session, force: bool) -> None:
    """Raise MismatchError where tiles would share fewer pixels than hide their borders."""
    safe = session.contract.safe_overlap
    if overlap is not None and overlap < safe and not force:
        edge = int(session.contract.influence["edge"])
        raise MismatchError(
            f"--overlap {overlap}: a tile's border shows {edge} pixels deep in this model, so neighbours must share "
            f"{safe}; leave it out, or take seams into the bargain with --force"
        )


def fitting(pan: Name, ms: Sequence[Name], chosen: str | None = None) -> Path:
    """The shipped model for a scene: of those of its ratio, the one with most bands that the scene has.

    `chosen` is which of MS' bands to take (`sfiin.runtime.scenes.bands`). Raises SceneError for files that
    cannot be used, MismatchError where no model fits.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_raster(path)) for path in ms]
        found = bands.look(files)
        ratio = _ratio(stack.enter_context(open_raster(pan)), files[0])
        tried = [
            (path, promise.sensor.bands, _reason(found, promise.sensor.bands, chosen))
            for path, promise in models.shipped()
            if promise.sensor.ratio == ratio
        ]
        fits = [(len(names), path) for path, names, reason in tried if reason is None]
        if fits:
            return max(fits, key=lambda fit: fit[0])[1]
        for _, names, reason in tried:
            if reason and len(names) == len(found):
                raise reason
        return models.choose(len(found), ratio)


def _reason(found: Sequence[bands.Band], wanted: Sequence[str], chosen: str | None) -> SfiinError | None:
    """Why a scene's bands are not a model's, or None."""
    try:
        bands.choose(found, wanted, chosen)
    except (InputError, MismatchError) as error:
        return error
    return None


def _ratio(pan: Any, ms: Any) -> int:
    """MS pixel size over PAN pixel size, by size where there is no georeference."""
    if is_located(pan) and is_located(ms):
        return round(float(ms.res[1] / pan.res[1]))
    return round(float(pan.height / ms.height))


def _memory(found: budget.Budget) -> dict[str, int]:
    return dataclasses.asdict(found) | {"total": found.total}


def _number(value: float) -> float | None:
    """For JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None

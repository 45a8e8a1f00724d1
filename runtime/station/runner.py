"""What does a run of one scene comprise, from its files to its product with all that lies beside it?

A station keeps models open from scene to scene. For each job it looks what an earlier run has left
(`sfiin.runtime.station.done`), opens the files, looks whether PAN and MS lie on one another, divides memory,
sharpens, and writes what else was asked for. What it did comes back as one JSON document.
"""

from __future__ import annotations

import dataclasses
import glob
import hashlib
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import rasterio

from sfiin.runtime import models, reports, signatures
from sfiin.runtime.backends import classical
from sfiin.runtime.backends.select import Choice, open_session
from sfiin.runtime.backends.session import Session, Watched
from sfiin.runtime.backends.triton_client import is_address
from sfiin.runtime.contract import Contract, SensorProfile
from sfiin.runtime.errors import (
    CheckFailedError,
    InputError,
    MismatchError,
    OutputError,
    SceneError,
    SfiinError,
)
from sfiin.runtime.files import check_target, sha256
from sfiin.runtime.flight import bundle
from sfiin.runtime.scenes import bands, beside, ground, identity, product, seams, stac
from sfiin.runtime.scenes.access import Access, restricted
from sfiin.runtime.scenes.alignment import LIMIT, SEARCH, Shift, corrected, estimate
from sfiin.runtime.scenes.grid import is_located
from sfiin.runtime.scenes.identity import Identity, Input
from sfiin.runtime.scenes.journal import discard
from sfiin.runtime.scenes.limits import check_tiles
from sfiin.runtime.scenes.names import Name, gdal, is_local
from sfiin.runtime.scenes.pipeline import Form, Progress, Report, sharpen
from sfiin.runtime.scenes.raster import open_raster
from sfiin.runtime.scenes.scene import Scene, open_scene
from sfiin.runtime.scenes.tiles import TilePlan, plan
from sfiin.runtime.station import budget, done
from sfiin.runtime.station.done import Existing

Document = dict[str, Any]
Coregister = Literal["no", "shift", "local"]

_REPLACED = 3  # times that a model is opened again because its file changed meanwhile

TRIED = 5
"""Batches that run before memory is divided, and from which a dry run predicts its time."""


@dataclass(frozen=True)
class Job:
    """One scene: its files, where the product goes, and the model, None for a shipped one that fits.

    `access` says which files may be opened (None: all that a user names); `stated` is what a vendor's metadata
    say of MS' bands, `acquired` of the time.
    """

    pan: Name
    ms: tuple[Name, ...]
    output: Path
    model: Path | None = None
    access: Access | None = None
    stated: tuple[str | None, ...] | None = None
    acquired: str | None = None


@dataclass(frozen=True)
class Settings:
    """How all scenes are done.

    `overlap` is in PAN pixels, None for the model's, and refused below the model's safe one unless `force`;
    `gain` is how many DN make one of the files' numbers; `memory` in bytes bounds the process; a shift of PAN
    against MS above `max_shift` PAN pixels, looked for within `search`, is refused, or corrected with
    `coregister`, and with `require_alignment` one that could not be told is refused, too; `bands` says which
    of MS' bands the model's are, None for what the files state; `method` names a classical method in place of
    a model; `acquired` is the time of acquisition for `stac`, None for what the files state; `existing` says
    what is done about another product of the same name; with `refuse_outliers`, values that no sensor
    delivers are an error instead of no data.
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
            "refuse_outliers": self.refuse_outliers,
            **dataclasses.asdict(self.form),
        }


@dataclass(frozen=True)
class _Model:
    """An open model, the digests of all that it was opened from and of its file, and that file's state
    then."""

    own: Session | None
    sha256: str
    file_sha256: str
    state: tuple[int, ...]

    @property
    def session(self) -> Session:
        """The open session; a method has one only with its scene."""
        assert self.own is not None
        return self.own


@dataclass(frozen=True)
class _Prepared:
    """A scene that is open, with all that is known before the work."""

    session: Session
    scene: Scene
    shift: Shift
    tiles: TilePlan


class Station:
    """Open models, and the way of a scene through them. Close it, or use it as a context."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._open: dict[Path, _Model] = {}
        self._base = 0
        product.require(settings.form.kind, settings.form.compress)
        self._render = reports.renderer("scene") if settings.report else None

    def run(
        self, job: Job, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False
    ) -> Document:
        """Sharpen a scene; what was done, as JSON.

        Its `standing` is "new", "equal" where all was there already, or "completed" where something beside
        the product was missing. Raises as `open_session`, `open_scene`, `alignment.Shift.require`, `budget`
        and `sharpen`; OutputError for what exists and may not be replaced. Nothing is published then, and
        what other scenes need stays open.
        """
        settings = self._settings
        self._refuse_own_files(job)
        model, inputs = self._identified(job)
        run = done.Run(inputs.inputs, Input(self._model(job).name, model.sha256), settings.options)
        found = done.find(job.output, run, settings.companions, settings.existing)
        job = dataclasses.replace(job, output=found.output)
        if found.state in ("equal", "unfinished") and not (
            found.state == "equal" and settings.existing == "overwrite"
        ):
            return self._completed(job, self._promise(model, found.document), run, found)
        document = self._sharpened(job, run, inputs, progress, stop)
        done.finish(job.output, run, settings.companions, document)
        return document | {"standing": "new"}

    def _sharpened(
        self,
        job: Job,
        run: done.Run,
        inputs: Identity,
        progress: Progress | None,
        stop: Callable[[], bool],
    ) -> Document:
        settings = self._settings
        with self._prepared(job) as ready:
            beside.refuse(job.output, settings.existing == "overwrite", ready.scene.parts)
            memory = self._budget(ready.session, ready.scene, ready.tiles)
            if settings.stac:
                stac.acquired(
                    settings.acquired or job.acquired, ready.scene.metadata.acquired
                )  # or it would fail at the end
            document: Document = {}

            def publish(part: Path, report: Report) -> None:
                document.update(self._document(job, ready, report))
                document["memory"] = _memory(memory) | {"peak": budget.peak()}
                if isinstance(ready.session, Watched):
                    document["guard"] = dict(ready.session.vouch())
                done.draft(job.output, part, run, document)

            with rasterio.Env(GDAL_CACHEMAX=memory.cache), _untrusted_removed(job.output):
                sharpen(
                    ready.session,
                    ready.scene,
                    job.output,
                    batch=settings.batch,
                    overlap=settings.overlap,
                    form=settings.form,
                    progress=progress,
                    inputs=inputs,
                    about={"model_sha256": run.model.sha256},
                    publish=publish,
                    stop=stop,
                )
                self._beside(job, ready.session.contract, document, settings.companions)
        return document

    def _promise(self, model: _Model, document: Document) -> Contract:
        """The contract by which a product was made."""
        if model.own:
            return model.own.contract
        sensor = SensorProfile(**document["sensor"] | {"bands": tuple(document["sensor"]["bands"])})
        return classical.contract(self._settings.method or "", sensor)

    def _completed(self, job: Job, contract: Contract, run: done.Run, found: done.Standing) -> Document:
        """What is missing beside a product that is there, without the product's work."""
        document = found.document | {
            "output": str(job.output),
            "pan": str(job.pan),
            "ms": [str(path) for path in job.ms],
        }
        self._beside(job, contract, document, dict.fromkeys(found.missing, True))
        if found.missing or found.state == "unfinished":
            done.finish(job.output, run, self._settings.companions, document)
        discard(job.output)
        return document | {
            "standing": "completed" if found.state == "unfinished" or found.missing else "equal"
        }

    def predict(self, job: Job) -> Document:
        """What a run would take, without writing anything: tiles, memory, bytes on the disk, and seconds."""
        with self._prepared(job) as ready:
            session, scene, shift, tiles = ready.session, ready.scene, ready.shift, ready.tiles
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
            self._open.popitem()[1].session.close()

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _identified(self, job: Job) -> tuple[_Model, Identity]:
        """The open model, and what the scene's files are."""
        if job.model and not self._settings.method:
            self._opened(job.model)  # before much is read for nothing
        with restricted(job.access), _explained(job.pan):
            inputs = identity.of_files([job.pan, *job.ms])
        if self._settings.method:
            digest = classical.identity(self._settings.method)
            return _Model(None, digest, digest, ()), inputs
        return self._opened(self._model(job)), inputs

    @contextmanager
    def _prepared(self, job: Job) -> Iterator[_Prepared]:
        settings = self._settings
        sensor, chosen = self._wanted(job)
        session = None if settings.method else self._opened(self._model(job)).own
        contract = session.contract if session else classical.contract(settings.method or "", sensor)
        if session:
            require_safe(settings.overlap, session, settings.force)
        overlap = contract.tile.overlap if settings.overlap is None else settings.overlap
        tile = dataclasses.replace(contract.tile, overlap=overlap)
        with ExitStack() as stack:
            with restricted(job.access), _explained(job.pan):
                scene = stack.enter_context(
                    open_scene(
                        job.pan,
                        job.ms,
                        contract.sensor,
                        gain=settings.gain,
                        refuse_outliers=settings.refuse_outliers,
                        chosen=chosen,
                        stated=job.stated,
                        any_ratio=settings.method is not None,
                        memory=settings.memory,
                    )
                )
                check_tiles(*scene.extent, tile, contract.sensor.ratio)
                shift = estimate(scene, settings.search)
            scene = self._aligned(scene, shift)
            session = session or classical.ClassicalSession(settings.method or "", scene)
            tiles = plan(*scene.extent, tile, contract.sensor.ratio)
            yield _Prepared(session, scene, shift, tiles)

    def _wanted(self, job: Job) -> tuple[SensorProfile, str | None]:
        """What the scene is opened for, and which of its bands are taken."""
        settings = self._settings
        if not settings.method:
            return self._opened(self._model(job)).session.contract.sensor, settings.bands
        with restricted(job.access), _explained(job.pan), ExitStack() as stack:
            files = [stack.enter_context(open_raster(path)) for path in job.ms]
            pan = stack.enter_context(open_raster(job.pan))
            return classical.sensor(pan, bands.look(files, job.stated), settings.bands)

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

    def open(self, model: Path) -> None:
        """Open a model before it is needed. Raises as `open_session`."""
        self._opened(model)

    def _opened(self, model: Path) -> _Model:
        """A model, opened anew where its file has been replaced."""
        if is_address(model):
            return self._served(model)
        if not model.is_file():
            raise InputError(f"{model}: no such model file")
        found = self._open.get(model)
        if found is not None and found.state == _state(model):
            return found
        if found is not None:
            self._open.pop(model).session.close()
        for _ in range(_REPLACED):
            state, digest = _state(model), model_digest(model)
            session = self._session(model)
            if (_state(model), model_digest(model)) == (state, digest):
                break
            session.close()
        else:
            raise InputError(f"{model}: is being replaced all the time; wait until it is whole")
        self._open[model] = _Model(session, digest, sha256(model), state)
        return self._open[model]

    def _served(self, address: Path) -> _Model:
        """A model that a server runs, by the digest that the server tells."""
        if address not in self._open:
            session = open_session(address, self._settings.provider, key=self._settings.signed_by)
            digest = str(getattr(session, "sha256", ""))
            self._open[address] = _Model(session, digest, digest, ())
        return self._open[address]

    def _session(self, model: Path) -> Session:
        """A model's session; of a bundle's manifest, its chain behind a guard."""
        if model.name == bundle.MANIFEST:
            from sfiin.runtime.flight.chain import open_bundle

            if key := signatures.required(self._settings.signed_by):
                signatures.verify(model.parent, key)
            return open_bundle(model.parent, self._settings.provider, self._settings.threads)
        settings = self._settings
        return open_session(model, settings.provider, settings.threads, key=settings.signed_by)

    def contract(self, model: Path) -> Contract:
        """What a model promises. Raises as `open_session`."""
        return self._opened(model).session.contract

    def _model(self, job: Job) -> Path:
        if self._settings.method:
            return Path(self._settings.method)
        if job.model:
            return job.model
        with restricted(job.access), _explained(job.pan):
            return fitting(job.pan, job.ms, self._settings.bands, job.stated)

    def _shift(self, shift: Shift) -> Document:
        how = self._settings.coregister
        return shift.document(self._settings.max_shift) | {"corrected": "" if how == "no" else how}

    def _warm_up(self, session: Session, scene: Scene, tiles: TilePlan) -> float:
        """Median seconds of one of the scene's batches, after a first one, as many at once as the session can."""
        taken, at_once = [], getattr(session, "at_once", 1)
        side = tiles.tile.height, tiles.tile.width
        for i in range(TRIED):
            row = tiles.rows[i * (len(tiles.rows) - 1) // TRIED]
            began = time.perf_counter()
            ms, pan, _ = scene.read(row, tiles.cols[len(tiles.cols) // 2], *side)
            count = min(self._settings.batch, len(tiles.cols)) * at_once
            session.run(ms[None].repeat(count, 0), pan[None].repeat(count, 0))
            taken.append((time.perf_counter() - began) / at_once)
        return statistics.median(taken[1:])

    def _budget(self, session: Session, scene: Scene, tiles: TilePlan) -> budget.Budget:
        if not self._base:  # what later scenes leave behind is no part of it
            self._warm_up(session, scene, tiles)
            self._base = budget.resident()
        at_once = max(self._settings.batch, getattr(session, "at_once", 1))
        return budget.budget(scene, tiles, at_once, self._base, self._settings.memory)

    @staticmethod
    def _refuse_own_files(job: Job) -> None:
        check_target(job.output)
        beside.check_name(job.output)
        inputs = [Path(gdal(name)) for name in (job.pan, *job.ms) if is_local(name)]
        if any(path.exists() and job.output.exists() and path.samefile(job.output) for path in inputs):
            raise OutputError(f"{job.output}: is one of the scene's own files; give another name")

    def _document(self, job: Job, ready: _Prepared, report: Report) -> Document:
        session, scene, shift = ready.session, ready.scene, ready.shift
        contract = session.contract
        notes = (*report.notes, *getattr(session, "notes", ()), *ground.notes(scene, contract))
        return dataclasses.asdict(report) | {
            "output": str(job.output),
            "pan": str(job.pan),
            "ms": [str(path) for path in job.ms],
            "model": str(self._model(job)),
            "model_sha256": getattr(session, "sha256", "") or self._opened(self._model(job)).file_sha256,
            "backend": getattr(session, "backend", ""),
            "precision": contract.precision,
            "sensor": dataclasses.asdict(contract.sensor),
            "gain": scene.gain,
            "bands": list(scene.bands),
            "size": [scene.height, scene.width],
            "lead": list(scene.lead),
            "reading": {
                "chosen": self._wanted(job)[1],
                "stated": list(job.stated) if job.stated else None,
                "any_ratio": self._settings.method is not None,
            },
            "method": self._settings.method,
            "overlap": ready.tiles.tile.overlap,
            "megapixels_per_second": report.pixels / 1e6 / max(report.seconds, 1e-9),
            "notes": list(notes),
            "shift": self._shift(shift),
            "acquired": "/".join(time.isoformat() for time in scene.metadata.acquired or ()) or job.acquired,
        }

    def _beside(self, job: Job, contract: Contract, document: Document, wanted: Mapping[str, bool]) -> None:
        """What lies beside the product; the product itself is there already."""
        places = done.companions(job.output, wanted)
        every = done.companions(job.output, self._settings.companions)
        if "quicklook" in places:
            product.quicklook(job.output, places["quicklook"])
        if "stac" in places:
            when = stac.acquired(self._settings.acquired or document["acquired"], None)
            item = stac.item(
                job.output, contract, when, sources=[job.pan, *job.ms], picture=every.get("quicklook")
            )
            stac.write(places["stac"], item)
        if "report" in places and self._render:
            tile = dataclasses.replace(contract.tile, overlap=document["overlap"])
            height, width = (
                side + lead for side, lead in zip(document["size"], document["lead"], strict=True)
            )
            tiles = plan(height, width, tile, contract.sensor.ratio)
            found = seams.measure(job.output, tiles, tuple(document["lead"]))
            document["seams"] = [
                {
                    "axis": seam.axis,
                    "ratio": _number(seam.ratio),
                    "error": _number(seam.error),
                    "lines": seam.lines,
                    "shows": seam.shows,
                }
                for seam in found
            ]
            self._render(document, places["report"])


def require_safe(overlap: int | None, session: Session, force: bool) -> None:
    """Raise MismatchError where tiles would share fewer pixels than hide their borders."""
    safe = session.contract.safe_overlap
    if overlap is not None and overlap < safe and not force:
        edge = int(session.contract.influence["edge"])
        raise MismatchError(
            f"--overlap {overlap}: a tile's border shows {edge} pixels deep in this model, so neighbours must share "
            f"{safe}; leave it out, or take seams into the bargain with --force"
        )


def fitting(
    pan: Name,
    ms: Sequence[Name],
    chosen: str | None = None,
    stated: Sequence[str | None] | None = None,
) -> Path:
    """The shipped model for a scene: of those of its ratio, the one with most bands that the scene has.

    `chosen` is which of MS' bands to take, `stated` what metadata say of them (`sfiin.runtime.scenes.bands`).
    Raises SceneError for files that cannot be used, MismatchError where no model fits.
    """
    with ExitStack() as stack:
        files = [stack.enter_context(open_raster(path)) for path in ms]
        found = bands.look(files, stated)
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
        try:
            return models.choose(len(found), ratio)
        except MismatchError as error:
            raise MismatchError(f"{error}, or sharpen without a model, by --method gsa") from None


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


def model_digest(model: Path) -> str:
    """SHA-256, in hex, of a model's file and of what belongs to it by its name: weights beside it, a plan's
    sidecar and plug-in. Raises InputError where they cannot be read."""
    digest = hashlib.sha256()
    try:
        beside = sorted(path for path in model.parent.glob(f"{glob.escape(model.name)}*") if path != model)
        for path in (model, *(path for path in beside if path.is_file())):
            digest.update(path.name.removeprefix(model.name).encode() + b"|" + sha256(path).encode())
    except OSError as error:
        raise InputError(f"{model}: cannot be read ({error.strerror})") from None
    return digest.hexdigest()


def _state(model: Path) -> tuple[int, ...]:
    """Changes whenever a model's file is replaced or written; not the other way round."""
    try:
        found = model.stat()
    except OSError as error:
        raise InputError(f"{model}: cannot be read ({error.strerror})") from None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


@contextmanager
def _untrusted_removed(output: Path) -> Iterator[None]:
    """Rows that a session made which then failed its own test are not gone on from."""
    try:
        yield
    except CheckFailedError:
        discard(output)
        raise


@contextmanager
def _explained(pan: Name) -> Iterator[None]:
    """What GDAL, rasterio and NumPy raise about forged headers, as a scene that cannot be used."""
    try:
        yield
    except (SfiinError, OSError, MemoryError):
        raise
    except Exception as error:  # of many kinds: a NaN in a georeference, text that is not UTF-8, a broken key
        text = " ".join(str(error.__cause__ or error).split())[:300]
        raise SceneError(
            f"{pan}: PAN or MS cannot be read: {type(error).__name__}: {text}; check the files"
        ) from error


def _memory(found: budget.Budget) -> dict[str, int]:
    return dataclasses.asdict(found) | {"total": found.total}


def _number(value: float) -> float | None:
    """For JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None

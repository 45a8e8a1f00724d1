"""What does a run of one scene comprise, from its files to its product with all that lies beside it?

A station keeps models open from scene to scene. For each job it looks what an earlier run has left
(`sfiin.runtime.station.done`), opens the files, looks whether PAN and MS lie on one another, divides memory,
sharpens, and writes what else was asked for. What it did comes back as a report
(`sfiin.runtime.station.run_report`).
"""

from __future__ import annotations

import dataclasses
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import rasterio

from sfiin.runtime import reports
from sfiin.runtime.backends import classical
from sfiin.runtime.backends.session import Session, Watched
from sfiin.runtime.contract import Contract, SensorProfile
from sfiin.runtime.errors import (
    CheckFailedError,
    MismatchError,
    OutputError,
    SceneError,
    SfiinError,
)
from sfiin.runtime.files import check_target
from sfiin.runtime.flight.guard import Guard, Rhythm
from sfiin.runtime.scenes import bands, beside, ground, identity, limits, product, stac
from sfiin.runtime.scenes.access import restricted
from sfiin.runtime.scenes.alignment import Shift, corrected, estimate
from sfiin.runtime.scenes.identity import ChangedError, Identity, Input
from sfiin.runtime.scenes.journal import discard
from sfiin.runtime.scenes.limits import check_tiles
from sfiin.runtime.scenes.names import Name, gdal, is_local
from sfiin.runtime.scenes.pipeline import Progress, Sharpened, sharpen
from sfiin.runtime.scenes.raster import open_raster
from sfiin.runtime.scenes.scene import Scene, open_scene
from sfiin.runtime.scenes.tiles import TilePlan, plan
from sfiin.runtime.station import budget, companions, done, remote, watched
from sfiin.runtime.station.fitting import fitting
from sfiin.runtime.station.job import Job, Settings
from sfiin.runtime.station.run_report import Alignment, Memory, Prediction, Reading, RunReport
from sfiin.runtime.station.shelf import Shelf, ShelvedModel

TRIED = 5
"""Batches that run before memory is divided, and from which a dry run predicts its time."""


@dataclass(frozen=True)
class _Prepared:
    """A scene that is open, with all that is known before the work."""

    model: ShelvedModel
    session: Session
    scene: Scene
    shift: Shift
    tiles: TilePlan
    chosen: str | None


class Station:
    """Open models, and the way of a scene through them. Close it, or use it as a context."""

    def __init__(self, settings: Settings, rhythm: Rhythm | None = None) -> None:
        self._settings = settings
        self._shelf = Shelf(settings.provider, settings.threads, settings.signed_by, rhythm)
        self._base = 0
        settings.relief.check()
        product.require(settings.form.kind, settings.form.compress)
        self._render = reports.renderer("scene") if settings.report else None

    def run(
        self, job: Job, progress: Progress | None = None, stop: Callable[[], bool] = lambda: False
    ) -> RunReport:
        """Sharpen a scene.

        Raises as `open_session`, `open_scene`, `alignment.Shift.require`, `budget`
        and `sharpen`; OutputError for what exists and may not be replaced. Nothing is published then, and
        what other scenes need stays open.
        """
        settings = self._settings
        beside.check_name(job.output)
        if job.upload:
            with remote.staged(job.upload, settings.existing == "overwrite") as place:
                report = self.run(dataclasses.replace(job, output=place, upload=None), progress, stop)
            return dataclasses.replace(report, output=job.upload)
        self._refuse_own_files(job)
        job, model, inputs = self._identified(job)
        stated = {"stated": list(job.stated)} if job.stated else {}
        run = done.Run(inputs.inputs, Input(self._model(job).name, model.sha256), settings.options | stated)
        found = done.find(job.output, run, settings.companions, settings.existing)
        job = dataclasses.replace(job, output=found.output)
        again = found.state == "equal" and settings.existing == "overwrite"
        if found.report is not None and not again:
            return self._completed(job, self._promise(model, found.report), run, found, found.report)
        report = self._sharpened(job, model, run, inputs, progress=progress, stop=stop)
        done.finish(job.output, run, settings.companions, report)
        return dataclasses.replace(report, standing="new")

    def _sharpened(
        self,
        job: Job,
        model: ShelvedModel,
        run: done.Run,
        inputs: Identity,
        *,
        progress: Progress | None,
        stop: Callable[[], bool],
    ) -> RunReport:
        settings = self._settings
        with self._prepared(job, model) as ready:
            if isinstance(ready.session, Watched):
                discard(job.output)  # nothing vouches for rows of a session that is no more
            beside.refuse(job.output, settings.existing == "overwrite", ready.scene.parts)
            memory = self._budget(ready.session, ready.scene, ready.tiles)
            if settings.stac:
                stac.acquired(
                    settings.acquired or job.acquired, ready.scene.metadata.acquired
                )  # or it would fail at the end
            reported: list[RunReport] = []

            def publish(part: Path, report: Sharpened) -> None:
                reported.append(self._reported(job, ready, report, memory))
                done.draft(job.output, part, run, reported[-1])

            if isinstance(ready.session, Watched):
                ready.session.begin()
            with (
                rasterio.Env(GDAL_CACHEMAX=memory.cache),
                _untrusted_removed(job.output),
                _told_changed(inputs),
            ):
                sharpen(
                    ready.session,
                    ready.scene,
                    job.output,
                    batch=settings.batch,
                    overlap=settings.overlap,
                    form=settings.form,
                    progress=progress,
                    inputs=inputs,
                    about={"model_sha256": run.model.sha256, "options": dict(run.options)},
                    publish=publish,
                    stop=stop,
                )
                return self._beside(job, ready.session.contract, reported[-1], settings.companions)

    def _promise(self, model: ShelvedModel, report: RunReport) -> Contract:
        """The contract by which a product was made."""
        if model.own:
            return model.own.contract
        return classical.contract(self._settings.method or "", report.sensor)

    def _completed(
        self, job: Job, contract: Contract, run: done.Run, found: done.Standing, report: RunReport
    ) -> RunReport:
        """What is missing beside a product that is there, without the product's work."""
        report = dataclasses.replace(
            report, output=str(job.output), pan=str(job.pan), ms=tuple(map(str, job.ms))
        )
        report = self._beside(job, contract, report, dict.fromkeys(found.missing, True))
        missing = bool(found.missing) or found.state == "unfinished"
        if missing:
            done.finish(job.output, run, self._settings.companions, report)
        discard(job.output)
        return dataclasses.replace(report, standing="completed" if missing else "equal")

    def predict(self, job: Job) -> Prediction:
        """What a run would take, without writing anything: tiles, memory, bytes on the disk, and seconds."""
        if not self._settings.method:
            job = dataclasses.replace(job, model=self._model(job))
        with self._prepared(job, self._opened(job)) as ready:
            session, scene, shift, tiles = ready.session, ready.scene, ready.shift, ready.tiles
            seconds = self._warm_up(session, scene, tiles)
            memory = self._budget(session, scene, tiles)
            pixels = scene.height * scene.width
            raw = pixels * len(scene.bands) * scene.dtype.itemsize
            batches = len(tiles.rows) * math.ceil(len(tiles.cols) / self._settings.batch)
            return Prediction(
                output=str(job.output),
                model=str(self._model(job)),
                tiles=len(tiles),
                pixels=pixels,
                size=(scene.height, scene.width),
                overlap=tiles.tile.overlap,
                shift=self._shift(shift),
                memory=Memory.of(memory),
                seconds=seconds * batches,
                product_bytes_at_most=raw,
                journal_bytes=raw,
                notes=tuple(scene.notes),
            )

    def close(self) -> None:
        """Close all models."""
        self._shelf.close()

    def __enter__(self) -> Station:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _identified(self, job: Job) -> tuple[Job, ShelvedModel, Identity]:
        """The job with its model, that model open, and what the scene's files are.

        The run keeps to this model, whatever becomes of its file meanwhile.
        """
        if job.model and not self._settings.method:
            self._shelf.get(job.model)  # before much is read for nothing
        with restricted(job.access), _explained(job.pan):
            inputs = identity.of_files([job.pan, *job.ms])
        if not self._settings.method:
            job = dataclasses.replace(job, model=self._model(job))
        return job, self._opened(job), inputs

    def _opened(self, job: Job) -> ShelvedModel:
        if self._settings.method or job.model is None:
            digest = classical.identity(self._settings.method or "")
            return ShelvedModel(None, digest, digest)
        return self._shelf.get(job.model)

    @contextmanager
    def _prepared(self, job: Job, model: ShelvedModel) -> Iterator[_Prepared]:
        settings, session = self._settings, model.own
        sensor, chosen = self._wanted(job, model)
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
                        relief=settings.relief,
                    )
                )
                check_tiles(*scene.extent, tile, contract.sensor.ratio)
                shift = estimate(scene, settings.search)
            scene = self._aligned(scene, shift)
            session = session or classical.ClassicalSession(settings.method or "", scene, settings.mtf)
            tiles = plan(*scene.extent, tile, contract.sensor.ratio)
            yield _Prepared(model, session, scene, shift, tiles, chosen)

    def _wanted(self, job: Job, model: ShelvedModel) -> tuple[SensorProfile, str | None]:
        """What the scene is opened for, and which of its bands are taken."""
        settings = self._settings
        if model.own:
            return model.own.contract.sensor, settings.bands
        with restricted(job.access), _explained(job.pan), ExitStack() as stack:
            files = [stack.enter_context(open_raster(path)) for path in job.ms]
            pan = stack.enter_context(open_raster(job.pan))
            for file in (pan, *files):
                limits.check_file(file, settings.memory)
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
        self._shelf.get(model)

    def prove(self, model: Path) -> Mapping[str, Any]:
        """What a model that looks after itself says of itself (`Guard.prove`). Raises as `open_session`,
        MismatchError for one that does not."""
        session = self._shelf.get(model).session
        if not isinstance(session, Guard):
            raise MismatchError(f"{model}: no bundle's manifest; only a bundle has a self-test")
        return session.prove()

    def contract(self, model: Path) -> Contract:
        """What a model promises. Raises as `open_session`."""
        return self._shelf.get(model).session.contract

    def _model(self, job: Job) -> Path:
        if self._settings.method:
            return Path(self._settings.method)
        if job.model:
            return job.model
        with restricted(job.access), _explained(job.pan):
            return fitting(job.pan, job.ms, self._settings.bands, job.stated)

    def _beside(
        self, job: Job, contract: Contract, report: RunReport, wanted: Mapping[str, bool]
    ) -> RunReport:
        """What lies beside the product; the product itself is there already."""
        return companions.make(
            job.output,
            [job.pan, *job.ms],
            contract,
            report,
            wanted=wanted,
            every=self._settings.companions,
            acquired=self._settings.acquired,
            render=self._render,
        )

    def _shift(self, shift: Shift) -> Alignment:
        how = self._settings.coregister
        return Alignment.of(shift, self._settings.max_shift, "" if how == "no" else how)

    def _warm_up(self, session: Session, scene: Scene, tiles: TilePlan) -> float:
        """Median seconds of one of the scene's batches, after a first one, as many at once as the session
        can."""
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
        inputs = [Path(gdal(name)) for name in (job.pan, *job.ms) if is_local(name)]
        if any(path.exists() and job.output.exists() and path.samefile(job.output) for path in inputs):
            raise OutputError(f"{job.output}: is one of the scene's own files; give another name")

    def _reported(self, job: Job, ready: _Prepared, report: Sharpened, memory: budget.Budget) -> RunReport:
        session, scene, contract = ready.session, ready.scene, ready.session.contract
        acquired = "/".join(time.isoformat() for time in scene.metadata.acquired or ()) or job.acquired
        guard = watched.record(session, report) if isinstance(session, Watched) else None
        return RunReport(
            output=str(job.output),
            pan=str(job.pan),
            ms=tuple(map(str, job.ms)),
            model=str(self._model(job)),
            model_sha256=getattr(session, "sha256", "") or ready.model.file_sha256,
            precision=contract.precision,
            sensor=contract.sensor,
            gain=scene.gain,
            bands=tuple(scene.bands),
            size=(scene.height, scene.width),
            lead=tuple(scene.lead),
            reading=Reading(ready.chosen, job.stated or None, self._settings.method is not None),
            method=self._settings.method,
            overlap=ready.tiles.tile.overlap,
            tiles=report.tiles,
            pixels=report.pixels,
            nodata=report.nodata,
            clipped=dict(report.clipped),
            seconds=report.seconds,
            megapixels_per_second=report.pixels / 1e6 / max(report.seconds, 1e-9),
            resumed=report.resumed,
            notes=(
                *report.notes,
                *getattr(session, "notes", ()),
                *ground.notes(scene, contract),
                *watched.notes(guard or {}),
            ),
            shift=self._shift(ready.shift),
            acquired=acquired,
            memory=Memory.of(memory, budget.peak()),
            backend=getattr(session, "backend", ""),
            guard=guard,
        )


def require_safe(overlap: int | None, session: Session, force: bool) -> None:
    """Raise MismatchError where tiles would share fewer pixels than hide their borders."""
    safe = session.contract.safe_overlap
    if overlap is not None and overlap < safe and not force:
        edge = int(session.contract.influence["edge"])
        raise MismatchError(
            f"--overlap {overlap}: this model's tiles show their border {edge} pixels deep and must share "
            f"{safe}; leave it out, or accept seams with --force"
        )


@contextmanager
def _untrusted_removed(output: Path) -> Iterator[None]:
    """Rows that a session made which then failed its own test are not gone on from."""
    try:
        yield
    except CheckFailedError:
        discard(output)
        raise


@contextmanager
def _told_changed(inputs: Identity) -> Iterator[None]:
    """What looks damaged because it was changed, or went, while it was read may be whole the next time."""
    try:
        yield
    except ChangedError:
        raise
    except SceneError:
        inputs.check()
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

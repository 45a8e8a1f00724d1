"""How fast is a model here, and may the figure be believed? One document of times, conditions, and a verdict.

Models take turns on inputs that change and are never empty: warm-up goes on until windows of runs agree, then
each round runs every model once. A verdict is INVALID with a reason, UNKNOWN where a condition cannot be
read, and VALID otherwise. Times are of batches, copies included; what a device spends on copies and on
computing is told apart where the session can tell.
"""

from __future__ import annotations

import math
import statistics as plain
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sfiin
from sfiin.runtime import golden
from sfiin.runtime.backends import machine, plan
from sfiin.runtime.backends.select import Choice, open_session
from sfiin.runtime.backends.session import Session
from sfiin.runtime.bench import power, statistics
from sfiin.runtime.bench.environment import Moment, read_machine, read_moment
from sfiin.runtime.bench.power import Sampler
from sfiin.runtime.bench.result import BenchResult, EnergyUse, ModelResult, SceneBudget, Throughput, WarmUp
from sfiin.runtime.bench.verdict import verdict
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.files import sha256
from sfiin.runtime.scenes.tiles import plan as lay_tiles
from sfiin.runtime.station import budget

Images = tuple[NDArray[np.float32], NDArray[np.float32]]

WINDOW = 10
"""Runs of a warm-up's window."""

SCENE, PASS = 40_000, 600.0
"""PAN pixels a side of the scene, and seconds of the pass, that a budget is made for."""

VARIANTS = 8
"""Inputs that take turns."""


@dataclass(frozen=True)
class BenchOptions:
    """How to measure: `seconds` for each model at most and `samples` at most; `percent` is the highest
    percentile that is to be trusted; `gsd` PAN's ground sample distance in metres, None if unknown. `root`
    and `clock` are for tests.
    """

    provider: Choice = "auto"
    threads: int = 0
    batch: int = 1
    seconds: float = 20.0
    samples: int = 100_000
    warm_up: float = 10.0
    percent: float = 99.0
    gsd: float | None = None
    idle: float = 1.0
    root: Path = Path("/")
    clock: Callable[[], float] = time.perf_counter


@dataclass
class Run:
    """One model under measurement."""

    path: Path
    session: Session
    inputs: list[Images]
    loading: float
    first: float
    windows: list[float] = field(default_factory=list)
    totals: list[float] = field(default_factory=list)
    parts: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    def once(self, i: int, clock: Callable[[], float]) -> float:
        """Milliseconds of one batch."""
        inputs = self.inputs[i % len(self.inputs)]
        began = clock()
        if hasattr(self.session, "run_timed"):
            _, parts = self.session.run_timed(*inputs)
        else:
            self.session.run(*inputs)
            parts = {}
        taken = 1e3 * (clock() - began)
        for name, value in parts.items():
            self.parts[name].append(value)
        return taken


def bench(
    paths: Sequence[Path],
    options: BenchOptions,
    watch: Callable[[float, float], None] = lambda _done, _of: None,
) -> BenchResult:
    """Measure the first model, and the others beside it.

    `watch` is told seconds done, of how many. Raises as `open_session`, and MismatchError for a batch that a
    plan does not take.
    """
    with ExitStack() as stack:
        machine_here, before = read_machine(options.root), read_moment(options.root)
        runs = [_opened(path, options, stack) for path in paths]
        for run in runs:
            _warm_up(run, options)
        with Sampler(power.rails(options.root, options.clock), clock=options.clock) as sampler:
            began = options.clock()
            while sampler.rails and options.clock() - began < options.idle:
                time.sleep(min(0.05, options.idle))
            started = options.clock()
            sampler.sample()  # the ends of the span, however short it is and however busy the machine
            moments = _measure(runs, options, watch)
            sampler.sample()
            ended = options.clock()
        after = read_moment(options.root)
        first, *others = [_result(run, options, runs[0]) for run in runs]
        used, idle = sampler.between(started, ended), sampler.between(began, started)
        return BenchResult(
            **vars(first),
            version=sfiin.__version__,
            environment=machine_here,
            before=before,
            after=after,
            timeline=tuple(moments),
            energy=_energy(used, idle, runs, options) if used else None,
            peak_host_bytes=budget.peak(),
            power_timeline=tuple(
                (at - started, power.whole(watts))
                for at, watts in zip(sampler.times, sampler.readings, strict=True)
                if watts
            ),
            against=tuple(others),
            verdict=verdict([first, *others], machine_here, [before, *moments, after], options.percent),
        )


def variants(contract: Contract, path: Path, batch: int) -> list[Images]:
    """Inputs of natural look: the natural golden tile, moved and of other brightness; else smooth noise."""
    random = np.random.default_rng(0)
    try:
        tiles = golden.read(golden.beside(path), contract)
        at = tiles.names.index("natural")
        ms, pan = tiles.ms[at].astype(np.float32), tiles.pan[at].astype(np.float32)
    except (InputError, MismatchError, ValueError):
        ms, pan = (_smooth(contract.shapes[name], contract.sensor.peak, random) for name in ("ms", "pan"))
    ratio, found = contract.sensor.ratio, []
    for _ in range(VARIANTS):
        rows, cols = random.integers(0, ms.shape[1]), random.integers(0, ms.shape[2])
        gain = random.uniform(0.5, 1.0)
        moved = (
            np.rint(gain * np.roll(image, (rows * step, cols * step), (1, 2)))
            for image, step in ((ms, 1), (pan, ratio))
        )
        coarse, fine = (np.repeat(image[None].astype(np.float32), batch, 0) for image in moved)
        found.append((coarse, fine))
    return found


def _smooth(shape: tuple[int, ...], peak: int, random: np.random.Generator) -> NDArray[np.float32]:
    noise = random.normal(size=shape).cumsum(1).cumsum(2)
    scaled = (noise - noise.min()) / max(float(np.ptp(noise)), 1e-9)
    result: NDArray[np.float32] = (1 + 0.8 * peak * scaled).astype(np.float32)
    return result


def _opened(path: Path, options: BenchOptions, stack: ExitStack) -> Run:
    began = options.clock()
    session = stack.enter_context(closing(open_session(path, options.provider, options.threads)))
    loading = options.clock() - began
    inputs = variants(session.contract, path, options.batch)
    began = options.clock()
    session.run(*inputs[0])
    return Run(path, session, inputs, loading, loading + options.clock() - began)


def _warm_up(run: Run, options: BenchOptions) -> None:
    began = options.clock()
    while not statistics.settled(run.windows) and options.clock() - began < options.warm_up:
        run.windows.append(plain.median(run.once(i, options.clock) for i in range(WINDOW)))
    run.parts.clear()


def _measure(
    runs: Sequence[Run], options: BenchOptions, watch: Callable[[float, float], None]
) -> list[Moment]:
    """Fill the runs' times, in turns; the conditions each second."""
    limit = options.seconds * len(runs)
    began = last = options.clock()
    moments: list[Moment] = []
    for i in range(options.samples):
        for run in runs:
            run.totals.append(run.once(i, options.clock))
        now = options.clock()
        if now - last >= 1:
            moments.append(read_moment(options.root, now - began))
            watch(now - began, limit)
            last = options.clock()
        if now - began >= limit:
            break
    return moments


def _result(run: Run, options: BenchOptions, first: Run) -> ModelResult:
    contract, batch = run.session.contract, options.batch
    percents = [percent for percent in statistics.PERCENTILES if percent <= max(options.percent, 50)]
    per_second = 1e3 * batch / statistics.summary(run.totals, (50.0,)).median
    pixels = contract.tile.height * contract.tile.width
    area = per_second * pixels * options.gsd**2 / 1e6 if options.gsd else None
    times = {"total": run.totals, **run.parts}
    return ModelResult(
        model=run.path.name,
        model_sha256=getattr(run.session, "sha256", "") or sha256(run.path),
        model_bytes=run.path.stat().st_size,
        backend=_backend(run),
        precision=contract.precision,
        lowering=contract.lowering,
        tile=(contract.tile.height, contract.tile.width),
        batch=batch,
        threads=options.threads,
        device_bytes=getattr(run.session, "device_bytes", None),
        load_seconds=run.loading,
        first_result_seconds=run.first,
        warm_up=WarmUp(tuple(run.windows), statistics.settled(run.windows)),
        milliseconds={name: statistics.summary(values, percents) for name, values in times.items()},
        samples=tuple(round(milliseconds, 4) for milliseconds in run.totals),
        throughput=Throughput(per_second, per_second * pixels / 1e6, area),
        scene=scene_budget(contract, per_second),
        ratio=None if run is first else statistics.paired(run.totals, first.totals),
    )


def scene_budget(contract: Contract, per_second: float) -> SceneBudget:
    """Tiles and seconds of a large scene at so many tiles a second, and whether a pass is long enough for
    it."""
    side = SCENE // contract.sensor.ratio * contract.sensor.ratio
    count = len(lay_tiles(side, side, contract.tile, contract.sensor.ratio))
    seconds = count / per_second
    return SceneBudget(side, count, seconds, PASS, seconds <= PASS)


def _backend(run: Run) -> str:
    if plan.is_plan(run.path):
        return plan.read(run.path).build.flavour
    backend: str = getattr(run.session, "backend", "")
    return backend or f"onnxruntime {machine.version('onnxruntime') or machine.version('onnxruntime-gpu')}"


def _energy(
    used: power.Energy, idle: power.Energy | None, runs: Sequence[Run], options: BenchOptions
) -> EnergyUse:
    """Joules a tile and a megapixel, raw and without what the machine draws when idle."""
    tiles = sum(len(run.totals) for run in runs) * options.batch
    pixels = (
        sum(len(run.totals) * math.prod(run.session.contract.shapes["pan"]) for run in runs) * options.batch
    )
    above = used.whole - idle.watts * used.seconds if idle else None
    return EnergyUse(
        watts=used.watts,
        idle_watts=idle.watts if idle else None,
        joules=used.whole,
        rails=used.joules,
        joules_per_tile=used.whole / tiles,
        joules_per_megapixel=1e6 * used.whole / pixels,
        joules_per_tile_above_idle=above / tiles if above is not None else None,
        joules_per_megapixel_above_idle=1e6 * above / pixels if above is not None else None,
        sampler_duty=used.duty,
        samples=used.samples,
    )

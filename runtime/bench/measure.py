"""How fast is a model here, and may the figure be believed? One document of times, conditions, and a verdict.

Models take turns on inputs that change and are never empty: warm-up goes on until windows of runs agree, then
each round runs every model once. A verdict is INVALID with a reason, UNKNOWN where a condition cannot be
read, and VALID otherwise. Times are of batches, copies included; what a device spends on copies and on
computing is told apart where the session can tell.
"""

from __future__ import annotations

import dataclasses
import math
import statistics as plain
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import sfiin
from sfiin.runtime import golden
from sfiin.runtime.backends import machine, plan
from sfiin.runtime.backends.select import Choice, best_provider, open_session
from sfiin.runtime.backends.session import Session
from sfiin.runtime.bench import environment, power, statistics
from sfiin.runtime.bench.power import Sampler
from sfiin.runtime.contract import Contract, Tile
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.files import sha256
from sfiin.runtime.scenes.tiles import plan as lay_tiles
from sfiin.runtime.station import budget

FORMAT = "sfiin-bench/1"

Document = dict[str, Any]
Images = tuple[NDArray[np.float32], NDArray[np.float32]]

WINDOW = 10
"""Runs of a warm-up's window."""

SCENE, PASS = 40_000, 600.0
"""PAN pixels a side of the scene, and seconds of the pass, that a budget is made for."""

VARIANTS = 8
"""Inputs that take turns."""

_QUIET = 0.3  # load for each CPU before the start
_STEADY = 0.1  # by how much clocks may move
_SPREAD = 0.25  # coefficient of variation


@dataclass(frozen=True)
class Settings:
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
    paths: Sequence[Path], settings: Settings, watch: Callable[[float, float], None] = lambda _done, _of: None
) -> Document:
    """Measure the first model, and the others beside it.

    `watch` is told seconds done, of how many. Raises as `open_session`, and MismatchError for a batch that a
    plan does not take.
    """
    with ExitStack() as stack:
        fixed, before = environment.fixed(settings.root), environment.moment(settings.root)
        runs = [_opened(path, settings, stack) for path in paths]
        for run in runs:
            _warm_up(run, settings)
        meters = power.rails(settings.root, settings.clock)
        with Sampler(meters, clock=settings.clock) as sampler:
            began = settings.clock()
            while meters and settings.clock() - began < settings.idle:
                time.sleep(min(0.05, settings.idle))
            started = settings.clock()
            moments = _measure(runs, settings, watch)
            ended = settings.clock()
        conditions = {"before": before, "after": environment.moment(settings.root), "timeline": moments}
        idle = sampler.between(began, started)
        used = sampler.between(started, ended)
        documents = [_document(run, settings) for run in runs]
        result = documents[0] | {
            "format": FORMAT,
            "version": sfiin.__version__,
            "environment": fixed,
            **conditions,
            "energy": _energy(used, idle, runs, settings),
            "peak_host_bytes": budget.peak(),
            "power_timeline": [
                [t - started, power.whole(it)]
                for t, it in zip(sampler.times, sampler.readings, strict=True)
                if it
            ],
        }
    for run, document in zip(runs[1:], documents[1:], strict=True):
        ratio = statistics.paired(run.totals[: len(runs[0].totals)], runs[0].totals[: len(run.totals)])
        document["ratio"] = dataclasses.asdict(ratio)
    result["against"] = documents[1:]
    result["verdict"] = verdict(result, settings.percent)
    return result


def verdict(document: Mapping[str, Any], percent: float) -> Document:
    """VALID, INVALID or UNKNOWN, and all reasons."""
    bad, unknown = [], []
    for it in (document, *document["against"]):
        name, count = it["model"], it["milliseconds"]["total"]["count"]
        if count < statistics.enough(percent):
            bad.append(
                f"{name}: {count} samples do not bound the {percent:g}th percentile; "
                f"{statistics.enough(percent)} would"
            )
        if not it["warm_up"]["settled"]:
            bad.append(f"{name}: it did not settle in the warm-up")
        if it["milliseconds"]["total"]["variation"] > _SPREAD:
            bad.append(
                f"{name}: times vary by {it['milliseconds']['total']['variation']:.0%}, as by other work"
            )
    fixed = document["environment"]
    moments = [document["before"], *document["timeline"], document["after"]]
    mode = fixed["power_mode"]
    if mode and mode["highest"] is False:
        bad.append(f"the power mode is {mode['name']}, not the highest")
    if (mode and mode["highest"] is None) or (not mode and fixed["platform"].get("jetson")):
        unknown.append("the power mode")
    _judge(fixed["on_battery"], "it runs on a battery", "whether it runs on a battery", bad, unknown)
    throttled = [it["throttled"] for it in moments]
    _judge(
        True if True in throttled else None if None in throttled else False,
        "it was throttled",
        "whether it was throttled",
        bad,
        unknown,
    )
    load = document["before"]["load"]
    _judge(
        None if load is None else load > _QUIET,
        f"other load: {load or 0:.2f} for each CPU before the start",
        "other load",
        bad,
        unknown,
    )
    for key, what in (("cpu_mhz", "the CPU's clock"), ("gpu_mhz", "the GPU's clock")):
        clocks = [it[key] for it in moments]
        if key == "gpu_mhz" and not (fixed["gpu"] or fixed["platform"].get("jetson")):
            continue
        moved = None if None in clocks else max(clocks) > (1 + _STEADY) * min(clocks)
        _judge(
            moved,
            f"{what} moved between {min(it or 0 for it in clocks):.0f} and "
            f"{max(it or 0 for it in clocks):.0f} MHz",
            what,
            bad,
            unknown,
        )
    state = "INVALID" if bad else "UNKNOWN" if unknown else "VALID"
    return {"state": state, "reasons": [*bad, *(f"{what} cannot be read" for what in unknown)]}


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


def _opened(path: Path, settings: Settings, stack: ExitStack) -> Run:
    began = settings.clock()
    session = stack.enter_context(closing(open_session(path, settings.provider, settings.threads)))
    loading = settings.clock() - began
    inputs = variants(session.contract, path, settings.batch)
    began = settings.clock()
    session.run(*inputs[0])
    return Run(path, session, inputs, loading, loading + settings.clock() - began)


def _warm_up(run: Run, settings: Settings) -> None:
    began = settings.clock()
    while not statistics.settled(run.windows) and settings.clock() - began < settings.warm_up:
        run.windows.append(plain.median(run.once(i, settings.clock) for i in range(WINDOW)))
    run.parts.clear()


def _measure(
    runs: Sequence[Run], settings: Settings, watch: Callable[[float, float], None]
) -> list[Document]:
    """Fill the runs' times, in turns; the conditions each second."""
    limit = settings.seconds * len(runs)
    began = last = settings.clock()
    moments: list[Document] = []
    for i in range(settings.samples):
        for run in runs:
            run.totals.append(run.once(i, settings.clock))
        now = settings.clock()
        if now - last >= 1:
            moments.append({"seconds": now - began, **environment.moment(settings.root)})
            watch(now - began, limit)
            last = settings.clock()
        if now - began >= limit:
            break
    return moments


def _document(run: Run, settings: Settings) -> Document:
    contract, batch = run.session.contract, settings.batch
    percents = [it for it in statistics.PERCENTILES if it <= max(settings.percent, 50)]
    times = {
        name: dataclasses.asdict(statistics.summary(values, percents))
        for name, values in {"total": run.totals, **run.parts}.items()
    }
    median = statistics.summary(run.totals, (50.0,)).median
    per_second = 1e3 * batch / median
    pixels = contract.tile.height * contract.tile.width
    return {
        "model": run.path.name,
        "model_sha256": getattr(run.session, "sha256", "") or sha256(run.path),
        "model_bytes": run.path.stat().st_size,
        "backend": _backend(run, settings),
        "precision": contract.precision,
        "lowering": contract.lowering,
        "tile": [contract.tile.height, contract.tile.width],
        "batch": batch,
        "threads": settings.threads,
        "device_bytes": getattr(run.session, "device_bytes", None),
        "load_seconds": run.loading,
        "first_result_seconds": run.first,
        "warm_up": {"windows": run.windows, "settled": statistics.settled(run.windows)},
        "milliseconds": times,
        "samples": [round(it, 4) for it in run.totals],
        "throughput": {
            "tiles_per_second": per_second,
            "megapixels_per_second": per_second * pixels / 1e6,
            "square_kilometres_per_second": per_second * pixels * settings.gsd**2 / 1e6
            if settings.gsd
            else None,
        },
        "scene": scene(contract, per_second),
    }


def scene(contract: Contract, per_second: float) -> Document:
    """Tiles and seconds of a large scene at so many tiles a second, and whether a pass is long enough for
    it."""
    side = SCENE // contract.sensor.ratio * contract.sensor.ratio
    tile: Tile = contract.tile
    count = len(lay_tiles(side, side, tile, contract.sensor.ratio))
    seconds = count / per_second
    return {"side": side, "tiles": count, "seconds": seconds, "pass_seconds": PASS, "fits": seconds <= PASS}


def _backend(run: Run, settings: Settings) -> str:
    if plan.is_plan(run.path):
        return plan.read(run.path).build.flavour
    version = machine.version("onnxruntime") or machine.version("onnxruntime-gpu")
    return f"onnxruntime {version} {best_provider() if settings.provider == 'auto' else settings.provider}"


def _energy(
    used: power.Energy | None, idle: power.Energy | None, runs: Sequence[Run], settings: Settings
) -> Document | None:
    """Joules a tile and a megapixel, raw and without what the machine draws when idle; of all models in
    turns."""
    if used is None:
        return None
    tiles = sum(len(run.totals) for run in runs) * settings.batch
    pixels = (
        sum(len(run.totals) * math.prod(run.session.contract.shapes["pan"]) for run in runs) * settings.batch
    )
    above = used.whole - idle.watts * used.seconds if idle else None
    return {
        "watts": used.watts,
        "idle_watts": idle.watts if idle else None,
        "joules": used.whole,
        "rails": dict(used.joules),
        "joules_per_tile": used.whole / tiles,
        "joules_per_megapixel": 1e6 * used.whole / pixels,
        "joules_per_tile_above_idle": above / tiles if above is not None else None,
        "joules_per_megapixel_above_idle": 1e6 * above / pixels if above is not None else None,
        "sampler_duty": used.duty,
        "samples": used.samples,
    }


def _judge(value: bool | None, text: str, what: str, bad: list[str], unknown: list[str]) -> None:
    if value is None:
        unknown.append(what)
    elif value:
        bad.append(text)

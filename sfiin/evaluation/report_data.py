"""What is a report made from? Models, pairs and methods that fit one another, and what came out when all
were run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfiin.data import dataset, fitting, pairs
from sfiin.data.pairs import Pair
from sfiin.evaluation import ablation_summary, judging
from sfiin.evaluation.ablation import AblationRun
from sfiin.evaluation.judging import FullResolutionScore, JudgedModel, Method, Product, Score
from sfiin.runtime.contract import SensorProfile, Tile
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.quality import classical

WINDOW = 512
"""PAN pixels a side of the middle that is taken of larger images, at full resolution and in pictures."""


@dataclass(frozen=True)
class Request:
    """What to report on: a model, a folder of pairs, models beside it, ablations' files, and the command
    as typed."""

    model: Path
    data: Path
    tile: Tile
    beside: tuple[Path, ...] = ()
    ablations: tuple[Path, ...] = ()
    command: str = ""


@dataclass(frozen=True)
class ReportData:
    """All that a report is made from.

    `models` are those beside and, last, the one reported on, by name; `judged` are pairs with truth and
    `whole` those without (the middle of large ones), bands in the model's order; `notes` say what was done to
    pairs, or left out.
    """

    request: Request
    models: Mapping[str, JudgedModel]
    methods: Mapping[str, Method]
    judged: Sequence[Pair]
    whole: Sequence[Pair]
    notes: Sequence[str]
    runs: Sequence[AblationRun]

    @property
    def name(self) -> str:
        """The name of the model reported on."""
        return list(self.models)[-1]

    @property
    def sensor(self) -> SensorProfile:
        """The profile that the model expects."""
        return self.models[self.name].sensor

    @property
    def steps(self) -> int:
        """How many products `measure` makes."""
        return len(self.methods) * (len(self.judged) + len(self.whole))


@dataclass(frozen=True)
class Measured:
    """All scores, and the products of those pairs that will be shown, by pair and method."""

    scores: Sequence[Score]
    full: Sequence[FullResolutionScore]
    products: Mapping[str, Mapping[str, Product]]


def gather(request: Request) -> ReportData:
    """Open models, pairs and runs. Raises InputError or CheckpointError for what cannot be read,
    MismatchError for a model beside that is made for other bands, another ratio or bit depth, or when no pair
    has the model's bands.
    """
    runs = ablation_summary.read_all(request.ablations)
    models = open_models(request.model, request.beside, request.tile)
    sensor = next(reversed(models.values())).sensor
    ordered, notes = _fitting_pairs(request.data, sensor)
    judged = [pair for pair in ordered if pair.truth is not None]
    if not judged:
        judged = [pairs.reduced(pair) for pair in ordered]
        notes.append(
            "No pair has a truth: all were reduced by the ratio (Wald's protocol), and their MS is the truth."
        )
    delivered = [pair for pair in ordered if pair.truth is None]
    whole = [fitting.central(pair, WINDOW) for pair in delivered]
    notes += [_fitted(*both, sensor) for both in zip(delivered, whole, strict=True)]
    methods = {name: judging.without_network(name) for name in classical.METHODS}
    methods |= {name: judging.by_model(model) for name, model in models.items()}
    return ReportData(request, models, methods, judged, whole, notes, runs)


def open_models(path: Path, beside: Sequence[Path], tile: Tile) -> dict[str, JudgedModel]:
    """Those beside and last the model at `path`, by name: the architecture, or the file's stem where that is
    ambiguous.

    Raises as `judging.open_model`, and MismatchError for a model beside that serves other DN.
    """
    main = judging.open_model(path, tile)
    peers = [(other, judging.open_model(other, tile)) for other in beside]
    architectures = [main.name, *(model.name for _, model in peers)]
    named: dict[str, JudgedModel] = {}
    for other, model in peers:
        for field in ("bands", "ratio", "bits"):
            ours, theirs = getattr(main.sensor, field), getattr(model.sensor, field)
            if ours != theirs:
                raise MismatchError(f"{other}: sensor.{field} is {theirs}, that of {path} is {ours}")
        taken = {main.name, *classical.METHODS, *named}
        names = [*([model.name] if architectures.count(model.name) == 1 else []), other.stem, str(other)]
        free = [name for name in names if name not in taken]
        if not free:
            raise InputError(f"{other}: given twice")
        named[free[0]] = model
    return {**named, main.name: main}


def measure(data: ReportData, watch: Callable[[str], None] = lambda _: None) -> Measured:
    """Run all methods on all pairs; `watch` gets a pair's name after each. Raises InputError as
    `judging.judge`."""
    shown = {pair.name for pair in shown_pairs(data.judged)}
    scores, full = [], []
    products: dict[str, dict[str, Product]] = {name: {} for name in shown}
    for pair in data.judged:
        for name, method in data.methods.items():
            product = judging.product_of(method, pair, data.sensor)
            scores.append(judging.judge(pair, name, product, data.sensor))
            if pair.name in shown:
                products[pair.name][name] = product
            watch(pair.name)
    for pair in data.whole:
        for score in judging.full_resolution_scores(data.methods, pair, data.sensor):
            full.append(score)
            watch(pair.name)
    return Measured(scores, full, products)


def shown_pairs(judged: Sequence[Pair]) -> list[Pair]:
    """Those of which pictures are made: the first and the middle pair of each sensor, by name."""
    by_name = {pair.name: pair for pair in judged}
    groups = names_by_sensor(judged).values()
    return [by_name[names[i]] for names in groups for i in sorted({0, len(names) // 2})]


def names_by_sensor(found: Sequence[Pair]) -> dict[str, list[str]]:
    """The pairs' names, sorted, by sensor, sorted."""
    groups: dict[str, list[str]] = {}
    for pair in found:
        groups.setdefault(judging.sensor_of(pair), []).append(pair.name)
    return {sensor: sorted(groups[sensor]) for sensor in sorted(groups)}


def _fitting_pairs(folder: Path, sensor: SensorProfile) -> tuple[list[Pair], list[str]]:
    """The folder's pairs in the order of the sensor's bands, and notes on what was left out or reordered."""
    found = pairs.load_folder(folder, len(sensor.bands), sensor.ratio)
    others = sorted({path.stem for path in folder.glob("*.npz")} - {pair.name for pair in found})
    notes = [f"Left out, as of another number of bands or ratio: {', '.join(others)}."] if others else []
    ordered = []
    for pair in found:
        fitted, note = _in_order(pair, sensor.bands)
        ordered += [fitted] if fitted else []
        notes += [note] if note else []
    if not ordered:
        raise MismatchError(f"{folder}: no pair has the model's bands; {notes[-1]}")
    meant = dataset.meant(ordered, sensor, dataset.Given(), folder.name)
    return meant.pairs, notes + [f"{note}." for note in meant.notes]


def _in_order(pair: Pair, bands: Sequence[str]) -> tuple[Pair | None, str]:
    """The pair with its bands in this order, or None for one of other bands, and what to say of it, if
    anything."""
    try:
        fitted = fitting.in_order(pair, bands)
    except MismatchError as error:
        return None, f"Left out: {error}."
    if np.array_equal(pair.ms, fitted.ms):
        return fitted, ""
    was = ", ".join(map(str, pair.meta["bands"]))
    return fitted, f"{pair.name}: bands {was} were reordered to {', '.join(bands)}, by name."


def _fitted(pair: Pair, middle: Pair, sensor: SensorProfile) -> str:
    """What is done to a pair without truth, as a sentence."""
    height, width = pair.pan.shape[1:]
    rows, cols = middle.pan.shape[1:]
    said = [f"whole, {width} x {height} PAN pixels"]
    if (rows, cols) != (height, width):
        said = [f"the middle {cols} x {rows} of {width} x {height} PAN pixels"]
    peak = fitting.peak(pair, sensor.peak)
    if peak != sensor.peak:
        said.append(
            f"DN (peak {peak}) times {sensor.peak}/{peak} = {sensor.peak / peak:.4g}, fused, and brought back"
        )
    ms_gains, pan_gain = pairs.gains(pair)
    each = [ms_gains] if isinstance(ms_gains, float) else sorted(set(ms_gains))
    said.append(f"MTF gains at Nyquist {'/'.join(f'{gain:g}' for gain in each)} (MS) and {pan_gain:g} (PAN)")
    return f"{pair.name} ({judging.sensor_of(pair)}), at full resolution: {'; '.join(said)}."

"""Does a model hold on sources that it was not made for? All methods, source by source, in three ways.

`given`: against the truth, with MS and PAN as the pair gives them, or as Wald's protocol makes them from a
pair without truth. `matched`: the same once PAN and truth are equally crisp, as they are for a user who
expects a product as sharp as PAN. `full`: as delivered, without a truth. `shortfalls` is the gate before a
model becomes a default: on no source may a classical method lead by more than `MARGIN`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Literal

import numpy as np

from sfiin.data import fitting
from sfiin.data.pairs import Pair, gains, reduced
from sfiin.evaluation import judging
from sfiin.evaluation.judging import JudgedModel, Method
from sfiin.runtime.quality.classical import METHODS
from sfiin.runtime.quality.detail import detail_correlation, fine_detail, inconsistency, matched
from sfiin.runtime.quality.metrics import d_lambda_k, d_s, ergas, psnr, sam

Way = Literal["given", "matched", "full"]

MARGIN = 0.2
"""By how many dB the best classical method may lead where a model is a default."""

SHARPEST = 1.2
"""How much fine detail a product may have beside PAN's, on any source."""


@dataclass(frozen=True)
class Row:
    """One method on one pair in one way; measures by name: `psnr`, `sam`, `ergas` against a truth, or `fine`,
    `correlation`, `inconsistency`, `hqnr` without one."""

    source: str
    pair: str
    way: Way
    method: str
    measures: Mapping[str, float]


def rows(
    model: JudgedModel, pairs: Sequence[Pair], seen: Callable[[str], None] = lambda _: None
) -> Iterator[Row]:
    """All rows of the model and of every classical method on these pairs, which have the model's bands.

    Raises InputError or MismatchError for a pair that does not fit.
    """
    methods = {name: judging.without_network(name) for name in METHODS} | {
        model.name: judging.by_model(model)
    }
    for pair in pairs:
        fitted = _fitted(pair, model)
        low = reduced(fitted)
        yield from _referenced(methods, low, "given", model)
        yield from _referenced(methods, _matched(low), "matched", model)
        if pair.truth is None:
            yield from _delivered(methods, fitted, model)
        seen(pair.name)


def shortfalls(found: Sequence[Row], model: str) -> list[str]:
    """What keeps a model from being a default, a sentence each; none: it may be one."""
    problems = []
    for (source, way), by_method in means(found).items():
        own = by_method[model]
        if way == "full":
            if own["fine"] > SHARPEST:
                problems.append(f"{source}: fine detail is {own['fine']:.2f} of PAN's, above {SHARPEST}")
            continue
        rivals = {name: values["psnr"] for name, values in by_method.items() if name != model}
        best = max(rivals, key=rivals.__getitem__)
        if own["psnr"] < rivals[best] - MARGIN:
            problems.append(f"{source}, {way}: {own['psnr']:.2f} dB, where {best} has {rivals[best]:.2f}")
    return problems


def means(found: Sequence[Row]) -> dict[tuple[str, Way], dict[str, dict[str, float]]]:
    """Mean measures by source and way, then by method."""
    groups: dict[tuple[str, Way], dict[str, list[Mapping[str, float]]]] = {}
    for row in found:
        groups.setdefault((row.source, row.way), {}).setdefault(row.method, []).append(row.measures)
    return {
        key: {
            name: {measure: fmean(one[measure] for one in each) for measure in each[0]}
            for name, each in by_method.items()
        }
        for key, by_method in groups.items()
    }


def as_document(found: Sequence[Row], model: str) -> dict[str, Any]:
    """Means, and what keeps the model from being a default, for JSON."""
    return {
        "means": [
            {"source": source, "way": way, "methods": methods}
            for (source, way), methods in means(found).items()
        ],
        "shortfalls": shortfalls(found, model),
    }


def _fitted(pair: Pair, model: JudgedModel) -> Pair:
    """With the model's bands in its order, and DN in its range."""
    ordered = fitting.in_order(pair, model.sensor.bands)
    factor = model.sensor.peak / fitting.peak(pair, model.sensor.peak)
    return ordered if factor == 1 else fitting.scaled(ordered, factor)


def _matched(pair: Pair) -> Pair:
    assert pair.truth is not None
    pan, truth = (np.asarray(image, np.float32) for image in matched(pair.pan, pair.truth))
    return dataclasses.replace(pair, pan=pan, truth=truth)


def _referenced(methods: Mapping[str, Method], pair: Pair, way: Way, model: JudgedModel) -> Iterator[Row]:
    assert pair.truth is not None
    for name, method in methods.items():
        product = judging.as_delivered(method(pair), model.sensor.peak)
        measures = {
            "psnr": psnr(product, pair.truth, float(model.sensor.peak)),
            "sam": sam(product, pair.truth),
            "ergas": ergas(product, pair.truth, pair.ratio),
        }
        yield Row(judging.sensor_of(pair), pair.name, way, name, measures)


def _delivered(methods: Mapping[str, Method], pair: Pair, model: JudgedModel) -> Iterator[Row]:
    ms_gains, pan_gain = gains(pair)
    for name, method in methods.items():
        product = judging.as_delivered(method(pair), model.sensor.peak)
        spectral, spatial = (
            d_lambda_k(product, pair.ms, ms_gains),
            d_s(product, pair.ms, pair.pan, gain=pan_gain),
        )
        measures = {
            "fine": fine_detail(product, pair.pan),
            "correlation": detail_correlation(product, pair.pan),
            "inconsistency": inconsistency(product, pair.ms, ms_gains),
            "hqnr": (1 - spectral) * (1 - spatial),
        }
        yield Row(judging.sensor_of(pair), pair.name, "full", name, measures)

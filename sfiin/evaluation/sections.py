"""What does a report say about a model, section by section?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

import numpy as np

from sfiin.data import fitting
from sfiin.data.pairs import Pair
from sfiin.evaluation import ablation_summary, figures, judging, phase_study, provenance
from sfiin.evaluation.ablation_summary import Summary
from sfiin.evaluation.document import Cell, Paragraph, Picture, Table, table
from sfiin.evaluation.features import MODULES, activity, block_features, shown_blocks
from sfiin.evaluation.judging import Product, Score, spread
from sfiin.evaluation.report_data import WINDOW, Measured, ReportData, names_by_sensor, shown_pairs
from sfiin.evaluation.score_tables import (
    FULL_RESOLUTION,
    REFERENCE,
    Measures,
    best_in_bold,
    label,
    number,
    titles,
)
from sfiin.model import checkpoint
from sfiin.model.network import SFIIN
from sfiin.runtime.quality import classical
from sfiin.runtime.quality.bicubic import bicubic

ALL = "all pairs"
Parts = Iterable[Paragraph | Table | Picture]

Groups = dict[str, dict[str, list[Any]]]
"""Scores by sensor and method."""

REGIONS = ("all frequencies", "up to the MS Nyquist", "beyond the MS Nyquist")
Compared = dict[tuple[str, bool, str], phase_study.Difference]
"""By region, whether weighted, and image."""


def what(data: ReportData, _: Measured) -> Parts:
    """The model and those beside it, the pairs and what was done to them, the software."""
    request = data.request
    yield _facts("Model", provenance.of_model(request.model))
    for name, path in zip(data.models, request.beside, strict=False):  # the last model is the one reported on
        yield _facts(f"Beside: {label(name)}", provenance.of_model(path))
    rows = [
        (kind, sensor, str(len(names)), ", ".join(names))
        for kind, found in (("with truth", data.judged), ("without truth", data.whole))
        for sensor, names in names_by_sensor(found).items()
    ]
    yield table(f"Pairs in {request.data}", ("pairs", "sensor", "number", "names"), rows)
    for note in data.notes:
        yield Paragraph(note)
    yield _facts("Run", provenance.of_run(request.command))


def reduced_resolution(data: ReportData, measured: Measured) -> Parts:
    """Scores against the truth by sensor and method, how far the model is ahead, and bias by band."""
    sensor = data.sensor
    yield Paragraph(
        f"Against a known truth. Products are rounded and clipped to 0..{sensor.peak}, the peak of PSNR. "
        "MS and DN are as the pair's file gives them, whatever its nominal bit depth. Figures are means "
        "over pairs ± their sample standard deviation. The best mean of each column is bold. Q2n is Q4 "
        "for four bands. 1 is best for SSIM, SCC and Q2n; 0 is best for SAM and ERGAS."
    )
    groups = _groups(measured.scores)
    yield _quality_table("Quality at reduced resolution", groups, REFERENCE)
    yield from (Paragraph(line) for line in _leads(data, measured.scores))
    yield _bias_table(groups, sensor.bands)


def full_resolution(data: ReportData, measured: Measured) -> Parts:
    """Scores without a truth, by sensor and method."""
    if not measured.full:
        yield Paragraph("No pair without truth in this folder.")
        return
    yield Paragraph(
        "As delivered, without a truth. The distortions D_lambda_K, D_s and D_lambda are best at 0. HQNR "
        "= (1 - D_lambda_K) (1 - D_s) and QNR = (1 - D_lambda) (1 - D_s) are best at 1. MTF gains are "
        "those of each pair's sensor. Where these are not known they are 0.3 for MS and 0.15 for PAN. "
        "Such measures differ between codebases, so compare within this table only. They reward staying "
        "close to MS as well as sharpness."
    )
    yield _quality_table("Quality at full resolution", _groups(measured.full), FULL_RESOLUTION)


def error_maps(data: ReportData, measured: Measured) -> Parts:
    """For some pairs: the images, and squared errors of bicubic, the best classical method and the
    networks."""
    yield Paragraph(
        "Squared error against the truth, per pixel, mean over bands, in DN². Each pair has one colour "
        "scale. It runs from 0 to the 99th percentile of bicubic's errors, by the square root. Shown are "
        "bicubic, the networks, and the classical method that sharpens best on this sensor by mean PSNR. "
        f"Pairs are the first and the middle one of each sensor, by name. Of each, at most {WINDOW} x "
        f"{WINDOW} pixels of its middle are shown."
    )
    for pair in shown_pairs(data.judged):
        sensor = judging.sensor_of(pair)
        methods = ["bicubic", _best_sharpener(measured.scores, sensor), *data.models]
        yield from _pictures_of(data, pair, measured.products[pair.name], methods)


def features(data: ReportData, _: Measured) -> Parts:
    """What the branches of some core blocks make of one tile."""
    path, tile = data.request.model, data.models[data.name].tile
    network = None if path.suffix == ".onnx" else checkpoint.load(path).network
    if not isinstance(network, SFIIN):
        what = "an exported model keeps its features to itself" if network is None else "it is no SFIIN"
        yield Paragraph(f"No features of {path.name}: {what}. Give an SFIIN checkpoint.")
        return
    pair = fitting.central(data.judged[0], min(tile.height, tile.width))
    found = block_features(network, pair.ms, pair.pan, shown_blocks(len(network.blocks)))
    rows = {
        f"block {index + 1}": {MODULES[name]: activity(maps) for name, maps in modules.items()}
        for index, modules in found.items()
    }
    size = f"{pair.pan.shape[2]} x {pair.pan.shape[1]}"
    yield Paragraph(
        f"What the branches of some core blocks make of one tile, the {size} PAN pixels in the middle of "
        f"{pair.name}. A picture shows how far a map is from its own spatial mean, averaged over the "
        "feature channels. It is drawn from its 1st to its 99th percentile; the values have no unit. The "
        "frequency branch (global) works on amplitude and phase, where each bin sees the whole tile. The "
        "spatial branch (local) works on neighbourhoods of pixels. Fused is what the block adds to MS's "
        "features after both have interacted."
    )
    assert pair.truth is not None
    images = {"PAN": pair.pan[0], "MS": pair.ms, "truth": pair.truth}
    drawn = figures.scene(
        images, pair.truth, figures.colours(data.sensor.bands), title=f"The tile of {pair.name}"
    )
    yield Picture(figures.png(drawn), f"The tile of {pair.name}: PAN, MS, truth.")
    drawn = figures.feature_maps(rows, title=f"Features of {path.name}")
    yield Picture(figures.png(drawn), f"Features of blocks {', '.join(str(index + 1) for index in found)}.")


def phases(data: ReportData, _: Measured) -> Parts:
    """How far amplitude and phase of PAN and MS are from the truth's: the observation that SFIIN is built
    upon."""
    yield Paragraph(
        "SFIIN treats amplitude and phase apart, because PAN's phase is said to be closer to the truth's "
        "than that of MS. Compared are the spectra of PAN, of MS resampled bicubically (MS_up), and of "
        "the truth. Of MS_up and truth it is the mean over bands. The Fourier transform is of the whole "
        "image, without a window and not normalised. DC and bins of rounding noise are left out. |Δ ln "
        "A| is the mean of |ln A - ln A truth|. It is gain-free after the mean difference is taken off, "
        "because PAN has a gain of its own. |Δ phase| is taken around the circle, in radians. It is 0 "
        "for equal phases, and 1.571 (pi/2) for phases that have nothing to do with one another. "
        "Weighted means: by the truth's amplitude. Beyond the MS Nyquist are frequencies that the MS "
        "grid cannot carry in at least one direction. What MS_up has there is left over from resampling, "
        "and what image borders leak along both axes."
    )
    compared = [(pair, found) for pair in data.judged if (found := _compared(pair))]
    left_out = [pair.name for pair in data.judged if pair.name not in {found.name for found, _ in compared}]
    if left_out:
        yield Paragraph(f"Without any texture to compare, and left out: {', '.join(left_out)}.")
    if not compared:
        return
    yield _spectra_table([found for _, found in compared])
    yield from (Paragraph(line) for line in _whose_phase([found for _, found in compared]))
    pair = compared[0][0]
    images, truth = _spectra(pair)
    drawn = figures.spectra(images, truth, pair.ratio, title=f"{pair.name}: spectra")
    yield Picture(
        figures.png(drawn),
        f"{pair.name}: amplitude (log10) and phase of PAN, MS_up and truth, and absolute differences from "
        "the truth, as means over 5 x 5 bins. Frequency 0 is in the middle. The dotted square is the MS "
        "grid's Nyquist frequency.",
    )


def ablation(data: ReportData, _: Measured) -> Parts:
    """What each part of the network is worth, from the runs that were given."""
    if not data.runs:
        yield Paragraph("No ablation file was given (--ablation).")
        return
    files = ", ".join(path.name for path in data.request.ablations)
    yield Paragraph(
        f"From {files}. Each run is judged on the pairs that the ablation was given. Figures are means ± "
        "sample standard deviation over the runs' seeds; a single seed has no deviation. Runs are "
        "compared within one way of training only. Differences after a short training need not be those "
        "at the end of a long one."
    )
    for trained, found in ablation_summary.summarise(data.runs).items():
        yield from _ablation_tables(trained, found)


def _pictures_of(
    data: ReportData, pair: Pair, products: Mapping[str, Product], methods: Sequence[str]
) -> Parts:
    assert pair.truth is not None
    bands, name = data.sensor.bands, label(data.name)
    whole = {method: fitting.central(_with_truth(pair, products[method]), WINDOW).truth for method in methods}
    middle = fitting.central(pair, WINDOW)
    truth, result = middle.truth, whole[data.name]
    assert truth is not None
    assert result is not None
    images = {"PAN": middle.pan[0], "MS": middle.ms, "truth": truth, name: result}
    title = f"{pair.name}, {judging.sensor_of(pair)}"
    shown = figures.colours(bands)
    what = "red, green, blue" if len(shown) == 3 else f"band {bands[0]}"
    caption = f"{title}: PAN; MS, truth and the result of {name} ({what}, one stretch)."
    yield Picture(figures.png(figures.scene(images, truth, shown, title=title)), caption)
    errors = {
        label(method): ((np.asarray(image, np.float64) - truth) ** 2).mean(0)
        for method, image in whole.items()
    }
    drawn = figures.error_maps(errors, title=f"{title}: squared error against the truth")
    numbers = "; ".join(f"{method} {error.mean():.4g}" for method, error in errors.items())
    yield Picture(figures.png(drawn), f"{title}: squared error, mean over the window in DN²: {numbers}.")


def _spectra(pair: Pair) -> tuple[dict[str, phase_study.Spectrum], phase_study.Spectrum]:
    assert pair.truth is not None
    up = bicubic(pair.ms, pair.ratio).mean(0)
    images = {"PAN": phase_study.spectrum(pair.pan[0]), "MS_up": phase_study.spectrum(up)}
    return images, phase_study.spectrum(pair.truth.astype(np.float64).mean(0))


def _compared(pair: Pair) -> Compared:
    """All differences of a pair; empty where there is nothing to compare."""
    images, truth = _spectra(pair)
    beyond = phase_study.beyond_nyquist(pair.pan.shape[1], pair.pan.shape[2], pair.ratio)
    chosen = dict(zip(REGIONS, (None, ~beyond, beyond), strict=True))
    try:
        return {
            (region, weighted, name): phase_study.compare(image, truth, mask, weighted=weighted)
            for region, mask in chosen.items()
            for weighted in (False, True)
            for name, image in images.items()
        }
    except ValueError:
        return {}


def _spectra_table(compared: Sequence[Compared]) -> Table:
    rows = []
    for key in compared[0]:
        region, weighted, name = key
        found = [differences[key] for differences in compared]
        columns = (
            [getattr(one, field) for one in found] for field in ("log_amplitude", "gain_free", "phase")
        )
        rows.append(
            [region, "weighted" if weighted else "plain", name, *(number(spread(c), 3) for c in columns)]
        )
    header = ("frequencies", "mean", "image", "|Δ ln A|", "gain-free |Δ ln A|", "|Δ phase| rad")
    return table(f"How far from the truth's spectrum, {len(compared)} pairs", header, rows)


def _whose_phase(compared: Sequence[Compared]) -> Iterable[str]:
    for region in REGIONS:
        for weighted in (False, True):
            pan, up = (
                [found[region, weighted, name].phase for found in compared] for name in ("PAN", "MS_up")
            )
            closer = sum(a < b for a, b in zip(pan, up, strict=True))
            first, second = sorted((("PAN", fmean(pan)), ("MS_up", fmean(up))), key=lambda one: one[1])
            yield (
                f"{region[0].upper()}{region[1:]}, {'weighted' if weighted else 'plain'}: the phase of "
                f"{first[0]} is closer to the truth's, {first[1]:.3f} against {second[1]:.3f} rad; PAN's is "
                f"the closer one in {closer} of {len(compared)} pairs."
            )


def _ablation_tables(trained: str, found: Mapping[str, Summary]) -> Parts:
    lines = {
        sensor: {
            count: (found[name].quality[sensor]["psnr"], found[name].quality[sensor]["ergas"])
            for count, name in ablation_summary.BLOCKS.items()
            if name in found and sensor in found[name].quality
        }
        for sensor in sorted({sensor for summary in found.values() for sensor in summary.quality})
    }
    several = any(len(line) > 1 for line in lines.values())
    if several:
        drawn = figures.block_charts(lines, title=f"Number of core blocks; {trained}")
        yield Picture(figures.png(drawn), f"PSNR and ERGAS over the number of core blocks; {trained}.")
    questions = {
        "Core blocks": tuple(ablation_summary.BLOCKS.values()),
        "Parts": ablation_summary.PARTS,
        "Width and spatial branch": ablation_summary.WIDTHS,
        "Networks": ablation_summary.NETWORKS,
    }
    named = {name for names in questions.values() for name in names}
    questions["Other variants"] = tuple(name for name in found if name not in named)
    for question, names in questions.items():
        there = [found[name] for name in names if name in found]
        if len(there) > 1 or (there and question == "Other variants"):
            yield _ablation_table(f"{question}; {trained}", there)
        elif question != "Other variants":
            yield Paragraph(
                f"{question}; {trained}: fewer than two of {', '.join(names)}, nothing to compare."
            )


def _ablation_table(caption: str, found: Sequence[Summary]) -> Table:
    rows: list[list[str | Cell]] = []
    for sensor in sorted({sensor for summary in found for sensor in summary.quality}):
        there = [summary for summary in found if sensor in summary.quality]
        cells = best_in_bold([summary.quality[sensor] for summary in there], REFERENCE)
        for one, row in zip(there, cells, strict=True):
            fixed = (sensor, one.variant, f"{one.parameters:,}", str(len(one.seeds)), number(one.seconds, 3))
            rows.append([*fixed, *row])
    return table(
        caption, ("sensor", "variant", "parameters", "seeds", "s per step", *titles(REFERENCE)), rows
    )


def _with_truth(pair: Pair, product: Product) -> Pair:
    return Pair(pair.name, pair.pan, pair.ms, product.astype(np.float32), pair.meta)


def _facts(caption: str, facts: Mapping[str, str]) -> Table:
    return table(caption, ("what", "value"), list(facts.items()))


def _groups(scores: Sequence[Any]) -> Groups:
    """Scores by sensor, then all together where there are several sensors; by method in each."""
    sensors = sorted({score.sensor for score in scores})
    groups: Groups = {}
    for group in [*sensors, *([ALL] if len(sensors) > 1 else [])]:
        groups[group] = {}
        for score in scores:
            if group in (score.sensor, ALL):
                groups[group].setdefault(score.method, []).append(score)
    return groups


def _quality_table(caption: str, groups: Groups, measures: Measures) -> Table:
    rows: list[list[str | Cell]] = []
    for group, methods in groups.items():
        spreads = [
            {key: spread([getattr(score.quality, key) for score in found]) for key in measures}
            for found in methods.values()
        ]
        cells = best_in_bold(spreads, measures)
        for (method, found), row in zip(methods.items(), cells, strict=True):
            rows.append([group, str(len(found)), label(method), *row])
    return table(caption, ("sensor", "pairs", "method", *titles(measures)), rows)


def _bias_table(groups: Groups, bands: Sequence[str]) -> Table:
    rows: list[list[str | Cell]] = []
    for group, methods in groups.items():
        spreads = [
            {band: spread([score.quality.bias[i] for score in found]) for i, band in enumerate(bands)}
            for found in methods.values()
        ]
        cells = best_in_bold(spreads, {band: (band, 2) for band in bands}, nearest=0)
        for (method, found), row in zip(methods.items(), cells, strict=True):
            rows.append([group, str(len(found)), label(method), *row])
    return table("Bias: mean of product - truth, DN", ("sensor", "pairs", "method", *bands), rows)


def _leads(data: ReportData, scores: Sequence[Score]) -> Iterable[str]:
    """How far the model is ahead of the best classical method and of the best network beside it."""
    peers = [name for name in data.models if name != data.name]
    rivals = {"the best classical method": list(classical.METHODS), "the best network beside it": peers}
    for group, methods in _groups(scores).items():
        for rival, names in rivals.items():
            if names:
                yield f"{group}: {_lead(data.name, rival, names, methods)}"


def _lead(ours: str, rival: str, names: Sequence[str], methods: Mapping[str, Sequence[Score]]) -> str:
    means = {
        key: {name: fmean(getattr(score.quality, key) for score in methods[name]) for name in [*names, ours]}
        for key in ("psnr", "ergas")
    }
    sharpest = max(names, key=means["psnr"].__getitem__)
    truest = min(names, key=means["ergas"].__getitem__)
    decibels = means["psnr"][ours] - means["psnr"][sharpest]
    percent = 100 * (1 - means["ergas"][ours] / means["ergas"][truest])
    both = zip(methods[ours], methods[sharpest], strict=True)
    won = sum(a.quality.psnr > b.quality.psnr for a, b in both)
    return (
        f"{label(ours)} against {rival}: {_lead_by(decibels, 2, 'dB PSNR')} ({label(sharpest)}; higher PSNR "
        f"in {won} of {len(methods[ours])}), {_lead_by(percent, 1, '% ERGAS')} ({label(truest)})."
    )


def _lead_by(difference: float, digits: int, unit: str) -> str:
    size = f"{abs(difference):.{digits}f} {unit}"
    if not round(difference, digits):
        return f"level, {size}"
    return f"{'ahead' if difference > 0 else 'behind'} by {size}"


def _best_sharpener(scores: Sequence[Score], sensor: str) -> str:
    """The classical method of the highest mean PSNR, bicubic interpolation aside."""
    found: dict[str, list[float]] = {}
    for score in scores:
        if score.sensor == sensor and score.method in classical.METHODS and score.method != "bicubic":
            found.setdefault(score.method, []).append(score.quality.psnr)
    return max(found, key=lambda method: fmean(found[method]))

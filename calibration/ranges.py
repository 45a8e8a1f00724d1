"""How far does an activation reach? A threshold for each tensor that is to become INT8, by one of four
methods.

A symmetric INT8 tensor has the numbers -128 to 127 times threshold / 127; what lies beyond is clipped. A low
threshold clips, a high one has coarse steps, and the methods weigh the two differently:

| method     | threshold                                                                                    |
|------------|----------------------------------------------------------------------------------------------|
| minmax     | the largest magnitude there is                                                               |
| percentile | what 99.99 % of all magnitudes are within                                                    |
| entropy    | least Kullback-Leibler divergence of the clipped from the whole histogram (Migacz, GTC 2017) |
| mse        | least mean square error of the histogram's values after rounding and clipping                |

Histograms, percentiles and entropy are ONNX Runtime's; each weight has a threshold by output channel, its
largest magnitude.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from typing import Any, Literal

import numpy as np
import onnx
from numpy.typing import NDArray

from sfiin.export.ranges import Inputs, open_model, showing

Method = Literal["minmax", "percentile", "entropy", "mse"]
METHODS: tuple[Method, ...] = ("minmax", "percentile", "entropy", "mse")

LEVELS = 127
PERCENTILE = 99.99

_BINS = 2048
_TRIED = np.linspace(0.05, 1.0, 96)
"""Thresholds that `mse` compares, as shares of the largest magnitude."""


def thresholds(
    model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[Inputs], method: Method
) -> dict[str, float]:
    """The threshold of each named value of a float32 model over the tiles, by name; never zero."""
    found = (
        _largest(model, names, tiles) if method == "minmax" else _by_histogram(model, names, tiles, method)
    )
    return {name: threshold or 1.0 for name, threshold in found.items()}


def least_mse(counts: NDArray[np.integer[Any]], edges: NDArray[np.floating]) -> float:
    """The threshold of least mean square error for magnitudes of this histogram (n counts, n + 1 edges
    from 0 on)."""
    middle = ((edges[:-1] + edges[1:]) / 2).astype(np.float64)
    tried = _TRIED * float(edges[-1])
    steps = tried[:, None] / LEVELS
    kept = np.minimum(np.rint(middle / steps), LEVELS) * steps
    return float(tried[((kept - middle) ** 2 @ counts.astype(np.float64)).argmin()])


def _largest(model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[Inputs]) -> dict[str, float]:
    found = dict.fromkeys(names, 0.0)
    for values in _values(model, names, tiles):
        found = {name: max(found[name], float(np.abs(array).max())) for name, array in values.items()}
    return found


def _by_histogram(
    model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[Inputs], method: Method
) -> dict[str, float]:
    from onnxruntime.quantization.calibrate import HistogramCollector

    # ONNX Runtime's name for histograms of magnitudes is "percentile", and of signed values "entropy".
    kind = "entropy" if method == "entropy" else "percentile"
    collector = HistogramCollector(kind, True, _BINS, 2 * (LEVELS + 1), PERCENTILE, "same")
    with redirect_stdout(io.StringIO()):  # it prints what it does
        for values in _values(model, names, tiles):
            collector.collect(values)
        if method != "mse":
            # low, high, and the histogram; the two differ in their sign alone
            return {name: float(found[1]) for name, found in collector.compute_collection_result().items()}
    return {name: least_mse(*found[:2]) for name, found in collector.get_histogram_dict().items()}


def _values(
    model: onnx.ModelProto, names: Sequence[str], tiles: Sequence[Inputs]
) -> Iterator[dict[str, NDArray[np.float32]]]:
    session = open_model(showing(model, names))
    for tile in tiles:
        yield dict(zip(names, session.run(list(names), dict(tile)), strict=True))

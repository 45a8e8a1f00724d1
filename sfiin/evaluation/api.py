"""How is a model scored from Python? As `sfiin evaluate` does it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sfiin.data import dataset, pairs
from sfiin.evaluation import judging
from sfiin.evaluation.judging import Score
from sfiin.runtime.contract import Tile
from sfiin.runtime.extras import requires


def evaluate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    tile: int = 128,
    overlap: int = 32,
    progress: Callable[[int, int, str], None] | None = None,
    given: dataset.Given | None = None,
    notes: list[str] | None = None,
) -> list[Score]:
    """Score a checkpoint or a model on a folder of pairs, beside bicubic interpolation and Brovey.

    Pairs with a truth are scored against it; without any, all are reduced by Wald's protocol first. `tile`
    and `overlap`, in PAN pixels, are for checkpoints; a model knows its own. `progress` is told scores done,
    of how many, and the pair. `given` says what the pairs do not of their bands and range; what was guessed
    is added to `notes`. Raises InputError for what cannot be read, MismatchError for pairs that do not fit,
    UnavailableError for a checkpoint where torch is not installed.
    """
    if Path(model).suffix == ".safetensors":
        requires("train", "torch", "safetensors", what="a checkpoint")
    opened = judging.open_model(Path(model), Tile(tile, tile, overlap))
    found = dataset.read(Path(data), opened.sensor, given)
    if notes is not None:
        notes += found.notes
    known = [pair for pair in found.pairs if pair.truth is not None]
    judged = known or [pairs.reduced(pair) for pair in found.pairs]
    total = len(judged) * (1 + len(judging.BASELINES))
    scores = []
    for score in judging.evaluate(opened, judged):
        scores.append(score)
        if progress:
            progress(len(scores), total, score.pair)
    return scores

"""How is a model scored from Python? As `sfiin evaluate` does it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from sfiin.data import pairs
from sfiin.evaluation import judging
from sfiin.evaluation.judging import Score
from sfiin.runtime.contract import Tile


def evaluate(
    model: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    tile: int = 128,
    overlap: int = 32,
    progress: Callable[[int, int, str], None] | None = None,
) -> list[Score]:
    """Score a checkpoint or a model on a folder of pairs, beside bicubic interpolation and Brovey.

    Pairs with a truth are scored against it; without any, all are reduced by Wald's protocol first. `tile` and
    `overlap`, in PAN pixels, are for checkpoints; a model knows its own. `progress` is told scores done, of how many,
    and the pair. Raises InputError for what cannot be read, MismatchError for pairs that do not fit.
    """
    opened = judging.open_model(Path(model), Tile(tile, tile, overlap))
    found = pairs.load_folder(Path(data), len(opened.sensor.bands), opened.sensor.ratio)
    judged = [pair for pair in found if pair.truth is not None] or [pairs.reduced(pair) for pair in found]
    total = len(judged) * (1 + len(judging.BASELINES))
    scores = []
    for score in judging.evaluate(opened, judged):
        scores.append(score)
        if progress:
            progress(len(scores), total, score.pair)
    return scores

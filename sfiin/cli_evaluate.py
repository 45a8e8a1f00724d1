"""Which command judges? `evaluate`.

Imported for `sfiin --help` even where torch is not installed, so what is heavy is imported inside the command.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from runtime import options
from runtime.cli import requires
from runtime.console import print_json, print_table, progress


def evaluate(
    *,
    model: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint (.safetensors) or a model (.onnx).")],
    data: Annotated[
        Path,
        typer.Option("--data", metavar="DIR", exists=True, file_okay=False, help="A folder of .npz pairs."),
    ],
    tile: Annotated[int, typer.Option(min=16, help="A checkpoint's tile in PAN pixels; a model knows its own.")] = 128,
    overlap: Annotated[int, typer.Option(min=0, help="PAN pixels that a checkpoint's tiles share.")] = 32,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Score a model on pairs with known truth, beside bicubic and Brovey."""
    requires("train", "torch", "safetensors", "scipy")
    from runtime.contract import Tile
    from sfiin import evaluation, pairs

    opened = evaluation.open_model(model, Tile(tile, tile, overlap))
    found = pairs.load_folder(data, len(opened.sensor.bands), opened.sensor.ratio)
    judged = [pair for pair in found if pair.truth is not None] or [pairs.reduced(pair) for pair in found]
    scores = []
    with progress("evaluating", len(judged) * (1 + len(evaluation.BASELINES)), quiet) as advance:
        for score in evaluation.evaluate(opened, judged):
            scores.append(score)
            advance(1, score.pair)
    means = evaluation.means(scores)
    if as_json:
        keys = ("sensor", "method", "pairs", "mean")
        print_json(
            {
                "model": str(model),
                "means": [dict(zip(keys, row, strict=True)) for row in means],
                "scores": [dataclasses.asdict(score) for score in scores],
            }
        )
    elif not quiet:
        rows = [(s, m, n, f"{q['psnr']:.2f}", f"{q['sam']:.3f}", f"{q['ergas']:.3f}") for s, m, n, q in means]
        print_table("mean quality", rows, ("sensor", "method", "pairs", "PSNR dB", "SAM deg", "ERGAS"))

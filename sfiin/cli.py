"""Which commands does the training side add? `train`, `import` and `evaluate`.

Imported for `sfiin --help` even where torch is not installed, so what is heavy is imported inside the commands.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from runtime import options
from runtime.cli import requires
from runtime.console import print_json, print_table, progress, say

if TYPE_CHECKING:
    from runtime.contract import SensorProfile

Data = Annotated[
    Path,
    typer.Option("--data", metavar="DIR", exists=True, file_okay=False, help="A folder of .npz pairs of PAN and MS."),
]
Sensor = Annotated[str, typer.Option("--sensor", help="The sensor's profile, by name.")]
Checkpoint = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The checkpoint to write (.safetensors).")
]


def train(
    *,
    output: Checkpoint,
    data: Data,
    init: Annotated[Path | None, typer.Option("--init", metavar="FILE", help="A checkpoint to begin with.")] = None,
    sensor: Sensor = "vhr4",
    channels: Annotated[int, typer.Option(min=4, help="Feature channels, a multiple of 4.")] = 8,
    blocks: Annotated[int, typer.Option(min=1, help="Core blocks.")] = 5,
    spatial: Annotated[Literal["convolution", "invertible"], typer.Option(help="The spatial branch.")] = "convolution",
    steps: Annotated[int, typer.Option(min=1, help="Batches to learn from.")] = 20000,
    batch: Annotated[int, typer.Option(min=1, help="Patches in a batch.")] = 4,
    patch: Annotated[int, typer.Option(min=16, help="A patch's side in PAN pixels; the tile to deploy on.")] = 128,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate at the start; it falls along a cosine.")] = 8e-4,
    seed: Annotated[int, typer.Option(min=0, help="Determines the weights at the start and the patches.")] = 0,
    threads: options.Threads = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on pairs of PAN and MS at reduced resolution; keep the best by ERGAS on held-out pairs."""
    options.refuse_existing(output, overwrite)
    requires("train", "torch", "safetensors", "scipy")
    import torch

    from sfiin import checkpoint, pairs, training
    from sfiin.network import SFIIN, NetworkConfig

    torch.manual_seed(seed)
    torch.set_num_threads(threads or torch.get_num_threads())
    if init:
        network = checkpoint.load(init).network.train()
    else:
        profile = _profile(sensor)
        network = SFIIN(NetworkConfig(len(profile.bands), _four(channels), blocks, profile.ratio, spatial), profile)
    known = [pairs.reduced(pair) for pair in pairs.load_folder(data, network.config.bands, network.config.ratio)]
    used, held_out = pairs.split(known)
    config = training.TrainingConfig(steps=steps, batch=batch, patch=patch, rate=rate, seed=seed)
    with progress("training", steps, quiet) as advance:
        result = training.train(
            network, used, held_out, config, lambda at: advance(1, f"loss {at.loss:.5f}, ERGAS {at.ergas:.3f}")
        )
    checkpoint.save(output, result)
    say(f"{output}: ERGAS {result.training['validation_ergas']:.3f} on {len(held_out)} held-out pairs", quiet)


def import_(
    *,
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The authors' checkpoint (.pth).")],
    output: Checkpoint,
    sensor: Sensor = "vhr4",
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn a .pth of the authors' release into a checkpoint; a pickle that holds more than tensors is refused."""
    options.refuse_existing(output, overwrite)
    requires("train", "torch", "safetensors")
    from sfiin import checkpoint

    result = checkpoint.load_authors(source, _profile(sensor))
    checkpoint.save(output, result)
    say(f"{output}: {result.network.config}", quiet)


def evaluate(
    *,
    model: Annotated[Path, typer.Argument(metavar="FILE", help="A checkpoint (.safetensors) or a model (.onnx).")],
    data: Data,
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


def _profile(name: str) -> SensorProfile:
    from sfiin.sensors import SENSORS

    if name not in SENSORS:
        raise typer.BadParameter(f"unknown sensor '{name}'; known: {', '.join(SENSORS)}", param_hint="--sensor")
    return SENSORS[name]


def _four(channels: int) -> int:
    if channels % 4:
        raise typer.BadParameter(f"{channels} is no multiple of 4", param_hint="--channels")
    return channels

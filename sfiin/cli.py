"""Which commands does the training side add? `train`, `import`, `evaluate`, `demo`.

Imported for `sfiin --help` even where torch is not installed, so the heavy imports stand inside the commands.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli import requires
from runtime.console import print_json, progress, say
from runtime.options import Json, Quiet

Data = Annotated[Path, typer.Option("--data", help="Folder of .npz pairs.", exists=True, file_okay=False)]
Sensor = Annotated[str, typer.Option(help="Sensor profile: bands, ratio, bits and scale.")]


def train(
    out: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint to write (.safetensors).")],
    data: Data,
    sensor: Sensor = "vhr4",
    channels: Annotated[int, typer.Option(min=4, help="Feature channels, a multiple of 4.")] = 8,
    blocks: Annotated[int, typer.Option(min=1, help="Core blocks.")] = 5,
    spatial: Annotated[str, typer.Option(help="Spatial branch: convolution or invertible.")] = "convolution",
    steps: Annotated[int, typer.Option(min=1)] = 20000,
    batch: Annotated[int, typer.Option(min=1)] = 4,
    patch: Annotated[int, typer.Option(min=16, help="Side of a patch, PAN pixels; also the tile to run on.")] = 128,
    rate: Annotated[float, typer.Option(help="Adam's learning rate at the start.")] = 8e-4,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads; 0: all.")] = 0,
    quiet: Quiet = False,
) -> None:
    """Train SFIIN on pairs of PAN and MS at reduced resolution."""
    requires("train", "torch", "safetensors", "scipy")
    import torch

    from sfiin import checkpoint, pairs, training
    from sfiin.network import SFIIN

    profile = sensor_profile(sensor)
    torch.set_num_threads(threads or torch.get_num_threads())
    torch.manual_seed(seed)
    network = SFIIN(_network_config(profile, channels, blocks, spatial), profile)
    known = [pairs.reduced(pair) for pair in pairs.load_folder(data, len(profile.bands), profile.ratio)]
    used, held_out = pairs.split(known)
    config = training.TrainingConfig(steps=steps, batch=batch, patch=patch, rate=rate, seed=seed)
    with progress("training", steps, quiet) as advance:
        result = training.train(
            network, used, held_out, config, lambda at: advance(1, f"loss {at.loss:.5f}  ERGAS {at.ergas:.3f}")
        )
    checkpoint.save(out, result)
    say(f"{out}: validation ERGAS {result.training['validation_ergas']:.3f} on {len(held_out)} held-out pairs", quiet)

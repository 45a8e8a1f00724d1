"""How is a trained network opened by name? A checkpoint's file, or one that comes with the package."""

from __future__ import annotations

import os
from pathlib import Path

from sfiin.model.checkpoint import Checkpoint
from sfiin.model.checkpoint import load as load_file
from sfiin.runtime.errors import InputError

FOLDER = Path(__file__).parents[1] / "checkpoints"


def load(checkpoint: str | os.PathLike[str]) -> Checkpoint:
    """Open a checkpoint (.safetensors), or a shipped one by its name, such as "sfiin-vhr4".

    Its `network` is a torch module: MS (N, B, h, w) and PAN (N, 1, H, W) to HRMS (N, B, H, W), float32, DN;
    its `training` is the record of how it was trained. Raises CheckpointError for what is no checkpoint,
    InputError for a name that there is none of.
    """
    path = Path(checkpoint)
    shipped = FOLDER / f"{path.name}.safetensors"
    if not path.exists() and str(path) == path.name:
        if shipped.is_file():
            return load_file(shipped)
        names = ", ".join(sorted(found.stem for found in FOLDER.glob("*.safetensors")))
        raise InputError(
            f"{checkpoint}: no such file, and no shipped checkpoint of this name; those are {names}"
        )
    return load_file(path)

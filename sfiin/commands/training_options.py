"""What can be said of a training on the command line? The options of `train`, by subject."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from sfiin.commands.data_options import Bands, Bits

if TYPE_CHECKING:
    from sfiin.training.train import TrainingConfig

Steps = Annotated[int, typer.Option(min=1, help="Batches to learn from.")]
Batch = Annotated[int, typer.Option(min=1, help="Patches in a batch.")]
Patch = Annotated[int, typer.Option(min=16, help="A patch's side in PAN pixels; the tile to deploy on.")]
Rate = Annotated[float, typer.Option(min=0, help="Learning rate at the start; it falls along a cosine.")]


@dataclass(frozen=True)
class NetworkOptions:
    """The network to begin with, where no checkpoint is given."""

    architecture: Annotated[
        Literal["sfiin", "pnn", "pannet"], typer.Option(help="The network; pnn and pannet are baselines.")
    ] = "sfiin"
    channels: Annotated[int, typer.Option(min=4, help="SFIIN's feature channels, a multiple of 4.")] = 8
    blocks: Annotated[int, typer.Option(min=1, help="SFIIN's core blocks.")] = 5
    spatial: Annotated[Literal["convolution", "invertible"], typer.Option(help="SFIIN's spatial branch.")] = (
        "convolution"
    )
    branches: Annotated[
        Literal["both", "spatial", "frequency"],
        typer.Option(help="SFIIN with one branch only, for experiments."),
    ] = "both"
    interaction: Annotated[
        Literal["dual", "none"],
        typer.Option(help="SFIIN without exchange between branches, for experiments."),
    ] = "dual"
    normalise: Annotated[
        Literal["none", "local"], typer.Option(help="local: SFIIN sees each neighbourhood's own contrast.")
    ] = "none"
    inject: Annotated[
        Literal["none", "regression", "gsa", "mixed"],
        typer.Option(help="What classical methods would add, for SFIIN to weigh; mixed: several of them."),
    ] = "none"

    @property
    def changes(self) -> dict[str, Any]:
        """SFIIN's fields; a baseline has none of them."""
        fields = {name: value for name, value in vars(self).items() if name != "architecture"}
        return fields if self.architecture == "sfiin" else {}

    def check(self) -> None:
        """Raises typer.BadParameter for channels that the network cannot halve twice."""
        if self.channels % 4:
            raise typer.BadParameter(f"{self.channels} is no multiple of 4", param_hint="--channels")


@dataclass(frozen=True)
class PairOptions:
    """Which pairs to learn from, and which to choose a checkpoint by."""

    drawing: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE.toml",
            help="Make each patch anew, as other sensors would: 'sensors', 'sensors8', 'landsat', or a "
            "table.",
        ),
    ] = None
    leave_out: Annotated[
        list[str] | None,
        typer.Option("--leave-out", metavar="SENSOR", help="Train without a sensor's pairs; several times."),
    ] = None
    choose_by: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            help="Choose by the pairs there, and train on all of --data.",
        ),
    ] = None
    hold_out: Annotated[
        list[str] | None,
        typer.Option("--hold-out", metavar="NAME", help="What to choose the best by; * for any characters."),
    ] = None
    bands: Bands = None
    bits: Bits = None

    @property
    def origin(self) -> dict[str, Any]:
        """What a checkpoint keeps of them."""
        return ({"drawing": self.drawing} if self.drawing else {}) | (
            {"leave_out": list(self.leave_out)} if self.leave_out else {}
        )


@dataclass(frozen=True)
class LearningOptions:
    """Each field is one of `sfiin.training.train.TrainingConfig`."""

    steps: Steps = 20000
    batch: Batch = 4
    patch: Patch = 128
    rate: Rate = 8e-4
    weight: Annotated[float, typer.Option(min=0, help="The loss's lambda: how much frequency counts.")] = 0.1
    unit: Annotated[
        Literal["scale", "detail"],
        typer.Option(help="The loss's unit: the sensor's scale, or what each patch lacks of detail."),
    ] = "scale"
    crisp: Annotated[
        float,
        typer.Option(min=0, help="The weight of fine contrast in the loss: without, detail comes out faint."),
    ] = 0.0
    sharpen: Annotated[
        float,
        typer.Option(min=0, max=1, help="By which share to raise the fine detail that is aimed at."),
    ] = 0.0
    seed: Annotated[int, typer.Option(min=0, help="Determines the weights at the start and the patches.")] = 0
    validate_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 250
    precision: Annotated[
        Literal["fp32", "mixed"], typer.Option(help="mixed: half-precision convolutions, float32 spectra.")
    ] = "fp32"

    @property
    def config(self) -> TrainingConfig:
        """As the training takes them."""
        from sfiin.training.train import TrainingConfig

        return TrainingConfig(**vars(self))

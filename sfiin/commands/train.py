"""Which commands train? `train` and `ablate`.

Imported for `sfiin --help` even where torch is not installed, so what is heavy is imported inside the
commands.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast, get_args

import typer

from sfiin.commands.data_options import given_by
from sfiin.commands.training_options import (
    Batch,
    LearningOptions,
    NetworkOptions,
    PairOptions,
    Patch,
    Rate,
    Steps,
)
from sfiin.runtime.cli import requires
from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_table, progress, say
from sfiin.runtime.commands.scene_options import spread
from sfiin.runtime.errors import MismatchError, OutputError, UnavailableError
from sfiin.runtime.files import check_target

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sfiin.data import pairs
    from sfiin.data.dataset import Given
    from sfiin.data.pairs import Pair, Source
    from sfiin.data.sensors import Sensor
    from sfiin.evaluation.ablation import AblationRun, Variant
    from sfiin.model.checkpoint import Architecture
    from sfiin.model.network import PanSharpener
    from sfiin.training.train import Progress

Data = Annotated[
    Path,
    typer.Option(
        "--data",
        metavar="DIR",
        exists=True,
        file_okay=False,
        help="A folder of pairs (.npz, .h5, .mat, images), and of sub-folders with pan.tif and ms.tif.",
    ),
]
SensorName = Annotated[str, typer.Option("--sensor", metavar="NAME|FILE.toml", help="The sensor's profile.")]
Checkpoint = Annotated[
    Path, typer.Option("--output", "-o", metavar="FILE", help="The checkpoint to write (.safetensors).")
]
Reduction = Annotated[
    list[str],
    typer.Option(
        metavar="given|mtf|bicubic",
        help="How MS comes about: as given in the file, by the sensor's MTF, or by bicubic reduction of the "
        "truth; several times for a mix.",
    ),
]


@spread
def train(
    context: typer.Context,
    *,
    output: Checkpoint,
    data: Data,
    init: Annotated[
        Path | None, typer.Option("--init", metavar="FILE", help="A checkpoint to begin with.")
    ] = None,
    sensor: SensorName = "vhr4",
    shape: NetworkOptions,
    reduction: Reduction = ["given"],  # noqa: B006 (typer copies it)
    material: PairOptions,
    learning: LearningOptions,
    device: Annotated[Literal["cpu", "cuda"], typer.Option(help="What to train on.")] = "cpu",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a training that was stopped.")] = False,
    threads: options.Threads = 0,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a network on pairs of PAN and MS at reduced resolution; keep the best by ERGAS on held-out pairs.

    The learning curve is written beside the checkpoint as .csv. A training that was stopped leaves a .state
    file there, from which --resume goes on.
    """
    state, curve = _beside(output, overwrite, resume)
    shape.check()
    requires("train", "torch", "safetensors", "scipy")
    from sfiin.model import checkpoint
    from sfiin.training import train

    _set_torch(device, learning.seed, threads)
    network, found = _begun(context, init, sensor, shape, learning.patch)
    origin = {"reduction": list(reduction)} | ({"init": init.name} if init else {}) | material.origin
    said = Said(
        given_by(material.bands, material.bits),
        tuple(material.hold_out or ()),
        tuple(material.leave_out or ()),
    )
    with ExitStack() as stack:
        used, held_out = _material(data, found, reduction, learning.patch, material, said=said, stack=stack)
        result = train.train(
            network.to(device),
            used,
            held_out,
            learning.config,
            _watching(stack, learning.steps, quiet),
            state_file=state,
            origin=origin,
        )
    checkpoint.save(
        output, checkpoint.Checkpoint(result.network, {**result.training, **origin, **said.record()})
    )
    train.write_curve(curve, result.training["curve"])
    state.unlink(missing_ok=True)
    say(f"{output}: ERGAS {result.training['validation_ergas']:.3f} on {len(held_out)} held-out pairs", quiet)
    for note in said.notes:
        say(f"  {note}", quiet)


def _set_torch(device: Literal["cpu", "cuda"], seed: int, threads: int) -> None:
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UnavailableError("this PyTorch sees no CUDA device; train with --device cpu")
    torch.manual_seed(seed)
    torch.set_num_threads(threads or torch.get_num_threads())


def _begun(
    context: typer.Context, init: Path | None, sensor: str, shape: NetworkOptions, patch: int
) -> tuple[PanSharpener, Sensor]:
    """The network to train, from a checkpoint or new, and its sensor."""
    if init is None:
        return _untrained(sensor, shape.architecture, shape.changes)
    given = [name for name in vars(shape) if _is_given(context, name)]
    if given:
        raise typer.BadParameter(f"the network is the one in {init}", param_hint=f"--{given[0]}")
    return _from_checkpoint(init, sensor if _is_given(context, "sensor") else None, patch)


def _material(
    data: Path,
    sensor: Sensor,
    reduction: list[str],
    patch: int,
    chosen: PairOptions,
    *,
    said: Said,
    stack: ExitStack,
) -> tuple[list[Source], list[Pair]]:
    """What to train on, and the pairs to choose the best by."""
    if chosen.drawing:
        own = None if chosen.choose_by else patch
        used, held_out = _varied(data, sensor, chosen.drawing, own, chosen.leave_out or ())
    else:
        used, held_out = _pairs(data, sensor, reduction, patch, said, stack=stack)
    if chosen.choose_by:
        return used if chosen.drawing else [*used, *held_out], _judges(chosen.choose_by, sensor)
    return used, held_out


def _watching(stack: ExitStack, steps: int, quiet: bool) -> Callable[[Progress], None]:
    """A bar of the steps, until the stack ends."""
    advance, done = stack.enter_context(progress("training", steps, quiet)), 0

    def watch(at: Progress) -> None:
        nonlocal done
        advance(at.step - done, f"loss {at.loss:.5f}, ERGAS {at.ergas:.3f}")  # by several after --resume
        done = at.step

    return watch


def _beside(output: Path, overwrite: bool, resume: bool) -> tuple[Path, Path]:
    """Where the state and the curve of a training lie; refuses what would replace something, before any
    work."""
    state, curve = output.with_suffix(".state"), output.with_suffix(".csv")
    if output in (state, curve):
        raise typer.BadParameter(
            f"{output.suffix} is for what lies beside the checkpoint", param_hint="--output"
        )
    for path in (output, curve):
        options.refuse_existing(path, overwrite)
        check_target(path)
    if state.exists() and not resume:
        raise OutputError(f"{state}: a training that was stopped; --resume to go on with it, or remove it")
    return state, curve


def _is_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


def _from_checkpoint(init: Path, sensor: str | None, patch: int) -> tuple[PanSharpener, Sensor]:
    """The network to go on with on patches of that side, and its sensor: the shipped one of its name, if no
    other is given."""
    from sfiin.data import sensors
    from sfiin.model import checkpoint
    from sfiin.model.tile_size import for_tile

    loaded = checkpoint.load(init)
    network = for_tile(loaded.network, loaded.training, (patch, patch))
    name = network.sensor.name
    found = sensors.find(sensor) if sensor else sensors.known(name)
    if found is None:
        raise MismatchError(
            f"sensor: {init} is for '{name}', which is not shipped; give it with --sensor {name}.toml"
        )
    shapes = [(len(profile.bands), profile.ratio) for profile in (network.sensor, found.profile)]
    if shapes[0] != shapes[1]:
        raise MismatchError(
            f"sensor: {init} is for '{name}' of {shapes[0][0]} bands at ratio {shapes[0][1]}, not "
            f"for '{found.name}' of {shapes[1][0]} at ratio {shapes[1][1]}; give its own sensor with --sensor"
        )
    return network, found


def _untrained(
    sensor: str, architecture: Architecture, changes: dict[str, Any]
) -> tuple[PanSharpener, Sensor]:
    from sfiin.data import sensors
    from sfiin.evaluation.ablation import Variant

    found = sensors.find(sensor)
    return Variant(architecture, architecture, changes).build(found.profile), found


def ablate(
    *,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The runs, JSON; added to.")],
    data: Data,
    check: Annotated[
        Path, typer.Option("--check", metavar="DIR", exists=True, file_okay=False, help="Pairs to judge by.")
    ],
    variant: Annotated[
        list[str] | None, typer.Option(help="A variant's name, several times; default: all.")
    ] = None,
    sensor: SensorName = "vhr4",
    reduction: Reduction = ["given"],  # noqa: B006 (typer copies it)
    steps: Steps = 500,
    batch: Batch = 4,
    patch: Patch = 128,
    rate: Rate = 1.5e-3,
    seed: Annotated[list[int], typer.Option(min=0, help="Several times for a spread.")] = [0, 1, 2],  # noqa: B006
    threads: options.Threads = 0,
    quiet: options.Quiet = False,
) -> None:
    """Train variants of the network and the learned baselines alike, and judge them on the same pairs.

    Runs are added to the file one by one; what it holds already is not trained again.
    """
    check_target(output)
    requires("train", "torch", "safetensors", "scipy")
    import torch

    from sfiin.data import sensors
    from sfiin.data.pairs import load_folder, reduced
    from sfiin.evaluation import ablation
    from sfiin.training import train

    torch.set_num_threads(threads or torch.get_num_threads())
    found = sensors.find(sensor)
    profile = found.profile
    variants = [_variant(name) for name in variant or ablation.VARIANTS]
    judged = [
        pair for pair in load_folder(check, len(profile.bands), profile.ratio) if pair.truth is not None
    ]
    if not judged:
        raise typer.BadParameter(f"{check}: no pair with truth of this sensor's bands", param_hint="--check")
    config = train.TrainingConfig(steps, batch, patch, rate, validate_every=max(1, steps // 2))
    with ExitStack() as stack:
        used, held_out = _pairs(data, found, reduction, patch, Said(given_by(None, None), ()), stack=stack)
        advance = stack.enter_context(progress("ablation", len(variants) * len(seed) * steps, quiet))
        experiment = ablation.Experiment(
            profile,
            used,
            held_out,
            [reduced(pair, _reduction(reduction[0]), found) for pair in judged],
            config,
        )
        runs = ablation.run(
            output, variants, seed, experiment, lambda name, at: advance(1, f"{name}, ERGAS {at.ergas:.3f}")
        )
    if not quiet:
        _print_runs(runs)


def _print_runs(runs: Sequence[AblationRun]) -> None:
    """A line for each run and sensor."""
    rows = [
        (
            run.variant,
            run.training.seed,
            run.parameters,
            name,
            f"{quality.psnr:.2f}",
            f"{quality.ergas:.3f}",
        )
        for run in runs
        for name, quality in run.quality.items()
    ]
    print_table("ablation", rows, ("variant", "seed", "parameters", "sensor", "PSNR dB", "ERGAS"))


def _pairs(
    data: Path,
    sensor: Sensor,
    reductions: list[str],
    patch: int,
    said: Said,
    *,
    stack: ExitStack,
) -> tuple[list[Source], list[Pair]]:
    """What to train on and what to hold out; see `sfiin.data.material`."""
    from sfiin.data import material

    found = material.gather(
        data,
        sensor,
        [_reduction(name) for name in reductions],
        patch,
        stack,
        given=said.given,
        hold_out=said.hold_out,
        chosen=lambda known: _without(known, said.without) if said.without else known,
    )
    said.notes.extend(found.notes)
    return found.used, found.held_out


def _varied(
    data: Path, sensor: Sensor, drawing: str, patch: int | None, leave_out: Sequence[str]
) -> tuple[list[Source], list[Pair]]:
    """What to draw from, and what to hold out, as it is given; without a `patch`, nothing."""
    from sfiin.data import pairs
    from sfiin.training import drawing as drawings

    chosen, bands = drawings.named(drawing), len(sensor.profile.bands)
    everything = [pairs.load_pair(path) for path in sorted(data.glob("*.npz"))]
    fitting = _without([pair for pair in everything if pair.ratio == sensor.profile.ratio], leave_out)
    own = [pair for pair in fitting if len(pair.ms) == bands]
    if not own:
        raise typer.BadParameter(f"{data}: no pair of {bands} bands of this ratio", param_hint="--data")
    first, held_out = (own, []) if patch is None else pairs.split(own, patch)
    others = [pair for pair in fitting if len(pair.ms) != bands]
    used: list[Source] = [*drawings.varied([*first, *others], chosen, bands, sensor)]
    return used, [pairs.reduced(pair, "given", sensor) for pair in held_out]


def _without(found: list[Pair], leave_out: Sequence[str]) -> list[Pair]:
    """The pairs of other sensors than these, by any of a sensor's names."""
    from sfiin.data import sensors

    left = found
    for name in leave_out:
        known = sensors.known(name)
        own = known.is_called if known else lambda text, name=name: text.casefold() == name.casefold()
        left = [pair for pair in left if not own(str(pair.meta.get("sensor", "")))]
    if not left:
        raise typer.BadParameter("no pair is left to train on", param_hint="--leave-out")
    return left


def _judges(folder: Path, sensor: Sensor) -> list[Pair]:
    """The folder's pairs to choose a checkpoint by: with truth, or reduced."""
    from sfiin.data import dataset, pairs

    profile = sensor.profile
    found = dataset.read(folder, profile).pairs
    return [pairs.reduced(dataset.fitted(pair, profile), "given", sensor) for pair in found]


@dataclass(frozen=True)
class Said:
    """What the options say of the data, and `notes` of what was guessed then."""

    given: Given
    hold_out: tuple[str, ...]
    without: tuple[str, ...] = ()
    notes: list[str] = field(default_factory=list)

    def record(self) -> dict[str, Any]:
        """What a checkpoint keeps of them."""
        return {"assumed": self.notes} if self.notes else {}


def _reduction(name: str) -> pairs.Reduction:
    from sfiin.data.pairs import Reduction

    if name not in get_args(Reduction):
        raise typer.BadParameter(
            f"'{name}' is not {', '.join(get_args(Reduction))}", param_hint="--reduction"
        )
    return cast("pairs.Reduction", name)


def _variant(name: str) -> Variant:
    from sfiin.evaluation.ablation import VARIANTS

    if name not in VARIANTS:
        raise typer.BadParameter(
            f"unknown variant '{name}'; known: {', '.join(VARIANTS)}", param_hint="--variant"
        )
    return VARIANTS[name]

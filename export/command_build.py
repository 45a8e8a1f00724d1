"""How does a model become a plan from the command line? `sfiin build`, and `sfiin refit` for new weights."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfiin.runtime.cli import requires
from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_json, say, tally
from sfiin.runtime.errors import MismatchError

if TYPE_CHECKING:
    from sfiin.runtime.check import Parity

# The names of sfiin.runtime.backends.plan.Flavour and Compatibility, repeated because `--help` must not load
# what they come with.
Flavour = Literal["tensorrt", "rtx"]
Compatibility = Literal["none", "same_compute_capability", "ampere_plus"]

UNCHECKED = "not yet checked on a device; the first load there checks it"


def build(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="A model of 'sfiin export' (.onnx).")],
    output: options.Output,
    flavour: Annotated[
        Flavour | None,
        typer.Option(
            "--flavour", help="TensorRT, on the machine that will run the plan, or TensorRT for RTX."
        ),
    ] = None,
    capabilities: Annotated[
        str | None,
        typer.Option(
            "--compute-capability",
            metavar="A,B",
            help="For rtx: the cards to build for; default: the one here, else 8.9.",
        ),
    ] = None,
    batch: Annotated[
        str, typer.Option("--batch", metavar="MIN,OPT,MAX", help="Fewest, usual and most tiles at once.")
    ] = "1,1,16",
    workspace: Annotated[
        str | None,
        typer.Option("--workspace", metavar="SIZE", help="Scratch memory for a layer, such as 512M or 2G."),
    ] = None,
    level: Annotated[
        int | None,
        typer.Option("--level", min=0, max=5, help="How long to look for fast kernels (TensorRT 8.6 on)."),
    ] = None,
    version_compatible: Annotated[
        bool,
        typer.Option("--version-compatible", help="Also runs in later versions, and in the lean runtime."),
    ] = False,
    hardware_compatibility: Annotated[
        Compatibility,
        typer.Option("--hardware-compatibility", help="Which other GPUs the plan runs on, too."),
    ] = "none",
    strip: Annotated[
        bool, typer.Option("--strip", help="Leave the weights out, for 'sfiin refit' on the device.")
    ] = False,
    refit: Annotated[bool, typer.Option("--refit", help="Let 'sfiin refit' put in other weights.")] = False,
    dla: Annotated[bool, typer.Option("--dla", help="Not possible, and says why.")] = False,
    timing_cache: Annotated[
        bool,
        typer.Option(
            "--timing-cache/--no-timing-cache", help="Keep the builder's timings for the next build."
        ),
    ] = True,
    plugin: Annotated[
        Path | None,
        typer.Option("--plugin", metavar="LIB", help="The plugin's library, for models of --fourier plugin."),
    ] = None,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Write all that the library says.")
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Build a TensorRT plan from an exported model; contract and provenance go beside it."""
    if dla:
        raise MismatchError(
            "--dla: a DLA has no MatMul over batches, no Sin, Cos or Atan, so that every block's "
            "frequency branch would go to the GPU and back; leave it out"
        )
    options.refuse_existing(output, overwrite)
    requires("gpu", "onnx")
    from sfiin.export import api

    with tally("building", quiet or as_json) as progress:
        built = api.build(
            model,
            output,
            flavour=flavour,
            compute_capability=tuple(capabilities.split(",")) if capabilities else (),
            batch=parse_batch(batch),
            workspace=options.parse_size(workspace) if workspace else None,
            level=level,
            version_compatible=version_compatible,
            hardware_compatibility=hardware_compatibility,
            strip=strip,
            refit=refit,
            timing_cache=timing_cache,
            plugin=plugin,
            log=log,
            overwrite=overwrite,
            progress=progress,
        )
    made = built.sidecar.build
    if as_json:
        print_json(
            {
                "plan": str(output),
                "layers": built.layers,
                "bytes": built.size,
                "build": dataclasses.asdict(made),
            }
        )
        return
    where = made.device or "compute capability " + ", ".join(made.compute_capabilities)
    size = f"{built.layers} layers, {built.size / 1e6:.1f} MB in {made.seconds:.1f} s"
    precision = built.sidecar.contract.precision
    say(
        f"{output}: {made.flavour} {made.tensorrt} for {where}, {precision}, {size}, "
        f"{_checked(built.parity)}",
        quiet,
    )


def refit(
    *,
    plan: Annotated[Path, typer.Argument(metavar="PLAN", help="A plan built with --refit or --strip.")],
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="A model (.onnx) exported as the plan's was, or a checkpoint of its network.",
        ),
    ],
    output: options.Output,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Put other weights into a plan without building it again."""
    options.refuse_existing(output, overwrite)
    requires("jetson", "onnx")
    from sfiin.export.refit import refit as refit_plan

    distance = refit_plan(plan, weights, output)
    say(f"{output}: {weights.name} in {plan.name}, {_checked(distance)}", quiet)


def parse_batch(text: str) -> tuple[int, int, int]:
    """'1,4,16' as three rising numbers. Raises typer.BadParameter for anything else."""
    found = re.fullmatch(r"(\d+),(\d+),(\d+)", text)
    numbers = tuple(map(int, found.groups())) if found else (0, 0, 0)
    if not 1 <= numbers[0] <= numbers[1] <= numbers[2]:
        raise typer.BadParameter(
            f"'{text}' is no batch; write three rising numbers from 1 on, such as 1,4,16"
        )
    return numbers[0], numbers[1], numbers[2]


def _checked(distance: Parity | None) -> str:
    if distance is None:
        return UNCHECKED
    figures = f"relative L2 {distance.relative_l2:.1e}, at most {distance.peak_share:.1e} of peak"
    return f"checked on golden tiles ({figures})"

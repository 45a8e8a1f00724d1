"""How do weights of another program come in? `sfiin import`.

Imported for `sfiin --help` even where torch is not installed, so what is heavy is imported inside the
command.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfiin.runtime.cli import requires
from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import say
from sfiin.runtime.errors import ContractError

if TYPE_CHECKING:
    from sfiin.runtime.contract import SensorProfile

Resample = Literal["half-pixel", "align-corners", "given"]

BY_BANDS = {4: "vhr4", 8: "worldview3"}
"""The sensor that is assumed for so many bands."""

RESAMPLED: dict[Resample, str] = {
    "half-pixel": "MS is resampled with half-pixel centres",
    "align-corners": "MS is resampled with aligned corners, as the authors' training does",
    "given": "what resampled MS in its training is not known; bicubic with half-pixel centres stands in for "
    "it",
}


def import_(
    *,
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="Weights of an SFIIN: .pth, .pt, .ckpt or .safetensors.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The checkpoint to write (.safetensors).")
    ],
    sensor: Annotated[
        str | None,
        typer.Option(
            "--sensor", metavar="NAME|FILE.toml", help="The sensor it is for; else one of so many bands."
        ),
    ] = None,
    bands: Annotated[
        str | None,
        typer.Option("--bands", metavar="A,B,...", help="Its bands in their order: blue,green,red,nir."),
    ] = None,
    scale: Annotated[
        float | None,
        typer.Option("--scale", metavar="DN", help="The digital number that it sees as 1.0: 2047, or 255."),
    ] = None,
    bits: Annotated[
        int | None,
        typer.Option("--bits", min=1, max=32, help="Bits of the digital numbers; else the scale's."),
    ] = None,
    resample: Annotated[
        Resample | None, typer.Option("--resample", help="How MS came onto the PAN grid in its training.")
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Turn weights that another program wrote into a checkpoint; whatever in them could run code is
    refused."""
    options.refuse_existing(output, overwrite)
    requires("train", "torch", "safetensors", "scipy")
    from sfiin.model import authors, checkpoint

    weights = authors.read(source)
    profile, assumed = _profile(weights.bands, sensor, bands, scale, bits)
    way = resample or "half-pixel"
    if resample is None:
        assumed.append(f"{RESAMPLED[way]} (--resample align-corners, if it was trained so)")
    result = authors.as_checkpoint(weights, profile, source, way)
    record = dict(result.training) | {"resample": way, "assumed": assumed}
    checkpoint.save(output, dataclasses.replace(result, training=record))
    config = result.network.config
    say(
        f"{output}: SFIIN of {config.bands} bands, {config.channels} channels, {config.blocks} core blocks, "
        f"{config.spatial} spatial branch; {profile.bits} bit, {profile.scale:g} DN is 1.0; "
        f"{', '.join(profile.bands)}; {RESAMPLED[way]}",
        quiet,
    )
    for note in weights.notes:
        say(f"  {note}", quiet)
    for text in assumed:
        say(f"  assumed: {text}", quiet)


def _profile(
    count: int, name: str | None, bands: str | None, scale: float | None, bits: int | None
) -> tuple[SensorProfile, list[str]]:
    """The sensor's profile, and what of it nobody has said."""
    from sfiin.data import sensors

    assumed = []
    found = sensors.find(name or BY_BANDS.get(count, "vhr4")).profile
    if bands is not None:
        names = tuple(sensors.band_name(part.strip()) for part in bands.split(","))
        found = _changed(found, "--bands", bands=names)
    elif name is None and len(found.bands) == count:
        assumed.append(f"bands {', '.join(found.bands)} (--bands, or --sensor)")
    if scale is not None:
        found = _changed(found, "--scale", scale=scale)
        whole = int(scale) + 1
        if bits is None and scale == int(scale) and whole & (whole - 1) == 0:
            found = _changed(found, "--scale", bits=whole.bit_length() - 1)
    elif name is None:
        assumed.append(
            f"{found.scale:g} DN is 1.0, of {found.bits} bits (--scale; the authors train on 8 bits, 255)"
        )
    if bits is not None:
        found = _changed(found, "--bits", bits=bits)
    if name is None and (bands is not None or scale is not None):
        found = dataclasses.replace(found, name="imported")
    return found, assumed


def _changed(profile: SensorProfile, option: str, **changes: object) -> SensorProfile:
    try:
        return dataclasses.replace(profile, **changes)  # type: ignore[arg-type]
    except ContractError as error:
        raise typer.BadParameter(str(error), param_hint=option) from None

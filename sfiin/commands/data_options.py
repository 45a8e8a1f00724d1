"""What may be said of a set of pairs on the command line, where it does not say so itself?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from sfiin.data.dataset import Given

Bands = Annotated[
    str | None,
    typer.Option(
        "--bands", metavar="A,B,...", help="The pairs' bands in their order, where they do not say."
    ),
]
Bits = Annotated[
    int | None, typer.Option("--bits", min=1, max=32, help="Bits of the pairs' digital numbers, likewise.")
]


def given_by(bands: str | None, bits: int | None) -> Given:
    """What the options say of a set of pairs."""
    from sfiin.data import sensors
    from sfiin.data.dataset import Given

    names = tuple(sensors.band_name(part.strip()) for part in bands.split(",")) if bands else None
    return Given(names, bits)

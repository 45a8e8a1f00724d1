"""How is what lies beside a product made from it? Quick-look, STAC item, report, each by itself."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sfiin.runtime.contract import Contract
from sfiin.runtime.scenes import product, seams, stac
from sfiin.runtime.scenes.names import Name
from sfiin.runtime.scenes.tiles import plan
from sfiin.runtime.station import done

Document = dict[str, Any]
Render = Callable[[Document, Path], object]
"""Writes a report's page."""


def make(
    output: Path,
    sources: list[Name],
    contract: Contract,
    document: Document,
    *,
    wanted: Mapping[str, bool],
    every: Mapping[str, bool],
    acquired: str | None = None,
    render: Render | None = None,
) -> None:
    """Make what is `wanted` beside `output`, which is there; `every` is all that lies there in the end.

    `document` is the run's, which a report's seams are added to; `acquired` stands above its time. Raises
    OutputError.
    """
    places = done.companions(output, wanted)
    if "quicklook" in places:
        product.quicklook(output, places["quicklook"])
    if "stac" in places:
        when = stac.acquired(acquired or document["acquired"], None)
        picture = done.companions(output, every).get("quicklook")
        stac.write(places["stac"], stac.item(output, contract, when, sources=sources, picture=picture))
    if "report" in places and render:
        document["seams"] = _seams(output, contract, document)
        render(document, places["report"])


def _seams(output: Path, contract: Contract, document: Document) -> list[Document]:
    tile = dataclasses.replace(contract.tile, overlap=document["overlap"])
    height, width = (side + lead for side, lead in zip(document["size"], document["lead"], strict=True))
    tiles = plan(height, width, tile, contract.sensor.ratio)
    return [
        {
            "axis": seam.axis,
            "ratio": _number(seam.ratio),
            "error": _number(seam.error),
            "lines": seam.lines,
            "shows": seam.shows,
        }
        for seam in seams.measure(output, tiles, tuple(document["lead"]))
    ]


def _number(value: float) -> float | None:
    """For JSON, which has neither NaN nor infinity."""
    return value if math.isfinite(value) else None

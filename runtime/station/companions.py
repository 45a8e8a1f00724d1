"""How is what lies beside a product made from it? Quick-look, STAC item, report, each by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sfiin.runtime.contract import Contract
from sfiin.runtime.scenes import product, seams, stac
from sfiin.runtime.scenes.names import Name
from sfiin.runtime.scenes.tiles import plan
from sfiin.runtime.station import done
from sfiin.runtime.station.run_report import RunReport, SeamLines

Render = Callable[[dict[str, Any], Path], object]
"""Writes the page of a report's document."""


def make(
    output: Path,
    sources: list[Name],
    contract: Contract,
    report: RunReport,
    *,
    wanted: Mapping[str, bool],
    every: Mapping[str, bool],
    acquired: str | None = None,
    render: Render | None = None,
) -> RunReport:
    """Make what is `wanted` beside `output`, which is there; `every` is all that lies there in the end.

    `report` is the run's, which comes back with the seams where a page of it was wanted; `acquired` stands
    above its time. Raises OutputError.
    """
    places = done.companions(output, wanted)
    if "quicklook" in places:
        product.quicklook(output, places["quicklook"])
    if "stac" in places:
        when = stac.acquired(acquired or report.acquired, None)
        picture = done.companions(output, every).get("quicklook")
        stac.write(places["stac"], stac.item(output, contract, when, sources=sources, picture=picture))
    if "report" in places and render:
        report = dataclasses.replace(report, seams=_seams(output, contract, report))
        render(report.document(), places["report"])
    return report


def _seams(output: Path, contract: Contract, report: RunReport) -> tuple[SeamLines, ...]:
    tile = dataclasses.replace(contract.tile, overlap=report.overlap)
    height, width = (side + lead for side, lead in zip(report.size, report.lead, strict=True))
    tiles = plan(height, width, tile, contract.sensor.ratio)
    return tuple(map(SeamLines.of, seams.measure(output, tiles, report.lead)))

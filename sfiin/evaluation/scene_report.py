"""How good is a product that has no truth? A run of `sfiin run --report` as one HTML file.

The document is the run's JSON (`sfiin.runtime.station.runner`): the files, the sensor, counts, memory, shift
and seams. What else is told is measured here on regions, a grid of windows of `SIDE` PAN pixels over the
scene, so that memory does not grow with it: HQNR and QNR with their parts (sfiin.runtime.quality.metrics),
and each band against MS after averaging to MS' pixels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.windows import Window

from sfiin.data import sensors
from sfiin.evaluation import figures
from sfiin.evaluation.document import Document, Paragraph, Picture, Section, Table, table, to_html
from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.files import publish
from sfiin.runtime.quality import metrics
from sfiin.runtime.quality.degradation import OTHER_MS_GAIN, OTHER_PAN_GAIN
from sfiin.runtime.scenes import drift
from sfiin.runtime.scenes.scene import Scene, open_raster, open_scene
from sfiin.runtime.station.budget import in_mib

Parts = Iterable[Paragraph | Picture | Table]
Image = NDArray[np.float64]

SIDE = 512
"""PAN pixels of a region's side, or fewer where the scene is smaller."""

GRID = 4
"""Regions an axis, or as many as there is room for."""

_QUALITY = ("HQNR", "QNR", "D_lambda_K", "D_lambda", "D_S")


@dataclass(frozen=True)
class Region:
    """A window of the scene, in the files' numbers: PAN (H, W), MS (B, h, w), product (B, H, W), valid (H,
    W)."""

    row: int
    col: int
    pan: Image
    ms: Image
    fused: Image
    valid: NDArray[np.bool_]


def write(document: Mapping[str, Any], path: Path) -> None:
    """Write the report of a run's document. Raises SceneError for files that are no longer there,
    OutputError."""
    sensor = SensorProfile(**document["sensor"] | {"bands": tuple(document["sensor"]["bands"])})
    files = document["pan"], document["ms"]
    with open_scene(*files, sensor, gain=document["gain"], **document["reading"]) as found:
        scene = _as_it_was(found, document["shift"])
        regions = list(_regions(scene, Path(document["output"])))
    parts = {
        "What was done": _done(document),
        "Alignment and seams": _geometry(document),
        "Values": _values(document, regions),
        "Quality without a reference, by region": _quality(document, regions),
        "Pictures": _pictures(document, regions),
    }
    sections = tuple(Section(title, tuple(content)) for title, content in parts.items())
    html = to_html(Document(f"{Path(document['output']).name}: a sharpened scene", sections))
    with publish(path) as part:
        part.write_text(html, encoding="utf-8")


def _as_it_was(scene: Scene, shift: Mapping[str, Any]) -> Scene:
    """The scene with MS moved as it was for the product."""
    if shift["corrected"] == "local" and shift["drift"]:
        return scene.drifted(drift.read(shift["drift"]))
    return scene.coregistered(shift["row"], shift["col"]) if shift["corrected"] else scene


def _done(document: Mapping[str, Any]) -> Parts:
    height, width = document["size"]
    facts = {
        "PAN": document["pan"],
        "MS": ", ".join(document["ms"]),
        "product": document["output"],
        "model": document["method"]
        or f"{document['model']} ({document['precision']}, SHA-256 {document['model_sha256'][:16]})",
        "size": f"{height} x {width} pixels, {document['pixels'] / 1e6:.2f} MP, {document['tiles']} tiles",
        "time": f"{document['seconds']:.1f} s, {document['megapixels_per_second']:.2f} MP/s",
        "memory": f"{in_mib(document['memory']['peak'])} at most; {in_mib(document['memory']['total'])} were "
        "planned",
    }
    if document.get("backend"):
        facts["computed by"] = document["backend"]
    yield table("The run", ("", ""), list(facts.items()))
    for note in document["notes"]:
        yield Paragraph(note)


def _geometry(document: Mapping[str, Any]) -> Parts:
    shift = document["shift"]
    done = ", which was corrected" if shift["corrected"] else ""
    said = str(shift["said"])
    sentence = said[0].upper() + said[1:]
    yield Paragraph(f"{sentence}{done}.")
    rows = [
        (
            seam["axis"],
            _number(seam["ratio"]),
            _number(seam["error"]),
            str(seam["lines"]),
            "yes" if seam["shows"] else "no",
        )
        for seam in document["seams"]
    ]
    header = ("borders between", "energy there / elsewhere", "standard error", "lines", "shows")
    yield table("Seam meter", header, rows)


def _values(document: Mapping[str, Any], regions: list[Region]) -> Parts:
    """Counts over the whole product, statistics over the regions."""
    ratio, peak = document["sensor"]["ratio"], (1 << document["sensor"]["bits"]) - 1
    ms, seen, fused = (
        np.concatenate(parts, 1)
        for parts in zip(*(_paired(region, ratio) for region in regions), strict=True)
    )
    yield Paragraph(f"{document['nodata']} of {document['pixels']} pixels have no data.")
    if not ms.size:
        return
    rows = []
    for i, name in enumerate(document["bands"]):
        saturated = (fused[i] * document["gain"] >= peak).mean()
        linked = np.corrcoef(ms[i], seen[i])[0, 1] if ms[i].std() and seen[i].std() else float("nan")
        rows.append(
            (
                name,
                f"{ms[i].mean():.2f}",
                f"{(seen[i] - ms[i]).mean():+.3f}",
                f"{ms[i].std():.2f}",
                f"{seen[i].std():.2f}",
                _number(linked),
                f"{saturated:.3%}",
                str(document["clipped"][name]),
            )
        )
    header = (
        "band",
        "MS mean",
        "bias",
        "MS deviation",
        "product's, at MS' pixels",
        "correlation with MS",
        "at or above the peak",
        "clipped",
    )
    yield table("Bands against MS, over the regions; clipped: over the whole product", header, rows)


def _paired(region: Region, ratio: int) -> tuple[Image, Image, Image]:
    """MS, the product averaged to MS' pixels, and the product, each (B, n), where all of a pixel is valid."""
    height, width = region.ms.shape[1:]
    whole = region.valid.reshape(height, ratio, width, ratio).all((1, 3))
    seen = region.fused.reshape(-1, height, ratio, width, ratio).mean((2, 4))
    return region.ms[:, whole], seen[:, whole], region.fused[:, region.valid]


def _quality(document: Mapping[str, Any], regions: list[Region]) -> Parts:
    known = sensors.SENSORS.get(document["sensor"]["name"])
    gain = known.pan_gain if known else OTHER_PAN_GAIN
    gains = known.ms_gains if known and len(known.ms_gains) == len(document["bands"]) else OTHER_MS_GAIN
    rows: list[tuple[str, ...]] = []
    found = []
    for region in regions:
        try:
            spectral = metrics.d_lambda(region.fused, region.ms, valid=region.valid)
            spatial = metrics.d_s(region.fused, region.ms, region.pan, gain=gain, valid=region.valid)
            consistency = metrics.d_lambda_k(region.fused, region.ms, gains, valid=region.valid)
        except ValueError as error:
            rows.append((f"{region.row}, {region.col}", str(error), *("",) * 4))
            continue
        quality = (
            (1 - consistency) * (1 - spatial),
            (1 - spectral) * (1 - spatial),
            consistency,
            spectral,
            spatial,
        )
        found.append(quality)
        rows.append((f"{region.row}, {region.col}", *(f"{value:.4f}" for value in quality)))
    if found:
        rows.append(("all, mean", *(f"{value:.4f}" for value in np.mean(found, axis=0))))
    yield Paragraph(
        "HQNR and QNR: 1 is best; distortions: 0 is best. Neither knows the truth: they tell regions that "
        "went worse than others, not products of different kinds apart."
    )
    yield table("By region: its first row and column in the product", ("region", *_QUALITY), rows)


def _pictures(document: Mapping[str, Any], regions: list[Region]) -> Parts:
    bands = document["bands"]
    shown = figures.colours(bands)
    seen = [region for region in regions if region.valid.mean() > 0.5]
    for region in sorted(seen, key=lambda region: -float(region.pan[region.valid].std()))[:2]:
        images = {"PAN": region.pan, "MS": region.ms, "product": region.fused}
        title = f"from row {region.row}, column {region.col}"
        picture = figures.png(figures.scene(images, region.fused, shown, title=title))
        yield Picture(picture, f"PAN, MS and product {title}; one stretch for MS and product.")


def _regions(scene: Scene, product: Path) -> Iterator[Region]:
    ratio = scene.sensor.ratio
    first = [ratio if before else 0 for before in scene.lead]
    side = min(
        SIDE, *((length - at) // ratio * ratio for length, at in zip(scene.extent, first, strict=True))
    )
    if side <= 0:
        return
    tops, lefts = (
        sorted(
            {
                int(place) // ratio * ratio
                for place in np.linspace(at, length - side, min(GRID, -(-length // side)))
            }
        )
        for at, length in zip(first, scene.extent, strict=True)
    )
    with open_raster(product) as file:
        for row in tops:
            for col in lefts:
                ms, pan, valid = scene.read(row, col, side, side)
                down, right = row - scene.lead[0], col - scene.lead[1]
                fused = file.read(window=Window(right, down, side, side)).astype(np.float64)
                sharp, coarse = (image.astype(np.float64) / scene.gain for image in (pan[0], ms))
                yield Region(down, right, sharp, coarse, fused, valid)


def _number(value: float | None) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.3f}"

"""Which tile, and how much overlap? Seams, closeness to a large overlap, quality where a truth is known, and
time.

    python benchmarks/overlap.py DATA -o benchmarks/overlap.json
    python benchmarks/overlap.py --table benchmarks/overlap.json

DATA holds `check/` (pairs with truth), `scenes/` and `landsat/check/`. A shipped checkpoint fuses a real
scene in the native kernels, for each tile and overlap: `seams` is the larger of the seam meter's two ratios
(`sfiin.runtime.scenes.seams`), `shows` what the meter says of them, `off` the 99th percentile of the
difference from the product of the same tile with an overlap of 96, in DN, `psnr` and `sam` the mean over the
pairs that hold a tile of 256, `seconds` the CPU time of the scene's tiles, one thread, per megapixel.
"""

from __future__ import annotations

import argparse
import json
import time
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import fmean
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from sfiin.data.pairs import Image, Pair, load_folder, reduced
from sfiin.evaluation import judging
from sfiin.export.graph import build_graph
from sfiin.model.checkpoint import load_sfiin
from sfiin.runtime.backends import native, native_steps, onnx_graph
from sfiin.runtime.backends.native_program import compile_graph
from sfiin.runtime.contract import Tile
from sfiin.runtime.files import publish
from sfiin.runtime.scenes import seams
from sfiin.runtime.scenes.tiles import plan

CHECKPOINTS = Path(__file__).parents[1] / "sfiin" / "checkpoints"
MODELS = ("vhr4", "landsat")
SCENE, LANDSAT = "VHR4_zhengzhou_1", "L8_momotombo_1"
SIDES, OVERLAPS, LARGE = (128, 256), (0, 8, 16, 24, 32, 48), 96


def main() -> None:
    """Measure and write, or print the table of a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", metavar="DATA")
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/overlap.json"))
    parser.add_argument("--table", type=Path, help="print the Markdown table of a file and measure nothing")
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text("utf-8"))))
        return
    found = [
        row for name in MODELS for side in SIDES for row in rows(name, side, *material(name, options.data))
    ]
    document = {
        "command": "python benchmarks/overlap.py DATA",
        "native": native.instruction_set(),
        "rows": found,
    }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    print(table(document))


def material(name: str, data: Path) -> tuple[Image, Image, list[Pair]]:
    """MS and PAN of a real scene, and pairs with truth, for Landsat reduced by Wald's protocol."""
    if name == "vhr4":
        ms, pan = (image(data / "scenes" / SCENE / f"{kind}.tif") for kind in ("ms", "pan"))
        pairs = [pair for pair in load_folder(data / "check", 4, 4) if pair.truth is not None]
    else:
        import landsat_pairs

        with TemporaryDirectory() as folder:
            landsat_pairs.main(data / "landsat" / "check", Path(folder))
            found = load_folder(Path(folder), 4, 2)
        pairs = [reduced(pair) for pair in found]
        ms, pan = next((pair.ms, pair.pan) for pair in found if pair.name == LANDSAT)
    return ms, pan, [pair for pair in pairs if min(pair.pan.shape[1:]) >= max(SIDES)]


def rows(name: str, side: int, ms: Image, pan: Image, pairs: Sequence[Pair]) -> Iterator[dict[str, Any]]:
    """One row for each overlap."""
    network = load_sfiin(CHECKPOINTS / f"sfiin-{name}.safetensors", (side, side)).eval()
    sensor = network.sensor
    fuse = in_native(build_graph(network, (side, side), "matmul", 17).SerializeToString(), side)
    reference = judging.fuse_whole(judging.JudgedModel(name, sensor, Tile(side, side, LARGE), fuse), ms, pan)
    for overlap in OVERLAPS:
        model = judging.JudgedModel(name, sensor, Tile(side, side, overlap), fuse)
        began = time.process_time()
        product = judging.fuse_whole(model, ms, pan)
        seconds = time.process_time() - began
        row: dict[str, Any] = {"model": name, "tile": side, "overlap": overlap, **seam(product, model)}
        row["off"] = round(float(np.percentile(np.abs(product - reference), 99)), 2)
        row["seconds"] = round(seconds / (pan.size / 1e6), 3)
        row |= quality(model, pairs)
        print(json.dumps(row), flush=True)
        yield row


def seam(product: NDArray[np.float32], model: judging.JudgedModel) -> dict[str, Any]:
    """The larger ratio of the seam meter, and whether it says that seams show."""
    count, height, width = product.shape
    with TemporaryDirectory() as folder:
        path = Path(folder) / "product.tif"
        options = {"count": count, "height": height, "width": width, "dtype": "float32"}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", NotGeoreferencedWarning)
            with rasterio.open(path, "w", driver="GTiff", **options) as file:
                file.write(product)
        both = seams.measure(path, plan(height, width, model.tile, model.sensor.ratio))
    return {
        "seams": round(max(found.ratio for found in both), 3),
        "shows": any(found.shows for found in both),
    }


def quality(model: judging.JudgedModel, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Mean PSNR (dB) and SAM (degrees) of the pairs, and their number."""
    scores = [judging.score(model, pair).quality for pair in pairs]
    found: dict[str, Any] = {"pairs": len(scores)}
    if scores:
        found["psnr"] = round(fmean(score.psnr for score in scores), 3)
        found["sam"] = round(fmean(score.sam for score in scores), 4)
    return found


def in_native(model: bytes, side: int) -> judging.Fuse:
    """A graph as a function of tiles."""
    graph = onnx_graph.parse(model)
    code, constants = native_steps.encode(compile_graph(graph))
    bands, low, _ = graph.inputs["ms"]
    program = native.Program(code, constants, (bands * low * low, side * side, bands * side * side))

    def fuse(ms: Image, pan: Image) -> Image:
        hrms = np.empty((1, bands, side, side), np.float32)
        return program.run(np.ascontiguousarray(ms, np.float32), np.ascontiguousarray(pan, np.float32), hrms)

    return fuse


def image(path: Path) -> NDArray[np.float32]:
    """A raster's bands."""
    with rasterio.open(path) as file:
        bands: NDArray[np.float32] = file.read().astype(np.float32)
    return bands


def table(document: dict[str, Any]) -> str:
    """The measurements in Markdown."""
    lines = [
        "| model | tile | overlap | seams | off by, DN | PSNR, dB | SAM, degrees | CPU s/MP |",
        "|---" * 8 + "|",
    ]
    for row in document["rows"]:
        kept = (f"{row['psnr']:.2f}", f"{row['sam']:.3f}") if "psnr" in row else ("", "")
        cells = (
            row["model"],
            row["tile"],
            row["overlap"],
            f"{row['seams']:.2f}{', show' if row['shows'] else ''}",
            f"{row['off']:.1f}",
        )
        lines.append("| " + " | ".join(map(str, (*cells, *kept, f"{row['seconds']:.2f}"))) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

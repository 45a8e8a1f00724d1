"""How much memory does a scene take, how fast is it done, and what share of the pure inference rate is that?

    python benchmarks/scenes.py -o benchmarks/scenes.json --figure build/scenes.png
    python benchmarks/scenes.py --table benchmarks/scenes.json

Simulated scenes of growing size go through `sfiin run`, each in a process of its own, with `--memory`; time
and peak memory are what it reports. The share is measured in one process: a scene from its files to its
product, and the session alone on as many tiles of it that are in memory already, in turns; the median of the
rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

from sfiin.data.simulate import simulate
from sfiin.runtime import models
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.files import publish
from sfiin.runtime.scenes.pipeline import sharpen
from sfiin.runtime.scenes.scene import open_scene
from sfiin.runtime.scenes.tiles import plan

SIZES = (1000, 2000, 4000, 10000)
MEMORY = "1GiB"
BLOCK = 500
SHARE_SIDE, ROUNDS = 1500, 5


def main() -> None:
    """Measure and write, or print the table of a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/scenes.json"))
    parser.add_argument("--figure", type=Path, help="also draw memory and throughput against size (.png)")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="PAN pixels a side")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text("utf-8"))))
        return
    with TemporaryDirectory(dir=options.output.parent) as folder:
        document = {
            "command": "python benchmarks/scenes.py",
            "machine": platform.machine(),
            "cpus": os.cpu_count(),
            "model": models.choose(4, 4).name,
            "memory": MEMORY,
            "share": [share(Path(folder), threads) for threads in (1, 2)],
            "runs": [run(Path(folder), side) for side in options.sizes],
        }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(document))
    if options.figure:
        draw(document["runs"], options.figure)


def run(folder: Path, side: int) -> dict[str, Any]:
    """One scene by the command."""
    pan, ms = simulated(folder, side)
    out = folder / "sharp.tif"
    command = [
        str(Path(sys.executable).with_name("sfiin")),
        "run",
        "--pan",
        str(pan),
        "--ms",
        str(ms),
        "-o",
        str(out),
    ]
    done = subprocess.run(
        [*command, "--memory", MEMORY, "--threads", "2", "--json"], capture_output=True, check=True
    )
    report = json.loads(done.stdout)
    found = {
        "side": side,
        "megapixels": report["pixels"] / 1e6,
        "tiles": report["tiles"],
        "seconds": report["seconds"],
        "megapixels_per_second": report["megapixels_per_second"],
        "peak_bytes": report["memory"]["peak"],
        "planned_bytes": report["memory"]["total"],
        "product_bytes": out.stat().st_size,
    }
    print(json.dumps(found), file=sys.stderr)
    for path in (pan, ms, out):
        path.unlink()
    return found


def share(folder: Path, threads: int) -> dict[str, float]:
    """The pipeline's rate beside the session's alone, with so many threads for the session."""
    pan, ms = simulated(folder, SHARE_SIDE)
    ratios, alone, whole = [], [], []
    with OnnxSession(models.choose(4, 4), threads=threads) as session:
        contract = session.contract
        with open_scene(pan, [ms], contract.sensor) as scene:
            tiles = plan(*scene.extent, contract.tile, contract.sensor.ratio)
            side = contract.tile.height
            inputs = [
                scene.read(row, col, side, side)[:2] for row in tiles.rows[:4] for col in tiles.cols[:4]
            ]
            for i in range(ROUNDS + 1):
                begun = time.perf_counter()
                for j in range(len(tiles)):
                    session.run(*(image[None] for image in inputs[j % len(inputs)]))
                middle = time.perf_counter()
                sharpen(session, scene, folder / "share.tif")
                end = time.perf_counter()
                if i:
                    alone.append(middle - begun)
                    whole.append(end - middle)
                    ratios.append(alone[-1] / whole[-1])
    found = {
        "threads": threads,
        "tiles": len(tiles),
        "session_seconds": median(alone),
        "scene_seconds": median(whole),
        "share": median(ratios),
    }
    print(json.dumps(found), file=sys.stderr)
    return found


def simulated(folder: Path, side: int) -> tuple[Path, Path]:
    """PAN and MS of a square scene, made of simulated blocks."""
    tiled = {
        "driver": "GTiff",
        "dtype": "uint16",
        "crs": "EPSG:32650",
        "tiled": True,
        "blockxsize": 256,
        "blockysize": 256,
        "compress": "deflate",
        "predictor": 2,
        "BIGTIFF": "IF_SAFER",
    }
    paths = folder / "pan.tif", folder / "ms.tif"
    with (
        rasterio.open(paths[0], "w", count=1, height=side, width=side, transform=_grid(0.5), **tiled) as pan,
        rasterio.open(
            paths[1], "w", count=4, height=side // 4, width=side // 4, transform=_grid(2.0), **tiled
        ) as ms,
    ):
        for row, col, images in _blocks(side):
            for file, image, ratio in ((pan, images.pan[None], 1), (ms, images.ms, 4)):
                window = Window(col // ratio, row // ratio, image.shape[2], image.shape[1])
                file.write(image.astype(np.uint16), window=window)
    return paths


def _blocks(side: int) -> Iterator[tuple[int, int, Any]]:
    made = [simulate(BLOCK, BLOCK, seed) for seed in range(4)]
    for i, row in enumerate(range(0, side, BLOCK)):
        for j, col in enumerate(range(0, side, BLOCK)):
            if side - max(row, col) >= BLOCK:
                yield row, col, made[(i + 2 * j) % len(made)]
            else:
                yield row, col, simulate(min(BLOCK, side - row), min(BLOCK, side - col), 9)


def _grid(pixel: float) -> Affine:
    return Affine(pixel, 0.0, 5e5, 0.0, -pixel, 4e6)


def table(document: Mapping[str, Any]) -> str:
    """The README's tables."""
    lines = ["| PAN pixels | tiles | time | MP/s | peak memory | planned |", "|---|---|---|---|---|---|"]
    lines += [
        f"| {run['side']:,} x {run['side']:,} | {run['tiles']:,} | {run['seconds']:.0f} s | "
        f"{run['megapixels_per_second']:.2f} | {run['peak_bytes'] / 2**20:.0f} MiB | "
        f"{run['planned_bytes'] / 2**20:.0f} MiB |"
        for run in document["runs"]
    ]
    lines += [
        "",
        "| threads of the session | from files to product, of the session's rate alone |",
        "|---|---|",
    ]
    lines += [f"| {row['threads']} | {100 * row['share']:.0f} % |" for row in document["share"]]
    return "\n".join(lines)


def draw(runs: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Peak memory and throughput against size."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    for axes, key, factor, label in zip(
        figure.subplots(1, 2),
        ("peak_bytes", "megapixels_per_second"),
        (2**-20, 1.0),
        ("peak memory, MiB", "MP/s"),
        strict=True,
    ):
        axes.semilogx([run["megapixels"] for run in runs], [factor * run[key] for run in runs], "o-")
        axes.set(xlabel="scene, megapixels", ylabel=label)
        axes.set_ylim(bottom=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    with publish(path) as part:
        figure.savefig(part, dpi=90)


if __name__ == "__main__":
    main()

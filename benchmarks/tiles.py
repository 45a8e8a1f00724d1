"""How good is a network on tiles of another size than it was trained on, and does a gain on its amplitudes
help?

    python benchmarks/tiles.py DIR -o benchmarks/tiles.json
    python benchmarks/tiles.py --table benchmarks/tiles.json

The first fuses the pairs with truth of a folder in tiles of several sizes, with amplitudes left as they are
("none"), or brought to those of the trained tile by the square root of the ratio of the areas ("sqrt") or by
that ratio ("area"), and writes mean PSNR (dB), SAM (degrees) and ERGAS by sensor. Tiles share 32 PAN pixels,
small ones a quarter of their side; pairs smaller than a tile are left out of it. Products are judged as
`sfiin evaluate` judges them.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from sfiin.data.pairs import Pair, load_folder
from sfiin.evaluation import judging
from sfiin.model import checkpoint
from sfiin.model.network import SFIIN
from sfiin.model.tile_size import fitted, trained_side
from sfiin.runtime.contract import Tile

ROOT = Path(__file__).parent.parent
SHIPPED = ROOT / "sfiin" / "checkpoints" / "sfiin-vhr4.safetensors"
POWERS = {"none": 0.0, "sqrt": 0.5, "area": 1.0}
SIZES = (
    (32, 32),
    (48, 48),
    (64, 64),
    (100, 60),
    (84, 92),
    (96, 96),
    (124, 124),
    (128, 128),
    (64, 256),
    (160, 160),
    (192, 192),
    (256, 256),
    (384, 384),
)


def main() -> None:
    """Measure, and write after every size, so that what is done is kept; or print the table of a file."""
    options = _options()
    if options.table:
        print(table(json.loads(options.table.read_text("utf-8"))["rows"]))
        return
    network = checkpoint.load_sfiin(options.checkpoint)
    trained = trained_side(checkpoint.load(options.checkpoint).training)
    if trained is None:
        raise SystemExit(
            f"{options.checkpoint}: does not say which tile it was trained on; there is nothing to compare"
        )
    pairs = [
        pair
        for pair in load_folder(options.data, network.config.bands, network.config.ratio)
        if pair.truth is not None
    ]
    document: dict[str, Any] = {
        "checkpoint": options.checkpoint.name,
        "trained": trained,
        "pairs": [pair.name for pair in pairs],
        "torch": torch.__version__,
        "machine": platform.machine(),
        "rows": [],
    }
    for size in SIZES:
        for row in rows(network, (trained, trained), size, pairs):
            document["rows"].append(row)
            print(json.dumps(row), file=sys.stderr)
        options.output.write_text(json.dumps(document, indent=1) + "\n")


def rows(
    network: SFIIN, trained: tuple[int, int], size: tuple[int, int], pairs: Sequence[Pair]
) -> Iterator[Any]:
    """One row by sensor and correction for a tile of `size`; on the trained area all corrections are one."""
    overlap = min(32, min(size) // 16 * 4)
    large_enough = [pair for pair in pairs if pair.pan.shape[1] >= size[0] and pair.pan.shape[2] >= size[1]]
    for name, power in POWERS.items():
        if name != "none" and size[0] * size[1] == trained[0] * trained[1]:
            continue
        fuse = checkpoint.fuser(fitted(network, trained, size, power))
        model = judging.JudgedModel("sfiin", network.sensor, Tile(*size, overlap), fuse)
        scores = [judging.score(model, pair) for pair in large_enough]
        for sensor, _, count, means in judging.means(scores):
            figures = {key: round(value, 4) for key, value in means.items()}
            yield {
                "tile": list(size),
                "overlap": overlap,
                "correction": name,
                "sensor": sensor,
                "pairs": count,
                **figures,
            }


def table(rows: Sequence[Any]) -> str:
    """PSNR by tile, sensor and correction in Markdown; one correction more or less is none on the trained
    area."""
    sensors = sorted({row["sensor"] for row in rows}, reverse=True)
    columns = [(sensor, name) for sensor in sensors for name in POWERS]
    figures = {(*row["tile"], row["sensor"], row["correction"]): f"{row['psnr']:.2f}" for row in rows}
    lines = [
        "| tile | " + " | ".join(f"{sensor}: {name}" for sensor, name in columns) + " |",
        "|---" * (1 + len(columns)) + "|",
    ]
    for size in dict.fromkeys(tuple(row["tile"]) for row in rows):
        cells = (
            figures.get((*size, *column)) or figures.get((*size, column[0], "none")) or ""
            for column in columns
        )
        lines.append(f"| {size[0]} x {size[1]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path, nargs="?", metavar="DIR", help="a folder of .npz pairs")
    parser.add_argument("--table", type=Path, help="print the Markdown table of a file and measure nothing")
    parser.add_argument(
        "-o", "--output", type=Path, default=ROOT / "benchmarks" / "tiles.json", metavar="FILE"
    )
    parser.add_argument("--checkpoint", type=Path, default=SHIPPED, metavar="CHECKPOINT")
    options = parser.parse_args()
    if options.data is None and options.table is None:
        parser.error("give a folder of pairs, or --table FILE")
    return options


if __name__ == "__main__":
    main()

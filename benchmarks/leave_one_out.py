"""Does the recipe hold on a sensor that it never saw? Short trainings that each leave one out, judged on it.

    python benchmarks/leave_one_out.py --imagery DIR -o benchmarks/leave-one-out.json [--sensor NAME]
    python benchmarks/leave_one_out.py -o benchmarks/leave-one-out.json --table

Each network begins with the weights of `sfiin-landsat`, which saw no sensor of these, and learns from
`DIR/train` without the sensor's pairs, with the drawing and the loss of `sfiin-vhr4`; it is judged on the
sensor's pairs, `train` and `check`, the middle of each, `MOST` at most. So few steps say what the recipe is
worth off home, not what the shipped weights, which saw all of `train`, are worth.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sfiin.data import fitting, pairs, sensors
from sfiin.data.pairs import Pair
from sfiin.evaluation import judging, off_home
from sfiin.evaluation.judging import JudgedModel
from sfiin.model import checkpoint
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.model.tile_size import for_tile
from sfiin.runtime.contract import Tile
from sfiin.training import drawing, train

BEGUN = Path(__file__).parents[1] / "sfiin" / "checkpoints" / "sfiin-landsat.safetensors"
SIDE = 512
MOST = 8
TILE = Tile(128, 128, 32)
CONFIG = train.TrainingConfig(batch=6, patch=64, rate=1.5e-3, unit="detail", crisp=0.25, seed=0)
SENSORS = ("QuickBird", "GaoFen-2", "GeoEye-1", "WorldView-4", "IKONOS")
SHOWN = ("bicubic", "gs", "mtf_glp_hpm", "local_regression", "local_gsa", "sfiin")


def measure(folder: Path, without: str, steps: int) -> dict[str, Any]:
    """A training without a sensor's pairs, and all methods on them."""
    sensor = sensors.find("vhr4")
    everything = [pairs.load_pair(path) for path in sorted((folder / "train").glob("*.npz"))]
    known = [pair for pair in everything if pair.ratio == 4 and judging.sensor_of(pair) != without]
    used = drawing.varied(known, drawing.named("sensors"), 4, sensor)
    torch.manual_seed(CONFIG.seed)
    network = SFIIN(NetworkConfig(normalise="local", inject="mixed"), sensor.profile)
    network.load_state_dict(checkpoint.load(BEGUN).network.state_dict())
    config = dataclasses.replace(CONFIG, steps=steps, validate_every=steps)
    own = next(pair for pair in known if len(pair.ms) == 4)
    held_out = [
        fitting.central(pairs.reduced(own), CONFIG.patch)
    ]  # once, in the end: the last weights are kept
    trained = train.train(network, used, held_out, config)
    fitted = for_tile(trained.network, trained.training, (TILE.height, TILE.width)).eval()
    model = JudgedModel("sfiin", network.sensor, TILE, checkpoint.fuser(fitted))
    rows = list(off_home.rows(model, _judged(folder, without)))
    return {"steps": steps, **off_home.as_document(rows, model.name)}


def _judged(folder: Path, sensor: str) -> list[Pair]:
    found = [pair for part in ("train", "check") for pair in pairs.load_folder(folder / part, 4, 4)]
    return [fitting.central(pair, SIDE) for pair in found if judging.sensor_of(pair) == sensor][-MOST:]


def table(document: Mapping[str, Any], shown: Sequence[str] = SHOWN) -> str:
    """Markdown: PSNR with PAN as given / as crisp as the truth."""
    lines = [f"| left out | steps | {' | '.join(shown)} |", "|---" * (len(shown) + 2) + "|"]
    for sensor, report in document.items():
        ways = {mean["way"]: mean["methods"] for mean in report["means"]}
        cells = [
            f"{ways['given'][method]['psnr']:.2f} / {ways['matched'][method]['psnr']:.2f}" for method in shown
        ]
        lines.append(f"| {sensor} | {report['steps']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or print the table of what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imagery", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--sensor", action="append", choices=SENSORS)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    document = json.loads(options.output.read_text()) if options.output.exists() else {}
    if options.table:
        print(table(document))
        return
    torch.set_num_threads(1)
    for sensor in options.sensor or SENSORS:
        document[sensor] = measure(options.imagery, sensor, options.steps)
        options.output.write_text(json.dumps(document, indent=1) + "\n")
        print(f"{sensor}: done", flush=True)


if __name__ == "__main__":
    main()

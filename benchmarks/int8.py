"""What does INT8 cost in quality, what share of the work does it take over, and is it faster on this CPU?

    python benchmarks/int8.py --data DIR --check DIR -o benchmarks/int8.json
    python benchmarks/int8.py --table benchmarks/int8.json

The first calibrates the shipped model on one folder, judges it on the other, and times FP32 and INT8 in ONNX
Runtime in turns, with one thread. Beside it stands what the advisor says of that network and of one with 32
channels.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import onnx
import onnxruntime

from sfiin.calibration.advisor import advise, devices
from sfiin.calibration.calibrate import CalibrationOptions, calibrate, graph_of
from sfiin.calibration.quantize import candidates, quantized
from sfiin.data.sensors import SENSORS
from sfiin.export.exporter import export_model
from sfiin.export.ranges import open_model
from sfiin.model.checkpoint import Checkpoint, save
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime import golden, models
from sfiin.runtime.contract import Tile
from sfiin.runtime.files import publish

SHIPPED = models.choose(4, 4)
ADVISED = ("orin-agx", "rtx4090")
ROUNDS = 60


def main() -> None:
    """Measure and write, or print the tables of a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path)
    parser.add_argument("--check", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/int8.json"))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(tables(json.loads(options.table.read_text("utf-8"))))
        return
    if not (options.data and options.check):
        parser.error("--data and --check are wanted, or --table")
    with TemporaryDirectory() as folder:
        document = measured(options.data, options.check, Path(folder))
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(tables(document))


def measured(data: Path, check: Path, folder: Path) -> dict[str, Any]:
    """The calibration, latencies and advice."""
    result, work = calibrate(
        SHIPPED,
        data,
        folder / "int8.onnx",
        CalibrationOptions(),
        check=check,
        watch=lambda done, of: print(f"{done} of {of}", file=sys.stderr),
    )
    held = {island.node for island in result.kept}
    nodes = [candidate.node for candidate in work.candidates if candidate.node not in held]
    reach = work.reach(result.method)
    thresholds = {candidate.node: reach[candidate.activation] for candidate in work.candidates}
    whole = quantized(work.model, nodes, thresholds)
    graphs = {
        "fp32": work.model,
        "int8, rest fp32": whole,
        "int8, rest fp16": onnx.load(folder / "int8.onnx"),
    }
    return {
        "command": "python benchmarks/int8.py --data DIR --check DIR",
        "machine": platform.machine(),
        "onnxruntime": onnxruntime.__version__,
        "model": SHIPPED.name,
        "method": result.method,
        "strata": result.calibration.strata,
        "digest": result.calibration.digest,
        "pairs": result.chosen.pairs,
        "held": len(held) - len(work.kept),
        "candidates": len(work.candidates),
        "plain_share": result.plain_share,
        "mac_share": result.mac_share,
        "single": asdict(result.chosen.single),
        "rest": asdict(result.rest),
        "plain": asdict(result.plain),
        "searched": asdict(result.chosen),
        "milliseconds": latencies(graphs, dict(work.calibration.tiles[0])),
        "advice": [*advice(8, SHIPPED), *advice(32, wide(folder))],
    }


def latencies(graphs: Mapping[str, onnx.ModelProto], inputs: dict[str, np.ndarray]) -> dict[str, float]:
    """Median milliseconds a tile of each graph, all in turns after a warm-up, one thread."""
    sessions = {name: open_model(graph) for name, graph in graphs.items()}
    taken: dict[str, list[float]] = {name: [] for name in graphs}
    for i in range(ROUNDS + 10):
        for name, session in sessions.items():
            start = time.perf_counter()
            session.run(None, inputs)
            if i >= 10:
                taken[name].append(1e3 * (time.perf_counter() - start))
    return {name: median(times) for name, times in taken.items()}


def wide(folder: Path) -> Path:
    """A network of 32 channels, untrained: only its shapes matter here."""
    weights, model = folder / "wide.safetensors", folder / "wide.onnx"
    save(weights, Checkpoint(SFIIN(NetworkConfig(channels=32), SENSORS["vhr4"].profile)))
    export_model(weights, model, "matmul", Tile(128, 128, 32), opset=17)
    return model


def advice(channels: int, model: Path) -> list[dict[str, Any]]:
    """What the advisor says of a model."""
    graph = graph_of(onnx.load(model), golden.read(golden.beside(model), models.contract(model)))
    found = [advise(graph, candidates(graph)[0], devices()[name]) for name in ADVISED]
    return [
        {
            "channels": channels,
            "device": advice.device.title,
            "gain": advice.gain,
            "pays": advice.pays,
            "reasons": advice.reasons,
        }
        for advice in found
    ]


def tables(document: Mapping[str, Any]) -> str:
    """The README's tables."""
    lines = [
        "| | multiply-adds in INT8 | PSNR dB | SAM deg | ERGAS | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    rows = [
        ("fp32", 0.0, document["single"], None),
        ("fp16", 0.0, *_of(document["rest"])),
        ("int8, all that the rules leave", document["plain_share"], *_of(document["plain"])),
        (f"int8, {document['held']} held back", document["mac_share"], *_of(document["searched"])),
    ]
    for name, share, loss, largest in rows:
        what = f"{share:.0%}".replace("%", " %") if share else ""
        difference = "" if largest is None else f"{largest:.1f} DN"
        lines.append(
            f"| {name} | {what} | {loss['psnr']:.3f} | {loss['sam']:.3f} | {loss['ergas']:.3f} | "
            f"{difference} |"
        )
    lines += [
        "",
        "| channels | device | INT8 beside FP16, estimated | recommended | against INT8 |",
        "|---|---|---|---|---|",
    ]
    for advice in document["advice"]:
        lines.append(
            f"| {advice['channels']} | {advice['device']} | {advice['gain']:.2f}x | "
            f"{'INT8' if advice['pays'] else 'FP16'} | {'; '.join(advice['reasons'])} |"
        )
    return "\n".join(lines)


def _of(loss: Mapping[str, Any]) -> tuple[Mapping[str, float], float]:
    return loss["lower"], loss["largest"]


if __name__ == "__main__":
    main()

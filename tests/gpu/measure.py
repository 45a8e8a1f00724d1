"""What do plans do on this GPU? Build, check, time and refit those of the shipped checkpoints, and write one
file.

    tests/gpu/run.sh [--imagery DIR] [--plugin LIB] [--output benchmarks/gpu-NAME.json]

A step that fails is recorded with its reason and the next one runs. Latency is the median over rounds in
which all ways take turns, after a warm-up; a way's ratio is that of medians.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import fmean, median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from sfiin.runtime import models
from sfiin.runtime.backends import machine, plan
from sfiin.runtime.backends.session import Session
from sfiin.runtime.contract import Contract, Lowering, Precision, Tile
from sfiin.runtime.errors import SfiinError, UnavailableError
from sfiin.runtime.files import publish

ROOT = Path(__file__).parents[2]
CHECKPOINTS = ("vhr4", "wv8")
"""Shipped checkpoints, and models of the same names for where there is no torch."""
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "mixed")
BATCHES = (1, 16)
ROUNDS = 100

Images = tuple[np.ndarray, np.ndarray]


def main() -> int:
    """Measure, print a table, write JSON; 1 when anything failed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imagery", type=Path, help="a folder with check/, pairs with truth")
    parser.add_argument(
        "--plugin", type=Path, help="libsfiin_plugin.so: also plans of models of that lowering"
    )
    parser.add_argument("--output", type=Path, help="default: benchmarks/gpu-DEVICE.json")
    options = parser.parse_args()
    try:
        device = machine.gpu()
    except SfiinError as error:
        print(f"nothing measured: {error}")
        return 1
    runs = []
    for name, precision in product(CHECKPOINTS, PRECISIONS):
        runs.append(one(name, precision, options.imagery, options.plugin))
        print(json.dumps(runs[-1]), flush=True)
    document = {
        "command": " ".join(["tests/gpu/run.sh", *sys.argv[1:]]),
        "device": dataclasses.asdict(device),
        "machine": machine.survey(),
        "runs": runs,
    }
    slug = re.sub(r"\W+", "-", device.name).strip("-").lower()
    output = options.output or ROOT / "benchmarks" / f"gpu-{slug}.json"
    with publish(output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(runs))
    failed = any("failed" in str(step) for run in runs for step in run.values())
    return int(failed or all(isinstance(run["build"], str) for run in runs))


def one(name: str, precision: Precision, imagery: Path | None, plugin: Path | None) -> dict[str, Any]:
    """One checkpoint in one precision: every step's result, or why there is none."""
    found: dict[str, Any] = {"checkpoint": name, "precision": precision}
    weights = ROOT / "sfiin" / "checkpoints" / f"sfiin-{name}.safetensors"
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.plan"
        found["build"] = step(lambda: built(weights, precision, path))
        if isinstance(found["build"], str):
            return found
        found["replay"] = step(lambda: replayed(path))
        found["latency"] = step(lambda: latencies(path))
        found["pairs"] = step(lambda: judged(path, imagery)) if imagery else "skipped: no --imagery"
        found["scene"] = step(lambda: scene(path, Path(folder)))
        if precision == "fp32":
            found["refit"] = step(lambda: refitted(weights, Path(folder)))
            found["plugin"] = (
                step(lambda: by_plugin(weights, path, plugin)) if plugin else "skipped: no --plugin"
            )
    return found


def step(work: Callable[[], Any]) -> Any:
    """What the work gives, "skipped: why" for what is not here, or "failed: why"; a step's failure is a
    result here, and the next one runs."""
    try:
        return work()
    except UnavailableError as error:
        return f"skipped: {error}"
    except Exception as error:
        return f"failed: {type(error).__name__}: {' '.join(str(error).split())}"


def by_plugin(weights: Path, path: Path, plugin: Path) -> dict[str, Any]:
    """The same network with its frequency branches as nodes of the plugin: its build, and both plans in
    turns."""
    from sfiin.runtime.backends.tensorrt_session import open_plan

    fused = path.with_name("fused.plan")
    found = built(weights, "fp32", fused, plugin=plugin)
    with closing(open_plan(path)) as plain, closing(open_plan(fused)) as session:
        ways: dict[str, Session] = {"matmul": plain, "plugin": session}
        latency = {str(batch): timed(ways, session.contract, batch, ROUNDS) for batch in BATCHES}
    return {**found, "latency": latency}


def built(weights: Path, precision: Precision, path: Path, **settings: Any) -> dict[str, Any]:
    """Export, or take the shipped model where there is no torch, and build; a plan that is too far from the
    golden tiles is not built, and that is the failure."""
    from sfiin.export.plan_builder import BuildSettings, build, default_flavour

    lowering: Lowering = "plugin" if settings.get("plugin") else "matmul"
    model = modelled(weights, precision, lowering, path.with_suffix(".onnx"))
    done = build(model, path, BuildSettings(default_flavour(), **settings))
    made = done.sidecar.build
    return {
        "flavour": made.flavour,
        "tensorrt": made.tensorrt,
        "seconds": round(made.seconds, 1),
        "bytes": done.size,
        "layers": done.layers,
        "checked": dict(made.checked) or "not checked",
    }


def modelled(weights: Path, precision: Precision, lowering: Lowering, path: Path) -> Path:
    """A checkpoint's model. Without torch, as on a bare Jetson, the one that is shipped, in fp32; raises
    UnavailableError for others."""
    if find_spec("torch") is None or find_spec("onnxruntime") is None:
        shipped = models.FOLDER / f"{weights.stem}.onnx"
        if (precision, lowering) != ("fp32", "matmul") or not shipped.is_file():
            raise UnavailableError(
                f"{precision}, {lowering}: exporting wants torch and onnxruntime, which are not here"
            )
        return shipped
    from sfiin.export.exporter import export_model

    export_model(weights, path, lowering, Tile(128, 128, 32), opset=17, precision=precision)
    return path


def replayed(path: Path) -> dict[str, bool] | str:
    """Whether graphs that are replayed after a change of shape give what launching each layer gives, to the
    bit."""
    from sfiin.runtime.backends.tensorrt_session import TensorRTSession

    sidecar = plan.read(path)
    with TensorRTSession(path, sidecar) as graphs, TensorRTSession(path, sidecar, graphs=False) as plain:
        same = same_after_changes(graphs, plain)
        return {"same": True} if same else "failed: a replayed graph gives other pixels"


def same_after_changes(graphs: Session, plain: Session) -> bool:
    """Whether two sessions agree on batches of 4, 3, 4, 1, 4, each of other pixels, three times over."""
    batches = [random_tiles(plain.contract, count, seed) for seed, count in enumerate((4, 3, 4, 1, 4) * 3)]
    return all(np.array_equal(graphs.run(*batch), plain.run(*batch)) for batch in batches)


def latencies(path: Path) -> dict[str, Any]:
    """Milliseconds a tile by batch and way: with and without CUDA graphs, and PyTorch eager where it sees
    the GPU."""
    from sfiin.runtime.backends.tensorrt_session import TensorRTSession

    sidecar = plan.read(path)
    ways: dict[str, Session] = {}
    for name, graphs in (("graphs", True), ("no graphs", False)):
        ways[name] = TensorRTSession(path, sidecar, graphs=graphs)
    try:
        return {str(batch): timed(ways, sidecar.contract, batch, ROUNDS) for batch in BATCHES}
    finally:
        for session in ways.values():
            session.close()


def timed(ways: Mapping[str, Session], contract: Contract, batch: int, rounds: int) -> dict[str, float]:
    """Median milliseconds a tile of each way, copies included, in turns, on inputs that change."""
    inputs = [random_tiles(contract, batch, seed) for seed in range(4)]
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(rounds + 10):
        for name, session in ways.items():
            start = time.perf_counter()
            session.run(*inputs[i % len(inputs)])
            if i >= 10:
                taken[name].append(1e3 * (time.perf_counter() - start) / batch)
    return {name: round(median(times), 4) for name, times in taken.items()}


def judged(path: Path, imagery: Path) -> dict[str, float]:
    """Mean PSNR, SAM and ERGAS on the check pairs that fit the model."""
    from sfiin.data.pairs import load_folder
    from sfiin.evaluation.judging import JudgedModel, score
    from sfiin.runtime.backends.tensorrt_session import open_plan

    with closing(open_plan(path)) as session:
        sensor = session.contract.sensor
        model = JudgedModel("plan", sensor, session.contract.tile, session.run)
        pairs = [
            pair
            for pair in load_folder(imagery / "check", len(sensor.bands), sensor.ratio)
            if pair.truth is not None
        ]
        found = [score(model, pair).quality for pair in pairs]
    return {
        name: round(fmean(getattr(quality, name) for quality in found), 4)
        for name in ("psnr", "sam", "ergas")
    }


def scene(path: Path, folder: Path) -> dict[str, float]:
    """Megapixels a second on a simulated scene, files included."""
    from sfiin.runtime.backends.tensorrt_session import open_plan
    from sfiin.runtime.scenes.pipeline import sharpen
    from sfiin.runtime.scenes.scene import open_scene

    with closing(open_plan(path)) as session:
        pan, ms = simulated(folder, session.contract)
        with open_scene(pan, [ms], session.contract.sensor) as opened:
            report = sharpen(session, opened, folder / "hrms.tif", batch=BATCHES[-1])
    return {"megapixels": report.pixels / 1e6, "per_second": round(report.pixels / 1e6 / report.seconds, 3)}


def refitted(weights: Path, folder: Path) -> dict[str, float] | str:
    """A plan that can be refitted, with its own weights put in anew: as near to the golden tiles as
    before."""
    from sfiin.export.refit import refit

    if find_spec("tensorrt") is None:
        return "skipped: TensorRT for RTX here; refits are TensorRT's"
    model = modelled(weights, "fp32", "matmul", folder / "refittable.onnx")
    built(weights, "fp32", folder / "refittable.plan", refit=True)
    distance = refit(folder / "refittable.plan", model, folder / "refitted.plan")
    return "failed: it was not checked" if distance is None else {"relative_l2": distance.relative_l2}


def random_tiles(contract: Contract, batch: int, seed: int) -> Images:
    """Whole digital numbers within the sensor's range."""
    random = np.random.default_rng(seed)
    ms, pan = (
        random.integers(0, contract.sensor.peak, (batch, *contract.shapes[name])).astype(np.float32)
        for name in ("ms", "pan")
    )
    return ms, pan


def simulated(folder: Path, contract: Contract, side: int = 1024) -> tuple[Path, Path]:
    """PAN and MS of the contract's bands as GeoTIFFs."""
    import rasterio
    from rasterio.transform import Affine

    from sfiin.data.simulate import simulate

    ratio, bands = contract.sensor.ratio, len(contract.sensor.bands)
    scene = simulate(side, side, 1)
    ms = scene.ms[np.arange(bands) % len(scene.ms)]
    for name, image, pixel in (("pan", scene.pan[None], 1.0), ("ms", ms, float(ratio))):
        count, height, width = image.shape
        profile = {
            "driver": "GTiff",
            "count": count,
            "height": height,
            "width": width,
            "dtype": "uint16",
            "crs": "EPSG:32650",
            "transform": Affine(pixel, 0.0, 5e5, 0.0, -pixel, 4e6),
        }
        with rasterio.open(folder / f"{name}.tif", "w", **profile) as file:
            file.write(image.astype(np.uint16))
    return folder / "pan.tif", folder / "ms.tif"


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """The runs as Markdown."""
    header = (
        "checkpoint",
        "precision",
        "built by",
        "build s",
        "MB",
        "relative L2",
        "ms a tile, batch 1",
        "batch 16",
        "graphs gain",
        "PSNR dB",
        "MP/s",
        "refit",
    )
    lines = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(_cells(run)) + " |" for run in runs)])


def _cells(run: Mapping[str, Any]) -> Iterator[str]:
    yield from (run["checkpoint"], run["precision"])
    build = run["build"]
    if isinstance(build, str):
        yield from (build, *[""] * 9)
        return
    checked = build["checked"]
    yield f"{build['flavour']} {build['tensorrt']}"
    yield from (f"{build['seconds']:.0f}", f"{build['bytes'] / 1e6:.1f}")
    yield checked if isinstance(checked, str) else f"{checked['relative_l2']:.1e}"
    latency = run["latency"]
    if isinstance(latency, str):
        yield from (latency, "", "")
    else:
        yield from (f"{latency[str(batch)]['graphs']:.3f}" for batch in BATCHES)
        one = latency["1"]
        yield f"{one['no graphs'] / one['graphs']:.2f}x"
    for name, key, form in (
        ("pairs", "psnr", ".3f"),
        ("scene", "per_second", ".2f"),
        ("refit", "relative_l2", ".1e"),
    ):
        yield run[name] if isinstance(run[name], str) else format(run[name][key], form)


if __name__ == "__main__":
    sys.exit(main())

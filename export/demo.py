"""Does the whole way work here? A simulated scene with known truth, from checkpoint to GeoTIFF to figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from sfiin.data.simulate import SimulatedScene, simulate
from sfiin.evaluation.figures import comparison
from sfiin.export.exporter import ExportReport, export_model
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.contract import SensorProfile, Tile
from sfiin.runtime.files import publish
from sfiin.runtime.quality import classical
from sfiin.runtime.quality.metrics import Quality, reference_quality
from sfiin.runtime.scenes.pipeline import Report, sharpen
from sfiin.runtime.scenes.scene import open_scene

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "sfiin-vhr4.safetensors"
SIDE, SEED, PIXEL = 512, 7, 0.5  # PAN pixels, -, metres


@dataclass(frozen=True)
class Demo:
    """What the demo made: files in `folder`, and each method's quality against the truth."""

    folder: Path
    export: ExportReport
    run: Report
    quality: dict[str, Quality]


def demo(folder: Path, note: Callable[[str], None]) -> Demo:
    """Simulate, export, check, run and judge, in `folder`; `note` hears of each step. Raises SfiinError."""
    folder.mkdir(parents=True, exist_ok=True)
    note(f"simulating an 11-bit, 4-band scene of {SIDE} x {SIDE} PAN pixels")
    scene = simulate(SIDE, SIDE, SEED)
    note("exporting the shipped checkpoint and checking it against PyTorch")
    exported = export_model(CHECKPOINT, folder / "model.onnx", "matmul", Tile(128, 128, 32), opset=17)
    sensor = exported.contract.sensor
    _write_scene(folder, scene, sensor)
    note("running it on the scene's GeoTIFFs")
    product = folder / "hrms.tif"
    with (
        OnnxSession(exported.model) as session,
        open_scene(folder / "pan.tif", [folder / "ms.tif"], sensor) as opened,
    ):
        report = sharpen(session, opened, product)
    with rasterio.open(product) as file:
        fused = file.read()
    comparison(
        folder / "demo.png",
        scene.pan,
        scene.ms,
        fused,
        scene.truth,
        title=f"simulated scene, {SIDE} x {SIDE} pixels",
    )
    return Demo(folder, exported, report, _judge(scene, fused, sensor))


def _judge(scene: SimulatedScene, fused: NDArray[np.uint16], sensor: SensorProfile) -> dict[str, Quality]:
    images: dict[str, NDArray[np.floating]] = {
        name: classical.METHODS[name](scene.ms, scene.pan, sensor.ratio) for name in ("bicubic", "brovey")
    }
    images["sfiin"] = fused.astype(np.float64)
    peak = float(sensor.peak)
    return {name: reference_quality(image, scene.truth, sensor.ratio, peak) for name, image in images.items()}


def _write_scene(folder: Path, scene: SimulatedScene, sensor: SensorProfile) -> None:
    origin, coarse = (
        Affine(size, 0, 500000.0, 0, -size, 4600000.0) for size in (PIXEL, PIXEL * sensor.ratio)
    )
    _write(folder / "pan.tif", scene.pan[None], origin, ("panchromatic",))
    _write(folder / "ms.tif", scene.ms, coarse, sensor.bands)
    _write(folder / "truth.tif", scene.truth, origin, sensor.bands)


def _write(path: Path, image: NDArray[np.uint16], transform: Affine, bands: tuple[str, ...]) -> None:
    count, height, width = image.shape
    with (
        publish(path) as part,
        rasterio.open(
            part,
            "w",
            driver="GTiff",
            count=count,
            height=height,
            width=width,
            dtype="uint16",
            crs="EPSG:32631",
            transform=transform,
            photometric="MINISBLACK",
        ) as file,
    ):
        file.write(image)
        file.descriptions = bands

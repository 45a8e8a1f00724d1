"""Does the whole way work here? From checkpoint to GeoTIFF to figures, on a simulated scene and on a real
one.

The simulated scene has a truth. The real one is Landsat-8's of the Momotombo volcano, Nicaragua, 256 x 256
PAN pixels of LC08_L1TP_017051_20151205_20200908_02_T1 (USGS, public domain; from xlandsat's data, CC-0): it
is sharpened as it is, and judged at reduced resolution. It was not trained on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.transform import Affine

from sfiin.data import sensors
from sfiin.data.pairs import load_pair, reduced
from sfiin.data.simulate import SimulatedScene, simulate
from sfiin.evaluation.figures import comparison, side_by_side
from sfiin.evaluation.judging import JudgedModel, fuse_whole
from sfiin.export.exporter import ExportReport, export_model
from sfiin.runtime import models
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.contract import SensorProfile, Tile
from sfiin.runtime.files import publish
from sfiin.runtime.quality import classical
from sfiin.runtime.quality.metrics import Quality, reference_quality
from sfiin.runtime.scenes.pipeline import Sharpened, sharpen
from sfiin.runtime.scenes.scene import open_scene

CHECKPOINT = Path(__file__).parents[1] / "checkpoints" / "sfiin-vhr4.safetensors"
REAL, REAL_SENSOR, REAL_PIXEL = Path(__file__).with_name("momotombo.npz"), "landsat", 15.0
SHOWN = ("bicubic", "brovey", "local_regression")
"""The classical methods beside the product."""
SIDE, SEED, PIXEL = 512, 7, 0.5  # PAN pixels, -, metres


@dataclass(frozen=True)
class Demo:
    """What the demo made: files in `folder`, and each method's quality against the truth, simulated and
    real."""

    folder: Path
    export: ExportReport
    run: Sharpened
    quality: dict[str, Quality]
    real: dict[str, Quality]


def demo(folder: Path, note: Callable[[str], None]) -> Demo:
    """Simulate, export, check, run and judge, in `folder`; `note` hears of each step. Raises SfiinError."""
    folder.mkdir(parents=True, exist_ok=True)
    note(f"simulating an 11-bit, 4-band scene of {SIDE} x {SIDE} PAN pixels")
    scene = simulate(SIDE, SIDE, SEED)
    note("exporting the shipped checkpoint and checking it against PyTorch")
    exported = export_model(CHECKPOINT, folder / "model.onnx", "matmul", Tile(128, 128, 32), opset=17)
    sensor = exported.contract.sensor
    _write_scene(folder, scene.pan, scene.ms, sensor, PIXEL)
    _write(folder / "truth.tif", scene.truth, _transform(PIXEL), sensor.bands)
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
    return Demo(folder, exported, report, _judge(scene, fused, sensor), real(folder / "momotombo", note))


def real(folder: Path, note: Callable[[str], None]) -> dict[str, Quality]:
    """Sharpen the real scene as it is, draw it, and judge all methods on it one scale coarser."""
    folder.mkdir(parents=True, exist_ok=True)
    note("sharpening a real scene: Landsat-8, the Momotombo volcano")
    pair = load_pair(REAL)
    model = models.choose(len(pair.ms), pair.ratio)
    with OnnxSession(model) as session:
        sensor = session.contract.sensor
        tile = JudgedModel("sfiin", sensor, session.contract.tile, session.run)
        _write_scene(folder, pair.pan[0].astype(np.uint16), pair.ms.astype(np.uint16), sensor, REAL_PIXEL)
        with open_scene(folder / "pan.tif", [folder / "ms.tif"], sensor) as opened:
            sharpen(session, opened, folder / "hrms.tif")
        low = reduced(pair, "given", sensors.find(REAL_SENSOR))
        coarse = fuse_whole(tile, low.ms, low.pan)
    with rasterio.open(folder / "hrms.tif") as file:
        fused = file.read()
    classic = classical.METHODS[SHOWN[-1]](pair.ms, pair.pan, pair.ratio)
    panels = {"PAN": pair.pan[0], "MS": pair.ms, SHOWN[-1]: classic, "SFIIN": fused}
    side_by_side(folder / "momotombo.png", panels, title="Landsat-8, Momotombo: as it is, without a truth")
    assert low.truth is not None
    peak = float(sensor.peak)
    images = {name: classical.METHODS[name](low.ms, low.pan, low.ratio) for name in SHOWN} | {"sfiin": coarse}
    return {name: reference_quality(image, low.truth, low.ratio, peak) for name, image in images.items()}


def _judge(scene: SimulatedScene, fused: NDArray[np.uint16], sensor: SensorProfile) -> dict[str, Quality]:
    images: dict[str, NDArray[np.floating]] = {
        name: classical.METHODS[name](scene.ms, scene.pan, sensor.ratio) for name in SHOWN
    }
    images["sfiin"] = fused.astype(np.float64)
    peak = float(sensor.peak)
    return {name: reference_quality(image, scene.truth, sensor.ratio, peak) for name, image in images.items()}


def _write_scene(
    folder: Path, pan: NDArray[np.uint16], ms: NDArray[np.uint16], sensor: SensorProfile, pixel: float
) -> None:
    """As GeoTIFFs."""
    _write(folder / "pan.tif", pan[None], _transform(pixel), ("panchromatic",))
    _write(folder / "ms.tif", ms, _transform(pixel * sensor.ratio), sensor.bands)


def _transform(pixel: float) -> Affine:
    """Pixels of so many metres; where they lie on Earth is made up."""
    return Affine(pixel, 0, 500000.0, 0, -pixel, 4600000.0)


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

"""How does a product compare with GDAL's, on the same files?

    python benchmarks/gdal.py --imagery DIR -o benchmarks/gdal.json
    python benchmarks/gdal.py --table benchmarks/gdal.json

GDAL's pan-sharpening (weighted Brovey; what `gdal_pansharpen` sets up) runs by a virtual raster of its own,
in the GDAL that comes with rasterio, with MS resampled by cubic convolution on PAN's grid. `DIR/scenes` holds
folders with pan.tif and ms.tif, `DIR/check` pairs without truth, which are written as GeoTIFFs. Time is from
files to compressed product; quality is without a reference (sfiin.runtime.quality.metrics), which favours
what stays near to MS.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import rasterio
from rasterio.transform import Affine

from sfiin.data.pairs import gains, load_pair
from sfiin.runtime import models
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.errors import SfiinError
from sfiin.runtime.files import publish
from sfiin.runtime.quality import metrics
from sfiin.runtime.scenes.pipeline import sharpen
from sfiin.runtime.scenes.scene import open_scene

ROUNDS = 3


def main() -> None:
    """Measure and write, or print the table of a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imagery", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/gdal.json"))
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text("utf-8"))["runs"]))
        return
    if options.imagery is None:
        parser.error("--imagery is wanted, or --table")
    with TemporaryDirectory() as folder, OnnxSession(models.choose(4, 4), threads=1) as session:
        runs = [
            found
            for scene in _scenes(options.imagery, Path(folder))
            if (found := compared(scene, session, Path(folder)))
        ]
    document = {
        "command": "python benchmarks/gdal.py --imagery DIR",
        "gdal": rasterio.__gdal_version__,
        "model": models.choose(4, 4).name,
        "machine": platform.machine(),
        "runs": runs,
    }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(table(runs))


def compared(
    scene: tuple[str, Path, Path, tuple[Any, float]], session: OnnxSession, folder: Path
) -> dict[str, Any] | None:
    """Both products of a scene; None for one that the model is not for."""
    name, pan, ms, known = scene
    found: dict[str, Any] = {"scene": name}
    try:
        with open_scene(pan, [ms], session.contract.sensor) as opened:
            seconds = [_timed(lambda: sharpen(session, opened, folder / "sfiin.tif")) for _ in range(ROUNDS)]
    except SfiinError as error:
        print(f"{name}: {error}")
        return None
    found["sfiin"] = {"seconds": median(seconds), **_quality(folder / "sfiin.tif", pan, ms, known)}
    seconds = [_timed(lambda: _brovey(pan, ms, folder)) for _ in range(ROUNDS)]
    found["gdal"] = {"seconds": median(seconds), **_quality(folder / "gdal.tif", pan, ms, known)}
    print(json.dumps(found))
    return found


def _brovey(pan: Path, ms: Path, folder: Path) -> None:
    with rasterio.open(ms) as file:
        bands = file.count
    source = "<SourceFilename>{}</SourceFilename><SourceBand>{}</SourceBand>"
    spectral = "".join(
        f'<SpectralBand dstBand="{i}">{source.format(ms.resolve(), i)}</SpectralBand>'
        for i in range(1, bands + 1)
    )
    (folder / "gdal.vrt").write_text(
        '<VRTDataset subClass="VRTPansharpenedDataset"><PansharpeningOptions><Resampling>Cubic</Resampling>'
        "<SpatialExtentAdjustment>None</SpatialExtentAdjustment>"
        f"<PanchroBand>{source.format(pan.resolve(), 1)}</PanchroBand>{spectral}"
        "</PansharpeningOptions></VRTDataset>"
    )
    options = {"driver": "GTiff", "tiled": True, "compress": "deflate", "predictor": 2}
    with rasterio.open(folder / "gdal.vrt") as file:
        profile = {
            key: file.profile[key] for key in ("count", "height", "width", "dtype", "crs", "transform")
        }
        with rasterio.open(folder / "gdal.tif", "w", **profile | options) as product:
            product.write(file.read())


def _quality(product: Path, pan: Path, ms: Path, known: tuple[Any, float]) -> dict[str, float]:
    fused, sharp, coarse = (_read(path) for path in (product, pan, ms))
    spectral = metrics.d_lambda(fused, coarse)
    spatial = metrics.d_s(fused, coarse, sharp, gain=known[1])
    consistency = metrics.d_lambda_k(fused, coarse, known[0])
    return {
        "d_lambda": spectral,
        "d_s": spatial,
        "d_lambda_k": consistency,
        "hqnr": (1 - consistency) * (1 - spatial),
    }


def _read(path: Path) -> np.ndarray:
    with rasterio.open(path) as file:
        image: np.ndarray = file.read().astype(np.float64)
    return image


def _timed(work: Any) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _scenes(imagery: Path, folder: Path) -> Iterator[tuple[str, Path, Path, tuple[Any, float]]]:
    from sfiin.data.sensors import SENSORS

    known = SENSORS["vhr4"]
    for pan in sorted((imagery / "scenes").glob("*/pan.tif")):
        yield pan.parent.name, pan, pan.with_name("ms.tif"), (known.ms_gains, known.pan_gain)
    for path in sorted((imagery / "check").glob("*.npz")):
        pair = load_pair(path)
        if pair.truth is None and len(pair.ms) == 4:
            for name, image, pixel in (("pan", pair.pan, 0.5), ("ms", pair.ms, 2.0)):
                _write(folder / f"{path.stem}-{name}.tif", image, pixel)
            yield path.stem, folder / f"{path.stem}-pan.tif", folder / f"{path.stem}-ms.tif", gains(pair)


def _write(path: Path, image: np.ndarray, pixel: float) -> None:
    count, height, width = image.shape
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=count,
        height=height,
        width=width,
        dtype="uint16",
        crs="EPSG:32650",
        transform=Affine(pixel, 0.0, 5e5, 0.0, -pixel, 4e6),
    ) as file:
        file.write(image.astype(np.uint16))


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """The README's table."""
    lines = ["| | | time | D_lambda | D_S | D_lambda_K | HQNR |", "|---|---|---|---|---|---|---|"]
    for run in runs:
        for name, label in (("gdal", "GDAL"), ("sfiin", "sfiin")):
            result = run[name]
            measures = " | ".join(f"{result[key]:.3f}" for key in ("d_lambda", "d_s", "d_lambda_k", "hqnr"))
            lines.append(
                f"| {run['scene'] if name == 'gdal' else ''} | {label} | {result['seconds']:.1f} s | "
                f"{measures} |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    main()

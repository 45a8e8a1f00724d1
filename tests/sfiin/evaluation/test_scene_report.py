"""The report of a run against what is known of its scene."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.data.simulate import simulate
from sfiin.evaluation.scene_report import write
from sfiin.runtime.errors import OutputError, SceneError
from sfiin.runtime.quality.metrics import hqnr, qnr

SIDE = 256


@pytest.fixture
def run(tmp_path: Path) -> dict[str, Any]:
    """A product that is MS by repetition, 3 DN too bright in blue, and the document of its run."""
    scene = simulate(SIDE, SIDE, 3)
    product = scene.ms.repeat(4, 1).repeat(4, 2).astype(np.uint16)
    product[0] += 3
    for name, image, pixel in (("pan", scene.pan[None], 0.5), ("ms", scene.ms, 2.0), ("sharp", product, 0.5)):
        with rasterio.open(
            tmp_path / f"{name}.tif",
            "w",
            driver="GTiff",
            count=len(image),
            height=image.shape[1],
            width=image.shape[2],
            dtype="uint16",
            crs="EPSG:32650",
            transform=Affine(pixel, 0, 5e5, 0, -pixel, 4e6),
        ) as file:
            file.write(image.astype(np.uint16))
    bands = ["blue", "green", "red", "nir"]
    return {
        "output": str(tmp_path / "sharp.tif"),
        "pan": str(tmp_path / "pan.tif"),
        "ms": [str(tmp_path / "ms.tif")],
        "model": "m.onnx",
        "model_sha256": "ab" * 32,
        "precision": "fp32",
        "gain": 1.0,
        "bands": bands,
        "sensor": {"name": "vhr4", "bands": bands, "ratio": 4, "bits": 11, "scale": 2047.0},
        "size": [SIDE, SIDE],
        "reading": {},
        "method": None,
        "pixels": SIDE * SIDE,
        "tiles": 4,
        "nodata": 0,
        "clipped": dict.fromkeys(bands, 7),
        "seconds": 2.0,
        "megapixels_per_second": 0.03,
        "memory": {"peak": 1 << 28, "total": 1 << 29},
        "notes": ["PAN covers more than MS"],
        "shift": {
            "row": 0.1,
            "col": -0.2,
            "drift": None,
            "said": "PAN lies +0.1 rows and -0.2 columns",
            "corrected": "",
        },
        "seams": [
            {"axis": "rows", "ratio": 1.01, "error": 0.02, "lines": 3, "shows": False},
            {"axis": "columns", "ratio": None, "error": None, "lines": 0, "shows": False},
        ],
    }


def test_it_measures_what_the_product_is(
    run: dict[str, Any], tmp_path: Path, html_page: Callable[[str], Any]
) -> None:
    write(run, tmp_path / "r.html")
    page = html_page((tmp_path / "r.html").read_text(encoding="utf-8"))
    rows = {row[0]: row for row in page.rows if row}
    assert float(rows["blue"][2]) == pytest.approx(3, abs=1e-3)
    assert float(rows["green"][2]) == pytest.approx(0, abs=1e-3)
    assert float(rows["green"][5]) == pytest.approx(1, abs=1e-3)
    assert rows["green"][7] == "7"
    with (
        rasterio.open(run["output"]) as file,
        rasterio.open(run["pan"]) as sharp,
        rasterio.open(run["ms"][0]) as low,
    ):
        images = file.read().astype(float), low.read().astype(float), sharp.read(1).astype(float)
    from sfiin.data.sensors import SENSORS

    known = SENSORS["vhr4"]
    assert float(rows["0, 0"][1]) == pytest.approx(
        hqnr(*images, gains=known.ms_gains, gain=known.pan_gain), abs=1e-4
    )
    assert float(rows["0, 0"][2]) == pytest.approx(qnr(*images, gain=known.pan_gain), abs=1e-4)
    assert rows["columns"][1] == "-"
    assert "PAN covers more than MS" in page.text
    assert page.tags.count("img") == 1


def test_pixels_without_data_are_left_out(
    run: dict[str, Any], tmp_path: Path, html_page: Callable[[str], Any]
) -> None:
    with rasterio.open(run["pan"], "r+") as file:
        pan = file.read()
        pan[:, :, :128] = 0
        file.write(pan)
        file.nodata = 0
    with rasterio.open(run["output"], "r+") as file:
        product = file.read()
        product[:, :, :128] = 60000
        file.write(product)
    write(run, tmp_path / "r.html")
    rows = {row[0]: row for row in html_page((tmp_path / "r.html").read_text(encoding="utf-8")).rows if row}
    assert float(rows["green"][2]) == pytest.approx(0, abs=1e-3)


def test_a_scene_without_any_data_is_reported_all_the_same(run: dict[str, Any], tmp_path: Path) -> None:
    with rasterio.open(run["pan"], "r+") as file:
        file.write(np.zeros((1, SIDE, SIDE), np.uint16))
        file.nodata = 0
    write(run, tmp_path / "r.html")
    assert (tmp_path / "r.html").exists()


def test_files_that_are_gone_and_folders_that_are_not_there(run: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write(run, tmp_path / "no" / "r.html")
    Path(run["pan"]).unlink()
    with pytest.raises(SceneError, match="no such file"):
        write(run, tmp_path / "r.html")
    assert not (tmp_path / "r.html").exists()

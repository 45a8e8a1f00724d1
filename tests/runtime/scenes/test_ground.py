"""Whether a scene lies on its model's home ground is told by a few windows of it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.data.simulate import simulate
from sfiin.runtime import models
from sfiin.runtime.contract import Contract
from sfiin.runtime.scenes import ground
from sfiin.runtime.scenes.scene import open_scene


def write(path: Path, image: np.ndarray, pixel: float, nodata: int | None = None) -> Path:
    profile = {"driver": "GTiff", "dtype": "uint16", "crs": "EPSG:32631", "nodata": nodata}
    transform = Affine(pixel, 0, 5e5, 0, -pixel, 4.6e6)
    count, height, width = image.shape
    with rasterio.open(
        path, "w", count=count, height=height, width=width, transform=transform, **profile
    ) as file:
        file.write(image)
    return path


@pytest.fixture(scope="module")
def contract() -> Contract:
    path, _ = next(model for model in models.shipped() if model[0].stem == "sfiin-vhr4")
    return models.contract(path)


def test_notes_name_what_lies_outside(tmp_path: Path, contract: Contract) -> None:
    simulated = simulate(320, 288, 4)
    pan, ms = (
        write(tmp_path / "pan.tif", simulated.pan[None], 0.5),
        write(tmp_path / "ms.tif", simulated.ms, 2.0),
    )
    wide = dict.fromkeys(
        ("correlation", "contrast", "crispness", "brightness"), (-1000000000.0, 1000000000.0)
    )
    with open_scene(pan, [ms], contract.sensor) as scene:
        assert ground.notes(scene, dataclasses.replace(contract, home={})) == []
        assert ground.notes(scene, dataclasses.replace(contract, home=wide)) == []
        found = ground.notes(scene, dataclasses.replace(contract, home=wide | {"brightness": (0.9, 1.0)}))
    assert len(found) == 1
    assert "off the model's home ground: PAN's mean" in found[0]


def test_a_scene_without_data_is_told_nothing_of(tmp_path: Path, contract: Contract) -> None:
    pan = write(tmp_path / "pan.tif", np.zeros((1, 64, 64), np.uint16), 0.5, nodata=0)
    ms = write(tmp_path / "ms.tif", np.zeros((4, 16, 16), np.uint16), 2.0, nodata=0)
    with open_scene(pan, [ms], contract.sensor) as scene:
        assert ground.notes(scene, dataclasses.replace(contract, home={"brightness": (0.9, 1.0)})) == []

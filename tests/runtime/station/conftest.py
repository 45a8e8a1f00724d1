"""A report of a run, of all that it may hold."""

from __future__ import annotations

import pytest

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.station.run_report import Alignment, DriftNumbers, Memory, Reading, RunReport, SeamLines


@pytest.fixture(scope="session")
def report() -> RunReport:
    return RunReport(
        output="o.tif",
        pan="pan.tif",
        ms=("ms.tif",),
        model="net.onnx",
        model_sha256="cc",
        precision="fp32",
        sensor=SensorProfile("vhr", ("blue", "green"), 4, 11, 2047.0),
        gain=1.0,
        bands=("blue", "green"),
        size=(8, 8),
        lead=(0, 0),
        reading=Reading(None, ("blue", None), any_ratio=False),
        method=None,
        overlap=32,
        tiles=3,
        pixels=64,
        nodata=7,
        clipped={"blue": 1, "green": 0},
        seconds=0.5,
        megapixels_per_second=1.0,
        resumed=0,
        notes=("a note",),
        shift=Alignment(
            *(0.5, -0.25, 0.1, 3, 4, 4, True, False, 0.75, 128.0),
            DriftNumbers(((0.5, -0.25), (0.0, 0.1)), (8, 8)),
            *("aligned", "PAN lies there", ""),
        ),
        acquired=None,
        memory=Memory(1, 2, 3, 6, 5),
        guard={"again": 0, "tiles": {"net.onnx": 3}},
        seams=(SeamLines("rows", None, None, 0, shows=False),),
    )

"""How does TensorRT 8 get the same ranges without Q/DQ? As a calibration cache, which trtexec and calibrators
read.

The file is text: a line with the version and the calibrator's kind, then one for each tensor with its scale
(threshold / 127) as the hexadecimal bits of a float32, most significant first, as TensorRT 8's calibrators
write it. TensorRT quantises by it what it likes; Q/DQ says what.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from pathlib import Path

from sfiin.calibration.ranges import LEVELS

HEADER = "TRT-8600-EntropyCalibration2"


def write(path: Path, reach: Mapping[str, float]) -> None:
    """Write thresholds by tensor to an open place."""
    lines = [f"{name}: {struct.pack('>f', threshold / LEVELS).hex()}" for name, threshold in reach.items()]
    path.write_text("\n".join([HEADER, *lines]) + "\n", encoding="ascii")

import struct
from pathlib import Path

import numpy as np
import pytest

from sfiin.calibration import cache


def test_scales_are_the_bits_of_floats_most_significant_first(tmp_path: Path) -> None:
    cache.write(tmp_path / "c", {"x": 127.0, "block0/Conv": 2.5})
    first, one, other = (tmp_path / "c").read_text().splitlines()
    assert first.startswith("TRT-")
    assert one == "x: 3f800000"
    name, bits = other.split(": ")
    assert name == "block0/Conv"
    assert struct.unpack(">f", bytes.fromhex(bits))[0] == pytest.approx(np.float32(2.5 / 127))

"""The audit: figures against a count element by element, every value of a graph, and where its tiles come
from."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from sfiin.export import ranges
from sfiin.export.ranges import audit, calibration_tiles, measured
from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.errors import InputError

Model = Callable[..., onnx.ModelProto]
CONTRACT = Contract(
    SensorProfile("test", ("a", "b"), 4, 11, 2047.0), Tile(32, 16, 4), "matmul", "fp16", 17, {}, "c", "g", {}
)
MAGNITUDES = st.one_of(
    st.sampled_from([0.0, 2.0**-14, 2.0**-24, 2.0**-25]),
    st.floats(2.0**-30, 2.0**-10, width=32),
    st.floats(2.0**-10, 6e4, width=32),
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(MAGNITUDES, min_size=1, max_size=20), min_size=1, max_size=3))
def test_figures_are_those_of_each_element(parts: list[list[float]]) -> None:
    found = measured([np.array(part, np.float32) for part in parts])
    elements = [np.float32(x) for part in parts for x in part]
    halves = [np.float16(x) for x in elements]
    assert found.maximum == max(elements)
    # NumPy's own subnormals: nonzero before, and below the least normal number
    assert found.subnormal == pytest.approx(
        np.mean([0 < x < np.finfo(np.float16).smallest_normal for x in elements])
    )
    assert found.flushed == pytest.approx(
        np.mean([x > 0 and half == 0 for x, half in zip(elements, halves, strict=True)])
    )
    error = sum((float(half) - float(x)) ** 2 for x, half in zip(elements, halves, strict=True))
    energy = sum(float(x) ** 2 for x in elements)
    assert found.loss == pytest.approx(np.sqrt(error / energy) if energy else 0.0, rel=1e-3, abs=1e-9)


def test_overflow_is_an_infinite_loss() -> None:
    found = measured([np.array([1.0, -70000.0], np.float32)])
    assert (found.maximum, found.loss) == (70000.0, np.inf)


@pytest.mark.parametrize("chunk", [1, 1000, 1 << 30])
def test_every_value_of_every_node_is_seen(model: Model, monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    """However many fit into one run; the least and the largest tile count alike."""
    monkeypatch.setattr(ranges, "_CHUNK", chunk)
    nodes = [
        helper.make_node("Mul", ["x", "c"], ["y"], "mul"),
        helper.make_node("Split", ["y", "s"], ["a", "b"], "split", axis=0),
        helper.make_node("Cast", ["a"], ["i"], "cast", to=TensorProto.INT32),
        helper.make_node("Exp", ["b"], ["z"], "exp"),
    ]
    graph = model(
        nodes, {"x": (TensorProto.FLOAT, (4, 3))}, {"c": np.float32(2), "s": np.array([2, 2], np.int64)}
    )
    tiles = [{"x": np.full((4, 3), value, np.float32)} for value in (1.0, -3.0)]
    found = audit(graph, tiles)
    assert list(found) == ["y", "a", "b", "z"]
    assert [found[name].maximum for name in found] == pytest.approx([6, 6, 6, np.exp(2)], rel=1e-6)


def pair(folder: Path, name: str, height: int, width: int, bands: int = 2) -> None:
    random = np.random.default_rng(0)
    pan, ms = (
        random.integers(1, 2047, (height, width)),
        random.integers(1, 2047, (bands, height // 4, width // 4)),
    )
    np.savez(folder / f"{name}.npz", pan=pan.astype(np.uint16), ms=ms.astype(np.uint16), meta=json.dumps({}))


def test_calibration_tiles_are_whole_and_few(tmp_path: Path) -> None:
    pair(tmp_path, "a", 64, 64)
    pair(tmp_path, "b", 40, 40)
    pair(tmp_path, "other", 64, 64, bands=3)
    found = calibration_tiles(tmp_path, CONTRACT, most=5)
    assert len(found) == 5
    assert {(tile["ms"].shape, tile["pan"].shape) for tile in found} == {((1, 2, 8, 4), (1, 1, 32, 16))}
    every = calibration_tiles(tmp_path, CONTRACT, most=100)
    assert len(every) == 2 * 4 + 1 * 2
    with np.load(tmp_path / "a.npz") as file:
        assert (every[5]["pan"][0, 0] == file["pan"][32:, 16:32]).all()
        assert (every[5]["ms"][0] == file["ms"][:, 8:, 4:8]).all()


def test_folders_without_tiles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no pair of 2 bands at ratio 4"):
        calibration_tiles(tmp_path, CONTRACT)
    pair(tmp_path, "small", 16, 64)
    with pytest.raises(InputError, match="no pair is as large as the tile, 32x16; export a smaller one"):
        calibration_tiles(tmp_path, CONTRACT)

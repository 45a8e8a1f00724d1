"""Golden tiles as a file: round trip, and what is refused."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from sfiin.runtime import golden, models
from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.files import sha256
from sfiin.runtime.golden import GoldenTiles


def test_the_shipped_models_tiles_are_those_of_their_contracts() -> None:
    for path, contract in models.shipped():
        tiles = golden.read(golden.beside(path), contract)
        side = contract.tile.height
        assert tiles.names == ("natural", "half", "constant", "zero", "checkerboard")
        assert tiles.hrms.shape == (5, len(contract.sensor.bands), side, side)


def test_tiles_come_back_as_they_were_written_and_go_through_one_at_a_time(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    ms, pan = (
        noise.integers(0, 2047, (3, 2, 4, 4), np.uint16),
        noise.integers(0, 2047, (3, 1, 8, 8), np.uint16),
    )
    tiles = GoldenTiles(("a", "b", "c"), ms, pan, noise.random((3, 2, 8, 8), np.float32))
    path = tmp_path / "net.golden.npz"
    golden.write(path, tiles)
    shipped = models.shipped()[0][1]
    contract = dataclasses.replace(
        shipped,
        sensor=dataclasses.replace(shipped.sensor, bands=("blue", "green"), ratio=2),
        tile=Tile(8, 8, 2),
        golden=sha256(path),
    )
    found = golden.read(path, contract)
    assert found.names == tiles.names
    for name in ("ms", "pan", "hrms"):
        np.testing.assert_array_equal(getattr(found, name), getattr(tiles, name))
    batches = []
    found.through(lambda ms, pan: batches.append(ms.shape) or pan * 2.0)  # type: ignore[func-returns-value]
    assert batches == [(1, 2, 4, 4)] * 3


def test_missing_foreign_and_damaged_tiles_are_told_apart(tmp_path: Path) -> None:
    path, contract = models.shipped()[0]
    copy = tmp_path / "net.golden.npz"
    with pytest.raises(InputError, match=r"cannot be read .* beside the model"):
        golden.read(copy, contract)
    shutil.copy(golden.beside(path), copy)
    with pytest.raises(MismatchError, match="golden: not the tiles"):
        golden.read(copy, dataclasses.replace(contract, golden="0" * 64))
    copy.write_bytes(copy.read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged golden tiles"):
        golden.read(copy, dataclasses.replace(contract, golden=sha256(copy)))

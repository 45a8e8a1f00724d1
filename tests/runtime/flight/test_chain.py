"""A bundle as a session: its chain in order, its limits, and what becomes of one that is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfiin.runtime import golden, models
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.errors import InputError
from sfiin.runtime.flight import bundle
from sfiin.runtime.flight.chain import LIMITS, limits, open_bundle, read_limits, write_limits
from sfiin.runtime.flight.checks import Limits, alarms
from sfiin.runtime.flight.slots import create
from sfiin.runtime.quality.classical import METHODS


@pytest.fixture(scope="module")
def shipped() -> Path:
    return models.choose(4, 4)


@pytest.fixture
def folder(shipped: Path, tmp_path: Path) -> Path:
    """A slot with the shipped network, local GSA behind it, and limits of its own."""
    wide = tmp_path / LIMITS
    write_limits(wide, Limits((0.5,) * 4, (4.0,) * 4, 0.2))
    made = tmp_path / "x.bundle"
    bundle.make(made, [shipped], ["local_gsa"], [wide])
    create(tmp_path / "slots", made)
    return tmp_path / "slots" / "factory"


@pytest.fixture(scope="module")
def tile(shipped: Path) -> tuple[Any, Any]:
    tiles = golden.read(golden.beside(shipped), models.contract(shipped))
    return tiles.ms[:1].astype(np.float32), tiles.pan[:1].astype(np.float32)


def test_it_gives_what_its_first_artefact_gives(folder: Path, shipped: Path, tile: Any) -> None:
    guard = open_bundle(folder, "cpu", 1)
    with OnnxSession(shipped, threads=1) as alone:
        assert np.array_equal(guard.run(*tile), alone.run(*tile))
    assert guard.self_test()
    assert guard.take_log().origins == [shipped.name]
    guard.close()


def test_a_method_takes_over(folder: Path, tile: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    guard = open_bundle(folder, "cpu", 1)
    monkeypatch.setattr(OnnxSession, "run", lambda *_: np.full((1, 4, 128, 128), np.nan, np.float32))
    assert np.allclose(guard.run(*tile)[0], METHODS["local_gsa"](tile[0][0], tile[1][0], 4), atol=1e-2)
    assert guard.take_log().origins == ["local_gsa"]


def test_limits_come_with_the_bundle_or_from_its_golden_tiles(
    folder: Path, shipped: Path, tmp_path: Path
) -> None:
    contract = models.contract(shipped)
    assert limits(folder, contract) == Limits((0.5,) * 4, (4.0,) * 4, 0.2)
    plain = tmp_path / "plain.bundle"
    bundle.make(plain, [shipped])
    create(tmp_path / "others", plain)
    found = limits(tmp_path / "others" / "factory", contract)
    tiles = golden.read(golden.beside(shipped), contract)
    assert alarms(tiles.hrms[0], tiles.ms[0], tiles.pan[0], contract.sensor, found) == []
    assert alarms(tiles.hrms[0] * 2, tiles.ms[0], tiles.pan[0], contract.sensor, found)


@pytest.mark.parametrize(
    "document",
    [
        "",
        "[]",
        {"rms": [1], "largest": [1]},
        {"rms": [1], "largest": ["a"], "beyond": 0},
        {"rms": [-1], "largest": [1], "beyond": 0},
        {"rms": [1], "largest": [1], "beyond": 0, "more": 1},
    ],
)
def test_damaged_limits_are_refused(tmp_path: Path, document: Any) -> None:
    path = tmp_path / LIMITS
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    with pytest.raises(InputError, match="no limits, or damaged ones"):
        read_limits(path)


def test_a_slot_that_rots_is_not_opened(folder: Path, shipped: Path) -> None:
    content = bytearray((folder / shipped.name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / shipped.name).write_bytes(content)
    with pytest.raises(InputError, match="is not what the manifest says"):
        open_bundle(folder)

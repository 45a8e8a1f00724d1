"""A bundle as a session: its chain in order, its limits, and what becomes of one that is damaged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio

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


# --- a scene by a slot ---


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Any, ...]:
    """The words of a run on a small scene, but for the model and the output."""
    rows, cols = np.mgrid[:256, :256] / 24
    pan = (600 + 200 * np.sin(rows) * np.cos(1.3 * cols) + 90 * np.sin(3 * rows + 2 * cols))[None]
    ms = np.concatenate([gain * pan.reshape(1, 64, 4, 64, 4).mean((2, 4)) for gain in (0.5, 0.7, 0.9, 1.3)])
    for name, image, pixel in (("pan", pan, 1.0), ("ms", ms, 4.0)):
        size = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
        place = {"crs": "EPSG:32633", "transform": rasterio.Affine(pixel, 0, 1000, 0, -pixel, 2000)}
        with rasterio.open(
            tmp_path / f"{name}.tif", "w", driver="GTiff", dtype="uint16", **size, **place
        ) as file:
            file.write(image.astype(np.uint16))
    return ("run", "--pan", tmp_path / "pan.tif", "--ms", tmp_path / "ms.tif", "--threads", "1", "--json")


def test_a_scene_is_sharpened_by_a_slot(
    folder: Path, shipped: Path, scene: tuple[Any, ...], invoke: Any, tmp_path: Path
) -> None:
    code, out, err = invoke(*scene, "--model", folder / "manifest.json", "-o", tmp_path / "slot.tif")
    assert code == 0, err
    told = json.loads(out)
    assert told["guard"]["alarms"] == {}
    assert set(told["guard"]["tiles"]) == {shipped.name}
    assert invoke(*scene, "--model", shipped, "-o", tmp_path / "plain.tif")[0] == 0
    with rasterio.open(tmp_path / "slot.tif") as one, rasterio.open(tmp_path / "plain.tif") as other:
        assert np.array_equal(one.read(), other.read())


def test_what_a_session_made_that_fails_its_test_is_not_published(
    folder: Path, scene: tuple[Any, ...], invoke: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every tile but the golden ones at the end comes out as ever: a flip between the last tile and the
    test."""
    real, calls = OnnxSession.run, []

    def run(self: OnnxSession, ms: Any, pan: Any) -> Any:
        calls.append(1)
        hrms = real(self, ms, pan)
        return hrms + np.float32(1e-4) if len(calls) == limit else hrms

    limit = 0
    monkeypatch.setattr(OnnxSession, "run", run)
    words = (*scene, "--model", folder / "manifest.json", "--provider", "cpu", "-o", tmp_path / "x.tif")
    assert invoke(*words)[0] == 0
    (tmp_path / "x.tif").unlink()
    for left in tmp_path.glob("x*"):
        left.unlink()
    limit = 2 * len(calls)
    code, _, err = invoke(*words)
    assert (code, "did not pass its self-test" in err) == (6, True)
    assert not list(tmp_path.glob("*x.tif*")) + list(tmp_path.glob(".x*"))
    assert invoke(*words)[0] == 0

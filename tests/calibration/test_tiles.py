"""Representative tiles: strata, seeds, digests, and what is refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.calibration.tiles import RANDOM, choose, correlation, digest, digests, stratum
from sfiin.data.pairs import load_folder
from sfiin.data.simulate import simulate
from sfiin.runtime import golden, models
from sfiin.runtime.contract import Contract, Tile
from sfiin.runtime.errors import InputError

SHIPPED = models.choose(4, 4)


@pytest.fixture(scope="module")
def contract() -> Contract:
    """The shipped model's, for tiles of 32 x 32."""
    return dataclasses.replace(models.contract(SHIPPED), tile=Tile(32, 32, 8))


def pair(path: Path, seed: int, side: int = 96, gain: float = 1.0) -> Path:
    scene = simulate(side, side, seed)
    np.savez(path, pan=(scene.pan * gain).astype(np.float32), ms=(scene.ms * gain).astype(np.float32))
    return path


def test_every_stratum_gets_its_turn(contract: Contract, tmp_path: Path) -> None:
    """One dark pair among nine bright ones: as many dark tiles as bright ones, as long as there are any."""
    for seed in range(9):
        pair(tmp_path / f"bright{seed}.npz", seed, gain=1.0)
    pair(tmp_path / "dark.npz", 10, gain=0.05)
    whole = choose(tmp_path, contract, 1000, 0)
    assert len(whole.tiles) == 90
    few = choose(tmp_path, contract, 2 * len(whole.strata), 0)
    assert set(few.strata) == set(whole.strata)
    assert all(count >= min(2, whole.strata[name]) for name, count in few.strata.items())
    assert sum(few.strata.values()) == len(few.tiles) == 2 * len(whole.strata)
    assert any(place.startswith("dark ") for place in few.places)
    assert few.tiles[0]["ms"].shape == (1, 4, 8, 8)
    assert few.tiles[0]["pan"].shape == (1, 1, 32, 32)


def test_the_seed_decides_and_the_digest_tells(contract: Contract, tmp_path: Path) -> None:
    pair(tmp_path / "a.npz", 1, 160)
    first, again, other = (choose(tmp_path, contract, 6, seed) for seed in (3, 3, 4))
    assert first.places == again.places
    assert first.digest == again.digest
    assert first.digest != other.digest
    pair(tmp_path / "a.npz", 2, 160)
    assert choose(tmp_path, contract, 6, 3).digest != first.digest


def test_tiles_are_where_they_say(contract: Contract, tmp_path: Path) -> None:
    pair(tmp_path / "a.npz", 1)
    source = np.load(tmp_path / "a.npz")
    found = choose(tmp_path, contract, 9, 0)
    for tile, place in zip(found.tiles, found.places, strict=True):
        row, col = (int(part.split()[-1].strip(",")) for part in place.split(" at row ")[1].split("column"))
        np.testing.assert_array_equal(tile["pan"][0, 0], source["pan"][row : row + 32, col : col + 32])
        np.testing.assert_array_equal(
            tile["ms"][0], source["ms"][:, row // 4 : row // 4 + 8, col // 4 : col // 4 + 8]
        )


def test_scenes_are_read_by_windows_and_their_gaps_are_a_stratum(contract: Contract, tmp_path: Path) -> None:
    (tmp_path / "scene").mkdir()
    scene = simulate(96, 96, 5)
    grids = {"pan": (scene.pan[None].copy(), 1.0), "ms": (scene.ms.copy(), 4.0)}
    for name, (image, pixel) in grids.items():
        image[:, : image.shape[1] // 4] = 0
        image[:, image.shape[1] // 4 :] = np.maximum(image[:, image.shape[1] // 4 :], 1)
        profile = {
            "driver": "GTiff",
            "count": len(image),
            "height": image.shape[1],
            "width": image.shape[2],
            "dtype": "uint16",
            "nodata": 0,
            "crs": "EPSG:32650",
        }
        transform = Affine(pixel, 0.0, 5e5, 0.0, -pixel, 4e6)
        with rasterio.open(tmp_path / "scene" / f"{name}.tif", "w", transform=transform, **profile) as file:
            file.write(image.astype(np.uint16))
    found = choose(tmp_path, contract, 100, 0)
    assert found.strata["nodata"] == 3
    assert len(found.tiles) == 9


def test_strata_are_what_is_seen(contract: Contract) -> None:
    random = np.random.default_rng(0)
    smooth, land = (
        np.full((1, 32, 32), 300.0, np.float32),
        np.stack([np.full((8, 8), factor) for factor in (1, 1, 1, 2)]),
    )
    whole, peak = np.ones((32, 32), np.bool_), contract.sensor.peak
    rough = (smooth * random.uniform(0.8, 1.2, smooth.shape)).astype(np.float32)
    water = land[[0, 3, 1, 2]]
    cases: list[tuple[np.ndarray, np.ndarray, np.ndarray, str]] = [
        (land, smooth, whole, "medium, smooth"),
        (land, rough, whole, "medium, rough"),
        (water, smooth, whole, "water"),
        (land, smooth / 10, whole, "dark, smooth"),
        (land, smooth * 3, whole, "bright, smooth"),
        (land, np.full_like(smooth, peak), whole, "cloud"),
        (land, smooth, ~whole, "nodata"),
        (land, np.where(np.arange(32) < 4, 0, smooth).astype(np.float32), whole, "nodata"),
    ]
    for ms, pan, valid, name in cases:
        assert stratum(ms.astype(np.float32), pan, valid, contract) == name


def test_noise_is_refused(contract: Contract, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    np.savez(
        tmp_path / "noise.npz",
        pan=random.integers(0, 2047, (96, 96)),
        ms=random.integers(0, 2047, (4, 24, 24)),
    )
    with pytest.raises(InputError, match=r"correlation of -?0\.0\d only: that is noise"):
        choose(tmp_path, contract, 4, 0)


def test_correlation_of_closed_forms() -> None:
    ramp = np.broadcast_to(np.arange(64, dtype=np.float32), (1, 64, 64))
    assert correlation(ramp) == pytest.approx(1.0)
    assert correlation(np.zeros((1, 8, 8), np.float32)) == 1.0
    assert correlation((ramp % 2).astype(np.float32)) == pytest.approx(-1.0, abs=1e-2)


def test_what_the_model_is_judged_by_is_refused(contract: Contract, tmp_path: Path) -> None:
    pair(tmp_path / "a.npz", 1)
    tiles = golden.read(golden.beside(SHIPPED), models.contract(SHIPPED))
    checked = load_folder(tmp_path, 4, 4)
    with pytest.raises(InputError, match=r"a\.npz: is among what the model is judged by"):
        choose(tmp_path, contract, 4, 0, digests(checked, tiles))
    one = choose(tmp_path, contract, 1, 0)
    with pytest.raises(InputError, match="is among what the model is judged by; calibrate on other tiles"):
        choose(tmp_path, contract, 4, 0, {digest(one.tiles[0]["ms"], one.tiles[0]["pan"])})
    assert digest(tiles.ms[0], tiles.pan[0]) in digests([], tiles)
    assert digest(tiles.ms[0].astype(np.float64), tiles.pan[0]) in digests([], tiles)


def test_a_folder_without_a_fitting_tile_is_refused(contract: Contract, tmp_path: Path) -> None:
    for write in (lambda: None, lambda: pair(tmp_path / "a.npz", 1, 64)):
        write()
        large = dataclasses.replace(contract, tile=Tile(128, 128, 8))
        with pytest.raises(
            InputError, match="no pair or scene of 4 bands at ratio 4 is as large as the tile, 128x128"
        ):
            choose(tmp_path, large, 4, 0)


def test_real_imagery_is_no_noise_and_has_several_strata(contract: Contract, imagery: Path) -> None:
    whole = dataclasses.replace(contract, tile=Tile(128, 128, 32))
    found = choose(imagery / "train", whole, 12, 0)
    assert len(found.tiles) == 12
    assert len(found.strata) >= 3
    assert np.median([correlation(tile["pan"][0]) for tile in found.tiles]) > 2 * RANDOM

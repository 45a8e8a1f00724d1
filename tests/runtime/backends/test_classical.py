"""Methods tile by tile: as the whole-image ones where statistics are the same, and without seams."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.backends.classical import METHODS, ClassicalSession, enlarged, reduced
from sfiin.runtime.backends.classical import sensor as sensor_of
from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.quality import classical
from sfiin.runtime.quality.bicubic import bicubic
from sfiin.runtime.quality.degradation import degrade
from sfiin.runtime.scenes import bands
from sfiin.runtime.scenes.pipeline import sharpen
from sfiin.runtime.scenes.scene import open_scene

SENSOR = SensorProfile("any", ("blue", "green", "red", "nir"), 4, 16, 65535.0)


def ground(side: int, count: int, seed: int = 0) -> np.ndarray:
    """Bands that have much in common, with a natural spectrum."""
    random = np.random.default_rng(seed)
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(side), np.fft.fftfreq(side)))
    noise = np.fft.fft2(random.normal(size=(count + 1, side, side))) / np.maximum(frequency, 1 / side) ** 1.3
    images = np.fft.ifft2(noise).real
    images /= images.std((1, 2), keepdims=True)
    return 800 + 150 * (images[:1] + 0.4 * images[1:])


def files(
    folder: Path, side: int = 512, ratio: int = 4, count: int = 4, pixel: float = 0
) -> tuple[Path, Path]:
    truth = ground(side, count)
    coarse = degrade(truth, ratio, 0.3)
    for name, image, size in (("pan", truth.mean(0)[None], 0.5), ("ms", coarse, pixel or 0.5 * ratio)):
        profile = {"driver": "GTiff", "count": len(image), "height": image.shape[1], "width": image.shape[2]}
        transform = Affine(size, 0, 5e5, 0, -size, 4e6)
        with rasterio.open(
            folder / f"{name}.tif", "w", dtype="uint16", crs="EPSG:32650", transform=transform, **profile
        ) as file:
            file.write(np.rint(image).astype(np.uint16))
    return folder / "pan.tif", folder / "ms.tif"


@pytest.mark.parametrize("ratio", [2, 3, 4, 5])
def test_filters_are_those_of_the_references(ratio: int) -> None:
    random = np.random.default_rng(ratio)
    ms = random.normal(100, 20, (2, 14, 11)).astype(np.float32)
    np.testing.assert_allclose(enlarged(ms, ratio), bicubic(ms, ratio), rtol=1e-5, atol=1e-3)
    pan = random.normal(100, 20, (14 * ratio, 11 * ratio)).astype(np.float32)
    np.testing.assert_allclose(
        reduced(pan, ratio, 0.15), degrade(pan[None], ratio, 0.15)[0], rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_scene_is_as_by_the_method_on_the_whole_image(tmp_path: Path, method: str) -> None:
    """The statistics are the scene's, but for its edges; so the product is the whole image's to a few DN."""
    pan, ms = files(tmp_path)
    with open_scene(pan, [ms], SENSOR) as scene:
        session = ClassicalSession(method, scene)
        coarse, fine, _ = scene.read(0, 0, 512, 512)
        found = session.run(coarse[None], fine[None])[0]
    expected = classical.METHODS[method.replace("-", "_")](coarse, fine, 4)
    assert np.abs(found - expected).mean() < 2.5
    assert np.percentile(np.abs(found - expected), 99.9) < 25


@pytest.mark.parametrize("method", METHODS)
def test_tiles_agree(tmp_path: Path, method: str) -> None:
    """Tiles of another size give the same pixels."""
    pan, ms = files(tmp_path, 1024)
    with open_scene(pan, [ms], SENSOR) as scene:
        session = ClassicalSession(method, scene)
        coarse, fine, _ = scene.read(0, 0, 1024, 1024)
        whole = session.run(coarse[None], fine[None])[0]
        sharpen(session, scene, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as file:
        assert np.abs(file.read() - whole).max() <= 1
        assert file.tags()["SFIIN_METHOD"] == method
        assert "SFIIN_MODEL" not in file.tags()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_beats_interpolation(tmp_path: Path, method: str) -> None:
    pan, ms = files(tmp_path)
    truth = ground(512, 4)
    with open_scene(pan, [ms], SENSOR) as scene:
        coarse, fine, _ = scene.read(0, 0, 512, 512)
        found = ClassicalSession(method, scene).run(coarse[None], fine[None])[0]
    assert ((found - truth) ** 2).mean() < 0.6 * ((bicubic(coarse, 4) - truth) ** 2).mean()


@pytest.mark.parametrize(("count", "ratio"), [(1, 2), (3, 3), (7, 5), (10, 4)])
def test_any_bands_and_any_ratio(tmp_path: Path, count: int, ratio: int) -> None:
    pan, ms = files(tmp_path, 60 * ratio, ratio, count)
    with rasterio.open(pan) as fine, rasterio.open(ms) as coarse:
        profile, chosen = sensor_of(fine, bands.look([coarse]))
    assert (len(profile.bands), profile.ratio) == (count, ratio)
    with open_scene(pan, [ms], profile, chosen=chosen) as scene:
        sharpen(ClassicalSession("gsa", scene), scene, tmp_path / "o.tif")
    with rasterio.open(tmp_path / "o.tif") as file:
        assert (file.count, file.shape) == (count, (60 * ratio, 60 * ratio))


def test_a_ratio_that_is_no_integer(tmp_path: Path) -> None:
    pan, ms = files(tmp_path, 256, 4, 3, pixel=1.7)
    with rasterio.open(pan) as fine, rasterio.open(ms) as coarse:
        profile, chosen = sensor_of(fine, bands.look([coarse]))
    assert profile.ratio == 3
    with open_scene(pan, [ms], profile, chosen=chosen, any_ratio=True) as scene:
        assert scene.resampled
        sharpen(ClassicalSession("brovey", scene), scene, tmp_path / "o.tif")
    with pytest.raises(MismatchError, match="ratio"), open_scene(pan, [ms], profile, chosen=chosen):
        pass


def test_what_no_method_is_for(tmp_path: Path) -> None:
    pan, ms = files(tmp_path, 128, 4, pixel=0.6)
    with rasterio.open(pan) as fine, rasterio.open(ms) as coarse:
        found = bands.look([coarse])
        with pytest.raises(MismatchError, match=r"1\.2 times"):
            sensor_of(fine, found)
    files(tmp_path, 128, 4)
    with rasterio.open(pan) as fine, rasterio.open(ms) as coarse:
        found = bands.look([coarse])
        assert sensor_of(fine, found, "4,1")[1] == "4,1"
        for text in ("0", "5", "a", "1,1"):
            with pytest.raises(InputError, match="--bands"):
                sensor_of(fine, found, text)


def test_a_scene_without_contrast_stays_as_it_is(tmp_path: Path) -> None:
    pan, ms = files(tmp_path, 128, 4)
    for path, count in ((pan, 1), (ms, 4)):
        with rasterio.open(path, "r+") as file:
            file.write(np.full((count, *file.shape), 500, np.uint16))
    for method in METHODS:
        with open_scene(pan, [ms], SENSOR) as scene:
            coarse, fine, _ = scene.read(0, 0, 128, 128)
            np.testing.assert_allclose(
                ClassicalSession(method, scene).run(coarse[None], fine[None]), 500, atol=0.5
            )

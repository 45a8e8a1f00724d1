"""What a user may give by mistake: each ends in one line, with its exit code, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

Invoke = Callable[..., tuple[int, str, str]]

PAN = (1, 96, 96)
MS = (4, 24, 24)
CRS = "EPSG:32650"


def grid(pixel: float, east: float = 5e5, north: float = 4e6, **terms: float) -> Affine:
    return Affine(pixel, terms.get("b", 0.0), east, terms.get("d", 0.0), terms.get("e", -pixel), north)


class Given:
    """A good scene, of which a case spoils one thing."""

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self.model = folder, model
        self.pan, self.ms = folder / "pan.tif", [folder / "ms.tif"]
        self.out = folder / "out" / "sharp.tif"
        self.out.parent.mkdir()
        self.options: list[object] = []
        self.held: int | None = None  # a file that stays open
        self.write_pan()
        self.write_ms()

    def write(self, path: Path, image: np.ndarray, **profile: Any) -> None:
        count, height, width = image.shape
        options = {"driver": "GTiff", "dtype": image.dtype, "crs": CRS} | profile
        options = {key: value for key, value in options.items() if value is not None}
        with rasterio.open(path, "w", count=count, height=height, width=width, **options) as file:
            file.write(image)

    def write_pan(self, image: np.ndarray | None = None, **profile: Any) -> None:
        self.write(self.pan, values(PAN) if image is None else image, **{"transform": grid(0.5)} | profile)

    def write_ms(self, image: np.ndarray | None = None, **profile: Any) -> None:
        self.write(self.ms[0], values(MS) if image is None else image, **{"transform": grid(2.0)} | profile)

    def run(self, invoke: Invoke) -> tuple[int, str]:
        files = [part for path in self.ms for part in ("--ms", path)]
        code, _, errors = invoke(
            "run",
            "--pan",
            self.pan,
            *files,
            "-o",
            self.out,
            "--model",
            self.model,
            "--threads",
            1,
            *self.options,
        )
        return code, errors


Change = Callable[[Given], object]
"""Spoils a scene; what it returns is nothing to anybody."""


def values(shape: tuple[int, ...], dtype: str = "uint16", low: int = 100, high: int = 900) -> np.ndarray:
    return np.random.default_rng(4).integers(low, high, shape).astype(dtype)


def keep(path: Path, size: int | float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(size * len(content)) if isinstance(size, float) else size])


def option(*given: object) -> Change:
    return lambda scene: scene.options.extend(given)


def pan(image: np.ndarray | None = None, **profile: Any) -> Change:
    return lambda scene: scene.write_pan(image, **profile)


def ms(image: np.ndarray | None = None, **profile: Any) -> Change:
    return lambda scene: scene.write_ms(image, **profile)


def both(*steps: Change) -> Change:
    return lambda scene: [step(scene) for step in steps]


def swapped(scene: Given) -> None:
    scene.pan, scene.ms = scene.ms[0], [scene.pan]


def files_a_band(count: int, **profile: Any) -> Change:
    def split(scene: Given) -> None:
        scene.ms = [scene.folder / f"b{i}.tif" for i in range(count)]
        for i, path in enumerate(scene.ms):
            scene.write(path, values(MS)[:1], **{"transform": grid(2.0)} | (profile if i else {}))

    return split


def damaged(scene: Given) -> None:
    """A block in the middle of compressed PAN."""
    scene.write_pan(values((1, 384, 384)), tiled=True, blockxsize=64, blockysize=64, compress="DEFLATE")
    scene.write_ms(values((4, 96, 96)))
    with rasterio.open(scene.pan) as file:
        at = int(file.get_tag_item("BLOCK_OFFSET_3_3", "TIFF", bidx=1))
    with scene.pan.open("r+b") as raw:
        raw.seek(at)
        raw.write(b"\xff" * 500)


def set_attribute(name: str, value: Callable[[Given], Any]) -> Change:
    return lambda scene: setattr(scene, name, value(scene))


def text(name: str) -> Change:
    return lambda scene: (scene.pan if name == "pan" else scene.ms[0]).write_text("no image at all\n" * 50)


def vrt(scene: Given) -> None:
    scene.pan = scene.folder / "pan.vrt"
    scene.pan.write_text(
        '<VRTDataset rasterXSize="96" rasterYSize="96"><VRTRasterBand dataType="UInt16" '
        'band="1"><SimpleSource><SourceFilename '
        'relativeToVRT="1">gone.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )


def loop(scene: Given) -> None:
    scene.pan = scene.folder / "loop.tif"
    scene.pan.symlink_to(scene.pan)


def other_model(scene: Given) -> None:
    from sfiin.runtime import models

    scene.model = models.choose(8, 4)


def no_contract(scene: Given) -> None:
    import onnx

    model = onnx.load(scene.model)
    del model.metadata_props[:]
    scene.model = scene.folder / "plain.onnx"
    onnx.save(model, scene.model)


def model_text(scene: Given) -> None:
    scene.model = scene.folder / "text.onnx"
    scene.model.write_text("no model")


def cut_model(scene: Given) -> None:
    shutil.copy(scene.model, scene.folder / "cut.onnx")
    scene.model = scene.folder / "cut.onnx"
    keep(scene.model, 0.5)


def existing(scene: Given) -> None:
    scene.out.write_text("precious")


def own_input(scene: Given) -> None:
    scene.out = scene.pan
    scene.options.append("--overwrite")


def through_a_file(scene: Given) -> None:
    (scene.folder / "file").write_text("")
    scene.out = scene.folder / "file" / "o.tif"


def rotated(scene: Given) -> None:
    scene.write_ms(transform=Affine(1.9, 0.6, 5e5, 0.6, -1.9, 4e6))


def locked(scene: Given) -> None:
    """As another process would: the kernel's lock on the product's journal."""
    import fcntl

    folder = scene.out.with_name(".sharp.tif.sfiin")
    folder.mkdir()
    scene.held = os.open(folder / "lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(scene.held, fcntl.LOCK_EX)


NAN = np.full(PAN, np.nan, np.float32)
FLOATS = values(PAN).astype(np.float32)

CASES: dict[str, tuple[Change, int, str]] = {
    # files
    "pan is missing": (lambda scene: scene.pan.unlink(), 3, "pan.tif: no such file"),
    "ms is missing": (lambda scene: scene.ms[0].unlink(), 3, "ms.tif: no such file"),
    "pan is a folder": (set_attribute("pan", lambda scene: scene.folder), 3, "no image that GDAL can read"),
    "pan is empty": (lambda scene: scene.pan.write_bytes(b""), 3, "no image that GDAL can read"),
    "ms is empty": (lambda scene: scene.ms[0].write_bytes(b""), 3, "no image that GDAL can read"),
    "pan is a text": (text("pan"), 3, "no image that GDAL can read"),
    "ms is a text": (text("ms"), 3, "no image that GDAL can read"),
    "pan's header is cut": (lambda scene: keep(scene.pan, 6), 3, "no image that GDAL can read"),
    "pan's data are cut": (lambda scene: keep(scene.pan, 0.5), 3, "pan.tif: "),
    "ms' data are cut": (lambda scene: keep(scene.ms[0], 0.5), 3, "ms.tif: "),
    "a block of pan is damaged": (damaged, 3, "pan.tif: damaged or cut short"),
    "a VRT of a file that is gone": (vrt, 3, "pan.vrt: "),
    "a link to itself": (loop, 3, "loop.tif: "),
    "a path with a NUL": (set_attribute("pan", lambda scene: Path("a\0b")), 3, "null byte"),
    # bands
    "swapped": (swapped, 3, "swapped?"),
    "pan has three bands": (pan(values((3, 96, 96))), 3, "PAN has 3 bands"),
    "pan is ms": (set_attribute("pan", lambda scene: scene.ms[0]), 3, "PAN has 4 bands"),
    "ms is pan": (set_attribute("ms", lambda scene: [scene.pan]), 4, "bands: "),
    "ms has three bands": (ms(values((3, 24, 24))), 4, "bands: MS has 3"),
    "ms has eight bands": (ms(values((8, 24, 24))), 4, "bands: MS has 8"),
    "three files a band": (files_a_band(3), 4, "bands: MS has 3"),
    "five files a band": (files_a_band(5), 4, "bands: MS has 5"),
    "bands on two grids": (files_a_band(4, transform=grid(2.0, 5e5 + 40)), 3, "not on the grid of"),
    "bands of two CRS": (files_a_band(4, crs="EPSG:32651"), 3, "not on the grid of"),
    # types and values
    "pan is complex": (pan(values(PAN, "complex64")), 3, "complex numbers cannot be sharpened"),
    "ms is complex": (ms(values(MS, "complex64")), 3, "complex numbers cannot be sharpened"),
    "reflectance": (both(pan(FLOATS / 1000), ms(values(MS).astype(np.float32) / 1000)), 4, "--gain"),
    "16 bits of data": (both(pan(values(PAN, high=60000)), ms(values(MS, high=60000))), 4, "bits: "),
    "huge values": (pan(values(PAN, "float64") * 1e12), 4, "bits: "),
    "pan with a colour table": (
        lambda scene: colour_table(scene.pan),
        3,
        "colour",
    ),
    # georeference
    "two CRS": (ms(crs="EPSG:32651"), 3, "MS is in EPSG:32651, PAN in EPSG:32650"),
    "degrees and metres": (ms(crs="EPSG:4326", transform=grid(2e-5, 117.0, 36.0)), 3, "MS is in EPSG:4326"),
    "no common area": (ms(transform=grid(2.0, 6e5)), 3, "no common area"),
    "hardly any common area": (ms(transform=grid(2.0, 5e5 + 47.9)), 3, "no common area"),
    "ratio 2": (ms(values((4, 48, 48)), transform=grid(1.0)), 4, "ratio: "),
    "ratio 3": (ms(values((4, 32, 32)), transform=grid(1.5)), 4, "ratio: "),
    "ratio 5": (ms(values((4, 20, 20)), transform=grid(2.5)), 4, "ratio: "),
    "ratio 4.5": (ms(transform=grid(2.25)), 4, "ratio: "),
    "ms is finer": (ms(values((4, 96, 96)), transform=grid(0.25)), 3, "MS is finer than PAN"),
    "ms is rotated": (rotated, 3, "rotated or sheared"),
    "ms is sheared": (ms(transform=grid(2.0, b=0.5)), 3, "rotated or sheared"),
    "south is up": (
        both(pan(transform=grid(0.5, e=0.5)), ms(transform=grid(2.0, e=2.0))),
        3,
        "south to north",
    ),
    # models
    "no such model": (
        set_attribute("model", lambda scene: scene.folder / "none.onnx"),
        3,
        "no such model file",
    ),
    "the model is a text": (model_text, 3, "text.onnx"),
    "the model is cut": (cut_model, 3, "cut.onnx"),
    "the model has no contract": (no_contract, 4, "contract"),
    "a model of eight bands": (other_model, 4, "bands: MS has 4, the model wants 8"),
    "the model is a folder": (set_attribute("model", lambda scene: scene.folder), 3, "no such model file"),
    # outputs
    "the output exists": (existing, 7, "exists already"),
    "no folder for the output": (
        set_attribute("out", lambda scene: scene.folder / "no" / "o.tif"),
        7,
        "no folder",
    ),
    "the output is a folder": (set_attribute("out", lambda scene: scene.out.parent), 7, ""),
    "the output is pan": (own_input, 7, "one of the scene's own files"),
    "a file for a folder": (through_a_file, 7, "cannot be written"),
    "another process writes it": (locked, 7, "another process is writing it"),
    # options
    "no room to advance": (option("--overlap", 32), 4, "tile.overlap"),
    "a negative overlap": (option("--overlap", -1), 2, "--overlap"),
    "a batch of none": (option("--batch", 0), 2, "--batch"),
    "less than no threads": (option("--threads", -1), 2, "--threads"),
    "too little memory": (option("--memory", "10M"), 3, "takes"),
    "memory that is no size": (option("--memory", "much"), 2, "is no size"),
    "a gain of zero": (option("--gain", 0), 3, "gain"),
    "a gain that is no number": (option("--gain", "nan"), 2, "--gain"),
    "an unknown format": (option("--format", "jpeg"), 2, "--format"),
    "an unknown compression": (option("--compress", "zip"), 2, "--compress"),
    "a time that is none": (option("--stac", "--acquired", "yesterday"), 3, "acquired"),
    "a STAC item without a time": (option("--stac"), 3, "acquired"),
    "CUDA without a GPU": (option("--provider", "cuda"), 5, "cuda"),
    "a list as well": (option("--jobs", "jobs.csv"), 2, "--jobs"),
}


def colour_table(path: Path) -> None:
    with rasterio.open(
        path,
        "w",
        driver="GTiff",
        count=1,
        height=96,
        width=96,
        dtype="uint8",
        crs=CRS,
        transform=grid(0.5),
        photometric="palette",
    ) as file:
        file.write(values(PAN, "uint8", 0, 200))
        file.write_colormap(1, {i: (i, i, i, 255) for i in range(256)})


def unlocated(scene: Given, path: Path, shape: tuple[int, ...]) -> None:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scene.write(path, values(shape), crs=None)


@pytest.fixture
def given(tmp_path: Path, small_model: Path) -> Iterator[Given]:
    scene = Given(tmp_path, small_model)
    yield scene
    if scene.held is not None:
        os.close(scene.held)


def test_there_are_enough() -> None:
    assert len(CASES) >= 60


def test_the_good_scene_is_good(invoke: Invoke, given: Given) -> None:
    assert given.run(invoke) == (0, "")
    assert given.out.is_file()


@pytest.mark.parametrize("case", CASES)
def test_it_ends_in_one_line_with_its_code_and_leaves_nothing(
    invoke: Invoke, given: Given, case: str
) -> None:
    spoil, code, said = CASES[case]
    spoil(given)
    before = contents(given.folder)
    found, errors = given.run(invoke)
    assert found == code, errors
    assert "Traceback" not in errors
    if code != 2:  # typer's own message has three lines
        assert len(errors.strip().splitlines()) == 1, errors
    assert said.casefold() in " ".join(errors.split()).casefold()
    assert contents(given.folder) == before


def contents(folder: Path) -> dict[str, bytes | None]:
    found = {}
    for path in sorted(folder.rglob("*")):
        regular = path.is_file() and not path.is_symlink()
        found[str(path.relative_to(folder))] = path.read_bytes() if regular else None
    return found


@pytest.mark.parametrize("name", ["with space.tif", "naïve-中文.tif", "a&b;c.tif", "-dash.tif"])
def test_unusual_names_are_no_mistake(invoke: Invoke, given: Given, name: str) -> None:
    given.out = given.out.with_name(name)
    new = given.folder / f"pan {name}"
    given.pan.rename(new)
    given.pan = new
    assert given.run(invoke) == (0, "")
    assert given.out.is_file()


@pytest.mark.parametrize(
    ("spoil", "missing"),
    [
        (pan(values(PAN), nodata=0), 0),
        (pan(np.zeros(PAN, np.uint16), nodata=0), 96 * 96),
        (pan(NAN), 96 * 96),
        (pan(values(PAN, "float64") * 1e30), 96 * 96),  # a fill value that nothing declares
        (ms(np.zeros(MS, np.uint16), nodata=0), 96 * 96),
        (pan(np.where(np.arange(96) < 10, np.inf, FLOATS).astype(np.float32)), 960),
        (pan(values(PAN, "int16", -50, 900)), 0),
        (both(pan(values(PAN, "uint8", 10, 200)), ms(values(MS, "uint8", 10, 200))), 0),
        (pan(values(PAN, "uint32")), 0),
    ],
)
def test_odd_but_good_scenes_are_done(invoke: Invoke, given: Given, spoil: Change, missing: int) -> None:
    spoil(given)
    code, errors = given.run(invoke)
    assert (code, errors) == (0, "")
    with rasterio.open(given.out) as file:
        lacking = (file.dataset_mask() == 0) | ~np.isfinite(file.read()).all(0)
    assert int(lacking.sum()) == missing


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission(invoke: Invoke, given: Given) -> None:
    given.out.parent.chmod(0o500)
    try:
        code, errors = given.run(invoke)
    finally:
        given.out.parent.chmod(0o700)
    assert code == 7
    assert "Permission denied" in errors

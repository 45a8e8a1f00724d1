import dataclasses
import math
import tracemalloc
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.transform import Affine

from sfiin import __version__
from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.errors import MismatchError, OutputError, SceneError, SfiinError
from sfiin.runtime.scenes.pipeline import Form, Sharpened, sharpen
from sfiin.runtime.scenes.scene import open_raster, open_scene

FileSizeLimit = Callable[[int], AbstractContextManager[None]]

CRS = "EPSG:32633"
PAN_GRID = Affine(0.5, 0, 400000, 0, -0.5, 5000000)
SENSOR = SensorProfile("quad", ("blue", "green", "red", "nir"), 4, 11, 2047.0)
TILE = Tile(32, 48, 12)


def coarse(transform: Affine, ratio: int) -> Affine:
    return Affine(transform.a * ratio, 0, transform.c, 0, transform.e * ratio, transform.f)


def enlarge(ms: np.ndarray, ratio: int) -> np.ndarray:
    return ms.repeat(ratio, axis=-2).repeat(ratio, axis=-1)


def inject(ms: np.ndarray, pan: np.ndarray, ratio: int) -> np.ndarray:
    """The nearest MS pixel, plus 0.3 times what PAN has beyond the mean over that pixel.

    And 1/320, which keeps results of ratio 4 at least that far from halves, where a last bit would decide on
    rounding.
    """
    *outer, height, width = pan.shape
    mean = pan.reshape(*outer, height // ratio, ratio, width // ratio, ratio).mean(
        axis=(-3, -1), dtype=np.float64
    )
    return enlarge(ms.astype(np.float64), ratio) + 0.3 * (pan - enlarge(mean, ratio)) + 1 / 320


class FakeSession:
    """A session whose result at a pixel depends on that MS pixel alone, so that tiling must not show."""

    def __init__(
        self, tile: Tile = TILE, sensor: SensorProfile = SENSOR, fuse: Callable[..., Any] = inject
    ) -> None:
        self.contract = Contract(sensor, tile, "matmul", "fp32", 17, {}, "ab" * 32, "cd" * 32, {})
        self.fuse = fuse
        self.shapes: list[tuple[int, ...]] = []

    def run(self, ms: np.ndarray, pan: np.ndarray) -> np.ndarray:
        tile, ratio = self.contract.tile, self.contract.sensor.ratio
        assert ms.dtype == pan.dtype == np.float32
        assert pan.shape[1:] == (1, tile.height, tile.width)
        assert ms.shape[1:] == (len(self.contract.sensor.bands), tile.height // ratio, tile.width // ratio)
        self.shapes.append(pan.shape)
        return self.fuse(ms, pan, ratio).astype(np.float32)

    def close(self) -> None:
        pass


class Case:
    """Files in a folder and the product made of them."""

    def __init__(
        self, folder: Path, size: tuple[int, int] = (30, 37), dtype: str = "uint16", top: int = 900
    ) -> None:
        random = np.random.default_rng(5)
        # So that nothing is clipped.
        self.pan = random.integers(top // 2, top, (4 * size[0], 4 * size[1])).astype(dtype)
        self.ms = random.integers(top // 2, top, (4, *size)).astype(dtype)
        self.folder, self.out = folder, folder / "out.tif"
        self.inputs = folder / "pan.tif", folder / "ms.tif"

    def write(self, pan: dict[str, Any] | None = None, ms: dict[str, Any] | None = None) -> None:
        for path, array, grid, profile in [
            (self.inputs[0], self.pan[np.newaxis], PAN_GRID, pan),
            (self.inputs[1], self.ms, coarse(PAN_GRID, 4), ms),
        ]:
            count, height, width = array.shape
            options = {"driver": "GTiff", "crs": CRS, "transform": grid, "dtype": array.dtype} | (
                profile or {}
            )
            with open_raster(path, "w", count=count, height=height, width=width, **options) as file:
                file.write(array)

    def run(self, session: FakeSession | None = None, **options: Any) -> Sharpened:
        session = session or FakeSession()
        with open_scene(self.inputs[0], [self.inputs[1]], session.contract.sensor) as scene:
            return sharpen(session, scene, self.out, **options)

    def product(self) -> np.ndarray:
        with open_raster(self.out) as file:
            return file.read()

    def untiled(self) -> np.ndarray:
        """The fake model on the whole scene, PAN padded to whole MS pixels."""
        height, width = self.pan.shape
        padding = [(0, -side % 4) for side in (height, width)]
        return inject(self.ms, np.pad(self.pan, padding, "edge")[np.newaxis], 4)[:, :height, :width]

    def only_inputs_are_left(self) -> bool:
        return set(self.folder.iterdir()) == set(self.inputs)

    def only_rows_are_left(self) -> bool:
        """Besides the inputs: what a later run goes on from, in its hidden folder, and no product, whole
        or half."""
        kept = self.folder / ".out.tif.sfiin"
        names = {path.name.split("-")[0] for path in kept.iterdir()}
        return set(self.folder.iterdir()) == {*self.inputs, kept} and names == {
            "about.json",
            "lock",
            "left",
            "row",
        }


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


# --- values ---


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "uint32", "float32", "float64"])
def test_tiles_do_not_show(tmp_path: Path, dtype: str) -> None:
    case = Case(tmp_path, dtype=dtype, top=200 if dtype == "uint8" else 900)
    case.write()
    report = case.run()
    product = case.product()
    assert product.dtype == dtype
    if dtype.startswith("float"):
        np.testing.assert_allclose(product, case.untiled(), rtol=1e-6)
    else:
        np.testing.assert_array_equal(product, np.rint(case.untiled()))
    assert report.pixels == 120 * 148
    assert (report.nodata, report.clipped) == (0, dict.fromkeys(SENSOR.bands, 0))
    assert report.seconds > 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
@given(
    size=st.tuples(st.integers(1, 30), st.integers(1, 30)),
    sides=st.tuples(st.integers(4, 12), st.integers(4, 12)),
    data=st.data(),
)
def test_tiles_do_not_show_for_any_size(tmp_path: Path, size: Any, sides: Any, data: st.DataObject) -> None:
    case = Case(tmp_path, size)
    cut = data.draw(st.tuples(st.integers(0, 3), st.integers(0, 3)), "PAN lines and columns missing")
    case.pan = case.pan[: case.pan.shape[0] - cut[0], : case.pan.shape[1] - cut[1]]
    case.write()
    tile = Tile(4 * sides[0], 4 * sides[1], data.draw(st.integers(0, 3 * min(sides)), "overlap"))
    report = case.run(FakeSession(tile), batch=data.draw(st.integers(1, 5), "batch"))
    np.testing.assert_array_equal(case.product(), np.rint(case.untiled()))
    assert report.pixels == case.pan.size


def test_overlapping_tiles_are_blended(case: Case) -> None:
    # Each tile shows the number of its run: neighbours differ by one, and the ramp between them is linear.
    session = FakeSession(Tile(32, 32, 16))
    session.fuse = lambda ms, pan, ratio: np.full((1, 4, 32, 32), len(session.shapes))
    case.pan, case.ms = case.pan[:32, :48], case.ms[:, :8, :12].astype(np.float32)
    case.write()
    assert case.run(session).tiles == 2
    expected = [*[1] * 16, *(1 + (np.arange(16) + 0.5) / 16), *[2] * 16]
    np.testing.assert_allclose(case.product()[0, 7], expected, rtol=1e-7)


def test_scene_smaller_than_a_tile(tmp_path: Path) -> None:
    case = Case(tmp_path, (3, 2))
    case.pan = case.pan[:-1, :-3]
    case.write()
    assert case.run().tiles == 1
    assert case.product().shape == (4, 11, 5)
    np.testing.assert_array_equal(case.product(), np.rint(case.untiled()))


def test_batches_and_progress(case: Case) -> None:
    case.write()
    single, seen = FakeSession(), []
    case.run(single)
    expected = case.product()
    several = FakeSession()
    report = case.run(several, batch=3, progress=lambda done, total: seen.append((done, total)))
    np.testing.assert_array_equal(case.product(), expected)
    # 120 x 148 pixels, tiles of 32 x 48 every 20 x 36: 6 rows of 4.
    assert report.tiles == len(single.shapes) == 24
    assert [shape[0] for shape in several.shapes] == [3, 1] * 6
    assert seen == [(done, 24) for row in range(6) for done in (4 * row + 3, 4 * row + 4)]


def test_where_ms_has_no_zero_the_product_has_none(tmp_path: Path) -> None:
    """The world takes 0 for no data; what a network undershoots to is the least that a sensor counts."""
    case = Case(tmp_path, (1, 2), "uint8", 200)
    case.ms[1, 0, 0] = 0
    case.write()
    session = FakeSession(Tile(4, 8, 0), fuse=lambda ms, pan, ratio: np.full((1, 4, 4, 8), -0.2))
    report = case.run(session)
    assert case.product().max((1, 2)).tolist() == [1, 0, 1, 1]
    assert not any(report.clipped.values())


def test_a_saturated_pan_is_told_of(tmp_path: Path) -> None:
    case = Case(tmp_path, (40, 37), top=900)
    case.pan[60:64, 100] = 2047  # across tiles' borders
    case.write()
    told = [note for note in case.run().notes if note.startswith("PAN is saturated")]
    assert told == ["PAN is saturated: 4 pixels at 2047; there the product has MS' colours, but lacks detail"]


def test_integers_are_rounded_half_to_even_clipped_and_counted(tmp_path: Path) -> None:
    values = np.array([-0.6, -0.5, 0.5, 1.5, 2.5, 254.5, 255.4, 255.5])
    expected = [0, 0, 0, 2, 2, 254, 255, 255]
    case = Case(tmp_path, (1, 2), "uint8", 200)
    case.ms[:, 0, 0] = 0
    case.write()
    session = FakeSession(Tile(4, 8, 0), fuse=lambda ms, pan, ratio: np.broadcast_to(values, (1, 4, 4, 8)))
    report = case.run(session)
    np.testing.assert_array_equal(case.product(), np.broadcast_to(expected, (4, 4, 8)))
    # -0.6 and 255.5 round to -1 and 256; in 4 lines.
    assert report.clipped == dict.fromkeys(SENSOR.bands, 8)


def test_values_above_the_nominal_bits_stay(case: Case) -> None:
    case.write()
    case.run(FakeSession(fuse=lambda ms, pan, ratio: 0 * inject(ms, pan, ratio) + 60000))
    assert (case.product() == 60000).all()


# --- nodata ---


def test_nodata_of_either_file(case: Case) -> None:
    case.pan[50, 60] = 1
    case.ms[2, 3, 4] = 2
    case.write({"nodata": 1}, {"nodata": 2})
    report = case.run()
    expected = np.zeros((120, 148), bool)
    expected[50, 60] = True
    expected[12:16, 16:20] = True
    with open_raster(case.out) as file:
        assert file.nodata == 2
        np.testing.assert_array_equal(file.read_masks() == 0, np.broadcast_to(expected, (4, 120, 148)))
    assert report.nodata == 17
    near = np.zeros_like(expected)
    near[48:52, 60:64] = True  # their mean PAN is a filled one
    good = ~(expected | near)
    np.testing.assert_array_equal(case.product()[:, good], np.rint(case.untiled())[:, good])


@pytest.mark.parametrize(("nodata", "moved"), [(0, 1), (255, 254), (7, 8)])
def test_valid_values_are_never_nodata(tmp_path: Path, nodata: int, moved: int) -> None:
    case = Case(tmp_path, dtype="uint8", top=200)
    case.write(None, {"nodata": nodata})
    case.run(FakeSession(fuse=lambda ms, pan, ratio: 0 * inject(ms, pan, ratio) + nodata))
    assert (case.product() == moved).all()


def test_valid_floats_are_never_nodata(tmp_path: Path) -> None:
    case = Case(tmp_path, dtype="float32")
    case.write(None, {"nodata": 0})
    case.run(FakeSession(fuse=lambda ms, pan, ratio: 0 * inject(ms, pan, ratio)))
    with open_raster(case.out) as file:
        assert file.read_masks().all()
        assert abs(file.read()).max() < 1e-6


def test_nan_in_floats(tmp_path: Path) -> None:
    case = Case(tmp_path, dtype="float32")
    case.ms[0, 5, 5] = math.nan
    case.write()
    assert case.run().nodata == 16
    product = case.product()
    assert np.isnan(product[:, 20:24, 20:24]).all()
    assert np.isnan(product).sum() == 4 * 16


def test_where_nothing_is_valid_nothing_is_run(case: Case) -> None:
    case.pan[:, :100] = 3
    case.write({"nodata": 3})
    session = FakeSession()
    assert case.run(session).nodata == 120 * 100
    # Of the four columns of tiles, the first two end at 48 and 84.
    assert len(session.shapes) == 6 * 2


# --- the file ---


def test_georeference_of_an_impulse(case: Case) -> None:
    case.pan[:] = 500
    case.ms[:] = 500
    case.pan[77, 91] = 900
    case.write()
    case.run()
    with open_raster(case.out) as file:
        row, col = np.unravel_index(file.read(1).argmax(), file.shape)
        assert (row, col) == (77, 91)
        assert file.transform == PAN_GRID
        assert file.crs == rasterio.CRS.from_string(CRS)


def test_half_pixel_offset(tmp_path: Path) -> None:
    sensor = SensorProfile("landsat", ("red",), 2, 11, 2047.0)
    case = Case(tmp_path)
    case.pan = np.full((61, 81), 500, np.uint16)
    x = 399999.75 + np.arange(40) + 0.5
    case.ms = np.broadcast_to(500 + (x - 400000), (1, 30, 40)).astype(np.float32)
    case.write(None, {"transform": Affine(1, 0, 399999.75, 0, -1, 5000000.25)})
    case.run(FakeSession(Tile(32, 32, 8), sensor, lambda ms, pan, ratio: enlarge(ms, ratio)))
    with open_raster(case.out) as file:
        assert file.transform == PAN_GRID
        assert file.shape == (59, 79)
        # An MS pixel of the common grid is two pixels of 0.5 m; its centre lies between them.
        expected = 500 + np.arange(39) + 0.5
        np.testing.assert_allclose(file.read(1)[30, :78:2][2:-2], expected[2:-2], rtol=1e-6)


def test_layout_names_and_tags(case: Case) -> None:
    case.write()
    case.run()
    with open_raster(case.out) as file:
        assert file.profile["blockxsize"] == file.profile["blockysize"] == 256
        assert file.profile["compress"] == "deflate"
        assert file.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"
        assert file.descriptions == SENSOR.bands
        assert file.colorinterp[:3] == (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
        tags = file.tags()
    wanted = {"MODEL": "ab" * 32, "LOWERING": "matmul", "PRECISION": "fp32", "VERSION": __version__}
    assert {f"SFIIN_{key}": value for key, value in wanted.items()}.items() <= tags.items()
    assert set(case.folder.iterdir()) == {*case.inputs, case.out}


def test_without_georeference(case: Case) -> None:
    nowhere = {"transform": Affine.identity(), "crs": None}
    case.write(nowhere, nowhere)
    case.run()
    with open_raster(case.out) as file:
        assert (file.crs, file.transform) == (None, Affine.identity())
    np.testing.assert_array_equal(case.product(), np.rint(case.untiled()))


def test_memory_is_bounded_by_a_row_of_tiles(tmp_path: Path) -> None:
    def peak(rows: int) -> int:
        case = Case(tmp_path, (rows, 64))
        case.write()
        session = FakeSession(Tile(64, 64, 16))
        tracemalloc.start()
        case.run(session)
        _, highest = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return highest

    peak(32)  # what is cached once
    assert peak(1024) < 1.1 * peak(128)


# --- failures ---


@pytest.mark.parametrize("failure", [RuntimeError, KeyboardInterrupt])
def test_failure_half_way_keeps_what_is_done(case: Case, failure: type[BaseException]) -> None:
    case.write()
    case.run()
    expected = case.out.read_bytes()
    case.out.unlink()
    session = FakeSession()

    def fail(ms: np.ndarray, pan: np.ndarray, ratio: int) -> np.ndarray:
        if len(session.shapes) == 15:
            raise failure
        return inject(ms, pan, ratio)

    session.fuse = fail
    with pytest.raises(failure):
        case.run(session)
    assert case.only_rows_are_left()
    rest = FakeSession()
    report = case.run(rest)
    assert report.resumed > 0
    assert f"resumed after {report.resumed} rows of tiles" in report.notes
    assert sum(shape[0] for shape in rest.shapes) == report.tiles * (1 - report.resumed / 6)
    assert case.out.read_bytes() == expected
    assert (report.nodata, report.clipped) == (0, dict.fromkeys(SENSOR.bands, 0))


def test_a_run_about_something_else_begins_anew(case: Case) -> None:
    case.write()
    with pytest.raises(ZeroDivisionError):
        case.run(progress=lambda done, total: done // (done < 15))
    assert case.only_rows_are_left()
    session = FakeSession()
    report = case.run(session, batch=2)
    assert report.resumed == 0
    assert "an unfinished run with other inputs, model or settings was dropped" in report.notes
    assert sum(shape[0] for shape in session.shapes) == report.tiles
    assert set(case.folder.iterdir()) == {*case.inputs, case.out}


def test_failure_keeps_the_old_product(case: Case) -> None:
    case.write()
    case.run()
    before = case.out.read_bytes()
    with pytest.raises(ZeroDivisionError):
        case.run(progress=lambda done, total: done // 0)
    assert case.out.read_bytes() == before


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_model_that_returns_no_numbers(case: Case, value: float) -> None:
    case.write()
    with pytest.raises(SfiinError, match="not finite") as caught:
        case.run(FakeSession(fuse=lambda ms, pan, ratio: inject(ms, pan, ratio) * value))
    assert caught.value.exit_code == 1
    assert case.only_inputs_are_left()


@pytest.mark.parametrize("nodata", [None, 0])
def test_input_damaged_in_the_middle(tmp_path: Path, nodata: int | None) -> None:
    """Found before the work where the files are read as a whole first, else when the rows come there."""
    case = Case(tmp_path, (300, 300))
    tiled = {"tiled": True, "blockxsize": 128, "blockysize": 128, "compress": "DEFLATE", "nodata": nodata}
    case.write(tiled)
    with open_raster(case.inputs[0]) as file:
        # The sample taken on opening does not touch this block of 128 x 128.
        block = file.get_tag_item("BLOCK_OFFSET_4_4", "TIFF", bidx=1)
    with case.inputs[0].open("r+b") as raw:
        raw.seek(int(block))
        raw.write(b"\xff" * 2000)
    with pytest.raises(SceneError, match=r"pan\.tif: damaged or cut short"):
        case.run()
    assert case.only_inputs_are_left()


@pytest.mark.parametrize("limit", [0, 4096, 100000, 150000])
def test_disk_full(file_size_limit: FileSizeLimit, tmp_path: Path, limit: int) -> None:
    case = Case(tmp_path, (80, 80))
    case.write()
    with pytest.raises(OutputError, match=r"out\.tif: cannot be written") as caught, file_size_limit(limit):
        case.run()
    assert caught.value.exit_code == 7
    assert case.only_inputs_are_left() or case.only_rows_are_left()
    case.run()
    np.testing.assert_array_equal(case.product(), np.rint(case.untiled()))


def test_two_processes_do_not_write_one_product(case: Case) -> None:
    case.write()

    def nested(ms: np.ndarray, pan: np.ndarray, ratio: int) -> np.ndarray:
        with pytest.raises(OutputError, match=r"out\.tif: another process is writing it"):
            case.run()
        return inject(ms, pan, ratio)

    case.run(FakeSession(fuse=nested))
    np.testing.assert_array_equal(case.product(), np.rint(case.untiled()))


@pytest.mark.parametrize(
    "form", [Form(overviews=True), Form("cog"), Form("cog", "lzw"), Form(compress="none")]
)
def test_forms_hold_the_same_pixels(tmp_path: Path, form: Form) -> None:
    case = Case(tmp_path, (150, 160))
    case.write()
    case.run(form=form)
    np.testing.assert_array_equal(case.product(), np.rint(case.untiled()))
    with open_raster(case.out) as file:
        assert bool(file.overviews(1)) == (form.overviews or form.kind == "cog")
        assert file.tags(ns="IMAGE_STRUCTURE").get("LAYOUT") == ("COG" if form.kind == "cog" else None)
        assert (file.compression is None) == (form.compress == "none")
    assert set(case.folder.iterdir()) == {*case.inputs, case.out}


def test_bits_per_sample_are_kept_and_clipped_to(tmp_path: Path) -> None:
    case = Case(tmp_path, top=600)
    case.write(ms={"NBITS": 11})
    report = case.run(FakeSession(fuse=lambda ms, pan, ratio: inject(ms, pan, ratio) * 4))
    product = case.product()
    expected = np.rint(4 * case.untiled())
    assert expected.max() > 2047
    np.testing.assert_array_equal(product, np.minimum(expected, 2047))
    assert sum(report.clipped.values()) == (expected > 2047).sum()
    with open_raster(case.out) as file:
        assert file.tags(1, ns="IMAGE_STRUCTURE")["NBITS"] == "11"


def test_reflectance_goes_in_as_digital_numbers_and_comes_out_as_reflectance(tmp_path: Path) -> None:
    case = Case(tmp_path, dtype="float32")
    case.pan, case.ms = case.pan / np.float32(1000), case.ms / np.float32(1000)
    case.write()
    session = FakeSession()
    with open_scene(case.inputs[0], [case.inputs[1]], SENSOR, gain=1000) as scene:
        sharpen(session, scene, case.out)
    expected = case.untiled() - 1 / 320 + 1 / 320 / 1000
    np.testing.assert_allclose(case.product(), expected, rtol=2e-6)


def test_folder_is_missing(case: Case) -> None:
    case.write()
    case.out = case.folder / "no" / "out.tif"
    session = FakeSession()
    with pytest.raises(OutputError, match="no folder"):
        case.run(session)
    assert not session.shapes


def test_scene_of_another_sensor(case: Case) -> None:
    case.write()
    other = dataclasses.replace(SENSOR, name="other")
    with (
        open_scene(case.inputs[0], [case.inputs[1]], other) as scene,
        pytest.raises(MismatchError, match="sensor"),
    ):
        sharpen(FakeSession(), scene, case.out)


# --- real scenes ---


def landsat(bands: int, bits: int) -> SensorProfile:
    return SensorProfile("landsat", ("blue", "green", "red", "nir")[:bands], 2, bits, float(2**bits - 1))


def least(ms: Any) -> np.ndarray:
    """Each band's least value, of one file or several."""
    values = []
    for path in [ms] if isinstance(ms, (str, Path)) else ms:
        with open_raster(path) as file:
            values += [file.read(i, masked=True).min() for i in file.indexes]
    return np.array(values)


def real(name: str, folder: Path) -> tuple[Path, list[Path], SensorProfile]:
    if name == "L7_ethiopia_slcoff":
        bands = {path.stem[-2:]: path for path in folder.glob("*.TIF")}
        return bands["B8"], [bands[f"B{i}"] for i in (1, 2, 3, 4)], landsat(4, 8)
    sensors = {"VHR4_zhengzhou_1": SENSOR, "L8_istanbul_1": landsat(3, 16), "L8_pamplona_1": landsat(4, 1)}
    return folder / "pan.tif", [folder / "ms.tif"], sensors[name]


@pytest.mark.parametrize("name", ["VHR4_zhengzhou_1", "L8_istanbul_1", "L8_pamplona_1", "L7_ethiopia_slcoff"])
def test_real_scene(imagery: Path, tmp_path: Path, name: str) -> None:
    pan, ms, sensor = real(name, imagery / "scenes" / name)
    ratio = sensor.ratio
    session = FakeSession(Tile(64 * ratio, 64 * ratio, 16 * ratio), sensor)
    with open_scene(pan, ms, sensor) as scene:
        sharpen(session, scene, tmp_path / "out.tif", batch=2)
        height, width = (-(-side // ratio) * ratio for side in (scene.height, scene.width))
        whole = inject(*scene.read(0, 0, height, width)[:2], ratio)[:, : scene.height, : scene.width]
    with open_raster(tmp_path / "out.tif") as product:
        found = product.read(masked=True)
        transform, dtype = product.transform, np.dtype(product.dtypes[0])
    with open_raster(pan) as file:
        assert transform == file.transform
    if dtype.kind == "f":
        np.testing.assert_allclose(found, whole, rtol=1e-6)
    else:
        # uint8's 255 is nodata here, so that valid values end at 254.
        top = 254 if dtype == np.uint8 else np.iinfo(dtype).max
        low = (least(ms) > 0).astype(dtype)[:, None, None]  # where MS has no 0, there is none
        assert (abs(found - np.clip(np.rint(whole), low, top)) <= (abs(whole % 1 - 0.5) < 1e-4)).all()

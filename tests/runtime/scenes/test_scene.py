import dataclasses
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp, Resampling
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.warp import reproject

from sfiin.runtime.contract import SensorProfile
from sfiin.runtime.errors import InputError, MismatchError, SceneError, SfiinError
from sfiin.runtime.scenes.drift import Drift
from sfiin.runtime.scenes.scene import Scene, open_raster, open_scene

CRS = "EPSG:32633"
ORIGIN = Affine(0.5, 0, 400000, 0, -0.5, 5000000)
QUAD = SensorProfile("quad", ("blue", "green", "red", "nir"), 4, 11, 2047.0)
PAIR = SensorProfile("pair", ("red", "nir"), 2, 11, 2047.0)
FRACTIONS = SensorProfile("fractions", ("red", "nir"), 2, 1, 1.0)


def write(
    path: Path, array: np.ndarray, transform: Affine = ORIGIN, crs: str | None = CRS, **profile: Any
) -> Path:
    bands = array if array.ndim == 3 else array[np.newaxis]
    count, height, width = bands.shape
    profile = {"driver": "GTiff", "transform": transform, "crs": crs} | profile
    with open_raster(
        path, "w", count=count, height=height, width=width, dtype=bands.dtype, **profile
    ) as file:
        file.write(bands)
    return path


def dn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(100, 900, shape, dtype=np.uint16)


def coarse(transform: Affine, ratio: int, row: float = 0, col: float = 0) -> Affine:
    """The transform of pixels `ratio` times as large, the first at pixel coordinate (row, col)."""
    a, b, c, d, e, f = tuple(transform)[:6]
    x, y = c + a * col + b * row, f + d * col + e * row
    return Affine(a * ratio, b * ratio, x, d * ratio, e * ratio, y)


class Files:
    """PAN and MS with the ratio of the sensor, MS beginning at PAN's pixel coordinate `at`."""

    def __init__(
        self, folder: Path, sensor: SensorProfile, size: tuple[int, int] = (6, 5), at: Any = (0, 0)
    ) -> None:
        self.sensor = sensor
        self.pan = dn(size[0] * sensor.ratio, size[1] * sensor.ratio)
        self.ms = dn(len(sensor.bands), *size, seed=1)
        self.paths = folder / "pan.tif", [folder / "ms.tif"]
        self.at = at

    def write(self, pan: dict[str, Any] | None = None, ms: dict[str, Any] | None = None) -> Any:
        write(self.paths[0], self.pan, **(pan or {}))
        write(
            self.paths[1][0],
            self.ms,
            **({"transform": coarse(ORIGIN, self.sensor.ratio, *self.at)} | (ms or {})),
        )
        return open_scene(*self.paths, self.sensor)


def read_all(scene: Scene) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    height, width = (-(-side // scene.sensor.ratio) * scene.sensor.ratio for side in scene.extent)
    return scene.read(0, 0, height, width)


# --- alignment ---


def test_aligned_pair_is_read_as_it_is(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    with files.write() as scene:
        ms, pan, valid = read_all(scene)
        assert (scene.height, scene.width, scene.resampled) == (24, 20, False)
        assert (scene.transform, scene.crs, scene.nodata) == (ORIGIN, rasterio.CRS.from_string(CRS), None)
        assert scene.dtype == np.uint16
    assert ms.dtype == pan.dtype == np.float32
    np.testing.assert_array_equal(ms, files.ms)
    np.testing.assert_array_equal(pan, files.pan[np.newaxis])
    assert valid.shape == (24, 20)
    assert valid.all()


def test_beyond_the_scene_the_edge_repeats(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    with files.write() as scene:
        ms, pan, valid = scene.read(-8, 12, 40, 16)
    np.testing.assert_array_equal(ms, np.pad(files.ms, ((0, 0), (2, 2), (0, 2)), "edge")[:, :, 3:])
    np.testing.assert_array_equal(pan[0], np.pad(files.pan, ((8, 8), (0, 8)), "edge")[:, 12:])
    assert valid.all()


def test_window_off_the_ratio(tmp_path: Path) -> None:
    with Files(tmp_path, QUAD).write() as scene, pytest.raises(ValueError, match="multiples of the ratio 4"):
        scene.read(0, 2, 8, 8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(
    st.tuples(st.integers(-3, 9), st.integers(-3, 9), st.integers(1, 12), st.integers(1, 12)), st.booleans()
)
def test_a_window_is_part_of_the_whole(
    tmp_path: Path, window: tuple[int, int, int, int], shifted: bool
) -> None:
    files = Files(tmp_path, PAIR, (9, 8), (-0.5, -0.5) if shifted else (0, 0))
    with files.write() as scene:
        whole = scene.read(-8, -8, 60, 60)
        part = scene.read(*(2 * number for number in window))
    row, col, height, width = window
    np.testing.assert_array_equal(part[0], whole[0][:, row + 4 :, col + 4 :][:, :height, :width])
    np.testing.assert_array_equal(
        part[1], whole[1][:, 2 * row + 8 :, 2 * col + 8 :][:, : 2 * height, : 2 * width]
    )


def plane(transform: Affine, height: int, width: int) -> np.ndarray:
    """A field that is linear in the map, sampled at pixel centres."""
    col, row = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    x, y = transform.c + transform.a * col, transform.f + transform.e * row
    return (500 + 3 * (x - 400000) - 2 * (y - 5000000)).astype(np.float32)


@pytest.mark.parametrize("at", [(-0.5, -0.5), (0.5, 0.5), (-0.5, 0.5), (0.3, 0), (-1.5, 0.9)])
def test_offset_of_a_part_of_a_pixel_comes_out_right(tmp_path: Path, at: tuple[float, float]) -> None:
    # Unlike in an exact pair, PAN is one line and column larger, as Landsat's is.
    files = Files(tmp_path, PAIR, (30, 40), at)
    grid = coarse(ORIGIN, 2, *at)
    files.pan = plane(ORIGIN, 61, 81)
    files.ms = np.stack([plane(grid, 30, 40), 2 * plane(grid, 30, 40)])
    with files.write() as scene:
        assert scene.resampled
        ms, pan, _ = read_all(scene)
        expected = plane(coarse(scene.transform, 2), *ms.shape[1:])
        np.testing.assert_array_equal(pan[0, :-1, :-1], plane(scene.transform, *pan.shape[1:])[:-1, :-1])
    # Cubic convolution reproduces a plane, up to where its taps leave the image.
    inner = (slice(2, -2), slice(2, -2))
    np.testing.assert_allclose(ms[0][inner], expected[inner], rtol=1e-6)
    np.testing.assert_allclose(ms[1][inner], 2 * expected[inner], rtol=1e-6)


def test_resampling_agrees_with_gdal(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR, (30, 40), (-0.5, 0.7))
    files.ms = files.ms.astype(np.float32)
    with files.write() as scene:
        ms, _, _ = read_all(scene)
        grid = coarse(scene.transform, 2)
    expected = np.zeros_like(ms)
    grids = {
        "src_transform": coarse(ORIGIN, 2, -0.5, 0.7),
        "src_crs": CRS,
        "dst_transform": grid,
        "dst_crs": CRS,
    }
    reproject(files.ms, expected, **grids, resampling=Resampling.cubic, tolerance=0)
    np.testing.assert_allclose(ms[:, 2:-2, 2:-2], expected[:, 2:-2, 2:-2], rtol=2e-5)


@pytest.mark.parametrize(
    ("at", "start", "first"),
    [
        ((8, 4), (8, 4), (0, 0)),
        ((3, 0), (3, 0), (0, 0)),
        ((-4, -8), (0, 0), (1, 2)),
        ((-1, -6), (0, 0), (0, 1)),
    ],
)
def test_whole_offsets_need_no_resampling(tmp_path: Path, at: Any, start: Any, first: Any) -> None:
    files = Files(tmp_path, QUAD, (6, 7), at)
    with files.write() as scene:
        ms, pan, valid = read_all(scene)
        assert not scene.resampled
        assert scene.transform == coarse(ORIGIN, 1, *start)
        size = (scene.height, scene.width)
        lead = scene.lead
    assert size == tuple(min(4 * n, a + 4 * n) - s for n, a, s in zip((6, 7), at, start, strict=True))
    assert lead == tuple(max(0, -a) % 4 for a in at)
    np.testing.assert_array_equal(
        pan[0, lead[0] :, lead[1] :][: size[0], : size[1]],
        files.pan[start[0] :, start[1] :][: size[0], : size[1]],
    )
    np.testing.assert_array_equal(ms, files.ms[:, first[0] :, first[1] :][:, : ms.shape[1], : ms.shape[2]])
    assert valid.all()


def test_edges_written_down_as_centres_are_forgiven(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD, (50, 60))
    height, width = files.pan.shape
    # Both files' corners were taken from the centres of their outermost pixels: 1.5 PAN pixels apart.
    pan = Affine((width - 1) / width, 0, 400000, 0, -(height - 1) / height, 5000000)
    ms = Affine((width + 2) / 60, 0, 399998.5, 0, -(height + 2) / 50, 5000001.5)
    with files.write({"transform": pan}, {"transform": ms}) as scene:
        assert not scene.resampled
        assert (scene.height, scene.width, scene.transform) == (200, 240, pan)


def test_scene_is_the_common_area(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR, (20, 30), (10.5, -6.25))
    with files.write() as scene:
        assert scene.transform == coarse(ORIGIN, 1, 11, 0)
        assert (scene.height, scene.width) == (40 - 11, math.floor(60 - 6.25))


def test_odd_pan_is_kept_to_its_last_line(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.pan = files.pan[:-3, :-1]
    with files.write() as scene:
        ms, pan, _ = read_all(scene)
        assert (scene.height, scene.width) == (21, 19)
    np.testing.assert_array_equal(ms, files.ms)
    np.testing.assert_array_equal(pan[0], np.pad(files.pan, ((0, 3), (0, 1)), "edge"))


def test_without_georeference_arrays_align(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    nowhere = {"transform": Affine.identity(), "crs": None}
    with files.write(nowhere, nowhere) as scene:
        ms, _, _ = read_all(scene)
        assert (scene.crs, scene.transform, scene.height, scene.width) == (None, Affine.identity(), 24, 20)
    np.testing.assert_array_equal(ms, files.ms)


def test_pixels_by_their_centres_are_not_shifted(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.write()
    with open_raster(files.paths[1][0], "r+") as file:
        file.update_tags(AREA_OR_POINT="Point")
        file.transform = coarse(ORIGIN, 4)
    assert tie_point(files.paths[1][0]) == (400001.0, 4999999.0)
    with open_scene(*files.paths, QUAD) as scene:
        assert not scene.resampled
        assert [note.split(":")[0] for note in scene.notes] == ["bands"]
        assert not scene.metadata.tags


def tie_point(path: Path) -> tuple[float, ...]:
    """Where a GeoTIFF itself puts its pixel (0, 0): tag 33922, ModelTiepointTag, of a little-endian TIFF."""
    content = path.read_bytes()
    (place,) = struct.unpack_from("<I", content, 4)
    (number,) = struct.unpack_from("<H", content, place)
    entries = (struct.unpack_from("<HHII", content, place + 2 + 12 * i) for i in range(number))
    (value,) = (value for tag, _, _, value in entries if tag == 33922)
    return struct.unpack_from("<6d", content, value)[3:5]


def test_rotated_alike_is_aligned(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    rotated = Affine(0.4, 0.3, 400000, 0.3, -0.4, 5000000)
    with files.write({"transform": rotated}, {"transform": coarse(rotated, 4)}) as scene:
        assert not scene.resampled
        assert scene.transform == rotated


# --- nodata ---


def test_nodata_is_filled_and_reported(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.ms[2, 1, 3] = 7
    files.pan[20, 2] = 9
    with files.write({"nodata": 9}, {"nodata": 7}) as scene:
        ms, pan, valid = read_all(scene)
        assert scene.nodata == 7
    expected = np.ones((24, 20), bool)
    expected[4:8, 12:16] = False
    expected[20, 2] = False
    np.testing.assert_array_equal(valid, expected)
    # The mean of the other three of the 2 x 2 block.
    block = files.ms[2, 0:2, 2:4].astype(float)
    assert ms[2, 1, 3] == pytest.approx((block.sum() - 7) / 3)
    np.testing.assert_array_equal(ms[0], files.ms[0])
    assert pan[0, 20, 2] == pytest.approx((files.pan[20:22, 2:4].sum(dtype=float) - 9) / 3)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_not_finite_is_nodata(tmp_path: Path, bad: float) -> None:
    files = Files(tmp_path, PAIR)
    files.ms = files.ms.astype(np.float32)
    files.ms[1, 5, 4] = bad
    with files.write() as scene:
        ms, _, valid = read_all(scene)
        assert math.isnan(scene.nodata or 0)
    assert np.isfinite(ms).all()
    assert (~valid).sum() == 4
    assert not valid[10:12, 8:10].any()


def test_nothing_valid_reads_as_zero(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    files.pan[:] = 3
    with files.write({"nodata": 3}) as scene:
        _, pan, valid = read_all(scene)
        assert scene.nodata == 3  # PAN's, as MS has none
    assert not pan.any()
    assert not valid.any()


@pytest.mark.parametrize("kind", ["internal", "sidecar", "alpha"])
@pytest.mark.parametrize("which", ["pan", "ms"])
def test_masks_and_alpha_are_nodata(tmp_path: Path, kind: str, which: str) -> None:
    files = Files(tmp_path, PAIR)
    image = files.pan[np.newaxis] if which == "pan" else files.ms
    mask = np.full(image.shape[1:], 255, np.uint16)
    mask[0, 1] = 0
    if kind == "alpha":
        image = np.concatenate([image, mask[np.newaxis]])
    files.pan, files.ms = (image, files.ms) if which == "pan" else (files.pan, image)
    files.write()
    path = files.paths[0] if which == "pan" else files.paths[1][0]
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=kind == "internal"), rasterio.open(path, "r+") as file:
        if kind == "alpha":
            file.colorinterp = [
                ColorInterp.gray,
                *[ColorInterp.undefined] * (file.count - 2),
                ColorInterp.alpha,
            ]
        else:
            file.write_mask(mask.astype(np.uint8))
    assert path.with_name(f"{path.name}.msk").exists() == (kind == "sidecar")
    with open_scene(*files.paths, PAIR) as scene:
        _, _, valid = read_all(scene)
        assert scene.nodata == 0
        assert len(scene.bands) == 2
    expected = np.ones((12, 10), bool)
    expected[0, 1] = which == "ms"
    expected[0:2, 2:4] = which == "pan"
    np.testing.assert_array_equal(valid, expected)


def test_alpha_adds_to_nodata(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    files.ms = np.concatenate([files.ms, np.full((1, 6, 5), 9, np.uint16)])
    files.ms[2, 0, 0], files.ms[1, 3, 3] = 0, 77
    files.write(None, {"nodata": 77})
    with rasterio.open(files.paths[1][0], "r+") as file:
        file.colorinterp = [ColorInterp.gray, ColorInterp.undefined, ColorInterp.alpha]
    with open_scene(*files.paths, PAIR) as scene:
        _, _, valid = read_all(scene)
        assert scene.nodata == 77
    lost = {(int(row) // 2, int(col) // 2) for row, col in np.argwhere(~valid)}
    assert (lost, (~valid).sum()) == ({(0, 0), (3, 3)}, 8)


def test_a_mask_stands_above_nodata(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    files.ms[:, 3, 3] = 77
    files.write(None, {"nodata": 77})
    mask = np.full((6, 5), 255, np.uint8)
    mask[0, 0] = 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), open_raster(files.paths[1][0], "r+") as file:
        file.write_mask(mask)
    with open_scene(*files.paths, PAIR) as scene:
        ms, _, valid = read_all(scene)
    assert (~valid).sum() == 4
    assert not valid[:2, :2].any()
    assert ms[0, 3, 3] == 77


def test_every_band_has_its_own_nodata(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    files.write()
    files.ms[:, 2, 2], files.ms[:, 4, 1] = 7, 8
    paths = [write(tmp_path / f"{i}.tif", files.ms[i], coarse(ORIGIN, 2), nodata=7 + i) for i in range(2)]
    vrt = tmp_path / "ms.vrt"
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{i + 1}"><NoDataValue>{7 + i}</NoDataValue><SimpleSource>'
        f"<SourceFilename>{path}</SourceFilename><SourceBand>1</SourceBand></SimpleSource></VRTRasterBand>"
        for i, path in enumerate(paths)
    )
    grid = "<GeoTransform>400000, 1, 0, 5000000, 0, -1</GeoTransform>"
    vrt.write_text(f'<VRTDataset rasterXSize="5" rasterYSize="6"><SRS>{CRS}</SRS>{grid}{bands}</VRTDataset>')
    for ms in ([vrt], paths):
        with open_scene(files.paths[0], ms, PAIR) as scene:
            image, _, valid = read_all(scene)
            assert scene.nodata == 7
        lost = {(int(row) // 2, int(col) // 2) for row, col in np.argwhere(~valid)}
        assert lost == {(2, 2), (4, 1)}
        assert (image[1, 2, 2], image[0, 4, 1]) == (7, 8)
        assert 7 not in image[0]
        assert 8 not in image[1]


def test_undeclared_is_data(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    files.ms[:, 2:4], files.pan[:5] = 0, 0
    with files.write() as scene:
        ms, pan, valid = read_all(scene)
        assert scene.nodata is None
    assert valid.all()
    np.testing.assert_array_equal(ms, files.ms)
    np.testing.assert_array_equal(pan[0], files.pan)
    assert "zeros are 42% of pan.tif, 33% of ms.tif: " in scene.notes[1]
    with files.write({"nodata": 0}) as scene:
        assert "zeros are 33% of ms.tif: " in scene.notes[1]
    files.ms[:, 2:4] = 1
    with files.write({"nodata": 0}) as scene:
        assert len(scene.notes) == 1


def test_nodata_stays_out_of_resampled_neighbours(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR, (20, 20), (-0.5, -0.5))
    files.ms[:] = 500
    files.ms[:, 8:11, 8:11] = 60000
    with files.write(None, {"nodata": 60000}) as scene:
        ms, _, valid = read_all(scene)
    np.testing.assert_allclose(ms, 500, rtol=1e-6)
    # MS pixel i lies at PAN's 2 i - 0.5 to 2 i + 1.5, nearest to PAN's pixels 2 i and 2 i + 1.
    expected = np.ones((40, 40), bool)
    expected[16:22, 16:22] = False
    np.testing.assert_array_equal(valid, expected)


def test_four_bands_of_eight_bits_are_no_alpha(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.ms = (files.ms // 4).astype(np.uint8)
    files.ms[3, 2, 2] = 0
    with files.write() as scene:
        ms, _, valid = read_all(scene)
        assert scene.nodata is None
    with rasterio.open(files.paths[1][0]) as file:
        assert file.colorinterp[3] == ColorInterp.alpha
    np.testing.assert_array_equal(ms, files.ms)
    assert valid.all()


def test_nodata_that_the_type_cannot_hold(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    files.pan = files.pan.astype(np.float32)
    with files.write({"nodata": -9999}) as scene:
        assert scene.nodata == 0  # what PAN lacks must be marked
    with files.write({"nodata": 2.5}) as scene:
        assert scene.nodata == 0


# --- several files, names, options ---


def test_one_file_per_band(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    with files.write():
        pass
    paths = [
        write(tmp_path / f"{i}.tif", band, coarse(ORIGIN, 4), nodata=55) for i, band in enumerate(files.ms)
    ]
    with open_scene(files.paths[0], paths, QUAD) as scene:
        ms, _, _ = read_all(scene)
        assert (scene.bands, scene.nodata) == (QUAD.bands, 55)
    np.testing.assert_array_equal(ms, files.ms)


def test_names_and_colours(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.write()
    with files.write() as scene:
        assert scene.bands == QUAD.bands
        assert scene.colours[:3] == (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
    with rasterio.open(files.paths[1][0], "r+") as file:
        file.descriptions = ("B2", "B3", "B4", None)
    with open_scene(*files.paths, QUAD) as scene:
        assert scene.bands == ("B2", "B3", "B4", "nir")


@pytest.mark.parametrize(("dtype", "predictor"), [("uint16", 2), ("int32", 2), ("float32", 3)])
def test_profile(tmp_path: Path, dtype: str, predictor: int) -> None:
    files = Files(tmp_path, QUAD)
    files.ms = files.ms.astype(dtype)
    with files.write() as scene:
        profile = scene.profile
    wanted = {
        "dtype": dtype,
        "predictor": predictor,
        "height": 24,
        "width": 20,
        "count": 4,
        "compress": "DEFLATE",
    }
    assert wanted.items() <= profile.items()
    assert (profile["tiled"], profile["BIGTIFF"]) == (True, "IF_SAFER")


# --- what a product is to be ---


@pytest.mark.parametrize(
    ("bits", "nodata", "expected", "high"),
    [
        (11, None, 11, 2047),
        (11, 0, 11, 2047),
        (12, 4095, 12, 4095),
        (11, 2048, None, 65535),
        (None, None, None, 65535),
    ],
)
def test_bits_of_the_product(
    tmp_path: Path, bits: int | None, nodata: float | None, expected: int | None, high: int
) -> None:
    options = {} if bits is None else {"NBITS": bits}
    with Files(tmp_path, PAIR).write(None, options | {"nodata": nodata}) as scene:
        assert (scene.bits, scene.limits, scene.nodata) == (expected, (0, high), nodata)
        assert ("16 bits, not MS' 11, to hold the nodata value 2048" in "".join(scene.notes)) == (
            nodata == 2048
        )
        assert "NBITS" not in scene.profile


def test_limits_of_other_types(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    for dtype, limits in (
        ("int16", (-32768, 32767)),
        ("float32", (-3.4028234663852886e38, 3.4028234663852886e38)),
    ):
        files.ms = files.ms.astype(dtype)
        with files.write() as scene:
            assert (scene.bits, scene.limits) == (None, limits)


def test_metadata_and_notes_come_with_the_scene(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD, at=(4, 0))
    files.write(None, {"NBITS": 11})
    for path, time in zip((files.paths[0], files.paths[1][0]), ("10:00:00", "10:05:00"), strict=True):
        with rasterio.open(path, "r+") as file:
            file.update_tags(ns="IMAGERY", ACQUISITIONDATETIME=f"2020-01-01 {time}")
    with open_scene(*files.paths, QUAD) as scene:
        assert scene.metadata.tags["IMAGERY"] == {"ACQUISITIONDATETIME": "2020-01-01 10:05:00"}
        assert [note.split(":")[0] for note in scene.notes] == [
            "PAN covers more than MS",
            "MS covers more than PAN",
            "PAN and MS were acquired at 2020-01-01 10",
            "bands",
        ]


def test_control_points_and_rpcs_instead_of_a_geotransform(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    nowhere = {"transform": Affine.identity(), "crs": None}
    files.write(nowhere, nowhere)
    points = [
        GroundControlPoint(row, col, 13 + col / 1e3, 45 - row / 1e3)
        for row, col in ((0, 0), (0, 20), (24, 0))
    ]
    with open_raster(files.paths[0], "r+") as file:
        file.gcps = points, CRS
    with open_scene(*files.paths, QUAD) as scene:
        assert (scene.crs, scene.transform) == (None, Affine.identity())
        assert [(p.row, p.col, p.x, p.y) for p in (scene.metadata.gcps or ([],))[0]] == [
            (p.row, p.col, p.x, p.y) for p in points
        ]


def test_gain_makes_digital_numbers(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    expected = files.ms, files.pan
    files.ms, files.pan = (files.ms / 2000).astype(np.float32), (files.pan / 2000).astype(np.float32)
    files.ms[1, 3, 3] = -9
    files.write({"nodata": -9}, {"nodata": -9})
    with open_scene(*files.paths, PAIR, gain=2000) as scene:
        ms, pan, valid = read_all(scene)
        assert (scene.gain, scene.nodata, scene.dtype) == (2000, -9, np.float32)
    np.testing.assert_allclose(ms[0], expected[0][0], rtol=1e-6)
    np.testing.assert_allclose(pan[0], expected[1], rtol=1e-6)
    assert (~valid).sum() == 4
    refused(open_scene(*files.paths, PAIR, gain=20000), MismatchError, "bits: ")
    refused(open_scene(*files.paths, PAIR, gain=1), MismatchError, "scale: ", "--gain")


# --- refusals ---


def refused(opening: Any, error: type[SfiinError], *words: str) -> None:
    with pytest.raises(error) as caught, opening:
        pass
    assert type(caught.value) is error
    assert caught.value.exit_code == (4 if error is MismatchError else 3)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_refuses_missing_and_foreign_files(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    refused(open_scene(*files.paths, QUAD), SceneError, "pan.tif", "no such file")
    files.write()
    files.paths[0].write_text("not an image")
    refused(open_scene(*files.paths, QUAD), SceneError, "pan.tif", "no image")


@pytest.mark.parametrize("left", [0.02, 0.5, 0.9])
def test_refuses_files_cut_short(tmp_path: Path, left: float) -> None:
    files = Files(tmp_path, QUAD, (60, 60))
    files.write()
    content = files.paths[0].read_bytes()
    files.paths[0].write_bytes(content[: int(len(content) * left)])
    refused(open_scene(*files.paths, QUAD), SceneError, "pan.tif")


def test_refuses_other_numbers_of_bands(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.ms = files.ms[:3]
    refused(files.write(), MismatchError, "bands: MS has 3", "wants 4")
    files.pan = dn(2, 24, 20)
    refused(files.write(), SceneError, "PAN has 2 bands", "panchromatic band alone")


def test_bands_in_another_order_are_taken_by_name(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.write()
    with rasterio.open(files.paths[1][0], "r+") as file:
        file.descriptions = ("Red", "Green", "Blue", "NIR")
    with open_scene(*files.paths, QUAD) as scene:
        np.testing.assert_array_equal(read_all(scene)[0], files.ms[[2, 1, 0, 3]])
        assert scene.bands == ("Blue", "Green", "Red", "NIR")
        assert scene.colours[:3] == (ColorInterp.blue, ColorInterp.green, ColorInterp.red)
        assert "3, 2, 1, 4 of MS are taken" in scene.notes[0]
    with open_scene(*files.paths, QUAD, chosen="1,2,3,4") as scene:
        np.testing.assert_array_equal(read_all(scene)[0], files.ms)
        assert "1 says that it is red, and is taken for blue" in scene.notes[0]


def test_files_with_one_name_are_told_apart(tmp_path: Path) -> None:
    for folder in ("PAN", "MUL"):
        (tmp_path / folder).mkdir()
    files = Files(tmp_path, QUAD)
    files.paths = tmp_path / "PAN/a.tif", [tmp_path / "MUL/a.tif"]
    files.pan[:12] = 0
    with files.write() as scene:
        assert any("zeros are 50% of" in note and "PAN/a.tif" in note for note in scene.notes)


def test_suspects_swapped_files(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.write()
    refused(open_scene(files.paths[1][0], [files.paths[0]], QUAD), SceneError, "swapped")
    files.pan, files.ms = files.ms[0], np.stack([files.pan] * 4)
    refused(
        files.write({"transform": coarse(ORIGIN, 4)}, {"transform": ORIGIN}), SceneError, "finer", "swapped"
    )
    nowhere = {"transform": Affine.identity(), "crs": None}
    refused(files.write(nowhere, nowhere), SceneError, "finer", "swapped")


def test_refuses_complex_numbers(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.ms = files.ms.astype(np.complex64)
    refused(files.write(), SceneError, "ms.tif", "complex")


def test_refuses_colour_tables(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    files.pan = (files.pan // 4).astype(np.uint8)
    files.write({"photometric": "PALETTE"})
    refused(open_scene(*files.paths, PAIR), SceneError, "pan.tif", "colour table")


@pytest.mark.parametrize("gain", [0, -1, math.nan, math.inf])
def test_refuses_a_gain_that_is_none(tmp_path: Path, gain: float) -> None:
    files = Files(tmp_path, PAIR)
    files.write()
    refused(open_scene(*files.paths, PAIR, gain=gain), InputError, "--gain", "positive")


def test_refuses_another_ratio(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    refused(files.write(None, {"transform": coarse(ORIGIN, 3)}), MismatchError, "ratio", "3", "wants 4")
    files.pan = dn(18, 15)
    nowhere = {"transform": Affine.identity(), "crs": None}
    refused(files.write(nowhere, nowhere), MismatchError, "ratio", "3", "wants 4")


def test_refuses_sizes_that_do_not_match_without_georeference(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD, (60, 60))
    files.pan = files.pan[:-4]
    nowhere = {"transform": Affine.identity(), "crs": None}
    refused(files.write(nowhere, nowhere), SceneError, "4 times", "236x240 to 60x60")


@pytest.mark.parametrize(("rows", "cols"), [(-1, 0), (1, 0), (-3, 3)])
def test_odd_sizes_are_cropped_to_what_both_cover(tmp_path: Path, rows: int, cols: int) -> None:
    files = Files(tmp_path, QUAD, (20, 20))
    files.pan = dn(80 + rows, 80 + cols)
    nowhere = {"transform": Affine.identity(), "crs": None}
    with files.write(nowhere, nowhere) as scene:
        assert (scene.height, scene.width) == (min(80, 80 + rows), min(80, 80 + cols))
        assert not scene.resampled
        np.testing.assert_array_equal(read_all(scene)[0], files.ms)


def test_refuses_one_georeference(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.pan = files.pan[:-1]
    nowhere = {"transform": Affine.identity(), "crs": None}
    refused(files.write(nowhere), SceneError, "pan.tif", "no georeference")
    refused(files.write(None, nowhere), SceneError, "ms.tif", "no georeference")


@pytest.mark.parametrize("lacking", ["pan", "ms"])
def test_one_georeference_does_where_sizes_are_exact(tmp_path: Path, lacking: str) -> None:
    files = Files(tmp_path, QUAD)
    with files.write(**{lacking: {"transform": Affine.identity(), "crs": None}}) as scene:
        assert scene.crs == CRS
        assert scene.transform == ORIGIN
        assert any("has no georeference" in note for note in scene.notes)


@pytest.mark.parametrize(
    "crs",
    [
        "EPSG:32633+5773",
        "+proj=utm +zone=33 +ellps=WGS84 +units=m",
        "+proj=utm +zone=33 +datum=WGS84 +units=m +geoidgrids=egm96_15.gtx",
        "+proj=tmerc +lat_0=0 +lon_0=15 +k=0.9996 +x_0=500000 +y_0=0 +datum=WGS84 +units=m",
    ],
)
@pytest.mark.parametrize("which", ["pan", "ms"])
def test_crs_are_compared_by_what_they_mean(tmp_path: Path, crs: str, which: str) -> None:
    files = Files(tmp_path, QUAD)
    with files.write(**{which: {"crs": crs}}) as scene:
        assert not scene.resampled
        np.testing.assert_array_equal(read_all(scene)[0], files.ms)


def test_across_the_antimeridian(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    place = Affine(1e-5, 0, 179.9999, 0, -1e-5, 50)
    around = coarse(Affine(1e-5, 0, -180.0001, 0, -1e-5, 50), 4)
    with files.write(
        {"crs": "EPSG:4326", "transform": place}, {"crs": "EPSG:4326", "transform": around}
    ) as scene:
        assert not scene.resampled
        assert scene.transform == place
        np.testing.assert_array_equal(read_all(scene)[0], files.ms)


def camera(scale: float, line: float, sample: float) -> RPC:
    """A plain camera: straight lines, wherever it looks."""
    none, one = [0.0] * 20, [1.0] + [0.0] * 19
    return RPC(
        height_off=100,
        height_scale=500,
        lat_off=45.0,
        lat_scale=0.05,
        long_off=13.0,
        long_scale=0.05,
        line_off=line,
        line_scale=scale,
        line_num_coeff=[0.0, 0.0, -1.0, *none[3:]],
        line_den_coeff=one,
        samp_off=sample,
        samp_scale=scale,
        samp_num_coeff=[0.0, 1.0, *none[2:]],
        samp_den_coeff=one,
    )


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("rows", [-8, -6, 0, 12])
def test_rpcs_say_where_ms_begins(tmp_path: Path, rows: int, centred: bool) -> None:
    """MS begins at PAN's row `rows`, in either reading of where RPCs count from."""
    files = Files(tmp_path, QUAD, (20, 20))
    files.write({"transform": Affine.identity(), "crs": None}, {"transform": Affine.identity(), "crs": None})
    half = 1.5 if centred else 0
    for path, rpcs in (
        (files.paths[0], camera(10000, 5000 + rows + half, 5000 + half)),
        (files.paths[1][0], camera(2500, 1250, 1250)),
    ):
        with rasterio.open(path, "r+") as file:
            file.rpcs = rpcs
    with open_scene(*files.paths, QUAD) as scene:
        assert not scene.resampled
        first = scene._ms.rows.origin
        start = scene._pan.rows.origin
    assert start - 4 * first == rows


def test_control_points_say_where_ms_begins(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD, (20, 20))
    files.write({"transform": Affine.identity(), "crs": None}, {"transform": Affine.identity(), "crs": None})
    for path, pixel, first in ((files.paths[0], 1e-5, 0), (files.paths[1][0], 4e-5, -8)):
        corners = ((0, 0), (0, 20), (20, 0), (20, 20))
        points = [
            GroundControlPoint(row, col, 13 + col * pixel, 45 - row * pixel - first * 1e-5)
            for row, col in corners
        ]
        with rasterio.open(path, "r+") as file:
            file.gcps = (points, "EPSG:4326")
    with open_scene(*files.paths, QUAD) as scene:
        assert scene._pan.rows.origin - 4 * scene._ms.rows.origin == pytest.approx(-8, abs=0.02)


def test_refuses_other_coordinates(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    refused(files.write(None, {"crs": "EPSG:32634"}), SceneError, "EPSG:32634", "EPSG:32633", "reproject")
    elsewhere = {"crs": None, "transform": coarse(Affine(0.5, 0, 0, 0, -0.5, 0), 4)}
    refused(files.write(None, elsewhere), SceneError, "no CRS")
    with files.write(None, {"crs": None}) as scene:
        assert "MS has no CRS" in scene.notes[0]


def test_refuses_rotation_against_pan(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    refused(
        files.write(None, {"transform": Affine(2, 0.2, 400000, 0, -2, 5000000)}),
        SceneError,
        "rotated or sheared",
    )


def test_refuses_south_up(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    upside_down = Affine(0.5, 0, 400000, 0, 0.5, 5000000)
    opening = files.write({"transform": upside_down}, {"transform": coarse(upside_down, 4)})
    refused(opening, SceneError, "pan.tif", "south to north")


@pytest.mark.parametrize("at", [(24, 0), (0, -20), (-1000, 1000), (300.5, 0)])
def test_refuses_scenes_apart(tmp_path: Path, at: tuple[float, float]) -> None:
    refused(Files(tmp_path, QUAD, at=at).write(), SceneError, "no common area")


def test_refuses_band_files_on_different_grids(tmp_path: Path) -> None:
    files = Files(tmp_path, PAIR)
    files.write()
    paths = [write(tmp_path / f"{i}.tif", files.ms[i], coarse(ORIGIN, 2, i)) for i in range(2)]
    refused(open_scene(files.paths[0], paths, PAIR), SceneError, "1.tif", "one grid")


def test_refuses_another_scale(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD)
    files.pan *= 50
    refused(files.write(), MismatchError, "bits: ", "pan.tif", "11 bits")
    files.pan, files.ms = (files.pan / 1e5).astype(np.float32), (files.ms / 1e3).astype(np.float32)
    refused(files.write(), MismatchError, "scale: ", "reflectance")
    fractions = dataclasses.replace(FRACTIONS, bands=QUAD.bands, ratio=4)
    with open_scene(*files.paths, fractions):
        pass


def test_accepts_a_few_hot_pixels(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD, (20, 20))
    files.pan[3, :5] = 65535
    with files.write():
        pass


# --- real scenes ---


def test_vhr_scene_aligns_by_its_arrays(imagery: Path) -> None:
    folder = imagery / "scenes" / "VHR4_zhengzhou_1"
    with open_scene(folder / "pan.tif", [folder / "ms.tif"], QUAD) as scene:
        assert (scene.height, scene.width, scene.resampled) == (800, 800, False)


def test_landsat_8_offset_is_resampled(imagery: Path) -> None:
    folder = imagery / "scenes" / "L8_istanbul_1"
    sensor = SensorProfile("landsat", ("red", "green", "blue"), 2, 16, 65535.0)
    with open_scene(folder / "pan.tif", [folder / "ms.tif"], sensor) as scene:
        ms, pan, valid = read_all(scene)
        # MS ends 1.5 PAN pixels before PAN does.
        assert (scene.height, scene.width, scene.resampled) == (373, 558, True)
    assert valid.all()
    half = pan[0].reshape(187, 2, 279, 2).mean(axis=(1, 3))
    with rasterio.open(folder / "ms.tif") as file:
        raw = file.read().mean(axis=0)
    right, wrong = (
        np.corrcoef(half[5:-5, 5:-5].ravel(), image[5:-5, 5:-5].ravel())[0, 1] for image in (ms.mean(0), raw)
    )
    assert right > wrong + 0.02


def test_landsat_8_reflectance(imagery: Path) -> None:
    folder = imagery / "scenes" / "L8_pamplona_1"
    paths = folder / "pan.tif", [folder / "ms.tif"]
    bands = ("blue", "green", "red", "nir")
    refused(
        open_scene(*paths, SensorProfile("landsat", bands, 2, 16, 65535.0)),
        MismatchError,
        "scale",
        "reflectance",
    )
    with open_scene(*paths, SensorProfile("landsat", bands, 2, 1, 1.0)) as scene:
        assert (scene.height, scene.width) == (620, 799)
        assert scene.nodata == pytest.approx(-3.4e38)


def test_landsat_7_band_files(imagery: Path) -> None:
    folder = imagery / "scenes" / "L7_ethiopia_slcoff"
    band = {name[-6:-4]: folder / name for name in (path.name for path in folder.glob("*.TIF"))}
    sensor = SensorProfile("landsat", ("blue", "green", "red", "nir"), 2, 8, 255.0)
    with open_scene(band["B8"], [band[f"B{i}"] for i in (1, 2, 3, 4)], sensor) as scene:
        assert (scene.height, scene.width, scene.dtype, scene.nodata) == (201, 201, np.uint8, 255)
        assert scene.resampled
        # The gaps hold 0, while the files call 255 nodata.
        assert any(note.startswith("zeros are ") and "B8.TIF" in note for note in scene.notes)


def test_a_drift_that_is_constant_is_a_shift(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD, (20, 24))
    with files.write() as scene:
        drift = Drift(np.array([[2.5, -3.0]]), (80, 96), 9, 9, 0.0, 4.0)
        expected, found = scene.coregistered(2.5, -3.0), scene.drifted(drift)
        for window in ((0, 0, 80, 96), (16, 20, 40, 32)):
            np.testing.assert_allclose(found.read(*window)[0], expected.read(*window)[0], rtol=1e-4)
        assert found.placement != scene.placement
        assert found.resampled


def test_a_drift_takes_each_pixel_from_where_its_content_lies(tmp_path: Path) -> None:
    """MS is a ramp along each axis, on which interpolation is exact."""
    files = Files(tmp_path, QUAD, (40, 40))
    rows, cols = np.mgrid[:40, :40]
    files.ms = np.stack([100 + 10 * rows, 100 + 10 * cols, rows + cols, cols]).astype(np.uint16)
    plane = Drift(np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 2.0]]), (160, 160), 9, 9, 0.0, 4.0)
    with files.write() as scene:
        found = scene.drifted(plane).read(0, 0, 160, 160)[0]
    by = (
        np.linspace(-1, 1, 40, endpoint=False) + 1 / 40
    )  # from -1 to 1 over the scene, at the pixels' centres
    inside = np.s_[4:-4, 4:-4]
    np.testing.assert_allclose(found[0][inside], (100 + 10 * (rows - by[:, None]))[inside], atol=0.01)
    np.testing.assert_allclose(found[1][inside], (100 + 10 * (cols - by[None] / 2))[inside], atol=0.01)


def test_what_ms_does_not_reach_once_it_is_moved(tmp_path: Path) -> None:
    files = Files(tmp_path, QUAD, (20, 20))
    with files.write() as scene:
        assert scene.uncovered == (0, 0)
        assert scene.coregistered(9, -4).uncovered == (8, 4)

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.enums import ColorInterp
from rasterio.rpc import RPC
from rasterio.transform import Affine, RPCTransformer

from sfiin.runtime.errors import SceneError
from sfiin.runtime.scenes import metadata, product
from sfiin.runtime.scenes.metadata import Metadata
from sfiin.runtime.scenes.raster import open_raster

GRID = {"crs": "EPSG:32633", "transform": Affine(2.0, 0.0, 400000.0, 0.0, -2.0, 5000000.0)}
COEFFICIENTS = [float(i) for i in range(20)]
RPCS = RPC(
    height_off=100.0,
    height_scale=500.0,
    lat_off=45.0,
    lat_scale=0.1,
    long_off=13.0,
    long_scale=0.1,
    line_off=1000.5,
    line_scale=1000.0,
    samp_off=2000.25,
    samp_scale=2000.0,
    line_num_coeff=COEFFICIENTS,
    line_den_coeff=COEFFICIENTS,
    samp_num_coeff=COEFFICIENTS,
    samp_den_coeff=COEFFICIENTS,
)
GCPS = [
    GroundControlPoint(row, col, 13 + col / 1e3, 45 - row / 1e3, 7.0, f"p{row}")
    for row, col in ((0, 0), (5, 9))
]


def write(path: Path, bands: int = 1, tags: Any = None, **facts: Any) -> Path:
    """A file of zeros with rasterio's attributes `facts`, and tags by (band, domain)."""
    grid = {} if "gcps" in facts else GRID
    size = {"count": bands, "height": 6, "width": 7, "dtype": "uint16"}
    options = {key: facts.pop(key) for key in ("NBITS", "dtype") if key in facts}
    with open_raster(path, "w", driver="GTiff", **size | options, **grid) as file:
        for name, value in facts.items():
            setattr(file, name, value)
        for (band, domain), items in (tags or {}).items():
            file.update_tags(band, domain or None, **items)
        file.write(np.zeros((bands, 6, 7), options.get("dtype", "uint16")))
    return path


def gather(pan: Path, ms: list[Path], wanted: tuple[str, ...], corner: tuple[int, int] = (0, 0)) -> Metadata:
    files = [rasterio.open(path) for path in ms]
    with open_raster(pan) as sharp:
        found = metadata.gather(sharp, [(file, i) for file in files for i in file.indexes], wanted, *corner)
    for file in files:
        file.close()
    return found


@pytest.fixture
def pan(tmp_path: Path) -> Path:
    return write(tmp_path / "pan.tif")


# --- bands ---


def test_bands_keep_scale_offset_and_unit(tmp_path: Path, pan: Path) -> None:
    facts = {"scales": (0.5, 0.25), "offsets": (-1, 3), "units": ("W/m2/sr/um", "")}
    found = gather(pan, [write(tmp_path / "ms.tif", 2, **facts)], ("red", "nir"))
    assert (found.scales, found.offsets, found.units) == ((0.5, 0.25), (-1, 3), ("W/m2/sr/um", ""))
    each = [write(tmp_path / f"{i}.tif", 1, scales=(i,), descriptions=(f"B{i}",)) for i in (1, 2, 3)]
    found = gather(pan, each, ("blue", "green", "red"))
    assert (found.scales, found.names) == ((1, 2, 3), ("B1", "B2", "B3"))


@pytest.mark.parametrize(
    ("wanted", "name", "colour", "expected"),
    [
        ("blue", None, ColorInterp.red, ColorInterp.blue),  # writers make any three bands RGB
        ("Red", "B4", ColorInterp.undefined, ColorInterp.red),
        ("b1", "Green", ColorInterp.undefined, ColorInterp.green),
        ("b1", "b1", ColorInterp.blue, ColorInterp.blue),
        ("b1", None, ColorInterp.gray, ColorInterp.undefined),
        ("nir2", None, ColorInterp.undefined, getattr(ColorInterp, "nir", ColorInterp.undefined)),
    ],
)
def test_colours(
    tmp_path: Path, pan: Path, wanted: str, name: str | None, colour: Any, expected: Any
) -> None:
    ms = write(tmp_path / "ms.tif", descriptions=(name,), colorinterp=(colour,))
    assert gather(pan, [ms], (wanted,)).colours == (expected,)


def test_alpha_of_a_data_band_is_no_colour(tmp_path: Path, pan: Path) -> None:
    ms = write(tmp_path / "ms.tif", 2, colorinterp=(ColorInterp.gray, ColorInterp.alpha))
    assert gather(pan, [ms], ("b1", "b2")).colours == (ColorInterp.undefined, ColorInterp.undefined)


@pytest.mark.parametrize(
    ("declared", "bits"), [((11,), 11), ((11, 12), 12), ((11, None), None), ((None,), None), ((4,), 4)]
)
def test_bits(tmp_path: Path, declared: tuple[int | None, ...], bits: int | None) -> None:
    options = [{"NBITS": number} if number else {} for number in declared]
    paths = [
        write(tmp_path / f"{i}.tif", dtype="uint8" if 4 in declared else "uint16", **o)
        for i, o in enumerate(options)
    ]
    files = [rasterio.open(path) for path in paths]
    assert metadata.bits([(file, 1) for file in files]) == bits


# --- tags ---


def test_tags_of_ms_before_those_of_pan(tmp_path: Path) -> None:
    imagery = {"SATELLITEID": "WV02", "CLOUDCOVER": "3"}
    pan = write(
        tmp_path / "pan.tif",
        tags={
            (0, ""): {
                "PRODUCT": "pan",
                "GAIN": "9",
                "First_Acquisition": "then",
                "TIFFTAG_DATETIME": "2020:01:01 00:00:00",
            },
            (0, "IMAGERY"): imagery | {"ACQUISITIONDATETIME": "2020-01-01 10:00:00"},
            (1, ""): {"BAND": "pan"},
        },
    )
    ms = [
        write(
            tmp_path / "a.tif",
            tags={(0, ""): {"PRODUCT": "a"}, (0, "IMAGERY"): {"CLOUDCOVER": "4"}, (1, ""): {"B": "a"}},
        ),
        write(
            tmp_path / "b.tif",
            tags={(0, ""): {"PRODUCT": "b", "ONLY": "b"}, (1, "IMAGERY"): {"FWHM_UM": "0.06"}},
        ),
    ]
    found = gather(pan, ms, ("red", "nir"))
    assert found.tags == {
        "": {
            "PRODUCT": "a",
            "ONLY": "b",
            "First_Acquisition": "then",
            "TIFFTAG_DATETIME": "2020:01:01 00:00:00",
        },
        "IMAGERY": {"SATELLITEID": "WV02", "CLOUDCOVER": "4", "ACQUISITIONDATETIME": "2020-01-01 10:00:00"},
    }
    assert found.band_tags == ({"": {"B": "a"}}, {"IMAGERY": {"FWHM_UM": "0.06"}})


def test_what_describes_the_file_stays_with_it(tmp_path: Path, pan: Path) -> None:
    own = {
        "TIFFTAG_SOFTWARE": "x",
        "TIFFTAG_XRESOLUTION": "1",
        "TIFFTAG_YRESOLUTION": "1",
        "TIFFTAG_RESOLUTIONUNIT": "2",
        "TIFFTAG_MAXSAMPLEVALUE": "9",
        "TIFFTAG_MINSAMPLEVALUE": "1",
        "STATISTICS_MEAN": "3",
        "SFIIN_MODEL": "old",
    }
    kept = {"TIFFTAG_COPYRIGHT": "(c)", "SOFTWARE": "y"}
    ms = write(
        tmp_path / "ms.tif", tags={(0, ""): own | kept, (1, ""): {"STATISTICS_MEAN": "3", "LAYER": "z"}}
    )
    found = gather(pan, [ms], ("red",))
    assert found.tags == {"": kept}
    assert found.band_tags == ({"": {"LAYER": "z"}},)


# --- acquisition ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2016-05-24 13:48:51", "2016-05-24T13:48:51+00:00"),
        ("2016-05-24T13:48:51.123456789Z", "2016-05-24T13:48:51.123456+00:00"),
        ("2016-05-24T13:48:51.5+02:00", "2016-05-24T11:48:51.500000+00:00"),
        ("2016-05-24 13:48:51 -0330", "2016-05-24T17:18:51+00:00"),
        ("2016:05:24 13:48:51", "2016-05-24T13:48:51+00:00"),
        ("2016-13-24 13:48:51", None),
        ("2016-05-24", None),
        ("yesterday", None),
    ],
)
@pytest.mark.parametrize("place", [("IMAGERY", "ACQUISITIONDATETIME"), ("", "Acquisition_DateTime")])
def test_times(place: tuple[str, str], text: str, expected: str | None) -> None:
    time = metadata.acquisition({place[0]: {"OTHER": "2001-01-01 00:00:00", place[1]: text}})
    assert (time and time.isoformat()) == expected


def test_creation_is_no_acquisition(tmp_path: Path, pan: Path) -> None:
    ms = write(tmp_path / "ms.tif", tags={(0, ""): {"TIFFTAG_DATETIME": "2016:05:24 13:48:51"}})
    assert gather(pan, [ms], ("red",)).acquired is None


@pytest.mark.parametrize(("second", "notes"), [("10:00:59", 0), ("10:01:01", 1)])
def test_pan_and_ms_of_different_times(tmp_path: Path, second: str, notes: int) -> None:
    paths = [
        write(tmp_path / f"{i}.tif", tags={(0, "IMAGERY"): {"ACQUISITIONDATETIME": f"2020-01-01 {clock}"}})
        for i, clock in enumerate((second, "10:00:00"))
    ]
    found = gather(paths[0], paths[1:], ("red",))
    minute, seconds = map(int, second.split(":")[1:])
    ends = (datetime(2020, 1, 1, 10, m, s, tzinfo=timezone.utc) for m, s in ((0, 0), (minute, seconds)))
    assert found.acquired == tuple(ends)
    assert len(found.notes) == notes
    assert not notes or "2020-01-01 10:00:00+00:00 and 2020-01-01 10:01:01+00:00" in found.notes[0]


# --- where pixels lie on the ground ---


def test_rpcs_move_with_the_corner(tmp_path: Path) -> None:
    pan = write(tmp_path / "pan.tif", rpcs=RPCS)
    found = gather(pan, [write(tmp_path / "ms.tif")], ("red",), (120, 36)).rpcs
    assert (found.line_off, found.samp_off) == (880.5, 1964.25)
    for name in ("lat_off", "long_off", "height_scale", "line_scale", "samp_num_coeff", "line_den_coeff"):
        assert getattr(found, name) == getattr(RPCS, name)
    assert gather(write(tmp_path / "no.tif"), [pan], ("red",)).rpcs is None  # MS' are for other pixels


def test_damaged_rpcs_are_said(tmp_path: Path) -> None:
    pan = write(tmp_path / "pan.tif")
    side = "<PAMDataset><Metadata domain='RPC'><MDI key='LINE_OFF'>?</MDI></Metadata></PAMDataset>"
    (tmp_path / "pan.tif.aux.xml").write_text(side)
    with pytest.raises(SceneError, match=r"pan\.tif: its RPCs cannot be read"):
        gather(pan, [write(tmp_path / "ms.tif")], ("red",))


def test_tags_named_like_arguments(tmp_path: Path, pan: Path) -> None:
    ms = write(tmp_path / "ms.tif")
    items = "".join(f"<MDI key='{key}'>2</MDI>" for key in ("ns", "bidx", "a b"))
    (tmp_path / "ms.tif.aux.xml").write_text(f"<PAMDataset><Metadata>{items}</Metadata></PAMDataset>")
    found = gather(pan, [ms], ("red",))
    with open_raster(
        tmp_path / "out.tif", "w", driver="GTiff", count=1, height=6, width=7, dtype="uint8", **GRID
    ) as file:
        found.write(file)
    with open_raster(tmp_path / "out.tif") as file:
        assert metadata.read_tags(file) == {"": {"a b": "2"}}


def test_moved_rpcs_show_the_same_ground(tmp_path: Path) -> None:
    # Line by latitude, sample by longitude, both bent a little by height: terms 3, 2 and 4 of RPC00B.
    line, sample, one = ([0.0] * 20 for _ in range(3))
    line[2], line[3], sample[1], sample[3], one[0] = -1.0, 0.1, 1.0, 0.2, 1.0
    facts = RPCS.to_dict() | {
        "line_num_coeff": line,
        "line_den_coeff": one,
        "samp_num_coeff": sample,
        "samp_den_coeff": one,
    }
    pan = write(tmp_path / "pan.tif", rpcs=RPC(**facts))
    with open_raster(pan) as file:
        whole = file.rpcs
    part = gather(pan, [write(tmp_path / "ms.tif")], ("red",), (120, 36)).rpcs
    with RPCTransformer(whole, rpc_height=300) as one_way, RPCTransformer(part, rpc_height=300) as other:
        np.testing.assert_allclose(
            other.xy([0, 50], [0, 70]), one_way.xy([120, 170], [36, 106]), rtol=0, atol=1e-9
        )
        assert not np.allclose(other.xy(0, 0), one_way.xy(0, 0), rtol=0, atol=1e-4)


def test_control_points_move_with_the_corner(tmp_path: Path) -> None:
    pan = write(tmp_path / "pan.tif", gcps=(GCPS, "EPSG:4326"))
    points, crs = gather(pan, [write(tmp_path / "ms.tif")], ("red",), (2, 3)).gcps or ([], None)
    assert [(p.row, p.col, p.x, p.y, p.z) for p in points] == [(-2, -3, 13, 45, 7), (3, 6, 13.009, 44.995, 7)]
    assert crs == rasterio.CRS.from_epsg(4326)


# --- written ---


GDAL = tuple(map(int, rasterio.__gdal_version__.split(".")[:2]))


@pytest.mark.parametrize(
    "kind",
    [
        "gtiff",
        pytest.param("cog", marks=pytest.mark.skipif(GDAL < (3, 8), reason="GDAL before 3.8 drops IMAGERY")),
    ],
)
@pytest.mark.parametrize("located", [{"rpcs": RPCS}, {"gcps": (GCPS, rasterio.CRS.from_epsg(4326))}])
def test_all_of_it_arrives(tmp_path: Path, kind: Any, located: dict[str, Any]) -> None:
    pan = write(tmp_path / "pan.tif", **located)
    tags = {
        (0, ""): {"PRODUCT": "x"},
        (0, "IMAGERY"): {"SATELLITEID": "WV02"},
        (2, "IMAGERY"): {"FWHM_UM": "0.06"},
    }
    facts = {"scales": (0.5, 0.25), "offsets": (-1, 3), "units": ("a", ""), "descriptions": ("B5", None)}
    found = gather(pan, [write(tmp_path / "ms.tif", 2, tags, **facts)], ("red", "rededge"))
    path = tmp_path / "out" / "product.tif"
    path.parent.mkdir()
    options = product.creation_options(np.dtype("uint16")) | ({} if "gcps" in located else GRID)
    with open_raster(
        path, "w", driver="GTiff", count=2, height=6, width=7, dtype="uint16", **options
    ) as file:
        found.write(file)
        file.write(np.ones((2, 6, 7), np.uint16))
    product.finish(path, kind)
    with rasterio.open(path) as file:
        assert (file.descriptions, file.colorinterp) == (found.names, found.colours)
        assert (file.scales, file.offsets, file.units) == ((0.5, 0.25), (-1, 3), ("a", None))
        assert (
            metadata.read_tags(file)
            == found.tags
            == {"": {"PRODUCT": "x"}, "IMAGERY": {"SATELLITEID": "WV02"}}
        )
        assert file.tags(2, ns="IMAGERY") == {"FWHM_UM": "0.06"}
        assert (file.rpcs.to_dict() if file.rpcs else None) == (found.rpcs.to_dict() if found.rpcs else None)
        points = [(p.row, p.col, p.x, p.y, p.z) for p in file.gcps[0]]
        assert points == [(p.row, p.col, p.x, p.y, p.z) for p in (found.gcps or ([],))[0]]
        assert len(points) == (2 if "gcps" in located else 0)
    assert [each.name for each in path.parent.iterdir()] == ["product.tif"]

import hashlib
import json
import math
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.control import GroundControlPoint
from rasterio.rpc import RPC
from rasterio.transform import Affine
from rasterio.warp import transform

from sfiin import __version__
from sfiin.runtime.contract import Contract, SensorProfile, Tile
from sfiin.runtime.errors import InputError, OutputError, SceneError
from sfiin.runtime.scenes import product, stac
from sfiin.runtime.scenes.metadata import Acquired
from sfiin.runtime.scenes.raster import open_raster

CONTRACT = Contract(
    SensorProfile("wv", ("red", "nir2"), 4, 11, 2047.0),
    Tile(32, 32, 8),
    "matmul",
    "fp32",
    17,
    {},
    "c0ffee",
    "",
    {},
)
UTM = {"crs": "EPSG:32633", "transform": Affine(0.5, 0.0, 400000.0, 0.0, -0.5, 5000000.0)}
NOON = datetime(2024, 5, 1, 12, 0, 0, 250000, tzinfo=timezone.utc)
SOURCES = [Path("/in/pan.tif"), Path("/in/ms.tif")]


def make(
    path: Path, grid: dict[str, Any] = UTM, dtype: str = "uint16", nodata: float | None = None, **facts: Any
) -> Path:
    size = {"count": 2, "height": 40, "width": 60, "dtype": dtype, "nodata": nodata}
    options = product.creation_options(np.dtype(dtype), bits=facts.pop("bits", None))
    tags = facts.pop("tags", {})
    with open_raster(path, "w", driver="GTiff", **size, **options, **grid) as file:
        for name, value in facts.items():
            setattr(file, name, value)
        for (band, domain), items in tags.items():
            file.update_tags(band, domain, **items)
        file.write(np.ones((2, 40, 60), dtype))
    return path


def item(path: Path, when: Acquired = (NOON, NOON), **options: Any) -> Any:
    document = stac.item(path, CONTRACT, when, sources=SOURCES, **options)
    return json.loads(json.dumps(document, allow_nan=False))


# --- time ---


def test_stated_time_before_tagged() -> None:
    tagged = (NOON, NOON)
    assert stac.acquired(None, tagged) == tagged
    morning = datetime(2024, 5, 1, 8, 20, 30, tzinfo=timezone.utc)
    assert stac.acquired("2024-05-01T10:20:30+02:00", tagged) == (morning, morning)
    assert stac.acquired("2024-05-01T08:20:30Z/2024-05-01 12:00:00.25", None) == (morning, NOON)


@pytest.mark.parametrize(
    "text", ["", "today", "2024-05-01", "2024-05-01T10:20:30Z/", "/", "2024-05-01T25:00:00Z"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"--acquired: '.*' is no time; write 2024-05-01T10:20:30Z"):
        stac.acquired(text, (NOON, NOON))


def test_intervals_run_forward() -> None:
    one, other = "2024-05-01T10:20:30Z", "2024-05-01T10:20:31Z"
    with pytest.raises(InputError, match="the earlier first"):
        stac.acquired(f"{other}/{one}", None)
    with pytest.raises(InputError, match="is no time"):
        stac.acquired(f"{one}/{other}/{other}", None)


def test_no_time_is_not_made_up() -> None:
    with pytest.raises(InputError, match=r"ACQUISITIONDATETIME.*--acquired") as caught:
        stac.acquired(None, None)
    assert caught.value.exit_code == 3


def test_one_time_or_two(tmp_path: Path) -> None:
    path = make(tmp_path / "p.tif")
    one, two = item(path)["properties"], item(path, (NOON.replace(hour=11), NOON))["properties"]
    assert one["datetime"] == "2024-05-01T12:00:00.250000Z"
    assert "start_datetime" not in one
    keys = ("datetime", "start_datetime", "end_datetime")
    assert [two[key] for key in keys] == [None, "2024-05-01T11:00:00.250000Z", "2024-05-01T12:00:00.250000Z"]


# --- facts ---


def test_an_item_of_all_there_is(tmp_path: Path) -> None:
    tags = {
        (0, "IMAGERY"): {"SATELLITEID": "WV02", "CLOUDCOVER": "12.5"},
        (1, "IMAGERY"): {"CENTRAL_WAVELENGTH_UM": "0.66", "FWHM_UM": "0.06"},
    }
    facts: dict[str, Any] = {
        "descriptions": ("B5", None),
        "scales": (0.5, 2),
        "offsets": (1.5, -3),
        "units": ("W/m2", ""),
    }
    path = make(tmp_path / "p.tif", bits=11, nodata=0, tags=tags, **facts)
    picture = tmp_path / "p.png"
    document = item(path, picture=picture)
    assert (document["type"], document["stac_version"], document["id"], document["links"]) == (
        "Feature",
        "1.1.0",
        "p",
        [],
    )
    assert document["properties"] == {
        "datetime": "2024-05-01T12:00:00.250000Z",
        "platform": "wv02",
        "eo:cloud_cover": 12.5,
        "processing:software": {"sfiin": __version__},
        "processing:lineage": "pan.tif and ms.tif pan-sharpened by the network SFIIN (checkpoint SHA-256 "
        "c0ffee)",
    }
    assert document["assets"]["thumbnail"] == {"href": "./p.png", "type": "image/png", "roles": ["thumbnail"]}
    image = document["assets"]["image"]
    assert image.pop("bands") == [
        {
            "name": "B5",
            "unit": "W/m2",
            "raster:bits_per_sample": 11,
            "raster:scale": 0.5,
            "raster:offset": 1.5,
            "eo:common_name": "red",
            "eo:center_wavelength": 0.66,
            "eo:full_width_half_max": 0.06,
        },
        {
            "name": "nir2",
            "raster:bits_per_sample": 11,
            "raster:scale": 2,
            "raster:offset": -3,
            "eo:common_name": "nir09",
        },
    ]
    content = path.read_bytes()
    assert image == {
        "href": "./p.tif",
        "type": "image/tiff; application=geotiff",
        "roles": ["data"],
        "data_type": "uint16",
        "nodata": 0,
        "raster:sampling": "area",
        "raster:spatial_resolution": 0.5,
        "proj:shape": [40, 60],
        "proj:code": "EPSG:32633",
        "proj:transform": [0.5, 0, 400000, 0, -0.5, 5000000],
        "proj:bbox": [400000, 4999980, 400030, 5000000],
        "file:size": len(content),
        "file:checksum": "1220" + hashlib.sha256(content).hexdigest(),
    }
    assert [url.split("/")[3] for url in document["stac_extensions"]] == [
        "projection",
        "raster",
        "eo",
        "processing",
        "file",
    ]


def test_extensions_are_those_used(tmp_path: Path) -> None:
    sensor = SensorProfile("x", ("b1", "b2"), 4, 11, 2047.0)
    contract = Contract(sensor, Tile(32, 32, 8), "matmul", "fp32", 17, {}, "", "", {})
    document = stac.item(make(tmp_path / "p.tif"), contract, (NOON, NOON), sources=SOURCES)
    assert not [url for url in document["stac_extensions"] if "/eo/" in url]
    assert [band["name"] for band in document["assets"]["image"]["bands"]] == ["b1", "b2"]


@pytest.mark.parametrize(
    ("nodata", "expected"), [(math.nan, "nan"), (-9999, -9999), (0.5, 0.5), (-math.inf, "-inf")]
)
def test_nodata(tmp_path: Path, nodata: float, expected: Any) -> None:
    image = item(make(tmp_path / "p.tif", dtype="float32", nodata=nodata))["assets"]["image"]
    assert (image["nodata"], image["data_type"]) == (expected, "float32")


@pytest.mark.parametrize("clouds", ["999", "-1", "some", "nan", ""])
def test_clouds_that_are_not_known(tmp_path: Path, clouds: str) -> None:
    path = make(tmp_path / "p.tif", tags={(0, "IMAGERY"): {"CLOUDCOVER": clouds}})
    assert "eo:cloud_cover" not in item(path)["properties"]


def test_a_cog_is_called_one(tmp_path: Path) -> None:
    path = make(tmp_path / "p.tif")
    product.finish(path, "cog")
    assert item(path)["assets"]["image"]["type"] == "image/tiff; application=geotiff; profile=cloud-optimized"


# --- place ---


def test_footprint_is_the_outline_in_degrees(tmp_path: Path) -> None:
    document = item(make(tmp_path / "p.tif"))
    (ring,) = document["geometry"]["coordinates"]
    assert document["geometry"]["type"] == "Polygon"
    assert (len(ring), ring[0]) == (33, ring[-1])
    xs, ys = [400000, 400000, 400030, 400030], [5000000, 4999980, 4999980, 5000000]
    corners = np.transpose(transform("EPSG:32633", "EPSG:4326", xs, ys))
    np.testing.assert_allclose(ring[:-1:8], corners, rtol=0, atol=1e-7)
    assert area(ring) > 0  # counterclockwise
    west, south = np.min(ring, axis=0)
    east, north = np.max(ring, axis=0)
    assert document["bbox"] == [west, south, east, north]


def area(ring: list[list[float]]) -> float:
    x, y = np.transpose(ring)
    return float(np.sum(x[:-1] * y[1:] - x[1:] * y[:-1]) / 2)


def test_bent_edges_are_followed(tmp_path: Path) -> None:
    path = make(
        tmp_path / "p.tif", UTM | {"transform": Affine(2000.0, 0.0, 700000.0, 0.0, -2000.0, 7000000.0)}
    )
    (ring,) = item(path)["geometry"]["coordinates"]
    # The middle of the upper edge lies where the map's middle does, off the chord of its corners.
    middle = transform("EPSG:32633", "EPSG:4326", [760000], [7000000])
    np.testing.assert_allclose(ring[28], [middle[0][0], middle[1][0]], rtol=0, atol=1e-7)
    assert ring[28][1] - (ring[24][1] + ring[32][1]) / 2 > 1e-3


def test_rotated_grids(tmp_path: Path) -> None:
    turned = Affine(0.4, 0.3, 400000.0, 0.3, -0.4, 5000000.0)
    document = item(make(tmp_path / "p.tif", UTM | {"transform": turned}))
    image = document["assets"]["image"]
    assert image["proj:bbox"] == pytest.approx([400000, 5000000 - 16, 400000 + 24 + 12, 5000000 + 18])
    assert image["raster:spatial_resolution"] == pytest.approx(0.5)
    assert area(document["geometry"]["coordinates"][0]) > 0


def test_feet_and_degrees(tmp_path: Path) -> None:
    feet = item(make(tmp_path / "f.tif", UTM | {"crs": "EPSG:2263"}))["assets"]["image"]
    assert feet["raster:spatial_resolution"] == pytest.approx(0.5 * 1200 / 3937)
    degrees = Affine(1e-5, 0.0, 13.0, 0.0, -1e-5, 45.0)
    document = item(make(tmp_path / "d.tif", {"crs": "EPSG:4326", "transform": degrees}))
    assert "raster:spatial_resolution" not in document["assets"]["image"]
    assert document["bbox"] == pytest.approx([13, 45 - 40e-5, 13 + 60e-5, 45])


def test_across_the_antimeridian(tmp_path: Path) -> None:
    # UTM zone 60 ends at 180 degrees, 833978.6 m on the equator.
    grid = {"crs": "EPSG:32660", "transform": Affine(1000.0, 0.0, 800000.0, 0.0, -1000.0, 40000.0)}
    document = item(make(tmp_path / "p.tif", grid))
    assert document["geometry"]["type"] == "MultiPolygon"
    for (ring,) in document["geometry"]["coordinates"]:
        assert area(ring) > 0
        assert abs(ring[0][0]) > 179
    west, south, east, north = document["bbox"]
    (left, right), _ = transform("EPSG:32660", "EPSG:4326", [800000, 860000], [0, 0])
    assert (west, east) == (pytest.approx(left, abs=1e-5), pytest.approx(right, abs=1e-4))
    assert south < north < 1


def test_control_points_and_rpcs_place_an_image(tmp_path: Path) -> None:
    points = [
        GroundControlPoint(r, c, 13 + c / 1e3, 45 - r / 1e3) for r, c in ((0, 0), (0, 60), (40, 0), (40, 60))
    ]
    document = item(make(tmp_path / "g.tif", {}, gcps=(points, rasterio.CRS.from_epsg(4326))))
    assert document["bbox"] == pytest.approx([13, 44.96, 13.06, 45])
    assert document["assets"]["image"]["proj:code"] is None
    line, sample, one = ([0.0] * 20 for _ in range(3))
    line[2], sample[1], one[0] = -1.0, 1.0, 1.0
    rpcs = RPC(
        height_off=100.0,
        height_scale=500.0,
        lat_off=45.0,
        lat_scale=0.1,
        long_off=13.0,
        long_scale=0.1,
        line_off=0.0,
        line_scale=100.0,
        samp_off=0.0,
        samp_scale=100.0,
        line_num_coeff=line,
        line_den_coeff=one,
        samp_num_coeff=sample,
        samp_den_coeff=one,
    )
    document = item(make(tmp_path / "r.tif", {}, rpcs=rpcs))
    # RPCs count from the first pixel's centre.
    assert document["bbox"] == pytest.approx([13 - 0.0005, 45 - 0.0395, 13 + 0.0595, 45 + 0.0005], abs=1e-6)
    assert area(document["geometry"]["coordinates"][0]) > 0


def test_nowhere(tmp_path: Path) -> None:
    for grid in ({}, {"transform": UTM["transform"]}):
        document = item(make(tmp_path / "p.tif", grid))
        assert document["geometry"] is None
        assert "bbox" not in document
        assert document["assets"]["image"]["proj:code"] is None


def test_a_map_without_a_code(tmp_path: Path) -> None:
    laea = "+proj=laea +lat_0=47.3 +lon_0=9.1 +x_0=12345 +y_0=0 +ellps=WGS84 +units=m"
    image = item(make(tmp_path / "p.tif", UTM | {"crs": laea}))["assets"]["image"]
    assert image["proj:code"] is None
    assert "Lambert Azimuthal" in image["proj:wkt2"]


# --- written ---


def test_written(tmp_path: Path) -> None:
    document = item(make(tmp_path / "p.tif", descriptions=("röd", "nir")))
    stac.write(tmp_path / "p.json", document)
    assert json.loads((tmp_path / "p.json").read_text(encoding="utf-8")) == document
    with pytest.raises(OutputError, match="there is no folder"):
        stac.write(tmp_path / "no" / "p.json", document)


def test_without_a_product(tmp_path: Path) -> None:
    with pytest.raises(SceneError, match="no such file"):
        item(tmp_path / "p.tif")

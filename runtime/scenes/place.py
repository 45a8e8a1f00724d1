"""Where does one image's pixel lie in another? By geotransforms, ground control points, RPCs, or arrays.

CRSs are compared by what they mean horizontally: heights are dropped, and two that PROJ takes to the same
places are one, whatever their words. Longitudes are taken around the earth, so that an image east of the
antimeridian meets one west of it.

RPCs and ground control points are followed from MS' corners and middles to the ground and back into PAN (RPCs
over a DEM, at a height that is given, or at PAN's own mean height), and a straight relation is laid through
what comes out.
Vendors count RPCs' lines and samples from a pixel's centre, but those of MS are often PAN's divided by the
ratio, which is off by half an MS pixel less half a PAN pixel; of the two readings the one is taken that puts
MS on whole PAN pixels, if one does.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.errors import CRSError, RasterioError
from rasterio.transform import GCPTransformer, RPCTransformer
from rasterio.warp import transform

from sfiin.runtime.errors import InputError, SceneError
from sfiin.runtime.scenes.names import Name, gdal, named, title
from sfiin.runtime.scenes.raster import is_located, open_raster

Array = NDArray[np.float64]

_NEARLY = 0.2  # relative
_SAME = 0.05  # PAN pixels that two CRSs may differ by
_WHOLE = 0.1  # PAN pixels from a whole one within which RPCs are taken to mean it


@dataclass(frozen=True)
class Relief:
    """Where the ground lies, for RPCs: at `height` metres above the ellipsoid, or over a `dem`, any name that
    GDAL opens; at neither, at an image's own mean height."""

    height: float | None = None
    dem: Name | None = None

    @classmethod
    def of(cls, height: float | None, dem: str | None) -> Relief:
        """From options. Raises InputError where both are given."""
        if height is not None and dem is not None:
            raise InputError("--height and --dem both say how high the ground is; give one of them")
        return cls(height, None if dem is None else named(dem))

    def check(self) -> None:
        """Raise SceneError for a DEM that cannot be used."""
        if self.dem is not None:
            with open_raster(self.dem) as file:
                if not file.crs or not is_located(file):
                    raise SceneError(f"{self.dem}: no georeference; a DEM needs one")

    def options(self, rpcs: Any) -> dict[str, str]:
        """For GDAL."""
        if self.dem is not None:
            missing = {"RPC_DEM_MISSING_VALUE": repr(float(rpcs.height_off))}
            return {"RPC_DEM": gdal(self.dem), "RPC_DEMINTERPOLATION": "bilinear", **missing}
        return {"RPC_HEIGHT": repr(float(rpcs.height_off) if self.height is None else self.height)}

    def said(self) -> str:
        """For a note."""
        if self.dem is not None:
            return f", over {title(self.dem)},"
        return "" if self.height is None else f", at {self.height:g} m,"


NOWHERE = Relief()


def between(one: Any, other: Any) -> Array:
    """From the other file's pixel coordinates (column, row, 1) to one's, as a 3 x 3 matrix."""
    # affine before 3.0 knows no @, and after it no * without a warning.
    to_map, from_map = (
        np.array([tuple(t)[:3], tuple(t)[3:6], (0, 0, 1)], np.float64)
        for t in (other.transform, one.transform)
    )
    if _is_geographic(one):
        apart = (
            to_map @ (other.width / 2, other.height / 2, 1) - from_map @ (one.width / 2, one.height / 2, 1)
        )[0]
        to_map[0, 2] -= 360 * round(apart / 360)
    matrix: Array = np.linalg.inv(from_map) @ to_map
    return matrix


def relation(pan: Any, ms: Any, ratio: int, relief: Relief = NOWHERE) -> tuple[Array, tuple[str, ...]]:
    """From MS' pixel coordinates to PAN's (3 x 3), and what is to be said; RPCs meet the ground at `relief`.
    Raises SceneError where the georeferences do not allow it."""
    if is_located(pan) and is_located(ms):
        notes = _check_crs(pan, ms)
        for file in (pan, ms):
            if file.transform.determinant > 0:
                raise SceneError(
                    f"{file.name}: its rows run from south to north; turn it over, e.g. with gdalwarp"
                )
        return between(pan, ms), notes
    if is_located(pan) != is_located(ms):
        return _one_located(pan, ms, ratio)
    if pan.rpcs and ms.rpcs:
        return _by_rpcs(pan, ms, ratio, relief)
    if pan.gcps[0] and ms.gcps[0]:
        return _by_gcps(pan, ms)
    note = ""
    if any((file.rpcs or file.gcps[0]) for file in (pan, ms)):
        note = (
            "only one of PAN and MS says where it lies (RPCs, control points): "
            "they are laid on one another by sizes"
        )
    return by_size(pan, ms, ratio), (note,) if note else ()


def by_size(pan: Any, ms: Any, ratio: int) -> Array:
    """The relation of two images that begin at one corner. Raises SceneError where their sizes are nearly,
    but not to less than an MS pixel, in the ratio: nothing tells which lines are too many."""
    steps = []
    for fine, coarse in ((pan.width, ms.width), (pan.height, ms.height)):
        alike = abs(fine - ratio * coarse) < ratio
        if not alike and abs(fine / coarse / ratio - 1) < _NEARLY:
            raise SceneError(
                f"{ms.name}: without georeferences PAN must be {ratio} times MS' size, to less than one MS "
                f"pixel, not {pan.height}x{pan.width} to {ms.height}x{ms.width}"
            )
        steps.append(ratio if alike else fine / coarse)
    return np.diag([*steps, 1.0])


def _one_located(pan: Any, ms: Any, ratio: int) -> tuple[Array, tuple[str, ...]]:
    lacking = ms if is_located(pan) else pan
    exact = pan.shape == (ratio * ms.height, ratio * ms.width)
    if lacking.rpcs or lacking.gcps[0] or not exact:
        raise SceneError(
            f"{lacking.name}: no georeference, but the other file has one; give both or neither, e.g. with "
            "gdal_translate -a_srs and -a_ullr"
        )
    name = "PAN" if lacking is pan else "MS"
    return by_size(pan, ms, ratio), (
        f"{name} has no georeference: as the sizes are in the exact ratio, it is taken to lie where the "
        "other does",
    )


# --- CRSs ---


def horizontal(crs: Any) -> Any:
    """A CRS without heights: the first part of a compound one, without a third axis."""
    try:
        document = crs.to_dict(projjson=True)
        if document.get("type") == "CompoundCRS":
            document = document["components"][0]
        if document.get("type") == "BoundCRS":
            document = document["source_crs"]
        axes = document.get("coordinate_system", {}).get("axis", [])
        if len(axes) == 3:
            document["coordinate_system"]["axis"] = axes[:2]
            document.pop("id", None)
        return CRS.from_user_input(json.dumps(document))
    except (CRSError, KeyError, AttributeError, TypeError, ValueError):
        return crs


def same_place(one: Any, other: Any, corners: list[tuple[float, float]], pixel: float) -> bool:
    """Whether two CRSs mean the same places, to within a part of a pixel, at an image's corners."""
    if one == other or (not one) != (not other):
        return bool(one == other)
    flat = horizontal(one), horizontal(other)
    if flat[0] == flat[1]:
        return True
    if flat[0].is_geographic != flat[1].is_geographic:
        return False
    xs, ys = (list(values) for values in zip(*corners, strict=True))
    try:
        there = transform(flat[1], flat[0], xs, ys)
    except (RasterioError, CRSError):
        return False
    apart = [math.hypot(x - a, y - b) for x, y, a, b in zip(xs, ys, *there[:2], strict=True)]
    return all(math.isfinite(each) and each <= _SAME * pixel for each in apart)


def _check_crs(pan: Any, ms: Any) -> tuple[str, ...]:
    if pan.crs == ms.crs:
        return ()
    if not pan.crs or not ms.crs:
        lacking, name = (ms, "MS") if pan.crs else (pan, "PAN")
        lacking_corners = np.array(_corners(lacking))
        other_corners = np.array(_corners(pan if lacking is ms else ms))
        low, high = other_corners.min(0), other_corners.max(0)
        if (lacking_corners >= low - (high - low)).all() and (lacking_corners <= high + (high - low)).all():
            return (
                f"{name} has no CRS, and is taken to be in the other file's, where it lies by its "
                "coordinates",
            )
        raise SceneError(
            f"{lacking.name}: no CRS, and by its coordinates it does not lie where the other file does; "
            "declare it, e.g. with gdal_edit.py -a_srs"
        )
    if same_place(pan.crs, ms.crs, _corners(ms), min(pan.res)):
        return ()
    code = _code(pan.crs)
    raise SceneError(
        f"{ms.name}: MS is in {_code(ms.crs)}, PAN in {code}; reproject MS, e.g. with "
        f"gdalwarp -t_srs {code if code.startswith('EPSG') else 'PAN.prj'} -r cubic MS.tif MS2.tif"
    )


def _corners(file: Any) -> list[tuple[float, float]]:
    a, b, c, d, e, f = tuple(file.transform)[:6]
    ends = itertools.product((0, file.width), (0, file.height))
    return [(a * col + b * row + c, d * col + e * row + f) for col, row in ends]


def _code(crs: Any) -> str:
    """A CRS for people: its code, else its name."""
    code = crs.to_epsg()
    if code:
        return f"EPSG:{code}"
    try:
        return str(crs.to_dict(projjson=True).get("name", "a CRS without a code"))
    except CRSError:
        return "a CRS without a code"


def _is_geographic(file: Any) -> bool:
    return bool(file.crs and file.crs.is_geographic)


# --- RPCs and control points ---


def _by_rpcs(pan: Any, ms: Any, ratio: int, relief: Relief) -> tuple[Array, tuple[str, ...]]:
    ground = relief.options(pan.rpcs)
    with (
        _explained(ms),
        RPCTransformer(pan.rpcs, **ground) as fine,
        RPCTransformer(ms.rpcs, **ground) as coarse,
    ):
        matrix = _through(coarse, fine, ms)
    placed = np.array([matrix[0, 2], matrix[1, 2]])
    half = (ratio - 1) / 2
    for reading in (placed, placed + half):
        if np.abs(reading - np.rint(reading)).max() <= _WHOLE:
            placed = np.rint(reading)
            break
    if (
        np.abs(placed).max() < ratio
        and np.abs(np.subtract(pan.shape, ratio * np.array(ms.shape))).max() < ratio
    ):
        return by_size(
            pan, ms, ratio
        ), ()  # within an MS pixel RPCs tell less than that the two were cut alike
    matrix[:2, 2] = placed
    note = f"by their RPCs{relief.said()} MS begins at PAN's row {placed[1]:.2f} and column {placed[0]:.2f}"
    return matrix, (note,)


def _by_gcps(pan: Any, ms: Any) -> tuple[Array, tuple[str, ...]]:
    (fine_points, fine_crs), (coarse_points, coarse_crs) = pan.gcps, ms.gcps
    places = [(point.x, point.y) for point in coarse_points]
    if fine_crs != coarse_crs and not (
        fine_crs and coarse_crs and same_place(fine_crs, coarse_crs, places, 1e-9)
    ):
        raise SceneError(f"{ms.name}: its control points are in another CRS than PAN's; bring both into one")
    with _explained(ms), GCPTransformer(fine_points) as fine, GCPTransformer(coarse_points) as coarse:
        matrix = _through(coarse, fine, ms)
    note = f"by their control points MS begins at PAN's row {matrix[1, 2]:.2f} and column {matrix[0, 2]:.2f}"
    return matrix, (note,)


def _through(coarse: Any, fine: Any, ms: Any) -> Array:
    """The straight relation from MS' pixel coordinates to PAN's, through the ground."""
    places = np.array(list(itertools.product(*(np.linspace(0, side, 3) for side in ms.shape))))
    xs, ys = coarse.xy(places[:, 0].tolist(), places[:, 1].tolist(), offset="ul")
    rows, cols = fine.rowcol(list(np.atleast_1d(xs)), list(np.atleast_1d(ys)), op=lambda value: value)
    found = np.stack([np.asarray(cols, np.float64), np.asarray(rows, np.float64)])
    if not np.isfinite(found).all():
        raise SceneError(
            f"{ms.name}: RPCs or control points lead nowhere in PAN; are the two of one acquisition?"
        )
    design = np.stack([places[:, 1], places[:, 0], np.ones(len(places))], axis=-1)
    fitted = np.linalg.lstsq(design, found.T, rcond=None)[0]
    matrix: Array = np.vstack([fitted.T, (0.0, 0.0, 1.0)])
    return matrix


@contextmanager
def _explained(ms: Any) -> Iterator[None]:
    try:
        yield
    except (RasterioError, ValueError) as error:
        raise SceneError(
            f"{ms.name}: RPCs or control points of PAN and MS cannot be used ({error}); mend or remove them"
        ) from error

"""What lies beside a product's name that GDAL and others take for a part of it?

Statistics and georeference (`.aux.xml`), overviews (`.ovr`), masks (`.msk`), world files, RPCs and vendors'
metadata are found by the image's name, and stay when the image is replaced. Left of an older product, they
show its pixels or its place for the new one's. Sources: GDAL's documentation of PAM, of the GTiff driver and
of its metadata readers; ArcGIS's of raster attribute tables.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from sfiin.runtime.errors import OutputError

SUFFIXES = (".tif", ".tiff", ".gtif", ".gtiff")
"""What a product may be called; it is a GeoTIFF, or a COG, which is one."""

_AFTER_NAME = re.compile(r"(\.(aux|ovr|msk|rrd|aux\.xml|xml|vat\.dbf|vat\.cpg|lock|tfw|wld))+")
_AFTER_STEM = re.compile(
    r"\.(aux|rrd|tfw|tifw|tiffw|wld|tab|prj|rpb|imd|pvl|rpc|eph|att|pass)|[._-]rpc\.(txt|xml)|_rpcs?\.txt|_mtl\.txt|_metadata\.(txt|xml)|\.(xml|dim)"
)


def check_name(output: Path) -> None:
    """Raise OutputError for a name whose ending says that the file is something else than a GeoTIFF."""
    if output.suffix and output.suffix.lower() not in SUFFIXES:
        raise OutputError(
            f"{output}: the product is a GeoTIFF, and '{output.suffix}' says something else; "
            f"name it {output.with_suffix('.tif').name}, and convert it afterwards, e.g. with gdal_translate"
        )


def parts(output: Path) -> list[Path]:
    """Files in the output's folder that would be taken for parts of it, by name."""
    if not output.parent.is_dir():
        return []
    files = {path.name: path for path in output.parent.iterdir() if not path.is_dir()}
    return [files[name] for name in named_as_parts(output.name, files)]


def named_as_parts(output: str, others: Iterable[str]) -> list[str]:
    """Those of other names in a folder that would be taken for parts of an output of a name."""
    name = output.lower()
    stem = name[: -len(Path(name).suffix)] if Path(name).suffix else name
    found = []
    for each in others:
        other = each.lower()
        after_name = other.startswith(name) and _AFTER_NAME.fullmatch(other[len(name) :])
        after_stem = other.startswith(stem) and _AFTER_STEM.fullmatch(other[len(stem) :])
        if other != name and (after_name or after_stem):
            found.append(each)
    return sorted(found)


def refuse(output: Path, overwrite: bool, inputs: Iterable[str] = ()) -> None:
    """Raise OutputError for what lies beside the output and would become a part of it.

    With `overwrite` only what is one of the scene's own files, `inputs`, is refused: the rest is removed with
    the older product (`remove`).
    """
    own = {Path(name).resolve() for name in inputs if Path(name).exists()}
    for path in parts(output):
        if path.resolve() in own:
            raise OutputError(
                f"{output}: {path.name} belongs to the scene, and would be taken for a part of the product; "
                "give another name"
            )
        if not overwrite:
            raise OutputError(
                f"{path}: is left of an older product, and would pass for a part of the new one; "
                "remove it, give another name, or replace both with --overwrite"
            )


def remove(output: Path) -> None:
    """Remove what lies beside the output. Raises OSError."""
    for path in parts(output):
        path.unlink(missing_ok=True)

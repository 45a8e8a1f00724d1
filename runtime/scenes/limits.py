"""Is a scene of a size that can be meant? Judged by what headers declare, before anything is allocated for
it.

A sparse TIFF of some kilobytes can declare two thousand million rows. Nothing here depends on what a file's
bytes would fill: a large scene of zeros is a scene.
"""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import SceneError

MOST_BANDS = 256
"""Of one file."""

MOST_SIDE = 2_000_000
"""Pixels along one axis: 600 km at 0.3 m."""

MOST_STEPS = 100_000
"""Tiles along one axis."""

MOST_TILES = 20_000_000

_PLACE = 16  # bytes for where a block lies and how long it is
_SHARE = 0.5  # of the memory that is there, for one row of blocks of a file


def check_file(file: Any, memory: int | None = None) -> None:
    """Raise SceneError for an open file whose sides, bands or blocks cannot be meant, or be held in `memory`
    bytes (None: what there is)."""
    name = Path(file.name).name
    if max(file.shape) > MOST_SIDE:
        raise SceneError(
            f"{name}: declares {file.height} x {file.width} pixels; {MOST_SIDE} along a side are done at "
            "most; check the file, or cut it into parts"
        )
    if file.count > MOST_BANDS:
        raise SceneError(f"{name}: declares {file.count} bands; a scene has {MOST_BANDS} at most")
    height, width = file.block_shapes[0]
    interleaved = file.interleaving is not None and file.interleaving.value == "PIXEL"
    block = height * width * np.dtype(_numpy(file.dtypes[0])).itemsize * (file.count if interleaved else 1)
    found = available_memory()
    there = memory if found is None else min(found, memory or found)
    if there is not None and block > _SHARE * there:
        raise SceneError(
            f"{name}: a block of {height} x {width} pixels takes {block >> 20} MiB, of {there >> 20} MiB "
            "there are; rewrite the file in tiles: gdal_translate -co TILED=YES"
        )
    blocks = -(-file.height // height) * -(-file.width // width) * (1 if interleaved else file.count)
    if there is not None and blocks * _PLACE > _SHARE * there:
        raise SceneError(
            f"{name}: {blocks} blocks of {height} x {width}, whose places alone take {blocks * _PLACE >> 20} "
            f"MiB, of {there >> 20} MiB there are; rewrite it in larger ones, such as with gdal_translate "
            "-co TILED=YES"
        )


def check_tiles(height: int, width: int, tile: Tile, ratio: int) -> None:
    """Raise SceneError for a scene of more tiles than can be meant."""
    down, across = (
        -(-length // max(1, (side - tile.overlap) // ratio * ratio))
        for length, side in ((height, tile.height), (width, tile.width))
    )
    if max(down, across) > MOST_STEPS or down * across > MOST_TILES:
        raise SceneError(
            f"the scene declares {height} x {width} pixels, {down} x {across} tiles; {MOST_TILES} tiles are "
            "done at most; check the files, or cut it into parts"
        )


def available_memory() -> int | None:
    """Bytes that a process may still take here: of the machine, or of its control group; None where it is
    not told."""
    found = []
    with suppress(OSError, AttributeError):
        text = Path("/proc/meminfo").read_text(encoding="ascii")
        match = re.search(r"MemAvailable:\s*(\d+) kB", text)
        if match:
            found.append(int(match[1]) * 1024)
    with suppress(OSError, ValueError):
        most = int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
        used = int(Path("/sys/fs/cgroup/memory.current").read_text(encoding="ascii"))
        found.append(max(0, most - used))
    return min(found) if found else None


def _numpy(dtype: str) -> str:
    return "complex64" if dtype.startswith("complex_int") else dtype

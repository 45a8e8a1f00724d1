"""How much memory does a run take, and how much may GDAL's cache have of it?

What grows with a scene is only its width: a strip one tile high, what waits to be written, and a row of the
files' blocks in GDAL's cache, without which every block would be read several times. The rest, Python with
the backend and its model, is measured once some tiles have run. The sum does not depend on the scene's
height.
"""

from __future__ import annotations

import os
import resource
import sys
from dataclasses import dataclass
from pathlib import Path

from sfiin.runtime.errors import InputError
from sfiin.runtime.scenes.pipeline import BATCHES_AHEAD, ROWS_BEHIND
from sfiin.runtime.scenes.product import creation_options
from sfiin.runtime.scenes.scene import Scene
from sfiin.runtime.scenes.tiles import TilePlan

MIB = 1 << 20

LEAST_CACHE = 32 * MIB

SLACK = 64 * MIB
"""For what is not counted: the allocator's fragments, GDAL's buffers, what a row's rounding takes for a
while."""


@dataclass(frozen=True)
class Budget:
    """Bytes: `base` of the process with the model, `buffers` of the pipeline, `cache` of GDAL."""

    base: int
    buffers: int
    cache: int

    @property
    def total(self) -> int:
        """The peak that is to be expected at most."""
        return self.base + self.buffers + self.cache + SLACK


def budget(scene: Scene, tiles: TilePlan, batch: int, base: int, limit: int | None = None) -> Budget:
    """What a run needs, with a cache that serves the scene's width, or as large as a `limit` in bytes leaves
    room for.

    Raises InputError, with the least that will do, where the limit is too low.
    """
    buffers = _buffers(scene, tiles, batch)
    wanted = max(LEAST_CACHE, _blocks(scene))
    if limit is None:
        return Budget(base, buffers, wanted)
    least = Budget(base, buffers, LEAST_CACHE).total
    if limit < least:
        raise InputError(
            f"--memory {in_mib(limit)}: this scene takes {in_mib(least)} at least "
            f"(Python and the model {in_mib(base)}, rows of {scene.width} pixels {in_mib(buffers)}, GDAL the "
            "rest); give more, a smaller --batch, or a model of a smaller tile"
        )
    return Budget(base, buffers, min(wanted, limit - Budget(base, buffers, 0).total))


def resident() -> int:
    """Bytes of memory that this process has now."""
    statm = Path("/proc/self/statm")
    if statm.is_file():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return peak()


def peak() -> int:
    """Bytes of memory that this process has had at most."""
    status = Path("/proc/self/status")
    if status.is_file():  # getrusage would also count what the parent had when it forked
        line = next(field for field in status.read_text().splitlines() if field.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def in_mib(size: int) -> str:
    """'512 MiB'."""
    return f"{-(-size // MIB)} MiB"


def _buffers(scene: Scene, tiles: TilePlan, batch: int) -> int:
    bands, item, width = len(scene.bands), scene.dtype.itemsize, tiles.cols[-1] + tiles.tile.width
    strip = (4 * bands + 1) * tiles.tile.height * width
    finished = (4 * bands + item * bands + 1) * tiles.tile.height * width
    blocks = 2 * item * bands * creation_options(scene.dtype)["blockysize"] * width
    rounding = 2 * 8 * tiles.tile.height * width
    pixels = tiles.tile.height * tiles.tile.width
    inputs = batch * 4 * pixels * (1 + bands / scene.sensor.ratio**2) + batch * pixels
    return int(strip + (ROWS_BEHIND + 2) * finished + blocks + rounding + (BATCHES_AHEAD + 3) * inputs)


def _blocks(scene: Scene) -> int:
    """Two rows of blocks of every file, which a row of tiles may touch, and one of the product's."""
    product = (
        creation_options(scene.dtype)["blockysize"] * scene.width * len(scene.bands) * scene.dtype.itemsize
    )
    return int(2 * scene.block_row + product)

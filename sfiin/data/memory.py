"""How much of the machine's memory may a set of images take?"""

from __future__ import annotations

import re
from pathlib import Path

from sfiin.runtime.errors import InputError


def affordable() -> int:
    """Bytes that a set may take here: half of what the machine has free, or 4 GiB where that is not known."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as file:
            found = re.search(r"MemAvailable:\s+(\d+) kB", file.read())
    except OSError:
        found = None
    return int(found[1]) * 512 if found else 4 << 30


def require_affordable(path: Path, size: int) -> None:
    """Raise InputError for a file whose images take more than that; `size` in bytes."""
    if size > (most := affordable()):
        raise InputError(
            f"{path}: holds {size / 2**30:.1f} GiB of images, more than half of the memory that is free "
            f"({most / 2**30:.1f} GiB); divide it into several files and give some of them"
        )

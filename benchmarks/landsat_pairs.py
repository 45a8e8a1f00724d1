"""Pairs of Landsat's blue, green, red and infrared bands, from pairs of all of a scene's bands.

    python benchmarks/landsat_pairs.py IN_DIR OUT_DIR

`IN_DIR` holds `.npz` pairs whose `meta` names Landsat bands (B1, B2, ...); those without infrared are left
out. Eight-bit DN (Landsat-7) become 16-bit, so that all pairs have one scale.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

OLI = ("B2", "B3", "B4", "B5")
ETM = ("B1", "B2", "B3", "B4")


def main(source: Path, target: Path) -> None:
    """Write the pairs that have all four bands, under their own names."""
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted(source.glob("*.npz")):
        with np.load(path) as file:
            pan, ms, meta = file["pan"], file["ms"], json.loads(str(file["meta"]))
        bands = [str(band) for band in meta["bands"]]
        wanted = ETM if "7" in str(meta["sensor"]) else OLI
        if not set(wanted) <= set(bands):
            print(f"{path.name}: has no infrared band, left out")
            continue
        gain = 257 if int(meta.get("nominal_bits", 16)) == 8 else 1
        meta |= {"bands": ["blue", "green", "red", "nir"], "nominal_bits": 16}
        chosen = ms[[bands.index(band) for band in wanted]] * np.uint16(gain)
        np.savez_compressed(target / path.name, pan=pan * np.uint16(gain), ms=chosen, meta=json.dumps(meta))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

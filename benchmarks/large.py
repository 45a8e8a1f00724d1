"""How long does a scene of 4,000 x 4,000 pixels take, by the native kernels, ONNX Runtime and GDAL's Brovey?

    python benchmarks/large.py -o benchmarks/large.json
    python benchmarks/large.py --table benchmarks/large.json

A simulated scene of 4 bands is fused by `sfiin run` with the shipped model, each time in a process of its
own, and by GDAL (weighted Brovey, as `gdal_pansharpen` does it). CPU time is of the process with all its
threads; on a machine that does other work it says more than the wall clock. The products of one backend must
be the same bytes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sfiin.runtime import models
from sfiin.runtime.backends import native
from sfiin.runtime.files import publish

RUNS = (("native", 1), ("native", 2), ("native", 4), ("cpu", 1))
GDAL = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import gdal
gdal._brovey(*map(Path, sys.argv[2:]))
"""


def main() -> None:
    """Measure and write, or print the table of a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/large.json"))
    parser.add_argument("--side", type=int, default=4000, help="PAN pixels a side")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(table(json.loads(options.table.read_text("utf-8"))))
        return
    from scenes import simulated

    with TemporaryDirectory() as name:
        folder = Path(name)
        pan, ms = simulated(folder, options.side)
        runs = [run(pan, ms, folder, *way) for way in RUNS]
        here = str(Path(__file__).parent)
        brovey = timed([sys.executable, "-c", GDAL, here, str(pan), str(ms), str(folder)])
        runs.append({"way": "GDAL, Brovey", "threads": 1, **brovey})
    document = {
        "command": "python benchmarks/large.py",
        "side": options.side,
        "model": models.choose(4, 4).name,
        "machine": platform.machine(),
        "cpus": os.cpu_count(),
        "native": native.instruction_set(),
        "runs": runs,
    }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
    print(table(document))


def run(pan: Path, ms: Path, folder: Path, provider: str, threads: int) -> dict[str, Any]:
    """One way by the command."""
    out = folder / "sharp.tif"
    command = [str(Path(sys.executable).with_name("sfiin")), "run", "--pan", str(pan), "--ms", str(ms)]
    command += ["-o", str(out), "--provider", provider, "--threads", str(threads), "--json", "--overwrite"]
    found = timed(command)
    report = json.loads(found.pop("said"))
    found = {"way": report["backend"], "threads": threads, **found}
    found |= {"peak_bytes": report["memory"]["peak"], "planned_bytes": report["memory"]["total"]}
    found["sha256"] = sha256(out.read_bytes()).hexdigest()
    print(json.dumps(found), file=sys.stderr, flush=True)
    return found


def timed(command: Sequence[str]) -> dict[str, Any]:
    """Wall-clock and CPU seconds of a process, and what it said."""
    before, began = os.times(), time.perf_counter()
    done = subprocess.run(command, capture_output=True, check=True)
    taken, after = time.perf_counter() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    said = {"said": done.stdout.decode()} if done.stdout else {}
    return {"seconds": round(taken, 1), "cpu_seconds": round(cpu, 1), **said}


def table(document: Mapping[str, Any]) -> str:
    """The measurements in Markdown."""
    lines = ["| by | threads | time | CPU time | peak memory | planned |", "|---" * 6 + "|"]
    for row in document["runs"]:
        memory = [
            f"{row[key] / 2**20:.0f} MiB" if key in row else "" for key in ("peak_bytes", "planned_bytes")
        ]
        cells = (
            row["way"],
            row["threads"],
            f"{row['seconds']:.0f} s",
            f"{row['cpu_seconds']:.0f} s",
            *memory,
        )
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()

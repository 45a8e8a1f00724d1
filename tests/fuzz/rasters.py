"""What does `sfiin run` do with rasters that are damaged at random? A seeded fuzzer over real command lines.

    python tests/fuzz/rasters.py --seeds 0:1000 --model runtime/models/sfiin-vhr4.onnx

Each seed makes a good scene, spoils one of its files (bytes, an IFD, geokeys, a sidecar, values), and runs
the command in a process of its own, forked from one that has everything imported, with time and memory
bounded. A run is right when it ends with a product that can be read, or with one line, a documented exit
code, and nothing left behind. Everything else is a finding: a traceback, a signal, a hang, leftovers. The
same seed makes the same scene.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from rasterio.errors import NotGeoreferencedWarning
from rasterio.transform import Affine

DOCUMENTED = {2, 3, 4, 5, 6, 7, 8, 9, 10}
SECONDS, WAIT, MEMORY = 30, 300, 2 << 30
"""What one run may take: seconds of the processor, seconds of the wall's clock, on a busy machine, and
bytes."""

ODD = (float("nan"), float("inf"), -float("inf"), 0.0, -0.0, 5e-310, 1e300, -1e300, 1e-30, -1.0, 1e10)
WORDS = (
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    16,
    255,
    256,
    32767,
    32768,
    65535,
    65536,
    1 << 24,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
)
GEO = (33550, 33922, 34264, 34735, 34736, 34737, 42112, 42113)
SIDECARS = (".aux.xml", ".ovr", ".msk", ".aux")
BESIDE = (".tfw", ".wld", ".RPB", "_RPC.TXT", "_rpc.txt", ".IMD", ".PVL", ".prj", ".XML", "_MTL.txt")


@dataclass(frozen=True)
class Outcome:
    """How a run of one seed ended: `kind` "right", "refused", or what is wrong, in words."""

    seed: int
    what: str
    kind: str
    seconds: float
    peak: int
    said: str


# --- a good scene ---


def scene(folder: Path, chance: random.Random) -> tuple[Path, Path]:
    """PAN and MS of 24 x 24 MS pixels, of a type and layout by chance."""
    dtype = chance.choice(["uint8", "uint16", "uint16", "int16", "float32", "float64"])
    top = 255 if dtype == "uint8" else 2047
    layout = chance.choice(
        [{}, {"tiled": True, "blockxsize": 16, "blockysize": 16}, {"blockysize": 1, "tiled": False}]
    )
    profile: dict[str, Any] = {
        "driver": "GTiff",
        "dtype": dtype,
        "crs": "EPSG:32650",
        "interleave": chance.choice(["pixel", "band"]),
    }
    profile |= layout | {"compress": chance.choice(["none", "deflate", "lzw", "packbits"])}
    profile |= {"BIGTIFF": chance.choice(["NO", "NO", "YES"])}
    generator = np.random.default_rng(chance.randrange(1 << 32))
    ground = generator.integers(top // 4, top // 2, (4, 24, 24))
    images = {"pan": ground.mean(0).repeat(4, 0).repeat(4, 1)[None], "ms": ground}
    for name, image in images.items():
        pixel = 0.5 if name == "pan" else 2.0
        where = Affine(pixel, 0, 5e5, 0, -pixel, 4e6)
        sizes = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
        with rasterio.open(folder / f"{name}.tif", "w", transform=where, **profile, **sizes) as file:
            file.write(image.astype(dtype))
    return folder / "pan.tif", folder / "ms.tif"


# --- damage ---


def some_bytes(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    reach = chance.choice([16, 256, len(content)])
    count = chance.choice([1, 2, 8, 64])
    for _ in range(count):
        content[chance.randrange(min(reach, len(content)))] = chance.choice([0, 255, chance.randrange(256)])
    path.write_bytes(content)
    return f"{count} bytes of the first {reach}"


def length(path: Path, chance: random.Random) -> str:
    size = path.stat().st_size
    new = chance.choice([0, 1, 4, 7, 8, chance.randrange(size), size - 1, size + 1000])
    with path.open("r+b") as file:
        file.truncate(new)
    return f"{new} bytes long"


def hole(path: Path, chance: random.Random) -> str:
    content = bytearray(path.read_bytes())
    first = chance.randrange(len(content))
    span = chance.randrange(1, 2000)
    content[first : first + span] = bytes([chance.choice([0, 255])]) * len(content[first : first + span])
    path.write_bytes(content)
    return f"a hole of {span} bytes at {first}"


def directory(path: Path, chance: random.Random) -> str:
    """One entry of the first directory: its tag, type, count or value."""
    content = bytearray(path.read_bytes())
    large = content[2] == 43
    first = struct.unpack_from("<Q" if large else "<I", content, 8 if large else 4)[0]
    number = struct.unpack_from("<Q" if large else "<H", content, first)[0]
    head, size = (8, 20) if large else (2, 12)
    entry = first + head + size * chance.randrange(number)
    part = chance.choice(["tag", "type", "count", "value", "next", "number", "same"])
    word = chance.choice(WORDS)
    tag = struct.unpack_from("<H", content, entry)[0]
    if part == "tag":
        struct.pack_into(
            "<H", content, entry, chance.choice([*GEO, 256, 257, 258, 259, 277, 322, 324, 330, 339])
        )
    elif part == "type":
        struct.pack_into("<H", content, entry + 2, chance.randrange(20))
    elif part == "count":
        struct.pack_into("<Q" if large else "<I", content, entry + 4, word)
    elif part == "value":
        struct.pack_into("<Q" if large else "<I", content, entry + (12 if large else 8), word)
    elif part == "next":
        after = first + head + size * number
        struct.pack_into("<Q" if large else "<I", content, after, chance.choice([first, 8, word]))
    elif part == "number":
        struct.pack_into("<Q" if large else "<H", content, first, word & 0xFFFF)
    else:
        other = first + head + size * chance.randrange(number)
        content[entry : entry + size] = content[other : other + size]
    path.write_bytes(content)
    return f"{part} of tag {tag}: {word}"


def place(path: Path, chance: random.Random) -> str:
    """The georeference: numbers of its tags, or keys of the coordinate system."""
    content = bytearray(path.read_bytes())
    if content[2] == 43:
        return directory(path, chance)
    first = struct.unpack_from("<I", content, 4)[0]
    entries = [first + 2 + 12 * i for i in range(struct.unpack_from("<H", content, first)[0])]
    chosen = [at for at in entries if struct.unpack_from("<H", content, at)[0] in GEO]
    if not chosen:
        return directory(path, chance)
    tag, kind, count, at = struct.unpack_from("<HHII", content, chance.choice(chosen))
    if kind == 12:
        value = chance.choice(ODD)
        struct.pack_into("<d", content, at + 8 * chance.randrange(count), value)
        word: object = value
    elif kind == 3 and count > 2:
        word = chance.choice(WORDS) & 0xFFFF
        struct.pack_into("<H", content, at + 2 * chance.randrange(count), int(str(word)))
    else:
        word = "text"
        content[at : at + count] = os.urandom(0) + bytes(chance.randrange(256) for _ in range(count))
    path.write_bytes(content)
    return f"georeference tag {tag}: {word}"


def sidecar(path: Path, chance: random.Random) -> str:
    name = (
        f"{path.name}{chance.choice(SIDECARS)}"
        if chance.random() < 0.6
        else path.stem + chance.choice(BESIDE)
    )
    number = chance.choice(ODD)
    content = chance.choice(
        [
            b"",
            bytes(chance.randrange(256) for _ in range(300)),
            b"<PAMDataset><SRS>broken</SRS><GeoTransform>"
            + ", ".join([str(number)] * 6).encode()
            + b"</GeoTransform>"
            b"</PAMDataset>",
            b"<PAMDataset><Metadata><MDI key='AREA_OR_POINT'>\xe9\xfc</MDI></Metadata>"
            b"<PAMRasterBand band='1'><NoDataValue>"
            + str(number).encode()
            + b"</NoDataValue><Scale>nan</Scale></PAMRasterBand></PAMDataset>",
            b"<PAMDataset><GCPList><GCP Id='' Pixel='nan' Line='1' X='inf' Y='1'/></GCPList></PAMDataset>",
            b"<PAMDataset>" * 3000,
            f"{number}\n0\n0\n{number}\n500000\n{number}\n".encode(),
            path.read_bytes()[: chance.randrange(1, 400)],
            b'satId = "QB02";\nbandId = "P";\nSpecId = "RPC00B";\nBEGIN_GROUP = IMAGE\n lineOffset = nan;\n',
            b"LINE_OFF: nan\nSAMP_OFF: 1e300\nLAT_OFF: inf\nLONG_OFF: x\n",
        ]
    )
    (path.parent / name).write_bytes(content)
    return f"{name} of {len(content)} bytes"


def values(path: Path, chance: random.Random) -> str:
    with rasterio.open(path, "r+") as file:
        image, dtype = file.read(), np.dtype(file.dtypes[0])
        count = chance.choice([1, 10, image.size // 3, image.size])
        spots = np.random.default_rng(chance.randrange(1 << 32)).choice(image.size, count, replace=False)
        odd = (
            chance.choice(ODD)
            if dtype.kind == "f"
            else chance.choice([np.iinfo(dtype).min, np.iinfo(dtype).max, 0])
        )
        with np.errstate(over="ignore"):
            image.ravel()[spots] = odd
        file.write(image)
        if chance.random() < 0.3:
            file.nodata = float(odd) if dtype.kind == "f" else int(odd)
    return f"{count} values of {odd}"


def located(path: Path, chance: random.Random) -> str:
    """Both files where no place is: odd numbers in the same terms of their transforms."""
    terms, odd = chance.sample(range(6), chance.choice([1, 2, 6])), chance.choice(ODD)
    for name, pixel in (("pan.tif", 0.5), ("ms.tif", 2.0)):
        numbers = [pixel, 0.0, 5e5, 0.0, -pixel, 4e6]
        for term in terms:
            numbers[term] = odd * (1 if term in (2, 5) else pixel)
        with (
            contextlib.suppress(rasterio.errors.RasterioError),
            rasterio.open(path.with_name(name), "r+") as file,
        ):
            file.transform = Affine(*numbers)
    return f"terms {sorted(terms)} of both transforms: {odd}"


def text(path: Path, chance: random.Random) -> str:
    """Names and tags in bytes that are no UTF-8."""
    with rasterio.open(path, "r+") as file:
        file.descriptions = tuple(f"band ZZZZ{i}" for i in file.indexes)
        file.update_tags(ACQUISITIONDATETIME="ZZZZ", AREA_OR_POINT="ZZZZ")
        file.update_tags(1, ns=chance.choice(["IMAGERY", "RPC", ""]), LINE_OFF="ZZZZ", NBITS="ZZZZ")
    odd = bytes(chance.choice([0xE9, 0xFC, 0x80, 0xFF, 0x01, 0x3C]) for _ in range(4))
    path.write_bytes(path.read_bytes().replace(b"ZZZZ", odd))
    return f"text with {odd!r}"


def swapped(path: Path, chance: random.Random) -> str:
    other = path.with_name("ms.tif" if path.name == "pan.tif" else "pan.tif")
    shutil.copy(other, path)
    return "the other file's content"


DAMAGE: tuple[Callable[[Path, random.Random], str], ...] = (
    *(some_bytes,) * 2,
    length,
    hole,
    *(directory,) * 3,
    *(place,) * 3,
    *(sidecar,) * 3,
    *(values,) * 2,
    swapped,
    *(located,) * 3,
    *(text,) * 2,
)


def spoil(folder: Path, seed: int) -> tuple[Path, Path, str]:
    """The scene of a seed: PAN, MS, and what is wrong with it."""
    chance = random.Random(seed)
    pan, ms = scene(folder, chance)
    damaged = chance.choice([pan, ms])
    damage = chance.choice(DAMAGE)
    return pan, ms, f"{damaged.name}: {damage.__name__}: {damage(damaged, chance)}"


# --- a run ---


def run(seed: int, model: Path, scratch: Path) -> Outcome:
    """Run one seed's scene; everything in `scratch` goes afterwards."""
    folder = Path(tempfile.mkdtemp(prefix=f"seed{seed}-", dir=scratch))
    (folder / "out").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NotGeoreferencedWarning)
        pan, ms, what = spoil(folder, seed)
    out = folder / "out" / "o.tif"
    words = ["run", "--pan", pan, "--ms", ms, "-o", out, "--model", model, "--threads", "1"]
    began = time.monotonic()
    code, peak, said = _forked([str(word) for word in words], folder / "said")
    seconds = time.monotonic() - began
    kind = _verdict(code, said, out)
    shutil.rmtree(folder)
    return Outcome(seed, what, kind, seconds, peak, said[-300:])


def _forked(words: list[str], said: Path) -> tuple[int | None, int, str]:
    """Exit code (negative: a signal, of which SIGXCPU or SIGKILL say that it took too long; None: it waits
    for something), peak memory in bytes, and what was printed."""
    child = os.fork()
    if child == 0:
        _become(words, said)
    deadline = time.monotonic() + WAIT
    while True:
        done, status, usage = os.wait4(child, os.WNOHANG)
        if done:
            break
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            _, _, usage = os.wait4(child, 0)
            return None, usage.ru_maxrss * 1024, said.read_text(errors="replace")
        time.sleep(0.005)
    return os.waitstatus_to_exitcode(status), usage.ru_maxrss * 1024, said.read_text(errors="replace")


def _become(words: list[str], said: Path) -> None:
    """In the child: be the command."""
    code = 70
    try:
        target = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, 1)
        os.dup2(target, 2)
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        used = int(sum(resource.getrusage(resource.RUSAGE_SELF)[:2]))
        resource.setrlimit(resource.RLIMIT_CPU, (used + SECONDS, used + SECONDS + 5))
        sys.argv = ["sfiin", *words]
        warnings.resetwarnings()
        from sfiin.runtime.cli import main

        try:
            main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
        except BaseException:
            import traceback

            traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _verdict(code: int | None, said: str, out: Path) -> str:
    if code is None:
        return "hangs"
    if code < 0:
        return f"ends by {signal.Signals(-code).name}"
    if "Traceback" in said:
        return "traceback: " + said.strip().splitlines()[-1][:150]
    return _of_product(out) if code == 0 else _of_refusal(code, said, out)


def _of_product(out: Path) -> str:
    try:
        with rasterio.open(out) as file:
            file.read()
    except rasterio.errors.RasterioError as error:
        return f"a product that cannot be read: {error}"
    return "right"


def _of_refusal(code: int, said: str, out: Path) -> str:
    left = [path.name for path in out.parent.iterdir()]
    if left:
        return f"left behind: {left}"
    lines = [line for line in said.splitlines() if line.startswith("sfiin: error:")]
    return "refused" if code in DOCUMENTED and len(lines) == 1 else f"exit code {code}, {len(lines)} lines"


def fuzz(seeds: range, model: Path, scratch: Path) -> list[Outcome]:
    """All seeds, one after another."""
    import onnxruntime  # noqa: F401 - once for all forks

    import sfiin.runtime.commands.run
    import sfiin.runtime.station.runner  # noqa: F401

    return [run(seed, model, scratch) for seed in seeds]


def summary(outcomes: list[Outcome]) -> dict[str, object]:
    """Counts and the worst, for people and for a nightly run's record."""
    findings = [outcome for outcome in outcomes if outcome.kind not in ("right", "refused")]
    return {
        "seeds": len(outcomes),
        "right": sum(outcome.kind == "right" for outcome in outcomes),
        "refused": sum(outcome.kind == "refused" for outcome in outcomes),
        "findings": [vars(outcome) for outcome in findings],
        "kinds": dict(Counter(outcome.kind.split(":")[0] for outcome in outcomes)),
        "slowest_seconds": round(max(outcome.seconds for outcome in outcomes), 2),
        "largest_mib": max(outcome.peak for outcome in outcomes) >> 20,
    }


def main() -> None:
    """Run a range of seeds; the exit code is 1 where there is a finding."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", default="0:1000", help="first:last, the last one not included")
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    first, last = map(int, arguments.seeds.split(":"))
    with tempfile.TemporaryDirectory() as scratch:
        outcomes = fuzz(range(first, last), arguments.model.absolute(), Path(scratch))
    found = summary(outcomes)
    print(json.dumps(found, indent=2))
    sys.exit(1 if found["findings"] else 0)


if __name__ == "__main__":
    main()

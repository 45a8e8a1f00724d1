"""Does every scene come out exactly once, whatever a night does to the station? Rounds of chaos, by a seed.

    python tests/chaos/station.py --rounds 25 --model runtime/models/sfiin-vhr4.onnx

Each round has an inbox with scenes that keep arriving, two watchers, and misfortune by chance: a watcher or
its worker is killed, or stopped for a while; the outbox, a small tmpfs where mounting is permitted, is full,
or read-only; the inbox is away; files have dates of other years; the watchers' clock jumps by years, ahead
and back, where libfaketime is there (Debian: `faketime`). Then the watchers are left alone, started again
where they are gone, until nothing is left to do. A round is right when every scene has ended in `.done`, its
product is the same to the byte as that of an undisturbed run, it was made once, its quick-look and its
document are there and true, and nothing else is left anywhere.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

PATIENCE = 600
"""Seconds in which a round must have come to its end."""

SCENES, MISFORTUNES = 6, 8
ROOM = 24 << 20
"""Bytes of the outbox where it is a tmpfs of its own."""

CLOCK = next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))), None)
"""What moves a process' clock, without touching the machine's."""


def scene(folder: Path, seed: int, side: int) -> None:
    """PAN and MS of side x side MS pixels, by the seed."""
    folder.mkdir()
    random_numbers = np.random.default_rng(seed)
    ms = random_numbers.integers(300, 900, (4, side, side)).astype(np.uint16)
    pan = ms.mean(0).repeat(4, 0).repeat(4, 1)[None].astype(np.uint16)
    for name, image, pixel in (("pan", pan, 0.5), ("ms", ms, 2.0)):
        profile = {"driver": "GTiff", "dtype": "uint16", "crs": "EPSG:32650", "compress": "deflate"}
        sizes = {"count": len(image), "height": image.shape[1], "width": image.shape[2]}
        where = Affine(pixel, 0, 5e5, 0, -pixel, 4e6)
        with rasterio.open(folder / f"{name}.tif", "w", transform=where, **profile, **sizes) as file:
            file.write(image)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Round:
    """One inbox, one outbox, two watchers."""

    def __init__(self, folder: Path, seed: int, model: Path, prepared: Path) -> None:
        self.chance = random.Random(seed)
        self.inbox, self.outbox = folder / "in", folder / "out"
        self.inbox.mkdir()
        self.outbox.mkdir()
        self.folder, self.model, self.prepared = folder, model, prepared
        self.watchers: list[subprocess.Popen[bytes]] = []
        self.coming = sorted(path.name for path in prepared.iterdir() if path.is_dir())
        self.names = list(self.coming)
        self.met: Counter[str] = Counter()
        self.starts = 0
        self.clock = folder / "clock"
        self.clock.write_text("+0")

    # --- watchers ---

    def start(self) -> None:
        """Have two watchers."""
        self.watchers = [watcher for watcher in self.watchers if watcher.poll() is None]
        while len(self.watchers) < 2:
            self.starts += 1
            command = [sys.executable, "-c", "from sfiin.runtime.cli import main; main()", "watch"]
            options = ["--poll", "0.2", "--settle", "0.5", "--quicklook", "--threads", "1", "--quiet"]
            where = ["--model", str(self.model), "--log", str(self.folder / f"log-{self.starts}")]
            with (self.folder / f"errors-{self.starts}").open("wb") as errors:
                words = [*command, str(self.inbox), str(self.outbox), *options, *where]
                self.watchers.append(
                    subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=errors, env=self._environment())
                )

    def _environment(self) -> dict[str, str]:
        """One in which the wall clock is the one of the file `clock`; the monotonic one is nobody's to
        set."""
        moved = {
            "LD_PRELOAD": str(CLOCK),
            "FAKETIME_TIMESTAMP_FILE": str(self.clock),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        return os.environ | (moved if CLOCK else {})

    def stop(self) -> None:
        for watcher in self.watchers:
            watcher.send_signal(signal.SIGTERM)
        for watcher in self.watchers:
            self._see_off(watcher)

    def _see_off(self, watcher: subprocess.Popen[bytes]) -> None:
        try:
            watcher.wait(20)
        except subprocess.TimeoutExpired:
            watcher.kill()
            watcher.wait()
            self.met["did not leave in 20 s"] += 1

    # --- misfortune ---

    def deliver(self) -> None:
        """The next scene comes, as a copy that grows, with READY or without, with dates of any year."""
        if not self.coming:
            return
        name = self.coming.pop(0)
        hidden = self.inbox / f".coming-{name}"
        shutil.copytree(self.prepared / name, hidden)
        if self.chance.random() < 0.5:
            (hidden / "READY").touch()
        stamp = time.time() + self.chance.choice([-30, 0, 30]) * 365 * 86400
        os.utime(hidden / "pan.tif", (stamp, stamp))
        hidden.rename(self.inbox / name)

    def kill(self) -> None:
        self.chance.choice(self.watchers).kill()

    def kill_both(self) -> None:
        for watcher in self.watchers:
            watcher.kill()

    def kill_worker(self) -> None:
        watcher = self.chance.choice(self.watchers)
        with contextlib.suppress(OSError, IndexError):
            children = Path(f"/proc/{watcher.pid}/task/{watcher.pid}/children").read_text().split()
            os.kill(int(children[0]), signal.SIGKILL)

    def freeze(self) -> None:
        watcher = self.chance.choice(self.watchers)
        watcher.send_signal(signal.SIGSTOP)
        time.sleep(self.chance.uniform(0.5, 2))
        watcher.send_signal(signal.SIGCONT)

    def ask_to_leave(self) -> None:
        self.chance.choice(self.watchers).send_signal(signal.SIGTERM)

    def fill(self) -> None:
        """The outbox is full for a while; only where it is a file system of its own."""
        if not self.outbox.is_mount():
            return
        filler = self.outbox / "filler"
        with contextlib.suppress(OSError), filler.open("wb") as file:
            while True:
                file.write(bytes(1 << 16))
                file.flush()
        time.sleep(self.chance.uniform(1, 3))
        filler.unlink()

    def lock_outbox(self) -> None:
        """The outbox is read-only for a while; only where it is a file system of its own."""
        if not self.outbox.is_mount():
            return
        remount = ["mount", "-o", "remount,{}", "none", str(self.outbox)]
        # Where a file is open for writing the system refuses; then nothing has happened.
        subprocess.run([word.format("ro") for word in remount], capture_output=True, check=False)
        time.sleep(self.chance.uniform(0.5, 2))
        subprocess.run([word.format("rw") for word in remount], capture_output=True, check=True)

    def move_clock(self) -> None:
        """The watchers' clock jumps, and files in the inbox are of another time than it."""
        days = self.chance.choice([-20000, -3650, -1, 1, 400, 3650])
        fresh = self.clock.with_suffix(".new")
        fresh.write_text(f"{days:+}d")
        fresh.replace(self.clock)
        stamp = time.time() + self.chance.choice([-3650, 3650]) * 86400
        for path in self.inbox.glob("*/*.tif"):
            with contextlib.suppress(OSError):  # it may be taken
                os.utime(path, (stamp, stamp))

    def take_away(self) -> None:
        """The share with the inbox is gone for a while."""
        away = self.folder / "away"
        self.inbox.rename(away)
        time.sleep(self.chance.uniform(0.5, 2))
        away.rename(self.inbox)

    def play(self) -> None:
        """Scenes, watchers and misfortune, in any order."""
        kinds = [
            self.kill,
            self.kill_both,
            self.kill_worker,
            self.freeze,
            self.ask_to_leave,
            self.fill,
            self.lock_outbox,
            self.take_away,
            self.move_clock,
        ]
        misfortunes = self.chance.choices(kinds, k=MISFORTUNES)
        self.start()
        for misfortune in misfortunes:
            for _ in range(self.chance.randrange(3)):
                self.deliver()
            time.sleep(self.chance.uniform(0.2, 2.5))
            self.start()
            misfortune()
            self.met[misfortune.__name__] += 1
        while self.coming:
            self.deliver()
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end and not self.is_over():
            self.start()
            time.sleep(0.2)
        self.stop()

    def is_over(self) -> bool:
        ended = sum(len(list((self.inbox / end).glob("*"))) for end in (".done", ".failed"))
        return ended >= len(self.names)

    # --- judging ---

    def faults(self, right: dict[str, str]) -> list[str]:
        """What is not as it should be."""
        found = []
        if sorted(path.name for path in self.inbox.iterdir()) != [".done"]:
            found.append(
                f"inbox: {sorted(str(path.relative_to(self.inbox)) for path in self.inbox.glob('*/*'))}"
            )
        done = sorted(path.name for path in (self.inbox / ".done").glob("*"))
        if done != self.names:
            found.append(f"done: {done}")
        wanted = {f"{name}{suffix}" for name in self.names for suffix in (".tif", ".png", ".done.json")}
        there = {path.name for path in self.outbox.iterdir()}
        if there != wanted:
            found.append(f"outbox: too much {sorted(there - wanted)}, too little {sorted(wanted - there)}")
        for name in self.names:
            found += self._faults_of(name, right[name])
        made = Counter(self._made())
        found += [f"{name}: made {count} times" for name, count in made.items() if count > 1]
        for path in self.folder.glob("errors-*"):
            if _ended_by_clock(path):
                self.met["ended by libfaketime itself"] += 1
            elif b"Traceback" in path.read_bytes():
                found.append(f"{path.name}: {path.read_text(errors='replace')[-400:]}")
        return found

    def _faults_of(self, name: str, right: str) -> Iterator[str]:
        product, document = self.outbox / f"{name}.tif", self.outbox / f"{name}.done.json"
        if not product.is_file() or not document.is_file():
            return
        if sha256(product) != right:
            yield f"{name}: another product"
        told = json.loads(document.read_text())
        for entry in (told["product"], *told["companions"].values()):
            if sha256(self.outbox / entry["name"]) != entry["sha256"]:
                yield f"{name}: {entry['name']} is not what its document says"

    def _made(self) -> Iterator[str]:
        """Scenes whose product was made, each time that it was."""
        for path in self.folder.glob("log-*"):
            for line in path.read_text(errors="replace").splitlines():
                with contextlib.suppress(ValueError):  # the end of a line may be missing after a kill
                    event = json.loads(line)
                    if event["event"] == "done" and event["report"]["standing"] == "new":
                        yield Path(event["output"]).stem


def _ended_by_clock(errors: Path) -> bool:
    """Whether a watcher was ended by what moves its clock: libfaketime refuses sleeps until a moment that has
    just passed, which the kernel takes. To the scenes it is a crash like another."""
    lines = errors.read_text(errors="replace").rstrip().splitlines()[-2:]
    return CLOCK is not None and lines == ["    time.sleep(delay)", "OSError: [Errno 22] Invalid argument"]


@contextlib.contextmanager
def mounted(folder: Path) -> Iterator[bool]:
    """The outbox as a small tmpfs; whether that is permitted here."""
    words = ["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "none", str(folder)]
    permitted = os.geteuid() == 0 and shutil.which("mount") is not None
    permitted = permitted and subprocess.run(words, capture_output=True, check=False).returncode == 0
    try:
        yield permitted
    finally:
        if permitted:
            subprocess.run(["umount", "-l", str(folder)], check=True)


def prepare(folder: Path, model: Path) -> dict[str, str]:
    """Scenes, and what their products must be: digests by name."""
    right = {}
    for number in range(SCENES):
        name = f"s{number}"
        scene(folder / name, number, 120 if number % 3 else 24)
        output = folder / f"{name}.tif"
        command = [sys.executable, "-c", "from sfiin.runtime.cli import main; main()", "run", "--quiet"]
        files = ["--pan", str(folder / name / "pan.tif"), "--ms", str(folder / name / "ms.tif")]
        rest = ["-o", str(output), "--model", str(model), "--threads", "1"]
        subprocess.run([*command, *files, *rest], check=True)
        right[name] = sha256(output)
        output.unlink()
        output.with_suffix(".done.json").unlink()
    return right


def play(rounds: range, model: Path, scratch: Path) -> dict[str, object]:
    """All rounds; counts, and what was wrong."""
    prepared = scratch / "prepared"
    prepared.mkdir()
    right = prepare(prepared, model)
    faults: dict[int, list[str]] = {}
    met: Counter[str] = Counter()
    starts, could_be_full, began = 0, False, time.monotonic()
    for seed in rounds:
        folder = scratch / f"round{seed}"
        folder.mkdir()
        one = Round(folder, seed, model, prepared)
        with mounted(one.outbox) as is_small:
            could_be_full = is_small
            one.play()
            found = one.faults(right)
        if found:
            faults[seed] = found
        else:
            shutil.rmtree(folder)
        met += one.met
        starts += one.starts
    return {
        "rounds": len(rounds),
        "scenes": len(rounds) * SCENES,
        "watchers_started": starts,
        "misfortunes": dict(met),
        "outbox_could_be_full": could_be_full,
        "clock_moved_by": "libfaketime" if CLOCK else "dates of files alone",
        "rounds_with_faults": faults,
        "seconds": round(time.monotonic() - began),
    }


def main() -> None:
    """Play rounds; the exit code is 1 where one was wrong, and its folder stays."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--first", type=int, default=0, help="the first round's seed")
    parser.add_argument("--model", type=Path, required=True)
    arguments = parser.parse_args()
    scratch = Path(tempfile.mkdtemp(prefix="chaos-"))
    seeds = range(arguments.first, arguments.first + arguments.rounds)
    found = play(seeds, arguments.model.absolute(), scratch)
    print(json.dumps(found, indent=2))
    if found["rounds_with_faults"]:
        print(f"what is left: {scratch}", file=sys.stderr)
        sys.exit(1)
    shutil.rmtree(scratch)


if __name__ == "__main__":
    main()

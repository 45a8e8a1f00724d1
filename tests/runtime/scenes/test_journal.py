"""What a run keeps and goes on from; and a real run, killed at random moments."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from sfiin.runtime.errors import (
    MismatchError,
    OutputError,
    SceneError,
    SfiinError,
    StoppedError,
    UnavailableError,
)
from sfiin.runtime.scenes.journal import discard, journal

KILLS = 25


def row(i: int) -> dict[str, np.ndarray]:
    return {"bands": np.full((2, 3, 4), i), "nodata": np.array(i)}


def left(i: int) -> dict[str, np.ndarray]:
    return {"total": np.full((2, 2), i / 3)}


def interrupted(out: Path, about: dict[str, int], count: int) -> None:
    """A run that keeps so many rows and fails."""
    with pytest.raises(KeyboardInterrupt), journal(out, about) as book:
        book.part.write_bytes(b"half a product")
        for i in range(count):
            book.keep(row(i), left(i))
        raise KeyboardInterrupt


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.tif"


def folder_of(out: Path) -> Path:
    return out.with_name(".out.tif.sfiin")


def test_a_finished_run_leaves_its_product_only(out: Path) -> None:
    with journal(out, {"a": 1}) as book:
        assert (book.rows, book.begun) == (0, "")
        book.keep(row(0), left(0))
        book.part.write_bytes(b"product")
    assert [path.name for path in out.parent.iterdir()] == ["out.tif"]
    assert out.read_bytes() == b"product"


def test_rows_come_back(out: Path) -> None:
    interrupted(out, {"a": 1}, 3)
    assert not out.exists()
    with journal(out, {"a": 1}) as book:
        assert (book.rows, book.begun) == (3, "resumed after 3 rows of tiles")
        assert not book.part.exists()
        for i in range(3):
            np.testing.assert_array_equal(book.row(i)["bands"], row(i)["bands"])
        np.testing.assert_array_equal(book.left()["total"], left(2)["total"])
        book.keep(row(3), left(3))
        book.part.write_bytes(b"product")
    assert [path.name for path in out.parent.iterdir()] == ["out.tif"]


def test_without_rows_nothing_stays(out: Path) -> None:
    interrupted(out, {"a": 1}, 0)
    assert not list(out.parent.iterdir())


def test_only_the_last_remainder_is_kept(out: Path) -> None:
    interrupted(out, {"a": 1}, 5)
    assert sorted(path.name for path in folder_of(out).glob("left-*")) == ["left-000004.npz"]


def test_another_run_begins_anew(out: Path) -> None:
    interrupted(out, {"a": 1}, 3)
    with journal(out, {"a": 2}) as book:
        assert book.rows == 0
        assert "other inputs, model or settings" in book.begun
        assert not list(folder_of(out).glob("row-*"))
        book.part.write_bytes(b"")


@pytest.mark.parametrize("name", ["row-000001.npz", "left-000002.npz"])
@pytest.mark.parametrize("damage", [b"", b"PK no zip", None])
def test_what_is_damaged_is_dropped(out: Path, name: str, damage: bytes | None) -> None:
    interrupted(out, {"a": 1}, 3)
    path = folder_of(out) / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(bytes(content) if damage is None else damage)
    with journal(out, {"a": 1}) as book:
        assert book.rows == 0
        assert "damaged" in book.begun
        book.part.write_bytes(b"")


def test_rows_in_another_order_are_dropped(out: Path) -> None:
    interrupted(out, {"a": 1}, 3)
    one, other = (folder_of(out) / f"row-00000{i}.npz" for i in (0, 1))
    content = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(content)
    with journal(out, {"a": 1}) as book:
        assert book.rows == 0
        book.part.write_bytes(b"")


@pytest.mark.parametrize("name", ["row-000001.npz", "left-000002.npz"])
def test_rows_of_another_run_are_dropped(out: Path, name: str) -> None:
    interrupted(out, {"a": 2}, 3)
    content = (folder_of(out) / name).read_bytes()
    with journal(out, {"a": 1}) as book:
        book.part.write_bytes(b"")
    interrupted(out, {"a": 1}, 3)
    (folder_of(out) / name).write_bytes(content)
    with journal(out, {"a": 1}) as book:
        assert book.rows == 0
        book.part.write_bytes(b"")


def test_a_row_that_was_altered_well_formed_is_dropped(out: Path) -> None:
    interrupted(out, {"a": 1}, 2)
    path = folder_of(out) / "row-000000.npz"
    with np.load(path) as content:
        arrays = dict(content)
    arrays["bands"][0, 0, 0] += 1
    np.savez(path, **arrays)
    with journal(out, {"a": 1}) as book:
        assert book.rows == 0
        book.part.write_bytes(b"")


def test_a_link_in_the_folders_place_is_refused(out: Path) -> None:
    victim = out.parent / "victim"
    victim.mkdir()
    (victim / "precious").write_text("precious")
    folder_of(out).symlink_to(victim)
    with pytest.raises(OutputError, match="is a link"), journal(out, {"a": 1}):
        pass
    discard(out)
    assert (victim / "precious").read_text() == "precious"


def test_links_in_the_folder_are_not_written_through(out: Path) -> None:
    victim = out.parent / "victim"
    victim.write_text("precious")
    interrupted(out, {"a": 1}, 1)
    for name in ("row-000001.new", "left-000001.new", "about.new", "product.tif"):
        (folder_of(out) / name).symlink_to(victim)
    with journal(out, {"a": 1}) as book:
        assert book.rows == 1
        book.keep(row(1), left(1))
        book.part.write_bytes(b"product")
    assert victim.read_text() == "precious"
    assert out.read_bytes() == b"product"


@pytest.mark.parametrize(
    ("error", "stays"),
    [
        (SceneError("dark"), False),
        (MismatchError("clipped"), False),
        (SfiinError("not finite"), False),
        (StoppedError("stopped"), True),
        (UnavailableError("no device"), True),
        (OutputError("full"), True),
        (MemoryError(), True),
    ],
)
def test_a_verdict_leaves_no_rows_behind(out: Path, error: Exception, stays: bool) -> None:
    with pytest.raises(type(error)), journal(out, {"a": 1}) as book:
        book.keep(row(0), left(0))
        raise error
    assert [path.name for path in out.parent.iterdir()] == ([f".{out.name}.sfiin"] if stays else [])


def test_what_was_left_after_the_end_is_taken_away(out: Path) -> None:
    interrupted(out, {"a": 1}, 2)
    with journal(out.with_name("other.tif"), {"a": 1}) as book:
        discard(out.with_name("other.tif"))
        book.part.write_bytes(b"")
    assert out.with_name("other.tif").is_file()
    discard(out)
    assert not folder_of(out).exists()
    discard(out)


def test_without_locks_it_goes_on(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("sfiin.runtime.scenes.journal.fcntl.flock", none)
    with journal(out, {"a": 1}) as book:
        book.part.write_bytes(b"product")
    assert out.read_bytes() == b"product"


def test_a_part_that_went_is_told(out: Path) -> None:
    with pytest.raises(OutputError, match="cannot be written"), journal(out, {"a": 1}) as book:
        book.keep(row(0), left(0))


def test_a_file_that_was_being_written_does_not_count(out: Path) -> None:
    interrupted(out, {"a": 1}, 2)
    (folder_of(out) / "row-000002.new").write_bytes(b"half")
    with journal(out, {"a": 1}) as book:
        assert book.rows == 2
        book.part.write_bytes(b"")


def test_one_process_at_a_time(out: Path) -> None:
    def second() -> None:
        with journal(out, {"a": 1}):
            pass

    with journal(out, {"a": 1}) as book:
        with pytest.raises(OutputError, match="another process is writing it"):
            second()
        book.part.write_bytes(b"")


def test_what_cannot_be_written_is_told_and_kept(out: Path) -> None:
    def full() -> None:
        with journal(out, {"a": 1}) as book:
            book.keep(row(0), left(0))
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"No space left on device.*what is done is kept"):
        full()
    with journal(out, {"a": 1}) as book:
        assert book.rows == 1
        book.part.write_bytes(b"")
    (out.parent / "file").write_text("")
    with pytest.raises(OutputError), journal(out.parent / "file" / "out.tif", {}):
        pass


# --- a real run ---


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[list[str]]:
    """Arguments of `sfiin run` for a scene of 50 rows of four tiles."""
    generator = np.random.default_rng(3)
    for name, pixel, shape in (("pan", 1.0, (1, 1200, 96)), ("ms", 4.0, (4, 300, 24))):
        profile = {
            "driver": "GTiff",
            "count": shape[0],
            "height": shape[1],
            "width": shape[2],
            "dtype": "uint16",
            "crs": "EPSG:32650",
            "transform": Affine(pixel, 0.0, 5e5, 0.0, -pixel, 4e6),
        }
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile) as file:
            file.write(generator.integers(100, 900, shape).astype(np.uint16))
    yield ["--pan", str(tmp_path / "pan.tif"), "--ms", str(tmp_path / "ms.tif"), "--threads", "1"]


def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(
    scene: list[str], small_model: Path, tmp_path: Path
) -> None:
    """Each kill comes after a random number of new rows and a random time; whole runs until there were 25
    kills."""
    generator = random.Random(11)
    command = [
        sys.executable,
        "-c",
        "from sfiin.runtime.cli import main; main()",
        "run",
        *scene,
        "--model",
        str(small_model),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    plain = tmp_path / "plain.tif"
    subprocess.run([*command, "-o", str(plain), "--quiet"], check=True, env=environment)
    kills = resumed = 0
    while kills < KILLS:
        out = tmp_path / f"out{kills}.tif"
        folder = out.with_name(f".{out.name}.sfiin")
        while not out.exists():
            process = subprocess.Popen(
                [*command, "-o", str(out)], stdout=subprocess.PIPE, env=environment, text=True
            )
            if kills < KILLS and killed(process, folder, generator):
                kills += 1
                assert not out.exists()
            said, _ = process.communicate()
            resumed += "resumed after" in said
        assert out.read_bytes() == plain.read_bytes()
    assert resumed > 0
    assert not list(tmp_path.glob(".*"))


def killed(process: subprocess.Popen[str], folder: Path, generator: random.Random) -> bool:
    """Whether the process was still there to be killed."""
    wanted = len(list(folder.glob("row-*"))) + generator.randrange(15)
    while process.poll() is None and len(list(folder.glob("row-*"))) < wanted:
        time.sleep(0.001)
    time.sleep(generator.uniform(0, 0.02))
    process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL

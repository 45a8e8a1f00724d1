"""Scenes as they come: completeness, renames, links of strangers, and ends."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sfiin.runtime.errors import InputError, OutputError
from sfiin.runtime.station.inbox import READY, Inbox


class Box:
    """Two folders, and a clock that a test moves."""

    def __init__(self, folder: Path) -> None:
        self.inbox, self.outbox = folder / "in", folder / "out"
        self.inbox.mkdir()
        self.outbox.mkdir()
        self.now = 1000.0

    def open(self) -> Inbox:
        return Inbox(self.inbox, self.outbox, settle=10, clock=lambda: self.now)

    def scene(self, name: str, *files: str) -> Path:
        folder = self.inbox / name
        folder.mkdir()
        for file in files or ("pan.tif", "ms.tif"):
            (folder / file).write_text("")
        return folder


@pytest.fixture
def box(tmp_path: Path) -> Box:
    return Box(tmp_path)


def settled(inbox: Inbox) -> list[str]:
    return sorted(name for name, seen in inbox.look().items() if inbox.is_settled(seen))


def test_a_scene_is_complete_when_it_was_seen_to_be_quiet_or_says_so(box: Box) -> None:
    box.scene("b")
    box.scene("a", "pan.tif", "ms.tif", READY)
    (box.inbox / "file.txt").write_text("")
    inbox = box.open()
    assert settled(inbox) == ["a"]
    box.now += 9
    (box.inbox / "b" / "ms.tif").write_text("more")
    assert settled(inbox) == ["a"]
    box.now += 9
    assert settled(inbox) == ["a"]
    box.now += 1
    assert settled(inbox) == ["a", "b"]


@pytest.mark.parametrize("years", [-30, 30])
def test_dates_of_files_do_not_count(box: Box, years: int) -> None:
    folder = box.scene("a")
    stamp = (folder / "pan.tif").stat().st_mtime + years * 365 * 86400
    os.utime(folder / "pan.tif", (stamp, stamp))
    inbox = box.open()
    assert settled(inbox) == []
    box.now += 10
    assert settled(inbox) == ["a"]


def test_what_grows_in_a_folder_inside_is_seen(box: Box) -> None:
    inside = box.scene("a") / "IMG_001"
    inside.mkdir()
    inbox = box.open()
    inbox.look()
    box.now += 10
    (inside / "tile.tif").write_text("")
    assert settled(inbox) == []


def test_only_one_takes_a_scene(box: Box) -> None:
    box.scene("a", READY)
    first, second = box.open(), box.open()
    first.look()
    taken = first.take("a")
    assert taken is not None
    assert taken.name == "a"
    assert second.take("a") is None
    assert second.recover() == []
    for inbox in (first, second):
        inbox.leave()
    assert taken.is_dir(), "what is still taken stays"


def test_what_a_process_that_is_gone_had_taken_comes_back(box: Box) -> None:
    box.scene("a", READY)
    box.scene("b", READY)
    first = box.open()
    first.take("a")
    first.take("b")
    box.scene("b", READY)
    second = box.open()
    assert second.recover() == []
    first.claim._release()  # as the kernel does for one that is gone
    assert second.recover() == ["a", "b"]
    assert sorted(path.name for path in box.inbox.iterdir() if not path.name.startswith(".")) == [
        "a",
        "b",
        "b.2",
    ]
    assert not list(box.inbox.glob(".taken-*"))


def test_ends(box: Box) -> None:
    for name in ("good", "bad"):
        box.scene(name)
    inbox = box.open()
    for name, error in (("good", None), ("bad", "it is dark")):
        taken = inbox.take(name)
        assert taken is not None
        inbox.end(taken, error)
    box.scene("bad")
    taken = inbox.take("bad")
    assert taken is not None
    inbox.end(taken, "again")
    inbox.leave()
    assert sorted(path.name for path in box.inbox.iterdir()) == [".done", ".failed"]
    assert (box.inbox / ".failed" / "bad" / "error.txt").read_text() == "it is dark\n"
    assert (box.inbox / ".failed" / "bad.2" / "error.txt").read_text() == "again\n"


@pytest.mark.parametrize("kind", ["link", "folder", "dangling"])
def test_an_error_is_written_to_nobodys_file(box: Box, tmp_path: Path, kind: str) -> None:
    precious, folder = tmp_path / "precious", box.scene("a")
    precious.write_text("precious")
    if kind == "folder":
        (folder / "error.txt").mkdir()
    else:
        (folder / "error.txt").symlink_to(precious if kind == "link" else tmp_path / "none")
    inbox = box.open()
    taken = inbox.take("a")
    assert taken is not None
    inbox.end(taken, "dark")
    assert precious.read_text() == "precious"
    assert not (tmp_path / "none").exists()
    assert (box.inbox / ".failed" / "a" / "error.txt").read_text() == "dark\n"


def test_links_are_no_scenes_and_no_folders_of_the_station(box: Box, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / READY).touch()
    (box.inbox / "a").symlink_to(outside)
    (box.inbox / ".failed").symlink_to(outside)
    box.scene("b")
    inbox = box.open()
    assert set(inbox.look()) == {"b"}
    taken = inbox.take("b")
    assert taken is not None
    inbox.end(taken, "dark")
    assert [path.name for path in outside.iterdir()] == [READY]
    assert not (box.inbox / ".failed").is_symlink()
    assert (box.inbox / ".failed" / "b" / "error.txt").read_text() == "dark\n"


def test_a_file_in_the_place_of_the_stations_folder_stops_nothing(box: Box) -> None:
    (box.inbox / ".done").write_text("mine")
    box.scene("a")
    inbox = box.open()
    inbox.look()
    taken = inbox.take("a")
    assert taken is not None
    inbox.end(taken)
    assert (box.inbox / ".done" / "a" / "pan.tif").is_file()
    assert [path.read_text() for path in box.inbox.glob(".done.*")] == ["mine"]


def test_names_as_long_as_can_be_end_more_than_once(box: Box) -> None:
    inbox, name = box.open(), "é" * 127 + "x"
    for _ in range(3):
        box.scene(name)
        inbox.look()
        taken = inbox.take(name)
        assert taken is not None
        inbox.end(taken, f"dark: {os.fsdecode(bytes([255]))}")
    found = [path.name for path in (box.inbox / ".failed").iterdir()]
    assert len(found) == 3
    assert name in found
    assert (box.inbox / ".failed" / name / "error.txt").read_text() == "dark: \\udcff\n"


def test_an_outbox_within_the_inbox_is_no_outbox(box: Box) -> None:
    for name in ("out", "a/out"):
        outbox = box.inbox / name
        outbox.mkdir(parents=True)
        with pytest.raises(OutputError, match="would be taken for a scene"):
            Inbox(box.inbox, outbox)
    (box.inbox / ".out").mkdir()
    assert Inbox(box.inbox, box.inbox / ".out").look().keys() == {"out", "a"}
    assert Inbox(box.inbox, box.inbox)


def test_a_folder_that_cannot_be_read_or_moved_is_its_own_matter(
    box: Box, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = box.open()
    box.scene("a")
    closed = box.scene("closed")
    real_rename, real_scan = Path.rename, os.scandir

    def rename(source: Path, target: Path) -> Path:
        if source.name == "a":
            raise PermissionError(13, "Permission denied", str(source))
        return real_rename(source, target)

    def scandir(folder: str | Path) -> object:
        if Path(folder) == closed:
            raise PermissionError(13, "Permission denied", str(folder))
        return real_scan(folder)

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(os, "scandir", scandir)
    assert "cannot be read" in inbox.look()["closed"].error
    assert inbox.look()["closed"] is inbox.look()["closed"]
    assert inbox.take("a") is None
    assert "cannot be moved" in inbox.look_at("a").error
    monkeypatch.setattr(Path, "rename", real_rename)
    assert inbox.take("a") is not None
    monkeypatch.setattr(os, "scandir", real_scan)
    assert not inbox.look()["closed"].error


def test_a_folder_exchanged_for_a_link_is_not_taken(box: Box, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inbox = box.open()
    box.scene("a")
    inbox.look()
    for path in (box.inbox / "a").iterdir():
        path.unlink()
    (box.inbox / "a").rmdir()
    (box.inbox / "a").symlink_to(outside)
    assert inbox.take("a") is None
    assert outside.is_dir()


def test_an_inbox_that_is_gone_is_told(box: Box) -> None:
    inbox = box.open()
    box.scene("a")
    box.inbox.rename(box.inbox.with_name("away"))
    with pytest.raises(FileNotFoundError):
        inbox.look()
    with pytest.raises(FileNotFoundError):
        inbox.take("a")


def test_folders_must_be_there(box: Box, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder to watch"):
        Inbox(tmp_path / "none", box.outbox)
    with pytest.raises(OutputError, match="no such folder to write to"):
        Inbox(box.inbox, tmp_path / "none")

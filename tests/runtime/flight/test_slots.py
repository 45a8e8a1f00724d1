"""Slots: a new bundle is on trial, and whenever the power fails there is a sound one to start from."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from sfiin.runtime.errors import CheckFailedError, InputError, MismatchError, OutputError
from sfiin.runtime.flight import bundle
from sfiin.runtime.flight.disk import RealDisk
from sfiin.runtime.flight.slots import STARTS, Slots, State, create


@pytest.fixture
def slots(sealed: Path, tmp_path: Path) -> Slots:
    return create(tmp_path / "slots", sealed)


def test_a_new_folder_starts_from_the_factory(slots: Slots, sealed: Path) -> None:
    start = slots.start()
    assert (start.slot, start.on_trial, start.notes) == ("factory", False, ())
    assert bundle.read_unpacked(start.folder) == bundle.read(sealed)


def test_the_factory_is_made_once(slots: Slots, sealed: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="never written to"):
        create(slots.folder, sealed)
    with pytest.raises(InputError, match="sfiin slots init"):
        Slots(tmp_path)


def test_a_trial_that_is_confirmed_stays(slots: Slots, other: Path) -> None:
    assert slots.install(other) == "a"
    assert slots.start().slot == "factory", "installed, and not yet promoted"
    assert slots.promote() == "a"
    start = slots.start()
    assert (start.slot, start.on_trial) == ("a", True)
    slots.confirm()
    assert (slots.start().slot, slots.start().on_trial) == ("a", False)
    assert slots.install(other) == "b", "what is in use is not written to"
    assert slots.promote() == "b"
    slots.start()
    slots.confirm()
    assert slots.install(other) == "a"
    assert slots.rollback() == "a" or slots.start().slot == "a"


def test_a_trial_that_is_never_confirmed_ends_by_itself(slots: Slots, other: Path) -> None:
    slots.install(other)
    slots.promote()
    assert [slots.start().slot for _ in range(STARTS)] == ["a"] * STARTS
    start = slots.start()
    assert start.slot == "factory"
    assert "rolled back" in start.notes[0]
    assert slots.start().notes == ()


def test_a_trial_that_does_not_verify_ends_at_once(slots: Slots, other: Path, small_model: Path) -> None:
    slots.install(other)
    slots.promote()
    flip(slots.folder / "a" / small_model.name)
    start = slots.start()
    assert start.slot == "factory"
    assert "is not what the manifest says" in " ".join(start.notes)
    assert not slots.state.trial


def test_a_slot_in_use_that_rots_gives_way(slots: Slots, other: Path, small_model: Path) -> None:
    slots.install(other)
    slots.promote()
    slots.start()
    slots.confirm()
    flip(slots.folder / "a" / small_model.name)
    assert slots.start().slot == "factory"
    assert slots.state.active == "factory"
    flip(slots.folder / "factory" / small_model.name)
    with pytest.raises(CheckFailedError, match="no slot is sound, not even factory"):
        slots.start()


def test_rolling_back_by_hand(slots: Slots, other: Path) -> None:
    slots.install(other)
    slots.promote()
    assert slots.rollback() == "factory"
    slots.promote()
    slots.start()
    slots.confirm()
    assert slots.rollback() == "factory"
    assert slots.start().slot == "factory"


def test_nothing_is_installed_over_a_trial(slots: Slots, other: Path) -> None:
    slots.install(other)
    slots.promote()
    with pytest.raises(MismatchError, match="slot a is on trial"):
        slots.install(other)


def test_what_is_not_sound_is_neither_installed_nor_promoted(
    slots: Slots, other: Path, tmp_path: Path
) -> None:
    damaged = tmp_path / "damaged.bundle"
    damaged.write_bytes(other.read_bytes()[:-100])
    with pytest.raises(InputError, match="damaged"):
        slots.install(damaged)
    with pytest.raises(InputError, match="cannot be read"):
        slots.promote()
    assert slots.start().slot == "factory"


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"state": {"active": "c"}, "sha256": ""}', "[" * 10_000])
def test_a_state_that_is_damaged_is_passed_over(slots: Slots, other: Path, text: str) -> None:
    """One of the two files: the older state counts. Both: the factory."""
    slots.install(other)
    slots.promote()  # count 1
    slots.start()  # count 2
    slots.confirm()  # count 3
    assert slots.state == State(3, "a", "factory")
    (slots.folder / "state.1").write_text(text)
    assert slots.state == State(2, "factory", "factory", "a", 1)
    (slots.folder / "state.0").write_text(text)
    assert slots.start().slot == "factory"


def test_every_flipped_bit_of_a_state_is_noticed(slots: Slots) -> None:
    slots.rollback()
    path = slots.folder / "state.1"
    whole = path.read_bytes()
    for place in range(8 * len(whole)):
        changed = bytearray(whole)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        assert slots.state == State() or json.loads(bytes(changed)) == json.loads(whole)


def test_a_full_medium_changes_nothing_in_use(
    slots: Slots, other: Path, file_size_limit: Callable[[int], AbstractContextManager[None]]
) -> None:
    with file_size_limit(1000), pytest.raises(OutputError, match="nothing in use was changed"):
        slots.install(other)
    assert slots.start().slot == "factory"
    assert slots.install(other) == "a"


# --- power cuts ---


@dataclass
class Recorder:
    """The real disk, and a list of what was done to it, with paths below `root`."""

    root: Path
    steps: list[tuple[str, ...]] = field(default_factory=list)
    contents: dict[int, bytes] = field(default_factory=dict)
    real: RealDisk = field(default_factory=RealDisk)

    def _note(self, kind: str, *paths: Path) -> None:
        self.steps.append((kind, *(str(path.relative_to(self.root)) for path in paths)))

    def make_folder(self, path: Path) -> None:
        self.real.make_folder(path)
        self._note("make_folder", path)

    def write(self, path: Path, source: IO[bytes]) -> None:
        self.real.write(path, source)
        self.contents[len(self.steps)] = path.read_bytes()
        self._note("write", path)

    def sync_file(self, path: Path) -> None:
        self.real.sync_file(path)
        self._note("sync_file", path)

    def sync_folder(self, path: Path) -> None:
        self.real.sync_folder(path)
        self._note("sync_folder", path)

    def move(self, path: Path, target: Path) -> None:
        self.real.move(path, target)
        self._note("move", path, target)

    def remove(self, path: Path) -> None:
        self.real.remove(path)
        self._note("remove", path)


def certain(recorder: Recorder, end: int) -> set[int]:
    """Which of the first `end` steps are on the medium for sure, by their index.

    Content is after a `sync_file` of the same path, a name after a `sync_folder` of the folder that it is in.
    """
    found = set()
    for index, (kind, *paths) in enumerate(recorder.steps[:end]):
        folders = {str(Path(path).parent) for path in paths}
        for later, *synced in recorder.steps[index + 1 : end]:
            if (kind == "write" and later == "sync_file" and synced[0] == paths[0]) or (
                kind in ("make_folder", "move", "remove") and later == "sync_folder" and synced[0] in folders
            ):
                found.add(index)
    return found


def after_cut(recorder: Recorder, before: Path, end: int, lost: set[int], target: Path) -> None:
    """What is on the medium if the power fails after `end` steps, and those in `lost` had not got there."""
    shutil.copytree(before, target)
    for index, (kind, *paths) in enumerate(recorder.steps[:end]):
        places = [target / path for path in paths]
        try:
            if kind == "make_folder" and index not in lost:
                places[0].mkdir()
            elif kind == "write":
                whole = recorder.contents[index]
                places[0].write_bytes(whole[: len(whole) // 2] if index in lost else whole)
            elif kind == "move" and index not in lost:
                places[0].replace(places[1])
            elif kind == "remove" and index not in lost:
                RealDisk().remove(places[0])
        except OSError:
            pass  # it hangs on a step that was lost


@pytest.mark.parametrize("command", ["install", "promote", "start", "confirm", "rollback"])
def test_after_a_power_cut_at_any_moment_there_is_a_sound_start(
    sealed: Path, other: Path, tmp_path: Path, command: str
) -> None:
    """Every prefix of every command's steps, with nothing lost, with all lost that may be, and by chance."""
    folder = tmp_path / "slots"
    recorder = Recorder(folder)
    slots = create(folder, sealed, recorder)
    if command != "install":
        slots.install(other)
    if command in ("start", "confirm", "rollback"):
        slots.promote()
    before = tmp_path / "before"
    shutil.copytree(folder, before)
    recorder.steps.clear()
    recorder.contents.clear()
    allowed = [bundle.read(sealed), bundle.read(other)]
    {
        "install": lambda: slots.install(other),
        "promote": slots.promote,
        "start": slots.start,
        "confirm": slots.confirm,
        "rollback": slots.rollback,
    }[command]()
    assert recorder.steps
    generator = random.Random(5)
    tried = 0
    for end in range(len(recorder.steps) + 1):
        may = sorted(set(range(end)) - certain(recorder, end))
        losses = [set(), set(may), *({step for step in may if generator.random() < 0.5} for _ in range(4))]
        for number, lost in enumerate(losses):
            target = tmp_path / f"cut-{end}-{number}"
            after_cut(recorder, before, end, lost, target)
            start = Slots(target).start()
            assert bundle.read_unpacked(start.folder) in allowed
            # And the next command finds its way as well.
            again = Slots(target)
            if not again.state.trial:
                again.install(other)
            shutil.rmtree(target)
            tried += 1
    assert tried >= 6 * len(recorder.steps)


def test_what_is_recorded_is_what_was_done(sealed: Path, other: Path, tmp_path: Path) -> None:
    """The recorder itself: played to the end, it makes the same folder."""
    folder = tmp_path / "slots"
    recorder = Recorder(folder)
    slots = create(folder, sealed, recorder)
    shutil.copytree(folder, tmp_path / "before")
    recorder.steps.clear()
    slots.install(other)
    slots.promote()
    after_cut(recorder, tmp_path / "before", len(recorder.steps), set(), tmp_path / "played")
    found = {path.relative_to(tmp_path / "played"): path for path in (tmp_path / "played").rglob("*")}
    told = {path.relative_to(folder): path for path in folder.rglob("*")}
    assert found.keys() == told.keys()
    assert all(path.is_dir() or path.read_bytes() == told[name].read_bytes() for name, path in found.items())


def test_a_forgotten_sync_is_found(sealed: Path, other: Path, tmp_path: Path) -> None:
    """The simulation has teeth: without waiting for content, a cut leaves a slot that is on trial and not
    sound."""

    class Careless(Recorder):
        def sync_file(self, path: Path) -> None:
            pass

    folder = tmp_path / "slots"
    recorder = Careless(folder)
    slots = create(folder, sealed, recorder)
    shutil.copytree(folder, tmp_path / "before")
    recorder.steps.clear()
    recorder.contents.clear()
    slots.install(other)
    end = len(recorder.steps)
    lost = set(range(end)) - certain(recorder, end)
    after_cut(recorder, tmp_path / "before", end, lost, tmp_path / "cut")
    with pytest.raises(InputError):
        bundle.read_unpacked(tmp_path / "cut" / "a")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

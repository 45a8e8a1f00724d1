"""Which bundle does a flight start from, and what if the new one is no good? Three slots, and a trial.

| slot      | holds                                                                    |
|-----------|--------------------------------------------------------------------------|
| `factory` | what the satellite was launched with; nothing here ever writes to it     |
| `a`, `b`  | what was installed later, one after the other                            |

A bundle goes into the slot that is not in use (`install`), and on trial by `promote`. A start counts the
trial's starts before anything of the slot is opened; after `STARTS` of them, or when the slot does not
verify, the slot before is back by itself. Once the self-test has passed and enough scenes went well,
`confirm` ends the trial.

What is in use is said by two small files, `state.0` and `state.1`, written in turn, each with a count and a
digest: the newest sound one counts, and without any the flight starts from `factory`. Power may fail at any
moment: content is on the medium before a name leads to it, and a name before the state tells of it.
"""

from __future__ import annotations

import hashlib
import io
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, Literal, get_args

from sfiin.runtime.errors import CheckFailedError, InputError, MismatchError, OutputError
from sfiin.runtime.flight import bundle
from sfiin.runtime.flight.disk import Disk, RealDisk

Slot = Literal["factory", "a", "b"]

FACTORY: Slot = "factory"
STARTS = 3
"""So many times a slot on trial may be started before it must have been confirmed."""

_STATES = ("state.0", "state.1")
_INCOMING, _OUTGOING = ".incoming", ".outgoing"


@dataclass(frozen=True)
class State:
    """What is in use. `previous` is what a rollback goes to; `trial` is "" where there is none."""

    count: int = 0
    active: Slot = FACTORY
    previous: Slot = FACTORY
    trial: Slot | Literal[""] = ""
    starts: int = 0


@dataclass(frozen=True)
class Start:
    """From what a flight starts: the slot and its folder, and, in words, why it is not the one on trial or in
    use."""

    slot: Slot
    folder: Path
    on_trial: bool
    notes: tuple[str, ...]


class Slots:
    """The slots in a folder. Raises InputError where there is no such folder or no `factory` in it."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder = folder
        self._disk: Disk = RealDisk() if disk is None else disk
        if not (folder / FACTORY).is_dir():
            raise InputError(f"{folder}: holds no slots; make them with 'sfiin slots init {folder} BUNDLE'")

    @property
    def state(self) -> State:
        """The newest sound state; the first one where none is."""
        found = [state for state in map(self._state, _STATES) if state]
        return max(found, key=lambda state: state.count, default=State())

    def install(self, source: Path) -> Slot:
        """Unpack a bundle into the slot that is not in use; which one that is.

        Raises InputError for a bundle that is not sound, MismatchError while a trial is going on,
        OutputError. What is in use stays as it was, whatever happens.
        """
        state = self.state
        if state.trial:
            raise MismatchError(
                f"{self.folder}: slot {state.trial} is on trial; confirm it or roll it back first"
            )
        target: Slot = "b" if state.active == "a" else "a"
        manifest = bundle.read(source)
        try:
            _unpack(self._disk, source, manifest, self.folder / _INCOMING)
            self._put(self.folder / _INCOMING, self.folder / target)
        except OSError as error:
            raise OutputError(
                f"{self.folder}: cannot be written ({error.strerror}); nothing in use was changed"
            ) from None
        return target

    def promote(self) -> Slot:
        """Put the slot that is not in use on trial; which one that is. Raises InputError where it is not
        sound."""
        state = self.state
        target: Slot = "b" if state.active == "a" else "a"
        bundle.read_unpacked(self.folder / target)
        self._save(replace(state, trial=target, starts=0))
        return target

    def start(self) -> Start:
        """Choose what to start from, and count the start of a trial, before anything of it is opened.

        Raises CheckFailedError where not even `factory` is sound.
        """
        notes: list[str] = []
        state = self.state
        if state.trial:
            if state.starts < STARTS and self._is_sound(state.trial, notes):
                self._save(replace(state, starts=state.starts + 1))
                return Start(state.trial, self.folder / state.trial, True, ())
            notes.append(f"the trial of slot {state.trial} is over: rolled back")
            state = self._save(replace(state, trial="", starts=0))
        for slot in dict.fromkeys((state.active, state.previous, FACTORY)):
            if self._is_sound(slot, notes):
                if slot != state.active:
                    self._save(replace(state, active=slot, previous=FACTORY))
                return Start(slot, self.folder / slot, False, tuple(notes))
        raise CheckFailedError(f"{self.folder}: no slot is sound, not even {FACTORY}: {'; '.join(notes)}")

    def confirm(self) -> None:
        """End a trial: its slot is in use from now on. Nothing where none is on trial."""
        state = self.state
        if state.trial:
            self._save(State(state.count, state.trial, state.active))

    def rollback(self) -> Slot:
        """End a trial, or leave the slot in use, for the one before; which one that is."""
        state = self.state
        if state.trial:
            return self._save(replace(state, trial="", starts=0)).active
        return self._save(State(state.count, state.previous, FACTORY)).active

    def survey(self) -> dict[Slot, str]:
        """Why each slot is not sound, "" for one that is."""
        found: dict[Slot, str] = {}
        for slot in get_args(Slot):
            notes: list[str] = []
            found[slot] = "" if self._is_sound(slot, notes) else notes[0]
        return found

    def _put(self, folder: Path, target: Path) -> None:
        """Exchange what lies at `target` for `folder`; between the two moves there is neither, which is no
        harm."""
        self._disk.remove(self.folder / _OUTGOING)
        if target.exists():
            self._disk.move(target, self.folder / _OUTGOING)
        self._disk.move(folder, target)
        self._disk.sync_folder(self.folder)
        self._disk.remove(self.folder / _OUTGOING)

    def _is_sound(self, slot: Slot, notes: list[str]) -> bool:
        try:
            bundle.read_unpacked(self.folder / slot)
        except InputError as error:
            notes.append(f"slot {slot} is not sound: {error}")
            return False
        return True

    def _state(self, name: str) -> State | None:
        try:
            document = json.loads((self.folder / name).read_bytes())
            state = State(**document["state"])
            sound = document["sha256"] == _digest(state) and _is_state(state)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return state if sound else None

    def _save(self, state: State) -> State:
        """Write the next state in the place of the older file, and wait until it is on the medium."""
        state = replace(state, count=self.state.count + 1)
        path = self.folder / _STATES[state.count % 2]
        part = path.with_name(f".{path.name}.part")
        text = json.dumps({"state": asdict(state), "sha256": _digest(state)}, sort_keys=True).encode()
        try:
            self._disk.remove(part)
            _write(self._disk, part, io.BytesIO(text))
            self._disk.move(part, path)
            self._disk.sync_folder(self.folder)
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({error.strerror}); what was in use is still in use"
            ) from None
        return state


def create(folder: Path, source: Path, disk: Disk | None = None) -> Slots:
    """Make a folder of slots whose `factory` is this bundle. Raises InputError, and OutputError where slots
    are."""
    disk = RealDisk() if disk is None else disk
    manifest = bundle.read(source)
    if (folder / FACTORY).exists():
        raise OutputError(f"{folder}: has a {FACTORY} slot already, which is never written to")
    try:
        folder.mkdir(exist_ok=True)
        _unpack(disk, source, manifest, folder / _INCOMING)
        disk.move(folder / _INCOMING, folder / FACTORY)
        disk.sync_folder(folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from None
    return Slots(folder, disk)


def _unpack(disk: Disk, source: Path, manifest: bundle.Manifest, folder: Path) -> None:
    """A bundle's files in a new folder, on the medium and read back: it may have been full, or bad."""
    disk.remove(folder)
    disk.make_folder(folder)
    with bundle.contents(source) as files:
        for name, file in files:
            _write(disk, folder / name, file)
    _write(disk, folder / bundle.MANIFEST, io.BytesIO(manifest.to_bytes()))
    disk.sync_folder(folder)
    bundle.read_unpacked(folder)


def _write(disk: Disk, path: Path, source: IO[bytes]) -> None:
    disk.write(path, source)
    disk.sync_file(path)


def _digest(state: State) -> str:
    return hashlib.sha256(json.dumps(asdict(state), sort_keys=True).encode()).hexdigest()


def _is_state(state: State) -> bool:
    slots = get_args(Slot)
    whole = all(type(number) is int and number >= 0 for number in (state.count, state.starts))
    return whole and state.active in slots and state.previous in slots and state.trial in (*slots, "")

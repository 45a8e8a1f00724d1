"""Claims: who is alive, who is gone, by locks and by leases; no clock of a wall, no number of a process."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sfiin.runtime.station import claims
from sfiin.runtime.station.claims import Claim, Observer


class Clock:
    now = 50.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def held(inbox: Path) -> Claim:
    claim = Claim(inbox)
    assert claim.hold()
    assert not claim.hold()
    return claim


def test_one_that_lives_keeps_its_claim(tmp_path: Path, clock: Clock) -> None:
    claim, observer = held(tmp_path), Observer(tmp_path, clock=clock)
    clock.now += 1e6
    assert observer.left(tmp_path) == []
    assert observer.undecided == 0
    claim.leave()
    assert not list(tmp_path.iterdir())


HOLD_AND_DIE = """
import os, sys
from pathlib import Path
from sfiin.runtime.station.claims import Claim

claim = Claim(Path(sys.argv[1]))
claim.hold()
(claim.folder / "scene").mkdir()
os._exit(9)
"""


def test_one_that_died_is_gone_at_once(tmp_path: Path, clock: Clock) -> None:
    died = subprocess.run([sys.executable, "-c", HOLD_AND_DIE, str(tmp_path)], check=False, timeout=60)
    assert died.returncode == 9
    (left,) = Observer(tmp_path, clock=clock).left(tmp_path)
    assert [scene.name for scene in claims.scenes_in(left)] == ["scene"]
    claims.clear(left)
    assert left.is_dir(), "a claim with a scene stays"
    (left / "scene").rmdir()
    claims.clear(left)
    assert not list(tmp_path.iterdir())


def test_a_lock_lives_as_long_as_who_inherited_it(tmp_path: Path) -> None:
    claim = held(tmp_path)
    assert claim.descriptor is not None
    inherited = os.dup(claim.descriptor)
    claim._release()
    assert Observer(tmp_path).left(tmp_path) == []
    os.close(inherited)
    assert len(Observer(tmp_path).left(tmp_path)) == 1


def of_elsewhere(inbox: Path, count: int = 1) -> Path:
    """A claim of another machine, whose locks are not seen here."""
    folder = inbox / ".taken-elsewhere"
    folder.mkdir(exist_ok=True)
    (folder / "lock").touch()
    (folder / "lease").write_text(json.dumps({"count": count, "boot": "another"}))
    return folder


def test_one_of_another_machine_is_gone_when_its_lease_stands_still(tmp_path: Path, clock: Clock) -> None:
    folder, observer = of_elsewhere(tmp_path), Observer(tmp_path, lease=30, clock=clock)
    assert (observer.left(tmp_path), observer.undecided) == ([], 1)
    for count in range(2, 9):
        clock.now += 20
        of_elsewhere(tmp_path, count)
        assert (observer.left(tmp_path), observer.undecided) == ([], 0)
    clock.now += 29
    assert observer.left(tmp_path) == []
    clock.now += 1
    assert observer.left(tmp_path) == [folder]


@pytest.mark.parametrize("years", [-30, 30])
def test_a_wall_clock_that_jumps_takes_nothing(tmp_path: Path, clock: Clock, years: int) -> None:
    folder, observer = of_elsewhere(tmp_path), Observer(tmp_path, lease=30, clock=clock)
    observer.left(tmp_path)
    stamp = folder.stat().st_mtime + years * 365 * 86400
    for path in (folder, *folder.iterdir()):
        os.utime(path, (stamp, stamp))
    clock.now += 29
    assert observer.left(tmp_path) == []


def test_without_locks_the_lease_alone_decides(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    claim, observer = held(tmp_path), Observer(tmp_path, lease=30, clock=clock)
    assert not claim.locks
    assert observer.left(tmp_path) == []
    clock.now += 29
    claim.renew()
    assert observer.left(tmp_path) == []
    clock.now += 29
    assert observer.left(tmp_path) == []
    clock.now += 1
    assert observer.left(tmp_path) == [claim.folder]


def test_a_claim_that_was_taken_away_is_made_anew(tmp_path: Path) -> None:
    claim = held(tmp_path)
    first = claim.folder
    for path in first.iterdir():
        path.unlink()
    first.rmdir()
    assert claim.hold()
    assert claim.folder != first
    claim.leave()


@pytest.mark.parametrize("content", ["", "no json", "[]", '{"boot": 3}', '{"boot": ""}'])
def test_a_lease_that_says_nothing_is_waited_for(tmp_path: Path, clock: Clock, content: str) -> None:
    folder = of_elsewhere(tmp_path)
    (folder / "lease").write_text(content)
    observer = Observer(tmp_path, lease=30, clock=clock)
    assert observer.left(tmp_path) == []
    clock.now += 30
    assert observer.left(tmp_path) == [folder]


def test_what_strangers_put_there_is_not_followed(tmp_path: Path, clock: Clock) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inbox = tmp_path / "in"
    inbox.mkdir()
    (inbox / ".taken-link").symlink_to(outside)
    folder = of_elsewhere(inbox)
    for name in ("lock", "lease"):
        (folder / name).unlink()
    os.mkfifo(folder / "lease")
    (folder / "lock").symlink_to(outside / "made")
    observer = Observer(inbox, lease=30, clock=clock)
    assert observer.left(inbox) == []
    clock.now += 30
    assert observer.left(inbox) == [folder]
    assert not list(outside.iterdir())


def test_a_claim_that_somebody_made_up_is_waited_for_and_no_more(tmp_path: Path, clock: Clock) -> None:
    """Folders and pipes in the place of a lock and a lease stop nobody who looks at them."""
    folders, pipes = tmp_path / ".taken-folders", tmp_path / ".taken-pipes"
    for claim in (folders, pipes):
        claim.mkdir()
    for name in ("lock", "lease"):
        (folders / name).mkdir()
        os.mkfifo(pipes / name)
    observer = Observer(tmp_path, clock=clock)
    assert observer.left(tmp_path) == []
    clock.now += claims.LEASE
    assert observer.left(tmp_path) == [folders, pipes]

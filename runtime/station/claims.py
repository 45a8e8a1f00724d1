"""Who works on a scene? Whoever holds the folder that it lies in: by a lock, and by a lease that is renewed.

A watcher has a folder `.taken-TOKEN` in the inbox; scenes that it takes are renamed into it, and only one
rename succeeds. The token is drawn by chance: neither host nor process number says who lives, as both come
again after a reboot or in a container.

In the folder lie `lock`, locked with flock while the watcher or its worker is there (the operating system
lets go when they are gone, however that happens), and `lease`, whose count goes up every few seconds. Another
watcher judges:

    lock held                                   alive
    lock free, and lease of the same boot       gone: one kernel keeps both, and its locks are believed
    otherwise (another machine, or no locks)    gone once the lease stood still for `LEASE` seconds

"Seen" is by the observer's monotonic clock; no clock of a wall, a file or another machine is compared, so one
that jumps takes nothing from anybody. On a share without working locks a watcher that was stopped for longer
than its lease loses its scenes; it finds out when it looks for them, and publishes nothing, as the digests of
the inputs are taken again at the end (`sfiin.runtime.scenes.identity`).
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Literal

LEASE = 30.0
"""Seconds for which a lease must stand still before it counts as left."""

RENEWAL = 5.0
"""Seconds between renewals."""

_PREFIX, _LOCK, _LEASE_FILE = ".taken-", "lock", "lease"

_OWN_FILES = (_LOCK, _LEASE_FILE, "lease.new")

Locking = Literal["locked", "held", "none"]


class Claim:
    """This watcher's folder. `locks` says whether the file system has locks; `descriptor` is the lock's, for
    a worker to inherit."""

    def __init__(self, inbox: Path) -> None:
        self._inbox = inbox
        self.folder = inbox / f"{_PREFIX}{secrets.token_hex(8)}"
        self.descriptor: int | None = None
        self.locks = True
        self._count = 0
        self._stop = Event()
        self._renewer: Thread | None = None

    def hold(self) -> bool:
        """Make sure that the folder is there and this watcher's; whether it had to be made anew.

        Raises OSError when the inbox cannot be written.
        """
        if self.descriptor is not None and _is_file(self.descriptor, self.folder / _LOCK):
            return False
        self._release()
        self.folder = self._inbox / f"{_PREFIX}{secrets.token_hex(8)}"
        self.folder.mkdir(mode=0o700)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        self.descriptor = os.open(self.folder / _LOCK, flags, 0o600)
        self.locks = _lock_own(self.descriptor)
        self.renew()
        if self._renewer is None:
            self._renewer = Thread(target=self._keep_renewing, name="lease", daemon=True)
            self._renewer.start()
        return True

    def renew(self) -> None:
        """Let the lease's count go up. Raises OSError."""
        self._count += 1
        text = json.dumps({"count": self._count, "boot": boot()})
        fresh = self.folder / "lease.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.folder / _LEASE_FILE)

    def scenes(self) -> list[Path]:
        """What lies in it."""
        return scenes_in(self.folder) if self.descriptor is not None else []

    def leave(self) -> None:
        """Let go; the folder goes where no scene is left in it."""
        self._stop.set()
        if self._renewer is not None:
            self._renewer.join()
        folder, held = self.folder, self.descriptor is not None
        if held and not self.scenes():
            with suppress(OSError):
                shutil.rmtree(folder)
        self._release()

    def _release(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            self.descriptor = None

    def _keep_renewing(self) -> None:
        while not self._stop.wait(RENEWAL):
            with suppress(OSError):  # the share may be away; what became of the claim is looked at by `hold`
                self.renew()


@dataclass
class _Seen:
    """What an observer saw of a lease, since when, and whether it was another one before."""

    lease: str
    since: float
    moved: bool = False


class Observer:
    """Looks at the claims of others, and tells which were left."""

    def __init__(
        self, inbox: Path, lease: float = LEASE, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._inbox, self._lease, self._clock = inbox, lease, clock
        self._seen: dict[str, _Seen] = {}
        self.undecided = 0
        """How many claims the last look could not decide on yet."""

    def left(self, own: Path) -> list[Path]:
        """Claims whose owners are gone. Raises OSError when the inbox cannot be read."""
        found, there = [], set()
        self.undecided = 0
        for claim in sorted(self._inbox.glob(f"{_PREFIX}*")):
            there.add(claim.name)
            if claim == own or claim.is_symlink() or not claim.is_dir():
                continue
            if self._is_left(claim):
                found.append(claim)
        self._seen = {name: seen for name, seen in self._seen.items() if name in there}
        return found

    def _is_left(self, claim: Path) -> bool:
        locking = probe(claim / _LOCK)
        if locking == "held":
            self._seen.pop(claim.name, None)
            return False
        lease = _read(claim / _LEASE_FILE)
        if locking == "locked" and _boot_of(lease) == boot():
            return True
        seen = self._seen.get(claim.name)
        if seen is None or seen.lease != lease:
            self._seen[claim.name] = seen = _Seen(lease, self._clock(), moved=seen is not None)
        if self._clock() - seen.since >= self._lease:
            return True
        self.undecided += not seen.moved  # one that was renewed lives, as far as it is known
        return False


def scenes_in(claim: Path) -> list[Path]:
    """The scenes in a claim, by name; none where it is gone."""
    with suppress(OSError):
        return sorted(path for path in claim.iterdir() if path.name not in _OWN_FILES)
    return []


def clear(claim: Path) -> None:
    """Take away a claim that was left and has no scene any more."""
    if not scenes_in(claim):
        with suppress(OSError):
            shutil.rmtree(claim)


def try_lock(descriptor: int) -> Locking:
    """Lock an open file for as long as it is open: "locked", "held" by another, or "none" where the file
    system has no locks."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return "held"
    except OSError:
        return "none"
    return "locked"


def _lock_own(descriptor: int) -> bool:
    """Lock a file that only an observer's short look can be holding; whether there are locks."""
    for _ in range(100):
        locking = try_lock(descriptor)
        if locking != "held":
            return locking == "locked"
        time.sleep(0.01)
    return False


def probe(path: Path) -> Locking:
    """Whether a lock's file is locked by anybody; one that is not there is not ("locked": it could be had).

    A lock that was had is let go of at once.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except FileNotFoundError:
        return "locked"
    except OSError:
        return "none"
    try:
        return try_lock(descriptor)
    finally:
        os.close(descriptor)


def boot() -> str:
    """Names this start of this kernel, "" where it does not tell."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    return ""


def _boot_of(lease: str) -> str | None:
    with suppress(ValueError, AttributeError):
        found = json.loads(lease).get("boot")
        return found if isinstance(found, str) and found else None
    return None


def _read(path: Path) -> str:
    """A lease's text, "" where there is none; a few bytes at most, and never through a link. Anybody may have
    made the claim."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return ""
    try:
        return os.read(descriptor, 4096).decode("utf-8", errors="replace")
    except OSError:  # a folder
        return ""
    finally:
        os.close(descriptor)


def _is_file(descriptor: int, path: Path) -> bool:
    """Whether an open file is still the one by its name."""
    try:
        found = path.lstat()
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and os.path.samestat(os.fstat(descriptor), found)

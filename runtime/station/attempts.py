"""How often was a scene tried? Counted on the disk before each try, so that no restart forgets it.

`.attempts/` in the inbox has a small file a scene. A try that ends badly while its watcher lives (a crash, a
hang, an error that nobody foresaw) counts as failed; after `MOST` of them the scene is set aside. A try whose
watcher is gone as well counts as interrupted: that is what a reboot or a deployment does to a good scene. The
most interrupted scenes are done last, so that one which takes the whole machine with it keeps nobody waiting,
and after `MOST_INTERRUPTED` of them in a row it is set aside, too.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from sfiin.runtime.files import own_folder, read_small, write_fresh

MOST, MOST_INTERRUPTED = 3, 10

_FOLDER = ".attempts"


@dataclass(frozen=True)
class Count:
    """Tries of a scene that failed, that were interrupted, and whether one is under way."""

    failed: int = 0
    interrupted: int = 0
    under_way: bool = False


class Attempts:
    """The counts of an inbox's scenes."""

    def __init__(self, inbox: Path) -> None:
        self._folder = inbox / _FOLDER

    def of(self, scene: str) -> Count:
        """A scene's count; nothing where there is none that can be read."""
        with suppress(OSError, ValueError, TypeError, AttributeError):
            found = json.loads(read_small(self._path(scene)))
            return Count(int(found["failed"]), int(found["interrupted"]), bool(found["under_way"]))
        return Count()

    def begin(self, scene: str) -> Count:
        """Count a try that begins. Raises OSError where that cannot be written: then it must not begin."""
        before = self.of(scene)
        lost = int(before.under_way)  # by a watcher that could not say how it ended
        now = Count(before.failed, before.interrupted + lost, True)
        self._write(scene, now)
        return now

    def failed(self, scene: str) -> Count:
        """The try under way ended badly."""
        before = self.of(scene)
        now = Count(before.failed + 1, before.interrupted, False)
        self._write(scene, now)
        return now

    def put_back(self, scene: str) -> None:
        """The try under way was stopped for what is not the scene's fault, and does not count."""
        before = self.of(scene)
        if before.failed or before.interrupted:
            self._write(scene, Count(before.failed, before.interrupted, False))
        else:
            self.forget(scene)

    def forget(self, scene: str) -> None:
        """The scene has come to its end."""
        with suppress(OSError):
            self._path(scene).unlink()
        with suppress(OSError):
            self._folder.rmdir()

    def counted(self) -> bool:
        """Whether any scene has a count; saves a look for each where none has."""
        return self._folder.is_dir()

    def _path(self, scene: str) -> Path:
        # A scene's name may be as long as a name can be, and need not be text.
        return self._folder / f"{hashlib.sha256(os.fsencode(scene)).hexdigest()[:32]}.json"

    def _write(self, scene: str, count: Count) -> None:
        own_folder(self._folder, 0o700)
        write_fresh(self._path(scene), json.dumps(asdict(count)))

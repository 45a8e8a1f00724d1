"""What is trained on, and what is held out to choose a checkpoint by, of a folder of pairs and scenes?

Of many pairs, or many scenes, some are held out whole; of few pairs, or of a single scene, a part of each.
Where there are both, pairs are held out and all scenes are trained on. Names may be given instead.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from sfiin.data import dataset, pairs, reading
from sfiin.data.dataset import Given
from sfiin.data.pairs import Image, Pair, Reduction, ScenePair, Source
from sfiin.data.sensors import Sensor
from sfiin.runtime.errors import InputError

WINDOWS = 16
"""Patches at most of a held-out scene that it is judged by."""

Chosen = Callable[[list[Pair]], list[Pair]]


@dataclass(frozen=True)
class Material:
    """What to train on, what to choose the best checkpoint by, and what was guessed of the pairs."""

    used: list[Source]
    held_out: list[Pair]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Left:
    """The left `columns` MS pixels of a source."""

    source: Source
    columns: int

    @property
    def name(self) -> str:
        """The source's."""
        return self.source.name

    @property
    def ratio(self) -> int:
        """The source's."""
        return self.source.ratio

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in MS pixels."""
        return self.source.size[0], self.columns

    def patch(self, row: int, col: int, side: int) -> tuple[Image, Image, Image]:
        """See `Source`."""
        return self.source.patch(row, col, side)


def gather(
    folder: Path,
    sensor: Sensor,
    reductions: Sequence[Reduction],
    patch: int,
    stack: ExitStack,
    *,
    given: Given | None = None,
    hold_out: Sequence[str] = (),
    chosen: Chosen = lambda found: found,
) -> Material:
    """A folder's pairs and scenes for a sensor, divided; scenes stay open until the stack is closed.

    `hold_out` names what is held out, with `*` for any characters; `chosen` leaves some pairs away. Raises
    InputError where nothing is left to train on or to judge by, and as the readers do.
    """
    known, notes = _pairs(folder, sensor, given, chosen)
    used: list[Source] = []
    held_out: list[Pair] = []
    for reduction in dict.fromkeys(reductions):
        scenes = pairs.open_scenes(folder, sensor, reduction, stack)
        reduced = [pairs.reduced(pair, reduction, sensor) for pair in known]
        if hold_out:
            first, second = _named([*reduced, *scenes], hold_out, patch, folder)
        elif reduced:
            left, second = pairs.split(reduced, patch)
            first = [*left, *scenes]
        else:
            first, second = _of_scenes(scenes, patch)
        used += first
        held_out += second
    return Material(used, held_out, notes)


def _pairs(
    folder: Path, sensor: Sensor, given: Given | None, chosen: Chosen
) -> tuple[list[Pair], tuple[str, ...]]:
    """The folder's pairs in the range that the sensor's network knows; none where it holds scenes only."""
    if next(reading.read_folder(folder), None) is None and pairs.has_scenes(folder):
        return [], ()
    found = dataset.read(folder, sensor.profile, given)
    return chosen([dataset.fitted(pair, sensor.profile) for pair in found.pairs]), found.notes


def _named(
    sources: Sequence[Pair | ScenePair], names: Sequence[str], patch: int, folder: Path
) -> tuple[list[Source], list[Pair]]:
    held = [source for source in sources if any(fnmatchcase(source.name, name) for name in names)]
    used: list[Source] = [source for source in sources if source not in held]
    if not held or not used:
        there = ", ".join(source.name for source in sources[:8])
        raise InputError(
            f"{folder}: --hold-out leaves nothing {'to judge by' if not held else 'to train on'}; there: "
            f"{there}"
        )
    judged = [
        part for source in held for part in ([source] if isinstance(source, Pair) else windows(source, patch))
    ]
    return used, judged


def _of_scenes(scenes: Sequence[ScenePair], patch: int) -> tuple[list[Source], list[Pair]]:
    """Every eighth scene from the fourth on is held out; of two or three the last; of one its right
    quarter."""
    if len(scenes) == 1:
        scene = scenes[0]
        width, side = scene.size[1], patch // scene.ratio
        cut = width - max(side, width // 4)
        if cut < side:
            raise InputError(
                f"{scene.name}: {width * scene.ratio} PAN pixels wide when reduced, too few to divide for "
                f"training and judging; give two scenes or more, or a smaller --patch (now {patch})"
            )
        return [Left(scene, cut)], windows(scene, patch, cut)
    held = [scene for i, scene in enumerate(scenes) if i % 8 == 3] or [scenes[-1]]
    used: list[Source] = [scene for scene in scenes if scene not in held]
    return used, [part for scene in held for part in windows(scene, patch)]


def windows(scene: ScenePair, patch: int, first: int = 0) -> list[Pair]:
    """Patches of a scene at reduced resolution from MS column `first` on, evenly spread, as pairs.

    Raises InputError for a scene that is smaller than a patch.
    """
    side, (height, width) = patch // scene.ratio, scene.size
    places = [
        (row, col)
        for row in range(0, height - side + 1, side)
        for col in range(first, width - side + 1, side)
    ]
    if not places:
        raise InputError(
            f"{scene.name}: {height * scene.ratio} x {width * scene.ratio} PAN pixels at reduced resolution, "
            f"less than a patch of {patch}; give a smaller --patch"
        )
    step = -(-len(places) // WINDOWS)
    found = []
    for row, col in places[::step]:
        ms, pan, truth = scene.patch(row, col, side)
        name = f"{scene.name} at MS row {row}, column {col}"
        found.append(Pair(name, pan, ms, truth, {"sensor": scene.scene.sensor.name}))
    return found

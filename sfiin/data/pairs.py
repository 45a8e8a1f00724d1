"""Which images does a network learn from, and how are patches drawn from them?

A pair is PAN, MS and, at reduced resolution, the truth. It lies in a file or folder that `sfiin.data.reading`
reads, such as an `.npz` with `pan` (H, W), `ms` (B, h, w), `gt` (B, H, W) where there is ground truth, and
`meta`, a JSON string; or in a folder with the GeoTIFFs `pan.tif` and `ms.tif`, of which windows are read when
they are drawn, whatever their size. What has no truth is reduced by Wald's protocol (Wald, Ranchin, Mangolini
1997): the MS becomes the truth, and PAN and MS are degraded by the ratio.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from sfiin.data import images, reading, sensors
from sfiin.runtime.errors import InputError
from sfiin.runtime.quality.degradation import OTHER_MS_GAIN, OTHER_PAN_GAIN, TAPS, bicubic_reduce, degrade
from sfiin.runtime.scenes.scene import Scene, open_scene

Image = NDArray[np.float32]

Reduction = Literal["given", "mtf", "bicubic"]
"""How a pair's MS comes about: as it is in the file, through the sensor's MTF, or by the paper's bicubic
interpolation. Where there is no truth, `given` is `mtf`."""


class Source(Protocol):
    """What patches are drawn from. `size` is its (height, width) in MS pixels, where the truth is known."""

    @property
    def name(self) -> str:
        """The file's or folder's name."""
        ...

    @property
    def ratio(self) -> int:
        """PAN pixels per MS pixel."""
        ...

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in MS pixels."""
        ...

    def patch(self, row: int, col: int, side: int) -> tuple[Image, Image, Image]:
        """MS (B, side, side), PAN (1, side * ratio, side * ratio), truth (B, ...) from MS pixel (row, col)
        on, DN."""
        ...


@runtime_checkable
class Varying(Source, Protocol):
    """A source whose patches are drawn otherwise each time; see `sfiin.training.drawing`."""

    @property
    def weight(self) -> float:
        """How often it is drawn, beside its area."""
        ...

    def vary(self, row: int, col: int, side: int, random: np.random.Generator) -> tuple[Image, Image, Image]:
        """As `patch`, made anew."""
        ...


@dataclass(frozen=True)
class Pair:
    """PAN (1, H, W), MS (B, h, w) and truth (B, H, W) or None; float32, DN."""

    name: str
    pan: Image
    ms: Image
    truth: Image | None
    meta: Mapping[str, Any]

    @property
    def ratio(self) -> int:
        """PAN pixels per MS pixel."""
        return int(self.pan.shape[-1] // self.ms.shape[-1])

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in MS pixels."""
        return self.ms.shape[1], self.ms.shape[2]

    def patch(self, row: int, col: int, side: int) -> tuple[Image, Image, Image]:
        """See `Source`. Raises ValueError for a pair without truth."""
        if self.truth is None:
            raise ValueError(f"{self.name} has no truth; reduce it first")
        ratio = self.ratio
        fine = np.s_[:, row * ratio : (row + side) * ratio, col * ratio : (col + side) * ratio]
        return self.ms[:, row : row + side, col : col + side], self.pan[fine], self.truth[fine]


@dataclass(frozen=True)
class ScenePair:
    """A scene at reduced resolution, read and degraded by windows: its MS is the truth. Close the scene
    after use."""

    name: str
    scene: Scene
    reduction: Reduction
    gains: tuple[Sequence[float], float]

    @property
    def ratio(self) -> int:
        """PAN pixels per MS pixel."""
        return self.scene.sensor.ratio

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in MS pixels at reduced resolution."""
        square = self.ratio**2
        return self.scene.height // square, self.scene.width // square

    def patch(self, row: int, col: int, side: int) -> tuple[Image, Image, Image]:
        """See `Source`; the same as if the whole scene had been reduced, but for the scene's outermost
        pixels.

        Raises SceneError when a file turns out to be damaged.
        """
        ratio = self.ratio
        margin = -(-TAPS // (2 * ratio)) + 1  # coarse pixels that the filters reach over
        first, outer = (row - margin, col - margin), side + 2 * margin
        square = ratio * ratio
        ms, pan, _ = self.scene.read(first[0] * square, first[1] * square, outer * square, outer * square)
        low = _reduce(ms, ratio, self.reduction, self.gains[0])
        mid = _reduce(pan, ratio, self.reduction, self.gains[1])
        inner, fine = slice(margin, margin + side), slice(margin * ratio, (margin + side) * ratio)
        return low[:, inner, inner], mid[:, fine, fine], ms[:, fine, fine]


def load_pair(path: Path) -> Pair:
    """Read a file's first pair. Raises InputError for anything else, or for shapes that do not fit one
    another."""
    return from_raw(next(reading.read_file(path)))


def load_folder(folder: Path, bands: int, ratio: int) -> list[Pair]:
    """All pairs of a folder with so many bands and this ratio, by name, in the numbers of their files.

    Raises InputError when there is none. `sfiin.data.dataset` says what their numbers mean.
    """
    pairs = [from_raw(raw) for raw in reading.read_folder(folder)]
    fitting = [pair for pair in pairs if (len(pair.ms), pair.ratio) == (bands, ratio)]
    if not fitting:
        raise InputError(
            f"{folder}: no pair of {bands} bands at ratio {ratio} (of {len(pairs)} pairs there); "
            + reading.describe(folder)
        )
    return fitting


def from_raw(raw: reading.Raw, ratio: int = 4) -> Pair:
    """A sample as a pair. Where its MS is not usable, it is made from the truth, at the ratio, by the MTF."""
    kept = {"stored": raw.stored if raw.stored.startswith("float") else "", "notes": raw.notes}
    meta = {**raw.meta, **{key: value for key, value in kept.items() if value}}
    truth = None if raw.truth is None else _image(raw.truth)
    if raw.ms is not None:
        return Pair(raw.name, _image(raw.pan), _image(raw.ms), truth, meta)
    assert truth is not None  # or it would not have been read
    height, width = (side // ratio * ratio for side in truth.shape[1:])
    cut = truth[:, :height, :width]
    coarse = cut[:, ::ratio, ::ratio]
    return reduced(Pair(raw.name, _image(raw.pan[:, :height, :width]), coarse, cut, meta), "mtf")


def open_scenes(
    folder: Path, sensor: sensors.Sensor, reduction: Reduction, stack: ExitStack
) -> list[ScenePair]:
    """The folder's sub-folders with `pan.tif` and `ms.tif`, open until the stack is closed, by name.

    Raises SceneError or MismatchError for one that is not what the sensor delivers.
    """
    found = _scenes(folder)
    gains = (sensor.ms_gains, sensor.pan_gain)
    return [
        ScenePair(
            path.name,
            stack.enter_context(open_scene(path / "pan.tif", [path / "ms.tif"], sensor.profile)),
            reduction,
            gains,
        )
        for path in found
    ]


def has_scenes(folder: Path) -> bool:
    """Whether a folder holds scenes."""
    return bool(_scenes(folder))


def _scenes(folder: Path) -> list[Path]:
    return sorted(path.parent for path in folder.glob("*/pan.tif") if images.is_scene(path.parent))


def reduced(pair: Pair, reduction: Reduction = "given", sensor: sensors.Sensor | None = None) -> Pair:
    """The pair with truth: its own, with MS as given or made from it anew, or else one scale coarser.

    The MTF is that of the sensor which the pair names, if it is known; else that of `sensor`.
    """
    ratio = pair.ratio
    ms_gains, pan_gain = gains(pair, sensor)
    if pair.truth is not None:
        if reduction == "given":
            return pair
        return dataclasses.replace(pair, ms=_reduce(pair.truth, ratio, reduction, ms_gains))
    height, width = (side // ratio * ratio for side in pair.ms.shape[1:])
    truth = pair.ms[:, :height, :width]
    pan = _reduce(pair.pan[:, : height * ratio, : width * ratio], ratio, reduction, pan_gain)
    return Pair(pair.name, pan, _reduce(truth, ratio, reduction, ms_gains), truth, pair.meta)


def gains(pair: Pair, given: sensors.Sensor | None = None) -> tuple[float | Sequence[float], float]:
    """MS gains, band by band as the pair names its bands, and PAN's: of the sensor that the pair names, or
    else of the one given, or of one that nothing is known of.
    """
    name = str(pair.meta.get("sensor", ""))
    own = given if given and given.is_called(name) else sensors.known(name)
    for sensor in (own, given):
        if sensor and len(sensor.ms_gains) == len(pair.ms):
            return _in_order(sensor, pair), sensor.pan_gain
    return OTHER_MS_GAIN, OTHER_PAN_GAIN


def _in_order(sensor: sensors.Sensor, pair: Pair) -> Sequence[float]:
    known = dict(zip(sensor.profile.bands, sensor.ms_gains, strict=True))
    bands = [sensors.band_name(str(band)) for band in pair.meta.get("bands", known)]
    return tuple(known[band] for band in bands) if sorted(bands) == sorted(known) else sensor.ms_gains


def split(pairs: Sequence[Pair], tile: int, every: int = 8) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs to choose the best checkpoint by: every `every`-th by name, from the fourth
    on.

    With fewer than four pairs each is divided: its rightmost quarter, at least one `tile` (PAN pixels), is
    held out.
    """
    if len(pairs) < 4:
        parts = [_divided(pair, tile) for pair in pairs]
        return [left for left, _ in parts], [right for _, right in parts]
    held = [pair for i, pair in enumerate(pairs) if i % every == 3]
    return [pair for i, pair in enumerate(pairs) if i % every != 3], held


def draw(pairs: Sequence[Source], patch: int, batch: int, seed: Sequence[int]) -> tuple[Image, Image, Image]:
    """A batch of random patches, turned, flipped and dimmed or brightened at random, determined by `seed`.

    Returns MS (N, B, patch / ratio, patch / ratio), PAN (N, 1, patch, patch), truth (N, B, patch, patch), DN.
    Pairs are drawn by their area, and by their weight if they vary; a patch lies on whole MS pixels.
    """
    ms, pan, truth = zip(*(patch_ for _, patch_ in _drawn(pairs, patch, batch, seed)), strict=True)
    return np.stack(ms), np.stack(pan), np.stack(truth)


def drawn_from(pairs: Sequence[Source], patch: int, batch: int, seed: Sequence[int]) -> list[str]:
    """Where the patches of that batch come from: a pair's name and MS row and column each."""
    return [place for place, _ in _drawn(pairs, patch, batch, seed)]


def _drawn(
    pairs: Sequence[Source], patch: int, batch: int, seed: Sequence[int]
) -> list[tuple[str, tuple[Image, Image, Image]]]:
    random = np.random.default_rng(seed)
    weights = (pair.weight if isinstance(pair, Varying) else 1.0 for pair in pairs)
    area = np.array(
        [pair.size[0] * pair.size[1] * weight for pair, weight in zip(pairs, weights, strict=True)]
    )
    chosen = random.choice(len(pairs), batch, p=area / area.sum())
    return [_patch(pairs[i], patch, random) for i in chosen]


def _patch(pair: Source, patch: int, random: np.random.Generator) -> tuple[str, tuple[Image, Image, Image]]:
    side = patch // pair.ratio
    row, col = (int(random.integers(size - side + 1)) for size in pair.size)
    turns, mirrored, gain = (
        int(random.integers(4)),
        random.integers(2),
        np.float32(2 ** random.uniform(-0.5, 0.5)),
    )
    at = (row, col, side)
    drawn = pair.vary(*at, random) if isinstance(pair, Varying) else pair.patch(*at)
    images = [np.rot90(image, turns, (1, 2)) * gain for image in drawn]
    if mirrored:
        images = [image[:, :, ::-1] for image in images]
    return f"{pair.name} at MS row {row}, column {col}", (images[0], images[1], images[2])


def _divided(pair: Pair, tile: int) -> tuple[Pair, Pair]:
    width, ratio = pair.ms.shape[2], pair.ratio
    cut = width - max(tile // ratio, width // 4)
    if cut * ratio < tile:
        raise InputError(
            f"{pair.name}: {width * ratio} PAN pixels wide, too few to divide for training and judging; "
            f"give four pairs or more, or a smaller --patch (now {tile})"
        )
    return _columns(pair, slice(0, cut), ratio), _columns(pair, slice(cut, width), ratio)


def _columns(pair: Pair, part: slice, ratio: int) -> Pair:
    fine = slice(part.start * ratio, part.stop * ratio)
    truth = None if pair.truth is None else pair.truth[:, :, fine]
    return Pair(pair.name, pair.pan[:, :, fine], pair.ms[:, :, part], truth, pair.meta)


def _reduce(image: Image, ratio: int, reduction: Reduction, gains: float | Sequence[float]) -> Image:
    if reduction == "bicubic":
        return _image(bicubic_reduce(image, ratio))
    return _image(degrade(image, ratio, gains))


def _image(array: NDArray[Any]) -> Image:
    return np.ascontiguousarray(array, np.float32)

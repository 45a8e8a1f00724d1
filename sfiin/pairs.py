"""Which images does a network learn from, and how are patches drawn from them?

A pair is PAN, MS and, at reduced resolution, the truth. Files are `.npz` with `pan` (H, W), `ms` (B, h, w), `gt`
(B, H, W) where there is ground truth, and `meta`, a JSON string. A pair without truth is reduced by Wald's protocol
(Wald, Ranchin, Mangolini 1997): the MS becomes the truth, and PAN and MS are degraded by the ratio.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from runtime.errors import InputError
from sfiin.degradation import degrade

Image = NDArray[np.float32]


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


def load_pair(path: Path) -> Pair:
    """Read a `.npz` pair. Raises InputError for anything else, or for shapes that do not fit one another."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        pan, ms, truth = arrays["pan"], arrays["ms"], arrays.get("gt")
        meta = json.loads(str(arrays["meta"])) if "meta" in arrays else {}
    except FileNotFoundError:
        raise InputError(f"{path}: no such pair") from None
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: not a pair of PAN and MS (an .npz with 'pan' and 'ms'): {error}") from None
    whole = ms.ndim == 3 and pan.ndim == 2 and pan.shape[1] == ms.shape[2] * (pan.shape[1] // ms.shape[2])
    if not whole or pan.shape[0] * ms.shape[2] != pan.shape[1] * ms.shape[1]:
        raise InputError(f"{path}: PAN {pan.shape} is no whole multiple of MS {ms.shape}")
    if truth is not None and truth.shape != (len(ms), *pan.shape):
        raise InputError(f"{path}: the truth is {truth.shape}, not {(len(ms), *pan.shape)}")
    return Pair(path.stem, _image(pan[None]), _image(ms), None if truth is None else _image(truth), meta)


def load_folder(folder: Path, bands: int, ratio: int) -> list[Pair]:
    """All pairs of a folder with so many bands and this ratio, by name. Raises InputError when there is none."""
    pairs = [load_pair(path) for path in sorted(folder.glob("*.npz"))]
    fitting = [pair for pair in pairs if (len(pair.ms), pair.ratio) == (bands, ratio)]
    if not fitting:
        raise InputError(f"{folder}: no .npz pair of {bands} bands at ratio {ratio} (of {len(pairs)} pairs there)")
    return fitting


def reduced(pair: Pair) -> Pair:
    """The pair with truth: itself if it has one, else one scale coarser by Wald's protocol."""
    if pair.truth is not None:
        return pair
    ratio = pair.ratio
    height, width = (side // ratio * ratio for side in pair.ms.shape[1:])
    truth = pair.ms[:, :height, :width]
    pan = degrade(pair.pan[:, : height * ratio, : width * ratio], ratio, 0.15)
    return Pair(pair.name, _image(pan), _image(degrade(truth, ratio, 0.3)), truth, pair.meta)


def split(pairs: Sequence[Pair], every: int = 8) -> tuple[list[Pair], list[Pair]]:
    """Pairs to train on and pairs to choose the best checkpoint by: every `every`-th by name, from the fourth on."""
    held = [pair for i, pair in enumerate(pairs) if i % every == 3]
    return [pair for i, pair in enumerate(pairs) if i % every != 3], held


def draw(pairs: Sequence[Pair], patch: int, batch: int, seed: Sequence[int]) -> tuple[Image, Image, Image]:
    """A batch of random patches, turned, flipped and dimmed or brightened at random, determined by `seed`.

    Returns MS (N, B, patch / ratio, patch / ratio), PAN (N, 1, patch, patch), truth (N, B, patch, patch), DN. Pairs are
    drawn by their area; a patch lies on whole MS pixels.
    """
    random = np.random.default_rng(seed)
    area = np.array([pair.pan.size for pair in pairs], np.float64)
    chosen = random.choice(len(pairs), batch, p=area / area.sum())
    ms, pan, truth = zip(*(_patch(pairs[i], patch, random) for i in chosen), strict=True)
    return np.stack(ms), np.stack(pan), np.stack(truth)


def _patch(pair: Pair, patch: int, random: np.random.Generator) -> tuple[Image, Image, Image]:
    assert pair.truth is not None
    ratio, side = pair.ratio, patch // pair.ratio
    row, col = (random.integers(size - side + 1) for size in pair.ms.shape[1:])
    ms = pair.ms[:, row : row + side, col : col + side]
    row, col = row * ratio, col * ratio
    window = np.s_[:, row : row + patch, col : col + patch]
    turns, mirrored, gain = int(random.integers(4)), random.integers(2), np.float32(2 ** random.uniform(-0.5, 0.5))
    images = [np.rot90(image, turns, (1, 2)) * gain for image in (ms, pair.pan[window], pair.truth[window])]
    if mirrored:
        images = [image[:, :, ::-1] for image in images]
    return images[0], images[1], images[2]


def _image(array: NDArray[Any]) -> Image:
    return np.ascontiguousarray(array, np.float32)

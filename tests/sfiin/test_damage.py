"""Files that were damaged on the way: each is either read or refused in one line, whatever byte it is that
changed."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sfiin.data import pairs
from sfiin.data.pairs import Pair
from sfiin.data.sensors import SENSORS
from sfiin.model import checkpoint
from sfiin.model.checkpoint import Checkpoint
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.errors import InputError
from sfiin.training.train import TrainingConfig, train

PROFILE = SENSORS["vhr4"].profile
CONFIG = TrainingConfig(steps=1, batch=1, patch=16)


def network() -> SFIIN:
    torch.manual_seed(0)
    return SFIIN(NetworkConfig(channels=4, blocks=1), PROFILE)


@cache
def image_pair() -> Pair:
    random = np.random.default_rng(0)
    shapes = (1, 16, 16), (4, 4, 4), (4, 16, 16)
    pan, ms, truth = (random.uniform(1, 2000, shape).astype(np.float32) for shape in shapes)
    return Pair("p", pan, ms, truth, {})


@cache
def good(kind: str) -> bytes:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        match kind:
            case "pair" | "small pair":
                pair, save = image_pair(), np.savez_compressed if kind == "small pair" else np.savez
                assert pair.truth is not None
                with path.open("wb") as stream:
                    save(
                        stream,
                        pan=pair.pan[0],
                        ms=pair.ms,
                        gt=pair.truth,
                        meta=json.dumps({"sensor": "QuickBird"}),
                    )
            case "checkpoint":
                checkpoint.save(path, Checkpoint(network()))
            case "state":
                train(network(), [image_pair()], [image_pair()], CONFIG, state_file=path)
        return path.read_bytes()


def read(kind: str, path: Path) -> None:
    match kind:
        case "checkpoint":
            checkpoint.load(path)
        case "state":
            train(network(), [image_pair()], [image_pair()], CONFIG, state_file=path)
        case _:
            pairs.reduced(pairs.load_pair(path), "mtf")


@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
@pytest.mark.parametrize("kind", ["pair", "small pair", "checkpoint", "state"])
@given(data=st.data())
@settings(deadline=None, max_examples=60, derandomize=True)
def test_a_damaged_file_is_read_or_refused(kind: str, data: st.DataObject) -> None:
    content = bytearray(good(kind))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    for _ in range(data.draw(st.integers(0, 4)) if content else 0):
        # As often where the structure is, at either end, as among the numbers in between.
        place = data.draw(st.integers(0, min(400, len(content) - 1)) | st.integers(0, len(content) - 1))
        content[-1 - place if data.draw(st.booleans()) else place] = data.draw(st.integers(0, 255))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        try:
            read(kind, path)
        except InputError as error:
            assert "\n" not in str(error)  # most damage is refused, some is not even seen


@pytest.mark.parametrize(
    "changes",
    [
        {"meta": "[]"},
        {"meta": "3"},
        {"meta": "null"},
        {"ms": np.zeros((4, 4, 0), np.float32), "pan": np.zeros((16, 0), np.float32)},
        {"ms": np.zeros((4, 0, 0), np.float32), "pan": np.zeros((0, 0), np.float32)},
        {"ms": np.zeros((0, 4, 4), np.float32)},
        {"pan": np.full((16, 16), "a")},
        {"ms": np.full((4, 4, 4), 1j)},
        {"gt": np.full((4, 16, 16), "a")},
        {"pan": np.zeros((4, 4), np.float32)},  # ratio 1
    ],
)
def test_arrays_that_are_no_images_are_refused(tmp_path: Path, changes: dict[str, object]) -> None:
    pair = image_pair()
    arrays = {"pan": pair.pan[0], "ms": pair.ms, "meta": "{}"} | changes
    np.savez(tmp_path / "p.npz", **arrays)
    with pytest.raises(InputError, match=r"p\.npz: "):
        pairs.load_pair(tmp_path / "p.npz")

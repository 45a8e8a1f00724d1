"""Pairs: reading, refusing, reducing, splitting, and drawing patches that stay aligned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sfiin.data import pairs
from sfiin.data.pairs import Pair
from sfiin.runtime.errors import InputError


def write(path: Path, **changes: object) -> Path:
    random = np.random.default_rng(0)
    arrays = {
        "pan": random.integers(1, 2000, (64, 48)).astype(np.uint16),
        "ms": random.integers(1, 2000, (4, 16, 12)).astype(np.uint16),
        "gt": random.integers(1, 2000, (4, 64, 48)).astype(np.uint16),
        "meta": json.dumps({"sensor": "test"}),
    }
    np.savez(path, **{k: v for k, v in (arrays | changes).items() if v is not None})  # type: ignore[arg-type]
    return path


def test_load(tmp_path: Path) -> None:
    pair = pairs.load_pair(write(tmp_path / "a.npz"))
    assert (pair.name, pair.ratio, pair.meta) == ("a", 4, {"sensor": "test"})
    assert pair.pan.shape == (1, 64, 48)
    assert {pair.pan.dtype, pair.ms.dtype} == {np.dtype(np.float32)}
    assert pairs.load_pair(write(tmp_path / "b.npz", gt=None, meta=None)).truth is None


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pan": None}, "not a pair"),
        ({"pan": np.zeros((64, 50), np.uint16)}, "no whole multiple"),
        ({"pan": np.zeros((60, 48), np.uint16)}, "no whole multiple"),
        ({"ms": np.zeros((16, 12), np.uint16)}, "no whole multiple"),
        ({"gt": np.zeros((3, 64, 48), np.uint16)}, "truth"),
        ({"meta": "{"}, "not a pair"),
    ],
)
def test_what_is_no_pair_is_refused(tmp_path: Path, changes: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        pairs.load_pair(write(tmp_path / "a.npz", **changes))


def test_missing_damaged_and_unfitting_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such pair"):
        pairs.load_pair(tmp_path / "none.npz")
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 but no archive")
    with pytest.raises(InputError, match="not a pair"):
        pairs.load_pair(tmp_path / "bad.npz")
    (tmp_path / "bad.npz").unlink()
    write(tmp_path / "a.npz")
    with pytest.raises(InputError, match="8 bands at ratio 4"):
        pairs.load_folder(tmp_path, 8, 4)
    assert [pair.name for pair in pairs.load_folder(tmp_path, 4, 4)] == ["a"]


def test_reduced_makes_the_ms_the_truth(tmp_path: Path) -> None:
    pair = pairs.load_pair(write(tmp_path / "a.npz", gt=None))
    lower = pairs.reduced(pair)
    assert lower.truth is not None
    np.testing.assert_array_equal(lower.truth, pair.ms)
    assert lower.pan.shape == (1, 16, 12)
    assert lower.ms.shape == (4, 4, 3)
    with_truth = pairs.load_pair(write(tmp_path / "b.npz"))
    assert pairs.reduced(with_truth) is with_truth


def test_split_is_fixed_and_complete() -> None:
    many = [Pair(f"p{i}", *(np.zeros((1, 4, 4), np.float32),) * 3, {}) for i in range(17)]
    used, held = pairs.split(many, 4)
    assert [pair.name for pair in held] == ["p3", "p11"]
    assert sorted(p.name for p in used + held) == sorted(p.name for p in many)


def test_patches_are_aligned_and_determined_by_their_seed() -> None:
    """PAN, MS and truth hold their own coordinates, so any misalignment, turned or not, shows."""
    rows, cols = np.mgrid[:64, :48].astype(np.float32)
    fine = rows * 100 + cols + 1
    coarse = fine.reshape(16, 4, 12, 4).mean((1, 3))
    pair = Pair("p", fine[None], np.stack([coarse] * 4), np.stack([fine] * 4), {})
    ms, pan, truth = pairs.draw([pair], 16, 32, (0, 1))
    assert (ms.shape, pan.shape, truth.shape) == ((32, 4, 4, 4), (32, 1, 16, 16), (32, 4, 16, 16))
    np.testing.assert_allclose(pan.reshape(32, 4, 4, 4, 4).mean((2, 4)), ms[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(truth[:, 2], pan[:, 0])
    assert len({patch.tobytes() for patch in pan}) > 20
    for first, second in zip(pairs.draw([pair], 16, 4, (0, 1)), (ms, pan, truth), strict=True):
        assert first.shape[0] == 4
        assert second.flags.c_contiguous
    again = pairs.draw([pair], 16, 32, (0, 1))
    assert all(np.array_equal(a, b) for a, b in zip(again, (ms, pan, truth), strict=True))
    assert not np.array_equal(pairs.draw([pair], 16, 32, (0, 2))[1], pan)

"""Which array is which image, in any usual order of axes; and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sfiin.data.samples import role
from sfiin.data.samples import samples as read
from sfiin.runtime.errors import InputError

Arrays = dict[str, NDArray[Any]]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("pan", "pan"),
        ("I_PAN", "pan"),
        ("PAN_npy", "pan"),
        ("LR_npy", "ms"),
        ("HR_npy", "gt"),
        ("I_MS_LR", "ms"),
        ("MS_LR", "ms"),
        ("train_ms", "ms"),
        ("12_gt", "gt"),
        ("lms", "lms"),
        ("0", ""),
        ("readme", ""),
        ("panther", ""),
    ],
)
def test_roles_by_names(name: str, wanted: str) -> None:
    assert role(name) == wanted


ORDERS: dict[str, Callable[[Arrays], Arrays]] = {
    "bands first": lambda a: a,
    "bands last": lambda a: {k: v.transpose(1, 2, 0) if v.ndim == 3 else v for k, v in a.items()},
    "PAN of one band first": lambda a: a | {"pan": a["pan"][None]},
    "PAN of one band last": lambda a: a | {"pan": a["pan"][..., None]},
    "a batch of one": lambda a: {k: v[None] if v.ndim == 3 else v[None, None] for k, v in a.items()},
    "columns first in memory": lambda a: {k: np.asfortranarray(v) for k, v in a.items()},
    "big-endian": lambda a: {k: v.astype(">u2") for k, v in a.items()},
    "other names": lambda a: {"I_PAN": a["pan"], "I_MS_LR": a["ms"], "I_GT": a["gt"]},
    "lr and mul": lambda a: {"pan": a["pan"], "lr": a["ms"], "mul": a["gt"]},
    "MS resampled beside MS": lambda a: (
        {"I_MS": a["ms"].repeat(4, 1).repeat(4, 2), "I_MS_LR": a["ms"]} | {k: a[k] for k in ("pan", "gt")}
    ),
}


@pytest.mark.parametrize("order", ORDERS)
def test_the_same_comes_out_of_any_order(samples_: Arrays, order: str) -> None:
    (found,) = read(("x", Path("x.npz")), ORDERS[order](samples_), {})
    assert np.array_equal(found.pan, samples_["pan"][None])
    assert found.ms is not None
    assert found.truth is not None
    assert np.array_equal(found.ms, samples_["ms"])
    assert np.array_equal(found.truth, samples_["gt"])


def test_a_stack_is_numbered(samples_: Arrays) -> None:
    stack = {name: np.stack([image] * 11) for name, image in samples_.items()}
    found = list(read(("set", Path("set.h5")), stack, {}))
    assert [found[0].name, found[10].name] == ["set[00]", "set[10]"]
    with pytest.raises(InputError, match=r"set.h5: 3 of 'pan' for 11 of 'ms'"):
        list(read(("set", Path("set.h5")), stack | {"pan": stack["pan"][:3]}, {}))


def test_ms_on_the_grid_of_pan_is_made_anew_or_refused(samples_: Arrays) -> None:
    wide = samples_ | {"ms": samples_["ms"].repeat(4, 1).repeat(4, 2)}
    (found,) = read(("x", Path("x.npz")), wide, {})
    assert found.ms is None
    assert found.notes == ("MS on PAN's grid is not used, but made from the truth",)
    del wide["gt"]
    with pytest.raises(InputError, match="lies on PAN's grid already"):
        list(read(("x", Path("x.npz")), wide, {}))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"pan": np.zeros((2, 64, 64))}, "not one image of one band"),
        ({"pan": np.zeros((64, 64), bool)}, "holds no numbers"),
        ({"ms": np.zeros((4, 16, 16), complex)}, "holds no numbers"),
        ({"ms": np.zeros((4, 16, 17))}, "no whole multiple"),
        ({"ms": np.zeros((16, 16))}, "no whole multiple"),
        ({"gt": np.zeros((4, 16, 16))}, "the truth is"),
    ],
)
def test_what_is_no_sample_is_refused(samples_: Arrays, changes: Arrays, text: str) -> None:
    with pytest.raises(InputError, match=text):
        list(read(("x", Path("x.npz")), samples_ | changes, {}))


@pytest.fixture
def samples_(samples: list[Arrays]) -> Arrays:
    """One of them."""
    return samples[0]

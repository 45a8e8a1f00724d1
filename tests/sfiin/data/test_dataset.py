"""What pairs mean: bands, range and peak are taken, given, or guessed and said; the impossible is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sfiin.data import dataset
from sfiin.data.dataset import Given
from sfiin.data.sensors import SENSORS
from sfiin.runtime.errors import InputError

VHR = SENSORS["vhr4"].profile
Sample = dict[str, NDArray[Any]]


def write(folder: Path, samples: list[Sample], meta: dict[str, Any] | None = None, **factors: float) -> Path:
    """The samples with each image times a factor, or all times `all`, as float32 where that is no whole
    number."""
    for number, sample in enumerate(samples):
        scaled = {name: image * factors.get(name, factors.get("all", 1)) for name, image in sample.items()}
        whole = all(float(factor).is_integer() for factor in factors.values())
        kind = np.uint16 if whole else np.float32
        arrays = {name: image.astype(kind) for name, image in scaled.items()}
        np.savez(folder / f"{number}.npz", meta=json.dumps(meta or {}), **arrays)  # type: ignore[arg-type]
    return folder


def test_what_is_guessed_is_said(tmp_path: Path, samples: list[Sample]) -> None:
    found = dataset.read(write(tmp_path, samples), VHR)
    assert [pair.meta["peak"] for pair in found.pairs] == [2047] * 3
    assert "taken to be blue, green, red, nir" in found.notes[0]
    assert "taken for 11 bits, as 'vhr4' has" in found.notes[1]


def test_what_is_named_is_not_guessed(tmp_path: Path, samples: list[Sample]) -> None:
    meta = {"bands": ["R", "G", "B", "NIR"], "nominal_bits": 11}
    swapped = [
        sample | {"ms": sample["ms"][[2, 1, 0, 3]], "gt": sample["gt"][[2, 1, 0, 3]]} for sample in samples
    ]
    found = dataset.read(write(tmp_path, swapped, meta), VHR)
    assert found.notes == ()
    assert np.array_equal(found.pairs[0].ms, samples[0]["ms"])


def test_options_say_it_for_all(tmp_path: Path, samples: list[Sample]) -> None:
    found = dataset.read(write(tmp_path, samples), VHR, Given(("red", "green", "blue", "nir"), 12))
    assert found.notes == ()
    assert found.pairs[0].meta["peak"] == 4095
    assert np.array_equal(found.pairs[0].ms, samples[0]["ms"][[2, 1, 0, 3]])
    with pytest.raises(InputError, match="--bands: cyan"):
        dataset.read(tmp_path, VHR, Given(("cyan", "green", "blue", "nir")))


def test_eight_bits_are_judged_by_their_own_peak(tmp_path: Path, samples: list[Sample]) -> None:
    most = max(int(image.max()) for sample in samples for image in sample.values())
    small = [{k: (v * (255 / most)).astype(np.uint8) for k, v in sample.items()} for sample in samples]
    found = dataset.read(write(tmp_path, small), VHR)
    assert found.pairs[0].meta["peak"] == 255
    assert "taken for 8 bits" in found.notes[1]
    scaled = dataset.fitted(found.pairs[0], VHR)
    assert np.allclose(scaled.ms, found.pairs[0].ms * (2047 / 255))


def test_fractions_become_digital_numbers_and_that_is_said(tmp_path: Path, samples: list[Sample]) -> None:
    found = dataset.read(write(tmp_path, samples, all=1 / 2047), VHR)
    assert np.allclose(found.pairs[0].ms, samples[0]["ms"], atol=1e-3)
    assert f"{tmp_path}: fractions of 0 to 1 were taken times 2047, the peak (--bits)" in found.notes


@pytest.mark.parametrize(
    ("factors", "text"),
    [
        ({"all": 32.0}, r"values range to \d+, but digital numbers of 'vhr4' to 2047 only; .*--bits 16"),
        ({"all": -1.5}, r"values range from -\d+ to -\d+, not within 0 to 2047; .*--bits"),
        ({"gt": 1 / 2047}, "MS and the truth are in different ranges"),
        ({"pan": 1 / 2047}, "PAN and MS are in different ranges"),
        ({"pan": 1 / 8, "ms": 1.0, "gt": 1.0}, "PAN and MS are in different ranges"),
        ({"all": float("nan")}, "not finite"),
        ({"all": float("inf")}, "not finite"),
    ],
)
def test_a_range_that_cannot_be_is_refused_with_its_numbers(
    tmp_path: Path, samples: list[Sample], factors: dict[str, Any], text: str
) -> None:
    with np.errstate(invalid="ignore"):
        write(tmp_path, samples, **factors)
    with pytest.raises(InputError, match=text):
        dataset.read(tmp_path, VHR)


def test_pairs_of_another_sensor_are_named(tmp_path: Path, samples: list[Sample]) -> None:
    write(tmp_path, samples)
    with pytest.raises(
        InputError, match=r"no pair of 8 bands at ratio 4 \(of 3 pairs there: 4 bands at ratio 4"
    ):
        dataset.read(tmp_path, SENSORS["worldview3"].profile)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"of 0 pairs there\); there: nothing"):
        dataset.read(tmp_path / "empty", VHR)

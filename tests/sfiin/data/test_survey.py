"""What is said of a folder of data, and what is found to be wrong in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sfiin.data.survey import survey
from sfiin.runtime.errors import InputError
from sfiin.runtime.quality.detail import gaussian

Sample = dict[str, NDArray[Any]]


def write(path: Path, sample: Sample, **changes: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    np.savez(path, **(sample | changes))


def test_shapes_range_registration_and_detail(tmp_path: Path, large: list[Sample]) -> None:
    for number, sample in enumerate(large):
        write(tmp_path / f"{number}.npz", sample)
    found = survey(tmp_path)
    (kind,) = found.kinds
    assert (kind.pairs, kind.bands, kind.ratio, kind.pan, kind.truth) == (2, 4, 4, (128, 128), 2)
    assert kind.stored == "uint16"
    assert kind.high == max(image.max() for sample in large for image in sample.values())
    assert kind.told == 2
    assert kind.shift == pytest.approx((0, 0), abs=0.5)
    assert kind.shifted == 0
    assert kind.detail is not None
    assert found.splits == {"": 2}
    assert found.overlaps == ()


def test_what_is_wrong_is_found(tmp_path: Path, large: list[Sample]) -> None:
    one, other = large
    write(tmp_path / "train/shifted.npz", one, pan=np.roll(one["pan"], 6, 0))
    write(tmp_path / "train/blunt.npz", other, pan=gaussian(other["pan"][None], 3.0)[0].astype(np.uint16))
    write(tmp_path / "test/seen.npz", one, pan=np.roll(one["pan"], 6, 0))
    write(tmp_path / "test/holed.npz", {name: image.astype(np.float32) for name, image in other.items()})
    with np.load(tmp_path / "test/holed.npz") as file:
        holed = {name: file[name] for name in file.files}
    holed["ms"][0, 0, 0] = np.nan
    np.savez(tmp_path / "test/holed.npz", **holed)
    found = survey(tmp_path)
    text = "\n".join(found.findings)
    assert "PAN lies more than 1.5 PAN pixels from MS in 2 pairs: test/shifted" not in text
    assert "PAN lies more than 1.5 PAN pixels from MS in 2 pairs: test/seen, train/shifted" in text
    assert "PAN is blunter than the truth in 1 pairs" in text
    assert "1 pairs hold NaN or infinity: test/holed" in text
    assert "1 pairs come twice: test/seen = train/shifted" in text
    assert "1 pairs share ground across splits" in text
    assert found.splits == {"test": 2, "train": 2}


def test_the_command_prints_or_writes_json(invoke: Any, tmp_path: Path, large: list[Sample]) -> None:
    write(tmp_path / "a.npz", large[0])
    code, output, errors = invoke("data", "inspect", tmp_path)
    assert (code, errors) == (0, "")
    assert output.startswith(
        f"{tmp_path}: 1 pairs, 0 scenes\n  1 pairs: 4 bands at ratio 4, PAN 128 x 128, 1 with"
    )
    code, output, _ = invoke("data", "inspect", tmp_path, "--json")
    assert json.loads(output)["kinds"][0]["pan"] == [128, 128]
    assert invoke("data", "inspect", tmp_path, "--quiet")[1] == ""


def test_a_folder_without_data_is_refused(invoke: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no pairs of PAN and MS; there: nothing"):
        survey(tmp_path)
    assert invoke("data", "inspect", tmp_path)[0] == 3
    assert invoke("data", "inspect", tmp_path / "none")[0] == 2

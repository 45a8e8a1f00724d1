"""Files and folders of samples, as PanCollection, DLPan-Toolbox, MATLAB and others write them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from numpy.typing import NDArray
from rasterio.errors import NotGeoreferencedWarning

from sfiin.data import pairs, reading
from sfiin.runtime.errors import InputError

Sample = dict[str, NDArray[Any]]
Write = Callable[[Path, list[Sample]], object]


def stacked(samples: list[Sample]) -> Sample:
    return {name: np.stack([sample[name] for sample in samples]).astype(np.float64) for name in samples[0]}


def h5(path: Path, samples: list[Sample], group: str = "", *, last: bool = False) -> None:
    h5py = pytest.importorskip("h5py")
    whole = stacked(samples)
    whole["pan"] = whole["pan"][:, None]
    whole["lms"] = whole["ms"].repeat(4, 2).repeat(4, 3)
    with h5py.File(path, "w") as file:
        for name, array in whole.items():
            file[group + name] = array.transpose(0, 2, 3, 1) if last else array


def in_matlab(sample: Sample) -> Sample:
    return {
        "I_MS_LR": sample["ms"].transpose(1, 2, 0).astype(float),
        "I_PAN": sample["pan"].astype(float),
        "I_GT": sample["gt"].transpose(1, 2, 0).astype(float),
    }


def mat_5(folder: Path, samples: list[Sample]) -> None:
    io = pytest.importorskip("scipy.io")
    for number, sample in enumerate(samples):
        io.savemat(folder / f"{number}.mat", in_matlab(sample) | {"sensor": "QB", "ratio": 4.0})


def mat_73(folder: Path, samples: list[Sample]) -> None:
    """HDF5 keeps what MATLAB wrote with its axes reversed."""
    h5py = pytest.importorskip("h5py")
    for number, sample in enumerate(samples):
        with h5py.File(folder / f"{number}.mat", "w") as file:
            for name, array in in_matlab(sample).items():
                file[name] = array.T


def image(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bands = array if array.ndim == 3 else array[None]
    count, height, width = bands.shape
    with rasterio.open(
        path, "w", driver="GTiff", dtype=bands.dtype, count=count, height=height, width=width
    ) as file:
        file.write(bands)


def images(pattern: str) -> Write:
    def write(folder: Path, samples: list[Sample]) -> None:
        for number, sample in enumerate(samples):
            for role, array in sample.items():
                image(folder / pattern.format(number=number, role=role), array)

    return write


def stack_of_arrays(folder: Path, samples: list[Sample]) -> None:
    for name, array in stacked(samples).items():
        np.save(folder / f"{name}.npy", array)


def arrays_in_folders(folder: Path, samples: list[Sample]) -> None:
    for role, name in (("pan", "PAN_npy"), ("ms", "LR_npy"), ("gt", "HR_npy")):
        (folder / name).mkdir()
        for number, sample in enumerate(samples):
            np.save(folder / name / f"{number}.npy", sample[role])


def unpaired(folder: Path, samples: list[Sample]) -> None:
    """UCGAN's: lr is MS, mul the truth."""
    for number, sample in enumerate(samples):
        for role, name in (("pan", "pan"), ("ms", "lr"), ("gt", "mul")):
            image(folder / f"{number}_{name}.tif", sample[role])


LAYOUTS: dict[str, Write] = {
    "PanCollection": lambda folder, samples: h5(folder / "train_qb.h5", samples),
    "bands last": lambda folder, samples: h5(folder / "a.hdf5", samples, last=True),
    "in a group": lambda folder, samples: h5(folder / "a.h5", samples, "data/"),
    "MATLAB 5": mat_5,
    "MATLAB 7.3": mat_73,
    "folders": images("{role}/{number}.tif"),
    "folders, named again": images("{role}/{number}_{role}.tif"),
    "names": images("{number}_{role}.tif"),
    "a folder each, with the truth": images("{number}/{role}.tif"),
    "arrays": arrays_in_folders,
    "stacks": stack_of_arrays,
    "one archive": lambda folder, samples: np.savez(folder / "all.npz", **stacked(samples)),  # type: ignore[arg-type]
    "lr and mul": unpaired,
}


@pytest.mark.filterwarnings(
    f"ignore::{NotGeoreferencedWarning.__module__}.{NotGeoreferencedWarning.__name__}"
)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path: Path, samples: list[Sample], layout: str) -> None:
    LAYOUTS[layout](tmp_path, samples)
    found = list(reading.read_folder(tmp_path))
    assert len(found) == 3
    for raw, sample in zip(found, samples, strict=True):
        assert raw.ms is not None
        assert raw.truth is not None
        assert np.array_equal(raw.pan[0], sample["pan"])
        assert np.array_equal(raw.ms, sample["ms"])
        assert np.array_equal(raw.truth, sample["gt"])
    assert not pairs.has_scenes(tmp_path)


@pytest.mark.filterwarnings(
    f"ignore::{NotGeoreferencedWarning.__module__}.{NotGeoreferencedWarning.__name__}"
)
def test_a_scene_is_no_pair(tmp_path: Path, samples: list[Sample]) -> None:
    for role in ("pan", "ms"):
        image(tmp_path / f"a/{role}.tif", samples[0][role])
    assert list(reading.read_folder(tmp_path)) == []
    assert pairs.has_scenes(tmp_path)


@pytest.mark.parametrize(
    ("meta", "text"),
    [
        ({"peak": "x"}, "meta.peak"),
        ({"peak": 0}, "meta.peak"),
        ({"nominal_bits": -4}, "meta.nominal_bits"),
        ({"nominal_bits": 10**400}, "meta.nominal_bits"),
        ({"nominal_bits": 10.5}, "meta.nominal_bits"),
        ({"bands": "BGRN"}, "meta.bands"),
        ({"bands": [1, 2]}, "meta.bands"),
    ],
)
def test_what_a_pair_says_of_itself_is_looked_at(
    tmp_path: Path, samples: list[Sample], meta: dict[str, Any], text: str
) -> None:
    np.savez(tmp_path / "a.npz", meta=json.dumps(meta), **samples[0])  # type: ignore[arg-type]
    with pytest.raises(InputError, match=text):
        list(reading.read_file(tmp_path / "a.npz"))


def test_what_a_pair_leaves_open_is_as_if_not_said(tmp_path: Path, samples: list[Sample]) -> None:
    meta = {"bands": None, "peak": None, "nominal_bits": "11", "sensor": "QuickBird"}
    np.savez(tmp_path / "a.npz", meta=json.dumps(meta), **samples[0])  # type: ignore[arg-type]
    (found,) = reading.read_file(tmp_path / "a.npz")
    assert found.meta == {"nominal_bits": 11, "sensor": "QuickBird"}


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("a.npz", b"PK\x03\x04junk", "not a pair"),
        ("a.h5", b"\x89HDF\r\n\x1a\njunk", "damaged"),
        ("a.h5", b"something else", "not HDF5"),
        ("a.mat", b"MATLAB 5.0 MAT-file" + bytes(200), "damaged"),
        ("a.mat", b"", "damaged"),
    ],
)
def test_damaged_files_are_refused_in_one_line(tmp_path: Path, name: str, data: bytes, text: str) -> None:
    pytest.importorskip("h5py")
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=text) as failure:
        list(reading.read_folder(tmp_path))
    assert "\n" not in str(failure.value)


def test_a_folder_without_pairs_is_described(tmp_path: Path, samples: list[Sample]) -> None:
    (tmp_path / "train").mkdir()
    np.savez(tmp_path / "train/a.npz", **samples[0])  # type: ignore[arg-type]
    (tmp_path / "notes.txt").touch()
    text = reading.describe(tmp_path)
    assert text.startswith("there: 1 .txt, 1 folders; there are such files in train: give that folder")

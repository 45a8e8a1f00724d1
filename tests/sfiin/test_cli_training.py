"""`train` and `ablate` from end to end: what they write, what survives a kill, and what they refuse."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rasterio.transform import Affine

from sfiin.data import pairs
from sfiin.data.simulate import simulate
from sfiin.model import checkpoint
from sfiin.model.baselines import PNN, PanNet
from sfiin.runtime.quality.degradation import bicubic_reduce, degrade
from sfiin.runtime.scenes.scene import open_raster

Invoke = Callable[..., tuple[int, str, str]]

ROOT = Path(__file__).parent.parent.parent
SMALL = ["--channels", 4, "--blocks", 1, "--steps", 4, "--batch", 1, "--patch", 16, "--validate-every", 2]
SMALL += ["--threads", 1]
OWN = '[own]\nbands = ["red", "nir"]\nratio = 2\nbits = 11\nms_gain = [0.2, 0.4]\npan_gain = 0.1\n'


@pytest.fixture(scope="module")
def data(simulated_pairs: Callable[[int, str], Path]) -> Path:
    return simulated_pairs(32, "QuickBird")


def two_bands(folder: Path, truth: bool = False) -> Path:
    """Pairs of the sensor OWN, from 64 x 64 PAN pixels."""
    folder.mkdir()
    for seed in range(4):
        scene = simulate(64, 64, seed, ratio=2)
        known: dict[str, Any] = {"gt": scene.truth[2:]} if truth else {}
        np.savez(folder / f"p{seed}.npz", pan=scene.pan, ms=scene.ms[2:], meta='{"sensor": "own"}', **known)
    return folder


def same_tensors(first: Path, second: Path) -> bool:
    one, other = (checkpoint.load(path).network.state_dict() for path in (first, second))
    return list(one) == list(other) and all(torch.equal(one[name], other[name]) for name in one)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_train_writes_checkpoint_and_curve_and_nothing_else(
    invoke: Invoke, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "net.v1.safetensors"
    code, output, errors = invoke("train", "--data", data, "-o", out, *SMALL)
    assert (code, errors) == (0, "")
    assert names(tmp_path) == ["net.v1.csv", "net.v1.safetensors"]
    record = checkpoint.load(out).training
    said, note = output.splitlines()
    assert said == f"{out}: ERGAS {record['validation_ergas']:.3f} on 1 held-out pairs"
    assert note.endswith(
        "bands are taken to be blue, green, red, nir, for the pairs do not name them (--bands)"
    )
    assert record["assumed"] == [note.strip()]
    rows = list(csv.DictReader((tmp_path / "net.v1.csv").read_text().splitlines()))
    assert [{key: float(value) for key, value in row.items()} for row in rows] == record["curve"]
    assert [row["step"] for row in rows] == ["2", "4"]
    assert record["reduction"] == ["given"]
    assert "init" not in record


@pytest.mark.parametrize(
    ("options", "kind", "expected"),
    [
        (["--architecture", "pnn"], PNN, {"bands": 4, "ratio": 4}),
        (["--architecture", "pannet"], PanNet, {"bands": 4, "ratio": 4}),
        (["--branches", "spatial"], None, {"branches": "spatial", "interaction": "dual", "channels": 4}),
        (
            ["--branches", "frequency", "--interaction", "none"],
            None,
            {"branches": "frequency", "interaction": "none"},
        ),
        (
            ["--spatial", "invertible", "--precision", "mixed"],
            None,
            {"spatial": "invertible", "branches": "both"},
        ),
    ],
)
def test_train_other_networks(
    invoke: Invoke, data: Path, tmp_path: Path, *, options: list[str], kind: Any, expected: dict[str, Any]
) -> None:
    out = tmp_path / "net.safetensors"
    assert invoke("train", "--data", data, "-o", out, *SMALL, *options, "-q") == (0, "", "")
    result = checkpoint.load(out)
    assert kind is None or type(result.network) is kind
    config = result.network.config.__dict__
    assert {key: config[key] for key in expected} == expected
    assert result.training["precision"] == ("mixed" if "mixed" in options else "fp32")
    code, output, errors = invoke("evaluate", out, "--data", data, "--tile", 32, "--overlap", 8)
    assert (code, errors) == (0, "")
    assert checkpoint.architecture(result.network) in output


def test_two_reductions_make_each_pair_twice(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "net.safetensors"
    mix = ["--reduction", "mtf", "--reduction", "bicubic"]
    code, output, errors = invoke("train", "--data", data, "-o", out, *SMALL, *mix)
    assert (code, errors) == (0, "")
    assert "2 held-out pairs" in output
    record = checkpoint.load(out).training
    assert record["reduction"] == ["mtf", "bicubic"]
    assert record["pairs"] == ["p0", "p1", "p2"] * 2
    assert record["held_out"] == ["p3"] * 2
    # Judged by one step at rate zero on images that were reduced by hand.
    pair = pairs.load_pair(data / "p3.npz")
    assert pair.truth is not None
    for name, ms in (
        ("mtf", degrade(pair.truth, 4, (0.34, 0.32, 0.30, 0.22))),
        ("bicubic", bicubic_reduce(pair.truth, 4)),
    ):
        folder = tmp_path / name
        folder.mkdir()
        for index in range(4):
            np.savez(folder / f"p{index}.npz", pan=pair.pan[0], ms=ms.astype(np.float32), gt=pair.truth)
        still = ["--init", out, "--rate", 0, "--steps", 1, "--patch", 16, "-q"]
        assert invoke("train", "--data", folder, "-o", folder / "by-hand.safetensors", *still)[0] == 0
        assert (
            invoke(
                "train", "--data", data, "-o", folder / "by-sfiin.safetensors", *still, "--reduction", name
            )[0]
            == 0
        )
        scores = [
            checkpoint.load(folder / f"by-{by}.safetensors").training["validation_ergas"]
            for by in ("hand", "sfiin")
        ]
        assert scores[0] == scores[1]


def test_training_begins_with_a_checkpoint_and_may_replace_it(
    invoke: Invoke, data: Path, tmp_path: Path
) -> None:
    out, other = tmp_path / "net.safetensors", tmp_path / "other.safetensors"
    assert invoke("train", "--data", data, "-o", out, *SMALL, "-q")[0] == 0
    more = ["--init", out, "--steps", 2, "--patch", 16, "--batch", 1, "--threads", 1, "--rate", "1e-2", "-q"]
    assert invoke("train", "--data", data, "-o", other, *more) == (0, "", "")
    assert checkpoint.load(other).training["init"] == "net.safetensors"
    assert checkpoint.load(other).network.config.channels == 4
    before = checkpoint.load(out).network.state_dict()
    code, _, errors = invoke("train", "--data", data, "-o", out, *more)
    assert code == 7
    assert "exists already" in errors
    assert invoke("train", "--data", data, "-o", out, *more, "--overwrite") == (0, "", "")
    assert same_tensors(out, other)
    assert names(tmp_path) == ["net.csv", "net.safetensors", "other.csv", "other.safetensors"]
    assert any(not torch.equal(before[k], v) for k, v in checkpoint.load(out).network.state_dict().items())


def test_train_with_a_sensor_of_ones_own(invoke: Invoke, tmp_path: Path) -> None:
    """Its gains reduce the pairs: the held-out one is judged as if it had been reduced by hand."""
    data, own = two_bands(tmp_path / "data"), tmp_path / "own.toml"
    own.write_text(OWN)
    out = tmp_path / "net.safetensors"
    code, _, errors = invoke("train", "--data", data, "-o", out, "--sensor", own, *SMALL)
    assert (code, errors) == (0, "")
    network = checkpoint.load(out).network
    assert (network.sensor.name, network.sensor.bands, network.sensor.ratio) == ("own", ("red", "nir"), 2)
    by_hand = tmp_path / "by-hand"
    by_hand.mkdir()
    for path in sorted(data.glob("*.npz")):
        pair = pairs.load_pair(path)
        ms, pan = degrade(pair.ms, 2, (0.2, 0.4)), degrade(pair.pan, 2, 0.1)
        np.savez(by_hand / path.name, pan=pan[0].astype(np.float32), ms=ms.astype(np.float32), gt=pair.ms)
    second = tmp_path / "second.safetensors"
    assert invoke("train", "--data", by_hand, "-o", second, "--sensor", own, *SMALL)[0] == 0
    assert same_tensors(out, second)
    assert checkpoint.load(out).training["curve"] == checkpoint.load(second).training["curve"]
    # Its name is not known without the file, so going on needs --sensor again.
    code, _, errors = invoke(
        "train", "--data", data, "-o", tmp_path / "m.safetensors", "--init", out, "--patch", 16
    )
    assert code == 4
    assert f"sensor: {out} is for 'own', which is not shipped; give it with --sensor own.toml" in errors
    other = ["--init", out, "--sensor", "vhr4", "--patch", 16]
    code, _, errors = invoke("train", "--data", data, "-o", tmp_path / "m.safetensors", *other)
    assert code == 4
    assert f"sensor: {out} is for 'own' of 2 bands at ratio 2, not for 'vhr4' of 4 at ratio 4; give" in errors
    more = ["--init", out, "--sensor", own, "--steps", 1, "--patch", 16, "-q"]
    assert invoke("train", "--data", data, "-o", tmp_path / "m.safetensors", *more) == (0, "", "")


def test_scenes_are_trained_on_beside_pairs(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "town").mkdir(parents=True)
    for path in data.glob("*.npz"):
        (folder / path.name).write_bytes(path.read_bytes())
    scene = simulate(256, 256, 9)
    for name, image, pixel in (("pan.tif", scene.pan[None], 1.0), ("ms.tif", scene.ms, 4.0)):
        where = {"transform": Affine(pixel, 0, 4000, 0, -pixel, 5000), "crs": "EPSG:32633", "dtype": "uint16"}
        count, height, width = image.shape
        with open_raster(
            folder / "town" / name, "w", driver="GTiff", count=count, height=height, width=width, **where
        ) as f:
            f.write(image)
    out = tmp_path / "net.safetensors"
    assert invoke("train", "--data", folder, "-o", out, *SMALL, "--reduction", "bicubic", "-q") == (0, "", "")
    assert checkpoint.load(out).training["pairs"] == ["p0", "p1", "p2", "town"]
    assert checkpoint.load(out).training["held_out"] == ["p3"]
    (folder / "town" / "ms.tif").write_text("no image")
    code, _, errors = invoke("train", "--data", folder, "-o", out, *SMALL, "--overwrite")
    assert code == 3
    assert "no image that GDAL can read" in errors


def test_pairs_that_are_not_finite_are_refused(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    pair = pairs.load_pair(data / "p0.npz")
    np.savez(tmp_path / "p0.npz", pan=pair.pan[0], ms=pair.ms, gt=np.full_like(pair.truth, np.nan))
    code, _, errors = invoke("train", "--data", tmp_path, "-o", tmp_path / "net.safetensors", *SMALL)
    assert code == 3
    assert "p0: holds values that are not finite" in errors
    assert names(tmp_path) == ["p0.npz"]


def test_a_training_that_diverges_writes_nothing(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out" / "net.safetensors"
    out.parent.mkdir()
    code, output, errors = invoke("train", "--data", data, "-o", out, *SMALL, "--rate", "1e30")
    assert (code, output) == (1, "")
    assert errors.startswith("sfiin: error: training diverged: ")
    assert errors.count("\n") == 1
    assert not names(out.parent)


# --- stopping and resuming ---


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """The command in a process of its own, from this checkout."""
    command = [sys.executable, "-c", "from sfiin.runtime.cli import main; main()", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def test_a_training_that_was_killed_goes_on_to_the_same_bits(
    invoke: Invoke, data: Path, tmp_path: Path
) -> None:
    out, whole = tmp_path / "net.safetensors", tmp_path / "whole.safetensors"
    state = out.with_suffix(".state")
    options = ["--data", data, *SMALL, "--steps", 60, "--validate-every", 5, "-q"]
    process = start("train", "-o", out, *options)
    deadline = time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    errors = process.communicate()[1]
    assert (process.returncode, errors) == (-signal.SIGKILL, b"")
    assert not out.exists()
    before = torch.load(state, weights_only=True)["step"]
    assert 0 < before < 60
    kept = state.read_bytes()

    code, _, text = invoke("train", "-o", out, *options)
    assert code == 7
    assert f"{state}: a training that was stopped; --resume to go on with it, or remove it" in text
    code, _, text = invoke("train", "-o", out, *options, "--reduction", "bicubic", "--resume")
    assert code == 3
    assert "reduction was ['given'], now ['bicubic']" in text
    code, _, text = invoke("train", "-o", out, *options, "--blocks", 2, "--resume")
    assert code == 3
    assert "blocks was 1, now 2" in text
    assert state.read_bytes() == kept

    assert invoke("train", "-o", out, *options, "--resume") == (0, "", "")
    assert invoke("train", "-o", whole, *options) == (0, "", "")
    assert same_tensors(out, whole)
    assert checkpoint.load(out).training == checkpoint.load(whole).training
    assert out.with_suffix(".csv").read_bytes() == whole.with_suffix(".csv").read_bytes()
    shown = [name for name in names(tmp_path) if not name.startswith(".")]
    assert shown == ["net.csv", "net.safetensors", "whole.csv", "whole.safetensors"]


def test_resuming_what_never_was_is_beginning(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert invoke("train", "--data", data, "-o", first, *SMALL, "-q", "--resume") == (0, "", "")
    assert invoke("train", "--data", data, "-o", second, *SMALL, "-q") == (0, "", "")
    assert same_tensors(first, second)


def test_a_damaged_state_is_refused(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    (tmp_path / "net.state").write_text("hello")
    code, _, errors = invoke("train", "--data", data, "-o", tmp_path / "net.safetensors", *SMALL, "--resume")
    assert code == 3
    assert "net.state: not the state of a training" in errors
    assert names(tmp_path) == ["net.state"]


# --- refusals ---


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--reduction", "magic"], 2, "'magic' is not given, mtf, bicubic"),
        (["--reduction", "mtf", "--reduction", "magic"], 2, "'magic' is not given, mtf, bicubic"),
        (["--architecture", "resnet"], 2, "resnet"),
        (["--branches", "neither"], 2, "neither"),
        (["--interaction", "some"], 2, "some"),
        (["--precision", "fp16"], 2, "fp16"),
        (["--device", "tpu"], 2, "tpu"),
        (["--patch", "8"], 2, "--patch"),
        (["--patch", "64"], 3, "p0: 32x32 PAN pixels with truth do not hold a patch of 64"),
        (["--patch", "18"], 3, "a multiple of the ratio 4"),
        (["--sensor", "none.toml"], 3, "none.toml: no such sensor file"),
        (["--init", "none.safetensors"], 2, "--channels: the network is the one in none.safetensors"),
        (["-o", "{folder}/none/net.safetensors"], 7, "there is no folder"),
        (["-o", "{folder}/net.csv"], 2, ".csv is for what lies beside the checkpoint"),
        (["-o", "{folder}/net.state"], 2, ".state is for what lies beside the checkpoint"),
        (["-o", "{folder}/kept.safetensors"], 7, "kept.csv: exists already"),
    ],
)
def test_train_refuses(
    invoke: Invoke, data: Path, tmp_path: Path, *, arguments: list[str], code: int, text: str
) -> None:
    (tmp_path / "kept.csv").write_text("mine")
    filled = [argument.format(folder=tmp_path) for argument in arguments]
    found, output, errors = invoke(
        "train", "--data", data, "-o", tmp_path / "net.safetensors", *SMALL, *filled
    )
    assert (found, output) == (code, ""), errors
    assert text in " ".join(errors.split())
    assert "Traceback" not in errors
    assert names(tmp_path) == ["kept.csv"]
    assert (tmp_path / "kept.csv").read_text() == "mine"


def test_a_checkpoint_to_begin_with_must_be_there(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    begun = invoke(
        "train", "--data", data, "-o", tmp_path / "net.safetensors", "--init", tmp_path / "none.safetensors"
    )
    assert begun == (3, "", f"sfiin: error: {tmp_path / 'none.safetensors'}: no such checkpoint\n")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_device_that_is_not_there_is_refused(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    code, output, errors = invoke(
        "train", "--data", data, "-o", tmp_path / "net.safetensors", "--device", "cuda"
    )
    assert (code, output) == (5, "")
    assert errors == "sfiin: error: this PyTorch sees no CUDA device; train with --device cpu\n"
    assert not names(tmp_path)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "mixed"])
def test_train_on_a_gpu(invoke: Invoke, data: Path, tmp_path: Path, precision: str) -> None:
    out = tmp_path / "net.safetensors"
    options = ["--device", "cuda", "--precision", precision]
    assert invoke("train", "--data", data, "-o", out, *SMALL, *options, "-q") == (0, "", "")
    result = checkpoint.load(out)
    assert np.isfinite(result.training["validation_ergas"])
    assert result.training["device"] == torch.cuda.get_device_name(0)


def test_import_keeps_what_is_there(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "theirs.pth").write_text("hello")
    (tmp_path / "net.safetensors").write_text("mine")
    code, _, errors = invoke("import", tmp_path / "theirs.pth", "-o", tmp_path / "net.safetensors")
    assert code == 7
    assert "exists already" in errors
    code, _, errors = invoke(
        "import", tmp_path / "theirs.pth", "-o", tmp_path / "net.safetensors", "--overwrite"
    )
    assert code == 3
    assert "not a file of tensors only" in errors
    code, _, errors = invoke("import", tmp_path / "none.pth", "-o", tmp_path / "new.safetensors")
    assert code == 3
    assert "none.pth: no such checkpoint" in errors
    code, _, errors = invoke(
        "train", "--data", tmp_path, "-o", tmp_path / "n.safetensors", "--sensor", "hubble"
    )
    assert code == 3
    assert "unknown sensor 'hubble'" in errors
    assert (tmp_path / "net.safetensors").read_text() == "mine"


# --- ablation ---

QUICK = ["--steps", 2, "--batch", 1, "--patch", 16, "--threads", 1]


def test_ablate_adds_runs_and_shows_them(invoke: Invoke, data: Path, tmp_path: Path) -> None:
    out = tmp_path / "runs.json"
    call = ["ablate", "--data", data, "--check", data, "-o", out, *QUICK]
    code, output, errors = invoke(*call, "--variant", "blocks-1", "--variant", "pnn", "--seed", 0)
    assert (code, errors) == (0, "")
    first = json.loads(out.read_text())["runs"]
    assert [(run["variant"], run["training"]["seed"]) for run in first] == [("blocks-1", 0), ("pnn", 0)]
    for run in first:
        assert run["quality"].keys() == {"QuickBird"}
        assert run["quality"]["QuickBird"]["pairs"] == 4
        line = next(line for line in output.splitlines() if f" {run['variant']} " in line)
        assert f"{run['quality']['QuickBird']['ergas']:.3f}" in line
        assert str(run["parameters"]) in line
    assert invoke(*call, "--variant", "blocks-1", "--seed", 0, "--seed", 1, "-q") == (0, "", "")
    runs = json.loads(out.read_text())["runs"]
    assert runs[:2] == first
    assert [(run["variant"], run["training"]["seed"]) for run in runs[2:]] == [("blocks-1", 1)]


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--variant", "magic"], 2, "unknown variant 'magic'; known: sfiin, blocks-1"),
        (["--variant", "pnn", "--check", "{blind}"], 2, "no pair with truth of this sensor's bands"),
        (["--variant", "pnn", "--check", "{none}"], 2, "does not exist"),
        (["--variant", "pnn", "--check", "{empty}"], 3, "no pair of 4 bands at ratio 4"),
        (["--variant", "pnn", "--reduction", "magic"], 2, "'magic' is not given, mtf, bicubic"),
        (["--variant", "pnn", "--sensor", "hubble"], 3, "unknown sensor 'hubble'"),
        (["--variant", "pnn", "-o", "{junk}"], 3, "junk.json: not the runs that 'sfiin ablate' writes"),
    ],
)
def test_ablate_refuses(
    invoke: Invoke, data: Path, tmp_path: Path, *, arguments: list[str], code: int, text: str
) -> None:
    places = {name: tmp_path / name for name in ("blind", "none", "empty")} | {"junk": tmp_path / "junk.json"}
    places["blind"].mkdir()
    places["empty"].mkdir()
    places["junk"].write_text('{"runs": [{"variant": "pnn"}]}')
    pair = pairs.load_pair(data / "p0.npz")
    np.savez(places["blind"] / "p.npz", pan=pair.pan[0], ms=pair.ms)
    filled = [argument.format(**places) for argument in arguments]
    out = tmp_path / "runs.json"
    found, _, errors = invoke(
        "ablate", "--data", data, "--check", data, "-o", out, *QUICK, "--seed", 0, *filled
    )
    assert found == code, errors
    assert text in " ".join(errors.split())
    assert "Traceback" not in errors
    assert not out.exists()
    assert places["junk"].read_text() == '{"runs": [{"variant": "pnn"}]}'

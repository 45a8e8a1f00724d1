"""Weights of other programs: whatever is put around them, and what is refused with what to do instead."""

from __future__ import annotations

import argparse
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from sfiin.data.sensors import SENSORS
from sfiin.model import authors, checkpoint
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.errors import CheckpointError

Invoke = Callable[..., tuple[int, str, str]]
State = dict[str, Tensor]

VHR = SENSORS["vhr4"].profile


@pytest.fixture(scope="module")
def net() -> SFIIN:
    torch.manual_seed(1)
    return SFIIN(NetworkConfig(blocks=2, spatial="invertible"), VHR).eval()


@pytest.fixture(scope="module")
def state(net: SFIIN) -> State:
    return authors_state(net)


def authors_state(net: SFIIN) -> dict[str, torch.Tensor]:
    """The invertible network's tensors under the names of the authors' release, written out by hand."""
    coupling = {"shift_first": "F", "shift_second": "G", "scale_second": "H"}
    mix = {"permutation": "p", "sign": "sign_s", "lower": "l", "upper": "u", "log_diagonal": "log_s"}
    plain = {
        "pan": "panprocess",
        "project": "panpre",
        "frequency.ms": "fre_process.pre1",
        "frequency.pan": "fre_process.pre2",
        "frequency.amplitude.0": "fre_process.amp_fuse.0",
        "frequency.amplitude.2": "fre_process.amp_fuse.2",
        "frequency.phase.0": "fre_process.pha_fuse.0",
        "frequency.phase.2": "fre_process.pha_fuse.2",
        "frequency.out": "fre_process.post",
        "spatial.out": "spa_process.1",
        "compensation.0": "spa_att.0",
        "compensation.2": "spa_att.2",
        "attention.0": "cha_att.0",
        "attention.2": "cha_att.2",
        "merge": "post",
    }
    outer = {
        "ms_head": "process.conv_p",
        "pan_head": "process.conv_p1",
        "gather": "process.fuse",
        "refine.head": "refine.conv_in",
        "refine.tail": "refine.conv_last",
        "refine.attention.0": "refine.process.0.conv_du.0",
        "refine.attention.2": "refine.process.0.conv_du.2",
        "refine.process.0": "refine.process.0.process.0",
        "refine.process.2": "refine.process.0.process.2",
    }
    names: dict[str, str] = {}
    for ours, theirs in outer.items():
        names |= {f"{ours}.{leaf}": f"{theirs}.{leaf}" for leaf in ("weight", "bias")}
    for i, block in enumerate(["block", "block1", "block2", "block3", "block4"][: net.config.blocks]):
        a, b = f"blocks.{i}", f"process.{block}"
        names |= {f"{a}.spatial.mix.{x}": f"{b}.spa_process.0.invconv.{y}" for x, y in mix.items()}
        for leaf in ("weight", "bias"):
            names |= {f"{a}.{x}.{leaf}": f"{b}.{y}.{leaf}" for x, y in plain.items()}
            for x, y in coupling.items():
                names[f"{a}.spatial.{x}.out.{leaf}"] = f"{b}.spa_process.0.{y}.conv3.{leaf}"
                for pair, unit in (("first", "conv1"), ("second", "conv2")):
                    for part, conv in (("first", "conv_1"), ("second", "conv_2"), ("shortcut", "identity")):
                        names[f"{a}.spatial.{x}.{pair}.{part}.{leaf}"] = (
                            f"{b}.spa_process.0.{y}.{unit}.{conv}.{leaf}"
                        )
    return {names[name]: tensor for name, tensor in net.state_dict().items()}


def prefixed(state: State, prefix: str) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPS: dict[str, Callable[[State], Any]] = {
    "plain": lambda s: s,
    "net": lambda s: {"net": s},
    "data-parallel": lambda s: prefixed(s, "module."),
    "compiled": lambda s: prefixed(s, "_orig_mod."),
    "compiled inside": lambda s: {
        name.replace("process.", "process._orig_mod."): tensor for name, tensor in s.items()
    },
    "lightning": lambda s: {
        "state_dict": prefixed(s, "model."),
        "epoch": 3,
        "pytorch-lightning_version": "2.0",
    },
    "two prefixes": lambda s: {"state_dict": prefixed(s, "module.net.")},
    "basicsr": lambda s: {"params": {k: v * 0 for k, v in s.items()}, "params_ema": s},
    "deeper": lambda s: {"checkpoint": {"model_state_dict": s}, "optimizer": {"state": {}}},
    "averaged": lambda s: prefixed(s, "module.") | {"n_averaged": torch.tensor(5)},
    "counted": lambda s: s | {"total_ops": torch.zeros(1), "process.block.total_params": torch.zeros(1)},
    "with a loss": lambda s: {"state_dict": prefixed(s, "model.") | {"loss.vgg.weight": torch.zeros(3)}},
    "in a list": lambda s: ["sfiin", {"net": s}, 3],
    "deep": lambda s: {"a": {"b": {"c": {"d": {"e": {"net": s}}}}}},
    "a head beside it": lambda s: s | {"extra.head.weight": torch.zeros(3, 3)},
    "an average without buffers": lambda s: {
        "params_ema": {name: tensor * 0 for name, tensor in s.items() if "invconv" not in name},
        "net": s,
    },
    "half": lambda s: {name: tensor.half() for name, tensor in s.items()},
    "arrays": lambda s: {name: tensor.numpy() for name, tensor in s.items()},
    "parameters": lambda s: {name: torch.nn.Parameter(tensor) for name, tensor in s.items()},
    "options": lambda s: {"net": s, "args": argparse.Namespace(lr=1e-3, out=Path("x"))},
    "authors": lambda s: {
        "epoch": 3,
        "records": {"PSNR": [np.float64(40.1)], "n": np.int64(3), "b": np.bool_(True), "a": np.arange(3.0)},
        "net": prefixed(s, "module."),
        "optimizer": {"state": {}, "param_groups": []},
    },
}


@pytest.mark.parametrize("wrap", WRAPS)
def test_whatever_is_put_around_the_weights_they_are_the_same(
    tmp_path: Path, net: SFIIN, state: State, wrap: str
) -> None:
    torch.save(WRAPS[wrap](state), tmp_path / "theirs.pth")
    weights = authors.read(tmp_path / "theirs.pth")
    loaded = authors.as_checkpoint(weights, VHR, tmp_path / "theirs.pth").network
    assert loaded.config == net.config
    rounded = (lambda tensor: tensor.half().float()) if wrap == "half" else (lambda tensor: tensor)
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], rounded(tensor)), name


def test_old_pickles_and_safetensors_are_read_too(tmp_path: Path, state: State) -> None:
    torch.save({"net": state}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "new.safetensors")
    for name in ("old.pth", "new.safetensors"):
        assert authors.read(tmp_path / name).bands == 4


def test_numpy_is_read_in_both_of_its_spellings(tmp_path: Path, state: State) -> None:
    """NumPy 1 wrote numpy.core.multiarray, NumPy 2 writes numpy._core.multiarray."""
    torch.save({"net": state, "psnr": np.float64(40.5)}, tmp_path / "here.pth")
    spellings = b"numpy._core.multiarray", b"numpy.core.multiarray"
    for spelling in spellings:
        with ZipFile(tmp_path / "here.pth") as here, ZipFile(tmp_path / "there.pth", "w") as there:
            for name in here.namelist():
                data = here.read(name)
                own = next((known for known in spellings if known in data), spelling)
                there.writestr(name, data.replace(own, spelling) if name.endswith("data.pkl") else data)
        assert authors.read(tmp_path / "there.pth").bands == 4


def test_what_was_left_out_is_said(tmp_path: Path, state: State) -> None:
    torch.save(WRAPS["with a loss"](state), tmp_path / "loss.pth")
    assert authors.read(tmp_path / "loss.pth").notes == (
        "left out: 1 tensors that are not the network's (loss.vgg.weight)",
    )
    torch.save(WRAPS["basicsr"](state), tmp_path / "ema.pth")
    assert (
        "taken from 'params_ema'; there are weights under params, too"
        in authors.read(tmp_path / "ema.pth").notes
    )


def test_theirs_is_the_inverse_of_ours(net: SFIIN, state: State) -> None:
    for name in net.state_dict():
        if ".spatial.s" not in name and ".mix." not in name:  # whose inner names are told by half
            assert authors.ours(authors.theirs(name)) == name
    assert set(map(authors.ours, state)) == set(net.state_dict())


def test_import_says_what_it_assumes_and_keeps_it(
    invoke: Invoke, tmp_path: Path, net: SFIIN, state: State
) -> None:
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    torch.save({"net": state}, theirs)
    code, output, errors = invoke("import", theirs, "-o", ours)
    assert (code, errors) == (0, "")
    assert output.startswith(
        f"{ours}: SFIIN of 4 bands, 8 channels, 2 core blocks, invertible spatial branch; 11 bit"
    )
    assert "assumed: 2047 DN is 1.0, of 11 bits (--scale; the authors train on 8 bits, 255)" in output
    assert "assumed: bands blue, green, red, nir" in output
    assert "half-pixel centres" in output
    assert len(checkpoint.load(ours).training["assumed"]) == 3
    code, output, _ = invoke(
        "import",
        theirs,
        "-o",
        ours,
        "--overwrite",
        "--bands",
        "r,g,b,nir",
        "--scale",
        "255",
        "--resample",
        "given",
    )
    assert code == 0
    assert "assumed" not in output
    loaded = checkpoint.load(ours)
    profile = loaded.network.sensor
    assert (profile.bands, profile.scale, profile.bits) == (("red", "green", "blue", "nir"), 255.0, 8)
    assert loaded.training["resample"] == "given"
    code, _, errors = invoke("import", theirs, "-o", ours, "--sensor", "worldview2", "--overwrite")
    assert code == 3
    assert "not for this sensor: the network has 4 bands" in errors
    assert checkpoint.load(ours).network.sensor == profile
    assert invoke("import", theirs, "-o", ours, "--overwrite", "--scale", "inf")[0] == 2


class Harmful:
    """Would run code if it were unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.mark),)


def as_program(path: Path) -> None:
    exported = torch.export.export(torch.nn.Conv2d(1, 1, 1), (torch.zeros(1, 1, 4, 4),))
    torch.export.save(exported, path.with_suffix(".pt2"))
    path.with_suffix(".pt2").rename(path)


def as_script(path: Path) -> None:
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(1, 1, 1), torch.zeros(1, 1, 4, 4)), path)


def cut(path: Path, state: State) -> None:
    torch.save(state, path)
    path.write_bytes(path.read_bytes()[:2000])


def pnn() -> State:
    sides = ((64, 5, 9, 9), (32, 64, 5, 5), (4, 32, 5, 5))
    return {f"conv{i}.weight": torch.zeros(side) for i, side in enumerate(sides, 1)}


FIRST, MIXED = "process.conv_p.weight", "process.block.spa_process.0.invconv.p"
REFUSED: dict[str, Callable[[Path, State], object]] = {
    "harmful": lambda path, _: path.write_bytes(pickle.dumps({"net": Harmful(path.parent / "ran")})),
    "harmful beside weights": lambda path, s: torch.save({"net": s, "x": Harmful(path.parent / "ran")}, path),
    "text": lambda path, _: path.write_text("hello"),
    "empty": lambda path, _: path.write_bytes(b""),
    "no-tensors": lambda path, _: torch.save({"epoch": 3}, path),
    "a list": lambda path, _: torch.save([torch.zeros(3)], path),
    "unknown-tensor": lambda path, s: torch.save(s | {"process.block.extra.weight": torch.zeros(1)}, path),
    "one block more": lambda path, s: torch.save(s | {"process.block2.post.bias": torch.zeros(8)}, path),
    "lacking": lambda path, s: torch.save({k: v for k, v in s.items() if "cha_att" not in k}, path),
    "other-network": lambda path, _: torch.save({"conv.weight": torch.zeros(1)}, path),
    "pnn": lambda path, _: torch.save(pnn(), path),
    "module": lambda path, _: torch.save(torch.nn.Conv2d(1, 1, 1), path),
    "script": lambda path, _: as_script(path),
    "program": lambda path, _: as_program(path),
    "nan": lambda path, s: torch.save(s | {FIRST: s[FIRST] * torch.nan}, path),
    "other-bands": lambda path, s: torch.save(s | {FIRST: torch.zeros(8, 8, 3, 3)}, path),
    "other-shape": lambda path, s: torch.save(
        s | {"process.block.post.weight": torch.zeros(8, 8, 3, 3)}, path
    ),
    "cut": cut,
    "cut safetensors": lambda path, _: path.write_bytes(struct.pack("<Q", 4) + b"{}  "),
    "missing": lambda _path, _: None,
    "plain pickle": lambda path, s: path.write_bytes(pickle.dumps({k: v.numpy() for k, v in s.items()})),
    "other axes": lambda path, s: torch.save(
        {k: v.permute(2, 3, 1, 0) if v.dim() == 4 else v for k, v in s.items()}, path
    ),
    "integers": lambda path, s: torch.save({k: (v * 9).to(torch.int8) for k, v in s.items()}, path),
    "complex": lambda path, s: torch.save(s | {FIRST: s[FIRST].to(torch.complex64)}, path),
    "without data": lambda path, s: torch.save({k: v.to("meta") for k, v in s.items()}, path),
    "sparse": lambda path, s: torch.save(s | {FIRST: s[FIRST].to_sparse()}, path),
    "no permutation": lambda path, s: torch.save(s | {MIXED: s[MIXED] * 2}, path),
    "pointer": lambda path, _: path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0"),
    "page": lambda path, _: path.write_text("<!DOCTYPE html><html>404</html>"),
}


@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*:FutureWarning")
@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("harmful", "tensors only: it also holds (posix|nt).mkdir"),
        (
            "harmful beside weights",
            "tensors only: it also holds (posix|nt).mkdir, which runs code when read",
        ),
        ("text", "tensors only"),
        ("empty", "empty; fetch it again"),
        ("no-tensors", "no state_dict"),
        ("a list", "no state_dict"),
        ("unknown-tensor", "no place for .*extra"),
        ("one block more", "no place for"),
        ("lacking", r"lacks 8 tensors of an SFIIN \(process.block.cha_att.0.weight"),
        ("other-network", "no SFIIN: its tensors begin with conv.weight"),
        ("pnn", "a PNN, no SFIIN"),
        (
            "module",
            r"a pickled module .*torch.save\(torch.load\('module.pth', weights_only=False\).state_dict",
        ),
        ("script", r"a TorchScript program.*torch.jit.load\('script.pth'\).state_dict"),
        ("program", r"a program of torch.export.*torch.export.load"),
        ("nan", "NaN"),
        ("other-bands", "has 8 bands"),
        ("other-shape", r"process.block.post.weight is \(8, 8, 3, 3\)"),
        ("cut", "damaged"),
        ("cut safetensors", "no state_dict"),
        ("missing", "no such"),
        ("plain pickle", r"a plain pickle.*torch.save\(pickle.load\(open\('plain pickle.pth', 'rb'\)\)"),
        ("other axes", r"conv_p.weight is \(3, 3, 4, 8\).*in another order"),
        ("integers", "conv_p.weight is int8, not of floating point"),
        ("complex", "conv_p.weight is complex64"),
        ("without data", "is without data"),
        ("sparse", "of no plain layout"),
        ("no permutation", "invconv.p is no permutation"),
        ("pointer", "a pointer of Git LFS"),
        ("page", "a web page"),
    ],
)
def test_what_is_no_sfiin_is_refused_with_what_to_do(
    tmp_path: Path, state: State, case: str, text: str
) -> None:
    path = tmp_path / f"{case}.pth"
    REFUSED[case](path, state)
    with pytest.raises(CheckpointError, match=text) as failure:
        authors.as_checkpoint(authors.read(path), VHR, path)
    assert "\x1b" not in str(failure.value)
    assert "\n" not in str(failure.value)
    assert "ms_head" not in str(failure.value)
    assert not (tmp_path / "ran").exists()

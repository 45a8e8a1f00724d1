"""Checkpoints: round trip, the authors' layout, and everything that is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sfiin.data.sensors import SENSORS
from sfiin.model import checkpoint
from sfiin.model.checkpoint import Checkpoint
from sfiin.model.network import SFIIN, InvertibleMix, NetworkConfig
from sfiin.runtime.contract import CHECKPOINT_FORMAT
from sfiin.runtime.errors import CheckpointError

VHR = SENSORS["vhr4"].profile


def small(spatial: str = "convolution") -> SFIIN:
    torch.manual_seed(1)
    return SFIIN(NetworkConfig(blocks=2, spatial=spatial), VHR).eval()  # type: ignore[arg-type]


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
    names = {}
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


@pytest.mark.parametrize("spatial", ["convolution", "invertible"])
def test_round_trip(tmp_path: Path, spatial: str) -> None:
    net = small(spatial)
    checkpoint.save(tmp_path / "c.safetensors", Checkpoint(net, {"steps": 3}))
    loaded = checkpoint.load(tmp_path / "c.safetensors")
    assert (loaded.network.config, loaded.network.sensor, loaded.training) == (net.config, VHR, {"steps": 3})
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)
    assert not loaded.network.training


@pytest.mark.parametrize(
    "wrap", [lambda s: s, lambda s: {"net": s}, lambda s: {f"module.{k}": v for k, v in s.items()}]
)
def test_the_authors_layout_becomes_the_same_network(tmp_path: Path, wrap: object) -> None:
    net = small("invertible")
    torch.save(wrap(authors_state(net)), tmp_path / "theirs.pth")  # type: ignore[operator]
    loaded = checkpoint.load_authors(tmp_path / "theirs.pth", VHR).network
    assert loaded.config == net.config
    ms, pan = torch.rand(1, 4, 8, 8) * 2000, torch.rand(1, 1, 32, 32) * 2000
    assert torch.equal(loaded(ms, pan), net(ms, pan))


def test_import_writes_a_checkpoint_of_ours(
    invoke: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    net = small("invertible")
    theirs, ours = tmp_path / "theirs.pth", tmp_path / "ours.safetensors"
    torch.save({"net": authors_state(net)}, theirs)
    code, output, errors = invoke("import", theirs, "-o", ours, "--sensor", "QuickBird")
    assert (code, errors) == (0, "")
    assert output.startswith(
        f"{ours}: NetworkConfig(bands=4, channels=8, blocks=2, ratio=4, spatial='invertible'"
    )
    loaded = checkpoint.load(ours)
    assert (loaded.network.sensor.name, loaded.training) == ("quickbird", {"imported": "theirs.pth"})
    assert all(
        torch.equal(tensor, loaded.network.state_dict()[name]) for name, tensor in net.state_dict().items()
    )
    code, _, errors = invoke("import", theirs, "-o", ours, "--sensor", "worldview2", "--overwrite")
    assert code == 3
    assert "not the authors' SFIIN for this sensor" in errors
    assert checkpoint.load(ours).network.sensor.name == "quickbird"


def test_mix_is_the_published_factorisation() -> None:
    mix = InvertibleMix(4)
    lower = torch.tril(mix.lower, -1) + torch.eye(4)
    upper = torch.triu(mix.upper, 1) + torch.diag(mix.sign * torch.exp(mix.log_diagonal))
    torch.testing.assert_close(mix.matrix(), mix.permutation @ (lower @ upper))


class Harmful:
    """Would run code if it were unpickled."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('code ran')",))


def refused(tmp_path: Path, case: str) -> Path:
    path = tmp_path / f"{case}.pth"
    state = authors_state(small("invertible"))
    first = "process.conv_p.weight"
    match case:
        case "harmful":
            path.write_bytes(pickle.dumps({"net": Harmful()}))
        case "text":
            path.write_text("hello")
        case "no-tensors":
            torch.save({"epoch": 3}, path)
        case "unknown-tensor":
            torch.save(state | {"process.block.extra.weight": torch.zeros(1)}, path)
        case "lacking":
            torch.save({k: v for k, v in state.items() if "cha_att" not in k}, path)
        case "other-network":
            torch.save({"conv.weight": torch.zeros(1)}, path)
        case "nan":
            torch.save(state | {first: state[first] * torch.nan}, path)
        case "other-bands":
            torch.save(state | {first: torch.zeros(8, 8, 3, 3)}, path)
    return path


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("harmful", "tensors only"),
        ("text", "tensors only"),
        ("no-tensors", "no state_dict"),
        ("unknown-tensor", "extra"),
        ("lacking", "attention"),
        ("other-network", "ms_head"),
        ("nan", "NaN"),
        ("other-bands", "8 bands"),
        ("missing", "no such"),
    ],
)
def test_what_is_not_the_authors_layout_is_refused(tmp_path: Path, case: str, text: str) -> None:
    with pytest.raises(CheckpointError, match=text):
        checkpoint.load_authors(refused(tmp_path, case), VHR)


@pytest.mark.parametrize(
    "case", ["missing", "text", "foreign", "no-config", "bad-config", "lacking", "truncated"]
)
def test_what_is_no_checkpoint_of_ours_is_refused(tmp_path: Path, case: str) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, Checkpoint(small()))
    state = {k: v.contiguous() for k, v in small().state_dict().items()}
    good = {"format": CHECKPOINT_FORMAT, "network": "{}", "sensor": "{}", "training": "{}"}
    match case:
        case "missing":
            path.unlink()
        case "text":
            path.write_text("hello")
        case "foreign":
            save_file(state, path)
        case "no-config":
            save_file(state, path, {"format": CHECKPOINT_FORMAT})
        case "bad-config":
            save_file(state, path, good)
        case "lacking":
            from sfiin.runtime.contract import encode

            config = encode(NetworkConfig(blocks=3))
            save_file(state, path, good | {"network": config, "sensor": encode(VHR)})
        case "truncated":
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        checkpoint.load(path)

"""Checkpoints: round trip, and everything that is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sfiin.data.sensors import SENSORS
from sfiin.model import checkpoint
from sfiin.model.checkpoint import Checkpoint
from sfiin.model.network import SFIIN, InvertibleMix, NetworkConfig
from sfiin.runtime.contract import CHECKPOINT_FORMAT, encode
from sfiin.runtime.errors import CheckpointError

VHR = SENSORS["vhr4"].profile


def small(spatial: str = "convolution") -> SFIIN:
    torch.manual_seed(1)
    return SFIIN(NetworkConfig(blocks=2, spatial=spatial), VHR).eval()  # type: ignore[arg-type]


@pytest.mark.parametrize("spatial", ["convolution", "invertible"])
def test_round_trip(tmp_path: Path, spatial: str) -> None:
    net = small(spatial)
    checkpoint.save(tmp_path / "c.safetensors", Checkpoint(net, {"steps": 3}))
    loaded = checkpoint.load(tmp_path / "c.safetensors")
    assert (loaded.network.config, loaded.network.sensor, loaded.training) == (net.config, VHR, {"steps": 3})
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[name], tensor)
    assert not loaded.network.training


def test_mix_is_the_published_factorisation() -> None:
    mix = InvertibleMix(4)
    lower = torch.tril(mix.lower, -1) + torch.eye(4)
    upper = torch.triu(mix.upper, 1) + torch.diag(mix.sign * torch.exp(mix.log_diagonal))
    torch.testing.assert_close(mix.matrix(), mix.permutation @ (lower @ upper))


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
            config = encode(NetworkConfig(blocks=3))
            save_file(state, path, good | {"network": config, "sensor": encode(VHR)})
        case "truncated":
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"c\.safetensors"):
        checkpoint.load(path)


def test_a_changed_byte_shows(tmp_path: Path) -> None:
    """In a weight, where all else still fits, and in the metadata."""
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, Checkpoint(small(), {"steps": 3}))
    data = path.read_bytes()
    for at, change in ((len(data) - 5, 1), (data.index(b'steps\\": 3') + 9, 1)):
        path.write_bytes(data[:at] + bytes([data[at] ^ change]) + data[at + 1 :])
        with pytest.raises(CheckpointError, match="changed since it was written"):
            checkpoint.load(path)


def test_a_configuration_beyond_its_tensors_is_refused_before_it_is_built(tmp_path: Path) -> None:
    config = encode(NetworkConfig(channels=1 << 20))
    metadata = {
        "format": CHECKPOINT_FORMAT,
        "architecture": "sfiin",
        "network": config,
        "sensor": encode(VHR),
    }
    save_file(
        {k: v.contiguous() for k, v in small().state_dict().items()}, tmp_path / "c.safetensors", metadata
    )
    with pytest.raises(CheckpointError, match=r"network\.channels: 1048576 is more than its tensors"):
        checkpoint.load(tmp_path / "c.safetensors")

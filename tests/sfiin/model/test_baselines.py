"""The learned baselines: sizes by hand, what they cannot help doing, and their checkpoints."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import ndimage

from sfiin.data.sensors import SENSORS
from sfiin.evaluation import judging
from sfiin.model import checkpoint
from sfiin.model.baselines import PNN, BaselineConfig, PanNet, high_pass
from sfiin.model.checkpoint import Checkpoint
from sfiin.model.network import SFIIN, NetworkConfig, PanSharpener
from sfiin.runtime.contract import CHECKPOINT_FORMAT, SensorProfile, Tile, encode
from sfiin.runtime.errors import CheckpointError
from sfiin.runtime.quality.bicubic import bicubic

Invoke = Callable[..., tuple[int, str, str]]
BASELINES = [PNN, PanNet]
Baseline = TypeVar("Baseline", bound=PanSharpener)


def sensor(bands: int = 4, ratio: int = 4, scale: float = 2047.0) -> SensorProfile:
    return SensorProfile("test", tuple(f"b{i}" for i in range(bands)), ratio, 11, scale)


def baseline(
    kind: Callable[..., Baseline], bands: int = 4, ratio: int = 4, scale: float = 2047.0
) -> Baseline:
    torch.manual_seed(0)
    return kind(BaselineConfig(bands, ratio), sensor(bands, ratio, scale)).eval()


def images(bands: int = 4, ratio: int = 4, h: int = 9, w: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(2)
    ms = torch.rand(2, bands, h, w, generator=random) * 2000
    return ms, torch.rand(2, 1, h * ratio, w * ratio, generator=random) * 2000


@pytest.mark.parametrize(
    ("kind", "bands", "count"),
    [
        (PNN, 4, 64 * (81 * 5 + 1) + 32 * (25 * 64 + 1) + 4 * (25 * 32 + 1)),
        (PNN, 8, 64 * (81 * 9 + 1) + 32 * (25 * 64 + 1) + 8 * (25 * 32 + 1)),
        (PanNet, 4, 32 * (9 * 5 + 1) + 8 * 32 * (9 * 32 + 1) + 4 * (9 * 32 + 1)),
        (PanNet, 3, 32 * (9 * 4 + 1) + 8 * 32 * (9 * 32 + 1) + 3 * (9 * 32 + 1)),
    ],
)
def test_parameter_counts(kind: type[PNN | PanNet], bands: int, count: int) -> None:
    assert sum(p.numel() for p in baseline(kind, bands).parameters()) == count


@pytest.mark.parametrize("kind", BASELINES)
@pytest.mark.parametrize(("bands", "ratio"), [(4, 4), (8, 4), (7, 2), (1, 3)])
def test_shapes_and_finite_gradients(kind: type[PNN | PanNet], bands: int, ratio: int) -> None:
    net = baseline(kind, bands, ratio).train()
    fused = net(*images(bands, ratio))
    assert fused.shape == (2, bands, 9 * ratio, 7 * ratio)
    fused.square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


def test_high_pass_of_constants_ramps_and_an_impulse() -> None:
    torch.testing.assert_close(
        high_pass(torch.full((1, 2, 7, 6), 3.0), 5), torch.zeros(1, 2, 7, 6), rtol=0, atol=1e-6
    )
    y, x = torch.meshgrid(torch.arange(12.0), torch.arange(15.0), indexing="ij")
    ramp = (3 * x - 2 * y)[None, None].double()
    inner = high_pass(ramp, 5)[:, :, 2:-2, 2:-2]
    torch.testing.assert_close(inner, torch.zeros_like(inner), rtol=0, atol=1e-12)
    assert high_pass(ramp, 5)[0, 0, 5, 0].item() == pytest.approx(
        -3 * (0 + 0 + 0 + 1 + 2) / 5
    )  # the edge repeats
    impulse = torch.zeros(1, 1, 9, 9)
    impulse[0, 0, 4, 4] = 1
    expected = torch.zeros(9, 9)
    expected[2:7, 2:7] = -1 / 25
    expected[4, 4] += 1
    torch.testing.assert_close(high_pass(impulse, 5)[0, 0], expected)


def test_pannet_sees_what_a_window_of_five_leaves() -> None:
    net, (ms, pan) = baseline(PanNet), images()
    seen: list[torch.Tensor] = []
    net.head.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    net(ms, pan)
    for found, coarse, fine in zip(
        seen[0].double().numpy(), ms.double().numpy(), pan.double().numpy(), strict=True
    ):
        stack = np.concatenate([bicubic(coarse, 4), fine]) / 2047
        expected = stack - ndimage.uniform_filter(stack, (1, 5, 5), mode="nearest")
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_pannet_without_its_tail_is_bicubic() -> None:
    net = baseline(PanNet)
    with torch.no_grad():
        for parameter in net.tail.parameters():
            parameter.zero_()
    ms, pan = images()
    expected = np.stack([bicubic(image, 4) for image in ms.double().numpy()])
    np.testing.assert_allclose(net(ms, pan).detach().numpy(), expected, rtol=0, atol=2e-3)


def test_pannet_passes_levels_on_and_pnn_does_not() -> None:
    """PanNet's features see high frequencies only: what is added to all of MS is added to the result."""
    ms, pan = images()
    for kind, passes in ((PanNet, True), (PNN, False)):
        net = baseline(kind)
        with torch.no_grad():
            raised = net(ms + 300, pan + 500) - net(ms, pan)
        assert torch.allclose(raised, torch.full_like(raised, 300), rtol=0, atol=0.01) == passes


@pytest.mark.parametrize("kind", [*BASELINES, SFIIN])
def test_digital_numbers_and_their_scale_belong_together(kind: Callable[..., PanSharpener]) -> None:
    """With a scale twice as large and numbers twice as large, the result is twice as large, exactly."""
    ms, pan = images(h=8, w=8)
    results = []
    for factor in (1, 2):
        torch.manual_seed(0)
        config = NetworkConfig(blocks=1) if kind is SFIIN else BaselineConfig()
        net = kind(config, sensor(scale=2047.0 * factor)).eval()
        with torch.no_grad():
            results.append(net(ms * factor, pan * factor))
    assert torch.equal(results[1], 2 * results[0])


@pytest.mark.parametrize("kind", [*BASELINES, SFIIN])
def test_a_sensor_that_does_not_fit_is_refused(kind: Callable[..., PanSharpener]) -> None:
    config = NetworkConfig() if kind is SFIIN else BaselineConfig()
    for other, text in ((sensor(8), "8 bands, ratio 4"), (sensor(4, 2), "4 bands, ratio 2")):
        with pytest.raises(
            ValueError, match=f"a network of 4 bands, ratio 4 cannot serve the sensor 'test' of {text}"
        ):
            kind(config, other)


@pytest.mark.parametrize("kind", BASELINES)
def test_autocast_leaves_the_baselines_near_float32(kind: type[PNN | PanNet]) -> None:
    net, (ms, pan) = baseline(kind), images()
    with torch.no_grad():
        single = net(ms, pan)
        with torch.autocast("cpu", torch.bfloat16):
            half = net(ms, pan)
    error = (half.float() - single).abs().max() / single.abs().max()
    assert 0 < error < 10 * 2**-9  # ten layers of PanNet, each rounded to eight bits


# --- checkpoints ---


@pytest.mark.parametrize(("kind", "name"), [(PNN, "pnn"), (PanNet, "pannet")])
def test_a_baseline_goes_through_a_checkpoint(kind: type[PNN | PanNet], name: str, tmp_path: Path) -> None:
    net, path = baseline(kind), tmp_path / "b.safetensors"
    checkpoint.save(path, Checkpoint(net, {"steps": 7}))
    loaded = checkpoint.load(path)
    assert type(loaded.network) is kind
    assert checkpoint.architecture(loaded.network) == name
    assert (loaded.network.config, loaded.network.sensor) == (net.config, net.sensor)
    assert loaded.training == {"steps": 7}
    ms, pan = images()
    assert torch.equal(loaded.network(ms, pan), net(ms, pan))
    model = judging.open_model(path, Tile(32, 32, 8))
    assert (model.name, model.tile) == (name, Tile(32, 32, 8))
    assert np.array_equal(model.fuse(ms.numpy(), pan.numpy()), net(ms, pan).detach().numpy())
    with pytest.raises(CheckpointError, match=f"holds {name}, a baseline; this is for SFIIN only"):
        checkpoint.load_sfiin(path)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"architecture": "resnet"}, "unknown architecture 'resnet'; known: sfiin, pnn, pannet"),
        ({"architecture": None}, r"network\.channels: missing field"),  # then it is SFIIN
        ({"architecture": "sfiin"}, r"network\.channels: missing field"),
        ({"architecture": "pannet"}, "its tensors do not fit its configuration"),
        ({"network": '{"bands": 3, "ratio": 4}'}, "cannot serve the sensor"),
        ({"network": '{"bands": 4, "ratio": 4, "width": 2}'}, r"network\.width: unknown field"),
        ({"format": "other/1"}, "not an sfiin checkpoint"),
        ({"training": "{"}, "c.safetensors: "),
        ({"sensor": "[]"}, "sensor: expected an object"),
    ],
)
def test_metadata_that_makes_no_sense_is_refused(
    tmp_path: Path, changes: dict[str, str | None], text: str
) -> None:
    net, path = baseline(PNN), tmp_path / "c.safetensors"
    good = {"format": CHECKPOINT_FORMAT, "architecture": "pnn", "network": encode(net.config)}
    good |= {"sensor": encode(net.sensor), "training": json.dumps({})}
    save_file(net.state_dict(), path, good)
    assert type(checkpoint.load(path).network) is PNN
    save_file(net.state_dict(), path, {k: v for k, v in (good | changes).items() if v is not None})
    with pytest.raises(CheckpointError, match=text) as failure:
        checkpoint.load(path)
    assert failure.value.exit_code == 3
    assert str(path) in str(failure.value)


def test_a_network_of_no_known_class_is_a_programming_error(tmp_path: Path) -> None:
    class Other(PNN):
        pass

    with pytest.raises(KeyError):
        checkpoint.save(tmp_path / "c.safetensors", Checkpoint(Other(BaselineConfig(), sensor())))
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_can_be_replaced_while_its_tensors_are_in_use(tmp_path: Path) -> None:
    """The file may be mapped into memory: whoever replaces it must not write into it."""
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, Checkpoint(baseline(PNN)))
    loaded = checkpoint.load(path).network
    before = {name: tensor.clone() for name, tensor in loaded.state_dict().items()}
    with torch.no_grad():
        other = baseline(PNN)
        for parameter in other.parameters():
            parameter.fill_(7)
    with path.open("rb") as held:
        inode = path.stat().st_ino
        checkpoint.save(path, Checkpoint(other))
        assert path.stat().st_ino != inode
        assert held.read(8) != b""
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in before.items())
    assert all((p == 7).all() for p in checkpoint.load(path).network.parameters())


def ablated(**changes: Any) -> SFIIN:
    return SFIIN(NetworkConfig(blocks=1, **changes), SENSORS["vhr4"].profile)


@pytest.mark.parametrize(
    ("build", "text"),
    [
        (lambda: baseline(PNN), "holds pnn, a baseline; this is for SFIIN only"),
        (lambda: baseline(PanNet), "holds pannet, a baseline"),
        (lambda: ablated(branches="spatial"), "branches spatial"),
        (lambda: ablated(branches="frequency"), "branches frequency"),
        (
            lambda: ablated(interaction="none"),
            "an ablated network (branches both, interaction none) is for experiments and is not exported",
        ),
    ],
)
def test_only_the_whole_sfiin_is_exported(
    invoke: Invoke, tmp_path: Path, build: Callable[[], PanSharpener], text: str
) -> None:
    path = tmp_path / "c.safetensors"
    checkpoint.save(path, Checkpoint(build()))
    code, output, errors = invoke("export", path, "-o", tmp_path / "m.onnx", "--tile", "64")
    assert (code, output) == (3, "")
    assert text in errors
    assert errors.startswith(f"sfiin: error: {path}: ")
    assert errors.count("\n") == 1
    assert [found.name for found in tmp_path.iterdir()] == ["c.safetensors"]

"""The network with parts left out, and in half precision: sizes by hand, who sees what, and what stays in
float32."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from sfiin.model.network import SFIIN, FrequencyBranch, NetworkConfig, contrast
from sfiin.runtime.contract import SensorProfile

B = 4
SENSOR = SensorProfile("test", ("a", "b", "c", "d"), 4, 11, 2047.0)


def network(seed: int = 0, **changes: Any) -> SFIIN:
    torch.manual_seed(seed)
    return SFIIN(NetworkConfig(**changes), SENSOR).eval()


def images(side: int = 8, count: int = 1, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(seed)
    ms = torch.rand(count, B, side, side, generator=random) * 1500 + 100
    return ms, torch.rand(count, 1, 4 * side, 4 * side, generator=random) * 1500 + 100


def k(kernel: int, a: int, b: int) -> int:
    """Weights and biases of a convolution."""
    return kernel * kernel * a * b + b


def expected_size(c: int, blocks: int, branches: str, interaction: str) -> int:
    frequency = k(1, c, c) * 3 + 2 * (k(1, 2 * c, c) + k(1, c, c))
    spatial = k(3, 2 * c, c) + k(3, c, c)
    exchange = k(3, c, c // 2) + k(3, c // 2, c) + k(1, 2 * c, c // 2) + k(1, c // 2, 2 * c)
    block = k(3, c, c) + k(1, c, c)
    block += {"both": frequency + spatial, "frequency": frequency, "spatial": spatial}[branches]
    block += exchange if (branches, interaction) == ("both", "dual") else 0
    block += k(3, 2 * c if branches == "both" else c, c)
    outside = k(3, B, c) + k(3, 1, c) + k(1, blocks * c, c)
    refine = 3 * k(3, c, c) + k(1, c, c // 4) + k(1, c // 4, c) + k(3, c, B)
    return outside + blocks * block + refine


@pytest.mark.parametrize("interaction", ["dual", "none"])
@pytest.mark.parametrize("branches", ["both", "spatial", "frequency"])
@pytest.mark.parametrize(("channels", "blocks"), [(4, 1), (8, 2), (16, 3)])
def test_sizes_of_the_ablated_networks(channels: int, blocks: int, branches: str, interaction: str) -> None:
    net = network(channels=channels, blocks=blocks, branches=branches, interaction=interaction)
    assert sum(p.numel() for p in net.parameters()) == expected_size(channels, blocks, branches, interaction)
    ms, pan = images(count=2)
    result = net(ms, pan)
    assert result.shape == (2, B, 32, 32)
    result.square().mean().backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.parametrize("part", ["branches", "interaction"])
def test_a_part_that_there_is_none_of_is_refused(part: str) -> None:
    with pytest.raises(ValueError, match=f"{part} must be one of .*not 'neither'"):
        NetworkConfig(**{part: "neither"})  # type: ignore[arg-type]


def reach_of_a_pixel(net: SFIIN, row: int, col: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Where the fused features, and how much the output, depend on one PAN pixel."""
    seen: list[torch.Tensor] = []
    hook = net.gather.register_forward_hook(lambda _, __, output: seen.append(output))
    ms, pan = images(16)
    other = pan.clone()
    other[0, 0, row, col] += 500
    with torch.no_grad():
        outputs = [net(ms, image) for image in (pan, other)]
    hook.remove()
    return (seen[1] - seen[0]).abs().amax((0, 1)), outputs[1] - outputs[0]


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_without_the_frequency_branch_features_are_local(blocks: int) -> None:
    """Heads and each block's PAN path, two spatial and one merging convolution reach 1 + 1 + 3 * blocks
    pixels."""
    features, output = reach_of_a_pixel(network(branches="spatial", blocks=blocks), 30, 33)
    reach = 2 + 3 * blocks
    rows, cols = torch.meshgrid(torch.arange(64), torch.arange(64), indexing="ij")
    far = torch.maximum((rows - 30).abs(), (cols - 33).abs())
    assert features[far == 0] > 0
    assert features[far == reach].max() > 0
    assert features[far > reach].max() == 0
    # What refinement adds from the whole tile's mean is one number a band, but beside the frame.
    distant = output[0, :, 1:-1, 1:-1][:, (far > reach + 3)[1:-1, 1:-1]]
    torch.testing.assert_close(distant, distant.mean(1, keepdim=True).expand_as(distant), rtol=0, atol=2e-3)


@pytest.mark.parametrize("changes", [{"branches": "frequency"}, {"interaction": "none"}, {}])
def test_with_the_frequency_branch_every_feature_sees_the_whole_tile(changes: dict[str, Any]) -> None:
    features, _ = reach_of_a_pixel(network(blocks=1, **changes), 30, 33)
    assert (features > 0).float().mean() > 0.99


def test_without_interaction_the_merge_takes_both_branches_as_they_are() -> None:
    net = network(interaction="none", blocks=1)
    block, seen = net.blocks[0], {}
    for name in ("frequency", "spatial", "merge"):
        getattr(block, name).register_forward_hook(lambda _, x, y, name=name: seen.update({name: (x, y)}))
    net(*images())
    (merged,), _ = seen["merge"]
    assert torch.equal(merged, torch.cat([seen["frequency"][1], seen["spatial"][1]], 1))
    dual = network(blocks=1)
    assert not hasattr(block, "attention")
    assert hasattr(dual.blocks[0], "attention")
    assert hasattr(dual.blocks[0], "compensation")


# --- half precision ---


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("spatial", ["convolution", "invertible"])
def test_under_autocast_the_spectrum_stays_in_float32(half: torch.dtype, spatial: str) -> None:
    net, (ms, pan) = network(spatial=spatial, blocks=2), images(count=2)
    types: dict[str, set[torch.dtype]] = {}
    for block in net.blocks:
        assert isinstance(block.frequency, FrequencyBranch)
        for name in ("amplitude", "phase"):
            for end, module in (
                ("in", getattr(block.frequency, name)),
                ("layer", getattr(block.frequency, name)[2]),
            ):
                module.register_forward_hook(
                    lambda _, x, y, key=f"{name} {end}": types.setdefault(key, set()).update(
                        {x[0].dtype, y.dtype}
                    )
                )
        block.get_submodule("merge").register_forward_hook(
            lambda _, __, y: types.setdefault("merge", set()).add(y.dtype)
        )
    with torch.autocast("cpu", half):
        fused = net(ms, pan)
    assert types.pop("merge") == {half}  # autocast was on where it should be
    assert types == {
        f"{part} {end}": {torch.float32} for part in ("amplitude", "phase") for end in ("in", "layer")
    }
    assert fused.dtype == torch.float32
    single = net(ms, pan)
    error = (fused - single).abs().max() / single.abs().max()
    # Eight bits of mantissa round by 2**-9; about twenty convolutions lie one after another. Ten in float16.
    assert 0 < error < 20 * (2**-9 if half == torch.bfloat16 else 2**-11)


def test_gradients_under_autocast_are_finite_also_on_flat_images() -> None:
    ms, pan = images()
    for inputs in ((ms, pan), (torch.zeros_like(ms), torch.zeros_like(pan)), (ms * 0 + 700, pan * 0 + 700)):
        net = network(blocks=2).train()
        with torch.autocast("cpu", torch.bfloat16):
            fused = net(*inputs)
        (fused / 2047).abs().mean().backward()
        found = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        assert len(found) > 40
        assert not [name for name, gradient in found.items() if not gradient.isfinite().all()]


@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_contrast_of_half_precision_maps_is_measured_in_float32(half: torch.dtype) -> None:
    """In float16 the least variance, 1e-12, would be zero, and the square of 300 infinite."""
    flat = torch.full((1, 1, 4, 4), 2.0, dtype=half, requires_grad=True)
    contrast(flat).sum().backward()
    assert flat.grad is not None
    assert torch.equal(flat.grad, torch.zeros_like(flat))
    wide = torch.tensor([[-512.0, 512.0]], dtype=half)[None, None]
    assert contrast(wide).item() == pytest.approx(512)

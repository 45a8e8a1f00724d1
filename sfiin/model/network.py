"""What is SFIIN? The Spatial-Frequency Information Integration Network for pan-sharpening.

Zhou et al., "Spatial-Frequency Domain Information Integration for Pan-Sharpening", ECCV 2022. Digital
numbers in, digital numbers out: scaling and the resampling of MS onto the PAN grid belong to the network, so
that it can be given, on any device, just what the sensor delivers.

    MS_up = bicubic(MS)       M0 = conv(MS_up)      P0 = conv(PAN)
    (M, P)k = CoreBlock((M, P)k-1), k = 1..K        HRMS = Refinement(conv1x1[M1 .. MK]) + MS_up

Each core block fuses M and P twice, in the spatial domain and in the frequency domain, and lets the two
exchange (compensation) and weigh (integration) what they found.

With `normalise` or `inject` (`sfiin.model.injection`) the same core stands between other ends: its inputs are
brought to local contrast and joined by classical proposals, and HRMS is MS_up, plus its residual in units of
that contrast, plus the proposals with the shares that it gives them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfiin.model import spectrum
from sfiin.model.injection import SHARES, Inject, Injection, Normalise, Surroundings
from sfiin.model.resample import AlignedUpsample, Upsample, single_precision
from sfiin.runtime.contract import SensorProfile

SpatialBranch = Literal["convolution", "invertible"]
Branches = Literal["both", "spatial", "frequency"]
Interaction = Literal["dual", "none"]
Resampling = Literal["half-pixel", "align-corners"]
SLOPE = 0.1


@dataclass(frozen=True)
class NetworkConfig:
    """The network's shape. `spatial`: `convolution` as in the paper, `invertible` as in the authors' release.

    `branches` and `interaction` leave parts out, to see what they are worth: one of the two branches, or the
    exchange between them (both branches' features are then merged as they are). `normalise` and `inject`: see
    `sfiin.model.injection`; without them the network is the paper's. `resample` is how MS comes onto the PAN
    grid: `align-corners` as in the authors' training, which moves pixels by up to half an MS pixel.
    """

    bands: int = 4
    channels: int = 8
    blocks: int = 5
    ratio: int = 4
    spatial: SpatialBranch = "convolution"
    branches: Branches = "both"
    interaction: Interaction = "dual"
    normalise: Normalise = "none"
    inject: Inject = "none"
    resample: Resampling = "half-pixel"

    @property
    def is_plain(self) -> bool:
        """Whether it is the paper's network, between the paper's ends."""
        return (self.normalise, self.inject) == ("none", "none")

    def __post_init__(self) -> None:
        if self.bands < 1 or self.blocks < 1 or self.ratio < 2:
            raise ValueError(f"bands and blocks must be at least 1 and ratio at least 2: {self}")
        if self.channels < 4 or self.channels % 4:
            raise ValueError(
                f"channels must be a multiple of 4 (channel attention squeezes by 4), not {self.channels}"
            )
        choices = {
            "spatial": SpatialBranch,
            "branches": Branches,
            "interaction": Interaction,
            "normalise": Normalise,
            "inject": Inject,
            "resample": Resampling,
        }
        for field, kind in choices.items():
            if getattr(self, field) not in get_args(kind):
                raise ValueError(f"{field} must be one of {get_args(kind)}, not {getattr(self, field)!r}")
        if self.resample != "half-pixel" and not self.is_plain:
            raise ValueError(
                "resample: align-corners is for the paper's network, without normalise and inject"
            )


class PanSharpener(nn.Module):
    """A network from MS and PAN to HRMS, digital numbers (DN) in and out.

    `sensor` gives the scale between DN and what the network computes with. Raises ValueError for a sensor of
    other bands or another ratio.
    """

    config: Any

    def __init__(self, bands: int, ratio: int, sensor: SensorProfile) -> None:
        super().__init__()
        if (len(sensor.bands), sensor.ratio) != (bands, ratio):
            raise ValueError(
                f"a network of {bands} bands, ratio {ratio} cannot serve the sensor '{sensor.name}' of "
                f"{len(sensor.bands)} bands, ratio {sensor.ratio}"
            )
        self.sensor = sensor


UPSAMPLES: dict[Resampling, Callable[[int, int], nn.Module]] = {
    "half-pixel": Upsample,
    "align-corners": AlignedUpsample,
}
"""What brings MS onto the PAN grid, given bands and ratio."""


class SFIIN(PanSharpener):
    """The whole network."""

    def __init__(self, config: NetworkConfig, sensor: SensorProfile) -> None:
        super().__init__(config.bands, config.ratio, sensor)
        c = config.channels
        self.config: NetworkConfig = config
        inputs, outputs = (config.bands, 1), config.bands * (1 + len(SHARES[config.inject]))
        if config.is_plain:
            self.upsample = UPSAMPLES[config.resample](config.bands, config.ratio)
        else:
            self.injection = Injection(config.bands, config.ratio, config.inject, config.normalise)
            inputs = self.injection.channels
        self.ms_head = conv3(inputs[0], c)
        self.pan_head = conv3(inputs[1], c)
        self.blocks = nn.ModuleList(CoreBlock(config) for _ in range(config.blocks))
        self.gather = conv1(config.blocks * c, c)
        self.refine = Refinement(c, outputs)
        if not config.is_plain:
            self.refine.begin_small()

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """Fuse. `ms`: (N, B, h, w) DN; `pan`: (N, 1, h * ratio, w * ratio) DN. Returns (N, B, H, W) DN,
        unclipped."""
        scale = self.sensor.scale
        if not self.config.is_plain:
            seen: Surroundings = self.injection(ms / scale, pan / scale)
            return self.joined(seen) * scale
        ms_up: Tensor = self.upsample(ms / scale)
        return (self.core(ms_up, pan / scale) + ms_up) * scale

    def core(self, ms: Tensor, pan: Tensor) -> Tensor:
        """From the heads' inputs on the PAN grid to what the refinement makes of all blocks."""
        m, p = self.ms_head(ms), self.pan_head(pan)
        fused = []
        for block in self.blocks:
            m, p = block(m, p)
            fused.append(m)
        result: Tensor = self.refine(self.gather(torch.cat(fused, 1)))
        return result

    def joined(self, seen: Surroundings) -> Tensor:
        """Resampled MS, the residual in units of local contrast, and the proposals with their shares."""
        residual, *shares = torch.split(self.core(seen.ms, seen.pan), self.config.bands, 1)
        result = seen.base + seen.spread * residual
        first = SHARES[self.config.inject].values()
        for start, share, proposal in zip(first, shares, seen.proposals, strict=True):
            result = result + (start + share) * proposal
        return result


class CoreBlock(nn.Module):
    """One round of fusion: (M, P) to (M', P'), both (N, C, H, W)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        c = config.channels
        self.pan = conv3(c, c)
        self.project = conv1(c, c)
        branches: list[nn.Module] = []
        if config.branches != "spatial":
            self.frequency = FrequencyBranch(c)
            branches.append(self.frequency)
        if config.branches != "frequency":
            self.spatial: nn.Module = SPATIAL_BRANCHES[config.spatial](c)
            branches.append(self.spatial)
        self.interacts = len(branches) == 2 and config.interaction == "dual"
        if self.interacts:
            self.compensation = two_layers(c, c // 2, c, conv3)
            self.attention = two_layers(2 * c, c // 2, 2 * c, conv1)
        self.merge = conv3(len(branches) * c, c)

    def forward(self, m: Tensor, p: Tensor) -> tuple[Tensor, Tensor]:
        """Fuse M and P; M' has M as its residual, P' is P one convolution deeper."""
        p_next = self.pan(p)
        p = self.project(p_next)
        names = [name for name in ("frequency", "spatial") if hasattr(self, name)]
        features = [getattr(self, name)(m, p) for name in names]
        both = self.exchange(*features) if self.interacts else torch.cat(features, 1)
        return self.merge(both) + m, p_next

    def exchange(self, f: Tensor, s: Tensor) -> Tensor:
        """The dual-domain interaction: what f has and s lacks is added to s (compensation), then both are
        weighed."""
        r = f * torch.sigmoid(self.compensation(s - f)) + s
        both = torch.cat((r, f), 1)
        return both * torch.sigmoid(self.attention(contrast(both) + both.mean((2, 3), keepdim=True)))


class FrequencyBranch(nn.Module):
    """Fuse M and P by amplitude and phase: each bin of the result sees the whole tile."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.ms = conv1(channels, channels)
        self.pan = conv1(channels, channels)
        self.amplitude = two_layers(2 * channels, channels, channels, conv1)
        self.phase = two_layers(2 * channels, channels, channels, conv1)
        self.out = conv1(channels, channels)

    def forward(self, m: Tensor, p: Tensor) -> Tensor:
        """(N, C, H, W) twice to (N, C, H, W). Under autocast all but the outer convolutions stays in
        float32."""
        maps = torch.cat((self.ms(m), self.pan(p)), 1)
        with single_precision(maps.device):
            amplitude, phase = spectrum.analyse(at_least_single(maps))
            fused = spectrum.synthesise(self.amplitude(amplitude), self.phase(phase), maps.shape[-1])
        return self.out(fused.abs())  # type: ignore[no-any-return]


class ConvolutionBranch(nn.Module):
    """The paper's spatial branch: two 3x3 convolutions over [M, P]."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.fuse = two_layers(2 * channels, channels, channels, conv3)

    def forward(self, m: Tensor, p: Tensor) -> Tensor:
        """(N, C, H, W) twice to (N, C, H, W)."""
        return self.fuse(torch.cat((m, p), 1))  # type: ignore[no-any-return]


class InvertibleBranch(nn.Module):
    """The authors' spatial branch: [M, P] mixed by an invertible 1x1 convolution, then an affine coupling."""

    CLAMP = 0.8

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.mix = InvertibleMix(2 * channels)
        self.shift_first = DenseBlock(channels)
        self.shift_second = DenseBlock(channels)
        self.scale_second = DenseBlock(channels)
        self.out = conv1(2 * channels, channels)

    def forward(self, m: Tensor, p: Tensor) -> Tensor:
        """(N, C, H, W) twice to (N, C, H, W)."""
        first, second = self.mix(torch.cat((m, p), 1)).chunk(2, 1)
        first = first + self.shift_first(second)
        # clamp * (2 * sigmoid(t) - 1), written with one function less
        log_scale = self.CLAMP * torch.tanh(0.5 * self.scale_second(first))
        second = second * log_scale.exp() + self.shift_second(first)
        return self.out(torch.cat((first, second), 1))  # type: ignore[no-any-return]


class InvertibleMix(nn.Module):
    """A 1x1 convolution whose matrix is kept as P (L + I) (U + diag(sign * exp(log_s))), as in Glow
    (NeurIPS 2018)."""

    permutation: Tensor
    sign: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        rotation = torch.linalg.qr(torch.randn(channels, channels))[0]
        permutation, lower, upper = torch.linalg.lu(rotation)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("sign", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_diagonal = nn.Parameter(diagonal.abs().log())

    def matrix(self) -> Tensor:
        """The mixing as one (C, C) matrix; what an export folds it into."""
        identity = torch.eye(len(self.sign), dtype=self.sign.dtype, device=self.sign.device)
        upper = self.upper.triu(1) + torch.diag(self.sign * self.log_diagonal.exp())
        return self.permutation @ (self.lower.tril(-1) + identity) @ upper

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        return functional.conv2d(x, self.matrix()[:, :, None, None])


class DenseBlock(nn.Module):
    """Two residual convolution pairs of 8 channels, and one convolution over all of it, back to C."""

    GROWTH = 8

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = ResidualPair(channels, self.GROWTH)
        self.second = ResidualPair(self.GROWTH, self.GROWTH)
        self.out = conv3(channels + 2 * self.GROWTH, channels)
        for parameter in self.parameters():  # a coupling that starts near the identity, as the authors' does
            (nn.init.xavier_normal_(parameter, 0.1) if parameter.dim() > 1 else nn.init.zeros_(parameter))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, C, H, W)."""
        first = functional.leaky_relu(self.first(x), 0.2)
        second = functional.leaky_relu(self.second(first), 0.2)
        return functional.leaky_relu(self.out(torch.cat((x, first, second), 1)), 0.2)


class ResidualPair(nn.Module):
    """Two activated 3x3 convolutions beside a 1x1 shortcut."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.first = conv3(channels_in, channels_out)
        self.second = conv3(channels_out, channels_out)
        self.shortcut = conv1(channels_in, channels_out)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, channels_out, H, W)."""
        deep = functional.leaky_relu(self.first(x), SLOPE)
        return functional.leaky_relu(self.second(deep), SLOPE) + self.shortcut(x)  # type: ignore[no-any-return]


class Refinement(nn.Module):
    """From fused features to what is missing in MS_up: convolution, channel attention with residual,
    convolution.

    As in the authors' release the attended map is first averaged over the tile, so the attention adds one
    value a channel to its input.
    """

    def __init__(self, channels: int, bands: int) -> None:
        super().__init__()
        self.head = conv3(channels, channels)
        self.process = nn.Sequential(conv3(channels, channels), nn.ReLU(), conv3(channels, channels))
        self.attention = nn.Sequential(
            conv1(channels, channels // 4), nn.ReLU(), conv1(channels // 4, channels), nn.Sigmoid()
        )
        self.tail = conv3(channels, bands)

    def begin_small(self) -> None:
        """Let what it adds begin near nothing, where what it is added to is good already."""
        with torch.no_grad():
            for parameter, gain in zip(self.tail.parameters(), (0.1, 0.0), strict=True):
                parameter.mul_(gain)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) to (N, bands, H, W)."""
        x = self.head(x)
        pooled = self.process(x).mean((2, 3), keepdim=True)
        return self.tail(self.attention(pooled) * pooled + x)  # type: ignore[no-any-return]


SPATIAL_BRANCHES: dict[SpatialBranch, Callable[[int], nn.Module]] = {
    "convolution": ConvolutionBranch,
    "invertible": InvertibleBranch,
}


def at_least_single(x: Tensor) -> Tensor:
    """Half-precision tensors as float32, others as they are."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def contrast(x: Tensor) -> Tensor:
    """Spatial standard deviation of each map, (N, C, 1, 1); its gradient is zero, not NaN, on a constant map.

    Half-precision maps are measured in float32: their squares would overflow, and the least variance be zero.
    """
    x = at_least_single(x)
    centred = x - x.mean((2, 3), keepdim=True)
    return (centred * centred).mean((2, 3), keepdim=True).clamp_min(1e-12).sqrt()


def conv3(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size."""
    return nn.Conv2d(channels_in, channels_out, 3, padding=1)


def conv1(channels_in: int, channels_out: int) -> nn.Conv2d:
    """A 1x1 convolution."""
    return nn.Conv2d(channels_in, channels_out, 1)


def two_layers(a: int, b: int, c: int, conv: Callable[[int, int], nn.Conv2d]) -> nn.Sequential:
    """Two convolutions, a to b to c channels, with a leaky rectifier between."""
    return nn.Sequential(conv(a, b), nn.LeakyReLU(SLOPE), conv(b, c))

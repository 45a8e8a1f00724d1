"""What are the learned baselines? PNN, and a residual network after PanNet, so that "better" is a
measurement.

Both take what SFIIN takes and are trained by the same loop on the same patches. MS is brought onto the PAN
grid as SFIIN does it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from sfiin.model.network import PanSharpener, conv3
from sfiin.model.resample import Upsample
from sfiin.runtime.contract import SensorProfile


@dataclass(frozen=True)
class BaselineConfig:
    """A baseline's shape: what depends on the sensor; the rest is fixed by the paper."""

    bands: int = 4
    ratio: int = 4


class PNN(PanSharpener):
    """Three convolutions (9x9 to 64 maps, 5x5 to 32, 5x5 to the bands) over MS_up and PAN.

    Source: G. Masi, D. Cozzolino, L. Verdoliva, G. Scarpa, "Pansharpening by Convolutional Neural Networks",
    Remote Sensing 8 (2016), without its radiometric indices as further inputs.
    """

    def __init__(self, config: BaselineConfig, sensor: SensorProfile) -> None:
        super().__init__(config.bands, config.ratio, sensor)
        self.config = config
        self.upsample = Upsample(config.bands, config.ratio)
        self.layers = nn.Sequential(
            nn.Conv2d(config.bands + 1, 64, 9, padding=4),
            nn.ReLU(),
            nn.Conv2d(64, 32, 5, padding=2),
            nn.ReLU(),
            nn.Conv2d(32, config.bands, 5, padding=2),
        )

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """As `SFIIN.forward`."""
        scale = self.sensor.scale
        ms_up = self.upsample(ms / scale)
        fused: Tensor = self.layers(torch.cat((ms_up, pan / scale), 1))
        return fused * scale


class PanNet(PanSharpener):
    """A residual network of 32 maps and four blocks on the high frequencies of MS_up and PAN, added to MS_up.

    After J. Yang, X. Fu, Y. Hu, Y. Huang, X. Ding, J. Paisley, "PanNet: A Deep Network Architecture for
    Pan-Sharpening", ICCV 2017; without batch normalisation, and MS_up is bicubic instead of learned.
    """

    WIDTH, BLOCKS, WINDOW = 32, 4, 5

    def __init__(self, config: BaselineConfig, sensor: SensorProfile) -> None:
        super().__init__(config.bands, config.ratio, sensor)
        self.config = config
        self.upsample = Upsample(config.bands, config.ratio)
        self.head = conv3(config.bands + 1, self.WIDTH)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv3(self.WIDTH, self.WIDTH), nn.ReLU(), conv3(self.WIDTH, self.WIDTH))
            for _ in range(self.BLOCKS)
        )
        self.tail = conv3(self.WIDTH, config.bands)

    def forward(self, ms: Tensor, pan: Tensor) -> Tensor:
        """As `SFIIN.forward`."""
        scale = self.sensor.scale
        ms_up = self.upsample(ms / scale)
        detail = high_pass(torch.cat((ms_up, pan / scale), 1), self.WINDOW)
        x = functional.relu(self.head(detail))
        for block in self.blocks:
            x = functional.relu(x + block(x))
        fused: Tensor = self.tail(x) + ms_up
        return fused * scale


def high_pass(x: Tensor, window: int) -> Tensor:
    """What is left of maps (N, C, H, W) without their mean over an odd `window`; edges are replicated."""
    reach = window // 2
    return x - functional.avg_pool2d(functional.pad(x, [reach] * 4, mode="replicate"), window, 1)

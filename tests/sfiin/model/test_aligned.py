"""Resampling with aligned corners: PyTorch's own, as matrices, and through the export."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional

from sfiin.data.sensors import SENSORS
from sfiin.export.exporter import export_model
from sfiin.model import checkpoint
from sfiin.model.checkpoint import Checkpoint
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.model.resample import AlignedUpsample
from sfiin.runtime import models
from sfiin.runtime.contract import Tile


def test_the_matrices_are_pytorchs_interpolation() -> None:
    part, image = AlignedUpsample(3, 4), torch.rand(2, 3, 8, 12, dtype=torch.float64)
    wanted = functional.interpolate(image, scale_factor=4, mode="bicubic", align_corners=True)
    torch.testing.assert_close(part.matrix(8) @ image @ part.matrix(12).T, wanted)
    torch.testing.assert_close(part(image), wanted)


def test_it_is_exported_checked_and_named_in_the_contract(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = SFIIN(NetworkConfig(blocks=1, resample="align-corners"), SENSORS["vhr4"].profile)
    checkpoint.save(tmp_path / "a.safetensors", Checkpoint(network))
    assert checkpoint.load(tmp_path / "a.safetensors").network.config == network.config
    report = export_model(
        tmp_path / "a.safetensors", tmp_path / "a.onnx", "matmul", Tile(32, 48, 8), opset=17
    )
    assert report.float64.relative_l2 < 1e-5
    assert models.contract(tmp_path / "a.onnx").network["resample"] == "align-corners"


def test_it_is_for_the_papers_network_only() -> None:
    with pytest.raises(ValueError, match="resample: align-corners is for the paper's network"):
        NetworkConfig(normalise="local", inject="none", resample="align-corners")

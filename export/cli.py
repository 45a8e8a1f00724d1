"""Which command does the export side add? `export`.

Imported for `sfiin --help` even where torch and onnx are not installed, so the heavy imports stand inside the command.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from runtime.cli import requires
from runtime.console import print_table, say
from runtime.contract import Lowering
from runtime.options import Quiet

Fourier = Annotated[Lowering, typer.Option("--fourier", help="How the Fourier transform becomes ONNX nodes.")]
TileOption = Annotated[str, typer.Option("--tile", help="Tile in PAN pixels: 128, or 96x160 for height x width.")]


def export(
    checkpoint: Annotated[Path, typer.Argument(help="A checkpoint (.safetensors).")],
    out: Annotated[Path, typer.Option("-o", "--output", help="The model to write (.onnx).")],
    fourier: Fourier = "matmul",
    tile: TileOption = "128",
    overlap: Annotated[int, typer.Option(min=0, help="PAN pixels that neighbouring tiles share.")] = 32,
    opset: Annotated[int, typer.Option(min=17, max=23, help="ONNX opset.")] = 17,
    quiet: Quiet = False,
) -> None:
    """Export a checkpoint to ONNX, check it against PyTorch, and publish it with its contract and golden tiles."""
    requires("export", "torch", "onnx", "onnxruntime", "safetensors", "scipy")
    from export.exporter import export_model
    from runtime.contract import Tile

    height, width = parse_tile(tile)
    report = export_model(checkpoint, out, fourier, Tile(height, width, overlap), opset)
    rows = [
        (exact.name, *(f"{value:.1e}" for parity in (exact, single, own) for value in (parity.relative_l2, parity.peak_share)))
        for exact, single, own in zip(report.float64.tiles, report.float32.tiles, report.rounding.tiles, strict=True)
    ]
    print_table(
        "ONNX Runtime against PyTorch: relative L2, largest difference / peak",
        ("tile", "float64 L2", "max", "float32 L2", "max", "PyTorch's own L2", "max"),
        rows,
        quiet,
    )
    say(f"{out}: {fourier}, tile {height}x{width}, opset {opset}, {out.stat().st_size / 1e6:.2f} MB; checked", quiet)


def parse_tile(text: str) -> tuple[int, int]:
    """'128' or '96x160' as (height, width). Raises typer.BadParameter for anything else."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text)
    if not match:
        raise typer.BadParameter(f"'{text}' is no tile; write a side (128) or height x width (96x160)")
    return int(match[1]), int(match[2] or match[1])

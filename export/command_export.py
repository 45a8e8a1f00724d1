"""Which commands does the export side add? `export` and `demo`.

Imported for `sfiin --help` even where torch and onnx are missing, so what is heavy is imported inside the
commands.
"""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfiin.export.command_preflight import Name
from sfiin.runtime.cli import requires
from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_table, say
from sfiin.runtime.commands.scene_options import spread

if TYPE_CHECKING:
    from sfiin.export.exporter import ExportReport
    from sfiin.export.lower_precision import Converted
    from sfiin.export.lowering_choice import Choice
    from sfiin.export.precision_loss import Distance, Figures

MODULES = ("torch", "safetensors", "scipy", "onnx", "onnxruntime")


@dataclasses.dataclass(frozen=True)
class ModelOptions:
    """What to make of a checkpoint; each field is a parameter of `sfiin.export`."""

    fourier: Annotated[
        Literal["matmul", "dft", "plugin", "auto"],
        typer.Option(help="What becomes of the Fourier transform; auto: the fastest that the target reads."),
    ] = "matmul"
    target: Annotated[
        Name | None, typer.Option(help="What is to run the model; refuse to write what that will not read.")
    ] = None
    tile: Annotated[str, typer.Option(metavar="SIDE|HxW", help="The tile in PAN pixels: 128, or 96x160.")] = (
        "128"
    )
    overlap: Annotated[int, typer.Option(min=0, help="PAN pixels that neighbouring tiles share.")] = 32
    opset: Annotated[int, typer.Option(min=17, max=23, help="ONNX opset.")] = 17
    precision: Annotated[
        Literal["fp32", "fp16", "mixed"],
        typer.Option(help="fp16: half but for what needs more; mixed: half convolutions, float spectra."),
    ] = "fp32"
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Pairs (.npz) to audit ranges on, for fp16 and mixed; else golden tiles only."
        ),
    ] = None
    check: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pairs (.npz) with truth that fp16 and mixed are judged by."),
    ] = None

    def require_together(self) -> None:
        """Raises typer.BadParameter for options that do not go together."""
        if self.precision == "fp32" and (self.calibration or self.check):
            raise typer.BadParameter(
                "--calibration and --check are for --precision fp16 or mixed; leave them out"
            )
        if self.precision != "fp32" and self.fourier == "plugin":
            raise typer.BadParameter(
                f"{self.precision} wants the graph to run in ONNX Runtime, which has no kernel for the "
                "plugin's node; export it in fp32",
                param_hint="--precision",
            )


@spread
def export(
    *,
    checkpoint: Annotated[Path, typer.Argument(metavar="CHECKPOINT", help="A checkpoint (.safetensors).")],
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="The model to write (.onnx).")
    ],
    how: ModelOptions,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """Export a checkpoint to ONNX, check it against PyTorch, and write it with its contract and golden
    tiles."""
    how.require_together()
    check_tile(how.tile)
    options.refuse_existing(output, overwrite)
    requires("export", *MODULES)
    from sfiin.export import api

    report = api.export(checkpoint, output, **vars(how), overwrite=overwrite)
    if not quiet:
        _print_parity(report)
        if report.choice is not None:
            _print_choice(report.choice)
        if report.converted:
            _print_converted(report.converted)
    lowering, size = report.contract.lowering, f"{output.stat().st_size / 1e6:.2f} MB"
    say(
        f"{output}: {lowering}, {how.precision}, tile {how.tile}, opset {how.opset}, {size}, checked",
        quiet,
    )


def demo(
    *,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="DIR", help="A folder for what it makes.")
    ] = Path("demo"),
    quiet: options.Quiet = False,
) -> None:
    """Go the whole way: export, check, run, judge and draw, on a simulated scene with known truth and a real
    one."""
    requires("export", *MODULES, "matplotlib")
    from sfiin.export.demo import demo as run_demo

    result = run_demo(output, lambda text: say(f"- {text}", quiet))
    if quiet:
        return
    _print_parity(result.export)
    for title, quality in (
        ("simulated: quality against the truth", result.quality),
        ("Landsat-8, Momotombo, one scale coarser: quality against its MS", result.real),
    ):
        rows = [(name, f"{q.psnr:.2f}", f"{q.sam:.3f}", f"{q.ergas:.3f}") for name, q in quality.items()]
        print_table(title, rows, ("method", "PSNR dB", "SAM deg", "ERGAS"))
    say(
        f"{output / 'hrms.tif'}: {result.run.tiles} tiles in {result.run.seconds:.1f} s; picture: "
        f"{output / 'demo.png'}"
    )


def check_tile(text: str) -> None:
    """Raise typer.BadParameter for what is neither '128' nor '96x160'."""
    if not re.fullmatch(r"\d+(x\d+)?", text):
        raise typer.BadParameter(f"'{text}' is no tile; write a side (128), or height x width (96x160)")


def _print_parity(report: ExportReport) -> None:
    sets = (report.float64, report.float32, report.rounding)
    rows = [
        (tiles[0].name, *(f"{value:.1e}" for tile in tiles for value in (tile.relative_l2, tile.peak_share)))
        for tiles in zip(*(parity.tiles for parity in sets), strict=True)
    ]
    rows.append(
        ("all", *(f"{value:.1e}" for parity in sets for value in (parity.relative_l2, parity.peak_share)))
    )
    header = ("tile", "float64: L2", "max", "float32: L2", "max", "float32 to 64: L2", "max")
    runner = "The plugin's reference" if report.contract.lowering == "plugin" else "ONNX Runtime"
    print_table(f"{runner} against PyTorch (relative L2; largest difference / peak)", rows, header)


def _print_choice(choice: Choice) -> None:
    rows = [
        (
            candidate.lowering,
            None if candidate.error is None else f"{candidate.error.relative_l2:.1e}",
            None if candidate.milliseconds is None else f"{candidate.milliseconds:.1f}",
            "chosen" if candidate.lowering == choice.lowering else candidate.why or "slower",
        )
        for candidate in choice.candidates
    ]
    print_table(
        f"Lowerings for {choice.target}", rows, ("lowering", "L2", "ms a tile, ONNX Runtime, CPU", "")
    )


def _print_converted(converted: Converted) -> None:
    typed, lost = converted.typed, converted.loss
    first = {node.rule: node for node in reversed(typed.kept)}
    rules = [(rule, count, first[rule].node, first[rule].reason) for rule, count in typed.rules.items()]
    in_fp16 = f"{typed.mac_share:.1%} of multiply-adds and {typed.node_share:.0%} of nodes in FP16"
    shares = f"{in_fp16}, {typed.casts} Casts"
    print_table(f"Nodes kept in FP32 ({shares})", rules, ("rule", "nodes", "first", "why"))
    header = ("", "PSNR dB", "SAM deg", "ERGAS", "shift DN", "largest DN")
    _print_figures(
        "difference from FP32 on golden tiles", header, rounded=converted.rounded, unrounded=converted.here
    )
    if lost:
        apart = f"shift {lost.shift:.4f} DN, at most {lost.largest:.2f} DN"
        title = f"against truth, {lost.pairs} pairs (from FP32: {apart})"
        _print_figures(title, (*header[:4], "bias DN"), FP32=lost.single, rounded=lost.lower)


def _print_figures(title: str, header: tuple[str, ...], **figures: Distance | Figures) -> None:
    rows = [
        (name, *(f"{value:.4f}" for value in dataclasses.astuple(measured)))
        for name, measured in figures.items()
    ]
    print_table(title, rows, header)

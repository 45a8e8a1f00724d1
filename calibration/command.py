"""How does a model become INT8 from the command line? `sfiin calibrate`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfiin.runtime import files
from sfiin.runtime.cli import requires
from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_json, print_table, say, tally
from sfiin.runtime.commands.scene_options import spread

if TYPE_CHECKING:
    from sfiin.calibration.advisor import Advice
    from sfiin.calibration.calibrate import CalibrationOptions, Result

MODULES = ("torch", "safetensors", "scipy", "onnx", "onnxruntime")


@dataclass(frozen=True)
class Int8Options:
    """How ranges are found, what may be lost, and what the rest of the model is."""

    gate: Annotated[
        str,
        typer.Option(metavar="PSNR,SAM,ERGAS", help="What may be lost: dB, degrees, and a share in percent."),
    ] = "0.2,0.05,3"
    method: Annotated[
        Literal["auto", "minmax", "percentile", "entropy", "mse"],
        typer.Option(help="How ranges are found; auto: the best of minmax, percentile and mse."),
    ] = "auto"
    rest: Annotated[Literal["fp16", "fp32"], typer.Option(help="The type of what is not INT8.")] = "fp16"
    tiles: Annotated[int, typer.Option(min=1, help="Tiles to measure ranges on.")] = 48
    patches: Annotated[int, typer.Option(min=1, help="Patches with truth that the search is judged by.")] = 24
    seed: Annotated[int, typer.Option(min=0, help="For the choice of tiles and patches.")] = 0
    search: Annotated[
        bool, typer.Option("--search/--no-search", help="Hold back what the gate asks for, or quantise all.")
    ] = True

    def options(self) -> CalibrationOptions:
        """As the calibration takes them. Raises typer.BadParameter for what is no gate."""
        limits = parse_gate(self.gate)
        from sfiin.calibration.calibrate import CalibrationOptions
        from sfiin.export.precision_loss import LossGate

        method = None if self.method == "auto" else self.method
        gate = LossGate(*limits, 1.0)
        return CalibrationOptions(method, self.tiles, self.patches, self.seed, gate, self.rest, self.search)


@spread
def calibrate(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An FP32 model of 'sfiin export' (.onnx).")],
    data: Annotated[
        Path | None,
        typer.Option(
            "--data", metavar="DIR", help="Pairs (.npz, some with truth) and scenes to calibrate on."
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The INT8 model to write (.onnx).")
    ] = None,
    check: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Pairs with truth, kept apart, that the result is judged by."),
    ] = None,
    chosen: Int8Options,
    device: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Say first if INT8 will pay on orin-agx, orin-nano, t4 or rtx4090; again for more.",
        ),
    ] = None,
    advise: Annotated[
        bool, typer.Option("--advise", help="Only say whether INT8 will pay on each --device.")
    ] = False,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a report (.html).")] = None,
    cache: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the ranges as TensorRT 8's calibration cache, too."),
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Make an INT8 model of an FP32 one, no worse than asked, and say what it costs and whether it pays."""
    parse_gate(chosen.gate)
    if advise and not device:
        raise typer.BadParameter("name the --device to ask about", param_hint="--advise")
    if not advise and (data is None or output is None):
        raise typer.BadParameter("--data and --output are wanted, or --advise", param_hint="--data")
    for path in (output, report, cache):
        if path is not None:
            files.check_target(path)
            options.refuse_existing(path, overwrite)
    requires("export", *MODULES, *(["matplotlib"] if report else []))
    advice = _advised(model, device or [])
    if advise:
        _print_advice(advice, as_json, quiet)
        return
    if not as_json:
        _print_advice(advice, as_json, quiet)
    assert data is not None
    assert output is not None
    from sfiin.calibration.calibrate import calibrate as run

    how = chosen.options()
    with tally("judging convolutions", quiet or as_json) as progress:
        result, work = run(model, data, output, how, check=check, cache_file=cache, watch=progress)
    if report is not None:
        import onnx

        from sfiin.calibration.report import write

        write(report, work, result, onnx.load(output), advice)
    if as_json:
        print_json({"model": str(output), **result.document(how.gate)})
    else:
        _print(output, result, chosen.rest, quiet)


def parse_gate(text: str) -> tuple[float, float, float]:
    """'0.2,0.05,3' as dB, degrees and a share. Raises typer.BadParameter for anything else."""
    number = r"(\d+(?:\.\d+)?)"
    found = re.fullmatch(f"{number},{number},{number}%?", text)
    if not found or not all(map(float, found.groups())):
        raise typer.BadParameter(
            f"'{text}' is no gate; write dB of PSNR, degrees of SAM and percent of ERGAS, such as 0.2,0.05,3",
            param_hint="--gate",
        )
    return float(found[1]), float(found[2]), float(found[3]) / 100


def _advised(model: Path, names: Sequence[str]) -> list[Advice]:
    if not names:
        return []
    from sfiin.calibration.advisor import advise as ask
    from sfiin.calibration.advisor import devices
    from sfiin.calibration.calibrate import graph_of
    from sfiin.calibration.quantize import candidates
    from sfiin.export import vouched
    from sfiin.export.rewritten import as_exported
    from sfiin.runtime import golden, vouching

    for name in names:
        if name not in devices():
            raise typer.BadParameter(
                f"'{name}' is not known; {', '.join(devices())} are", param_hint="--device"
            )
    # No product is made here, so what the graph computes need not be vouched for, only that it is one.
    found = vouching.read(model)
    plain = as_exported(vouched.graph_of(found), model)
    graph = graph_of(plain, golden.read(golden.beside(model), found.contract))
    return [ask(graph, candidates(graph)[0], devices()[name]) for name in names]


def _print_advice(advice: Sequence[Advice], as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json(
            {
                "advice": [
                    {
                        "device": answer.device.title,
                        "pays": answer.pays,
                        "gain": answer.gain,
                        "reasons": answer.reasons,
                        "layers": [vars(layer) for layer in answer.layers],
                    }
                    for answer in advice
                ]
            }
        )
        return
    for answer in advice:
        say(answer.summary(), quiet)
        for reason in answer.reasons:
            say(f"  {reason}", quiet)


def _print(output: Path, result: Result, rest: str, quiet: bool) -> None:
    from sfiin.calibration.report import rows

    if not quiet:
        header = ("", "INT8", "PSNR dB", "SAM deg", "ERGAS", "bias DN", "shift DN", "largest DN")
        print_table(f"On {result.judged_on}", rows(result, rest), header)
    held = sum(node.rule == "gate" for node in result.kept)
    say(
        f"{output}: INT8 in {result.mac_share:.1%} of multiply-adds, {held} convolutions held back by the "
        f"gate, ranges by {result.method}, the rest {rest}, checked",
        quiet,
    )

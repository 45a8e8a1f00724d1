"""Will a target read this model? `sfiin preflight`, before anything is built on a device."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from sfiin.runtime.cli import requires
from sfiin.runtime.commands.console import print_json, print_table, say
from sfiin.runtime.commands.options import Json, Quiet
from sfiin.runtime.errors import CheckFailedError

if TYPE_CHECKING:
    from sfiin.export.preflight import Finding

# The names of export/targets.toml, repeated because `--help` must not read it.
Name = Literal["trt8.5", "trt8.6", "trt10.3", "trt11.2", "jetpack5", "jetpack6.0", "jetpack6", "rtx", "ort"]

HEADER = ("", "where", "problem", "remedy")


def preflight(
    *,
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model, of any origin.")],
    name: Annotated[Name, typer.Option("--target", help="What is to run it.")],
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Check a model against what a target's parser and runtime support, without that target."""
    requires("export", "onnx")
    from sfiin.export import preflight as check

    chosen = check.target(name)
    findings = check.preflight(check.load(model), chosen, model.parent)
    if name == "ort" and not any(finding.severity == "error" for finding in findings):
        from sfiin.export.ort_load import refusal

        found = refusal(model)
        findings = [*([found] if found else []), *findings]
    errors = [finding for finding in findings if finding.severity == "error"]
    if as_json:
        print_json(
            {
                "model": str(model),
                "target": name,
                "title": chosen.title,
                "ok": not errors,
                "findings": [dataclasses.asdict(finding) for finding in findings],
            }
        )
    elif not quiet:
        _print(f"{model} for {chosen.title}", findings)
    if errors:
        raise CheckFailedError(f"{model}: {chosen.title} will not read it: {errors[0]}")


def _print(title: str, findings: list[Finding]) -> None:
    if not findings:
        return say(f"{title}: nothing found")
    rows = [(finding.severity, _where(finding), finding.problem, finding.remedy) for finding in findings]
    print_table(title, rows, HEADER)
    return say("sources: " + "; ".join(sorted({finding.source for finding in findings})))


def _where(finding: Finding) -> str:
    index = "" if finding.index is None else f", node {finding.index}"
    return f"{finding.operator} {finding.node}{index}" + (
        f" (and {finding.count - 1} more)" if finding.count > 1 else ""
    )

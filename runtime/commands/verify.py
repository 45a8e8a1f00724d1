"""Is an artefact what it says? `sfiin verify`, and `sfiin sign` for who is to vouch for it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import typer

from sfiin.runtime.commands import options
from sfiin.runtime.commands.console import print_json, say

Key = Annotated[
    Path | None,
    typer.Option(
        "--key", metavar="FILE", help="A public key (PEM): the folder must be signed with its pair."
    ),
]


def verify(
    *,
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A model, a plan, a checkpoint, golden tiles, or a folder.")
    ],
    key: Key = None,
    adopt: Annotated[
        bool,
        typer.Option(
            "--adopt", help="Write a copy whose contract vouches for it as it is, such as simplified."
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The copy to write (.onnx).")
    ] = None,
    precision: Annotated[
        Literal["fp32", "fp16", "mixed", "int8"] | None,
        typer.Option("--precision", help="What it was converted to; its golden tiles are judged by that."),
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Judge an artefact by its digests, its golden tiles and its signature; or adopt a model that was
    changed."""
    if adopt != (output is not None) or (precision and not adopt):
        raise typer.BadParameter("--adopt and --output belong together, and --precision to them")
    if output is not None:
        options.refuse_existing(output, overwrite)
    from sfiin.runtime import verify as judging

    if output is not None:
        contract = judging.adopt(file, output, precision)
        if as_json:
            print_json({"output": str(output), "contract": dataclasses.asdict(contract)})
        say(
            f"{output}: adopted, graph {contract.graph[:12]}; golden tiles within the gate of "
            f"{contract.precision} (relative L2 {contract.derived['relative_l2']:.1e})",
            quiet or as_json,
        )
        return
    verdicts = judging.verify(file, key)
    if as_json:
        print_json({"verdicts": [dataclasses.asdict(verdict) for verdict in verdicts]})
        return
    for verdict in verdicts:
        say(f"{verdict.file}: {verdict.kind}: {'; '.join(verdict.known) or 'nothing vouches for it'}", quiet)
        for text in verdict.unknown:
            say(f"  not known: {text}", quiet)


def sign(
    *,
    folder: Annotated[
        Path | None, typer.Argument(metavar="FOLDER", help="A model's folder; all files in it are signed.")
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", metavar="FILE", help="The private key (PEM) to sign with.")
    ] = None,
    new_key: Annotated[
        Path | None,
        typer.Option("--new-key", metavar="FILE", help="Make a pair: this private key, and .pub beside it."),
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    """Sign a model's folder with a key of your own, by OpenSSF Model Signing; or make such a key."""
    if (new_key is None) == (folder is None or key is None):
        raise typer.BadParameter("give FOLDER and --key, or --new-key")
    from sfiin.runtime import signatures

    if new_key is not None:
        public = signatures.make_keys(new_key)
        say(f"{new_key}: keep it secret; {public}: give it to who shall verify", quiet)
        return
    assert folder is not None
    assert key is not None
    say(f"{signatures.sign(folder, key)}: written", quiet)

"""How is what a flight needs sealed in one file, and looked at again? `sfiin bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from sfiin.runtime.commands.console import print_json, print_table, say
from sfiin.runtime.commands.options import Json, Overwrite, Quiet, refuse_existing

if TYPE_CHECKING:
    from sfiin.runtime.flight.bundle import Manifest

_LOOKS = ("verify", "inspect")


def bundle(
    *,
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL | verify FILE | inspect FILE",
            help="The model or plan to seal; or a word and the bundle to look at.",
            show_default=False,
        ),
    ],
    fallback: Annotated[
        list[Path] | None,
        typer.Option("--fallback", metavar="FILE", help="A model to go on with where the one before fails."),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option("--method", metavar="NAME", help="A classical method to go on with after all models."),
    ] = None,
    add: Annotated[
        list[Path] | None,
        typer.Option("--add", metavar="FILE", help="A further file, such as a licence."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="The bundle to write.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Seal models, golden tiles and fallbacks in one file; or verify or inspect such a file."""
    from sfiin.runtime.flight import bundle as bundles

    if what[0] in _LOOKS and len(what) == 2 and output is None:
        path = Path(what[1])
        manifest = bundles.read(path)
    elif len(what) == 1 and output is not None:
        path = output
        refuse_existing(path, overwrite)
        manifest = bundles.make(path, [Path(what[0]), *(fallback or [])], method or [], add or [])
    else:
        raise typer.BadParameter("give a model and --output, or 'verify FILE', or 'inspect FILE'")
    document = _document(path, manifest)
    if as_json:
        print_json(document)
    elif what[0] == "inspect" and not quiet:
        print_table(
            f"{path}: {manifest.name}, for {manifest.sensor}", _rows(document), ("file", "bytes", "SHA-256")
        )
    else:
        done = "sound" if what[0] in _LOOKS else "sealed"
        say(
            f"{path}: {done}, {len(manifest.files)} files, {document['bytes']} bytes, {document['sha256']}",
            quiet,
        )


def _document(path: Path, manifest: Manifest) -> dict[str, Any]:
    import dataclasses

    from sfiin.runtime.files import sha256

    about = {"bundle": str(path), "bytes": path.stat().st_size, "sha256": sha256(path)}
    return about | dataclasses.asdict(manifest)


def _rows(document: dict[str, Any]) -> list[tuple[object, ...]]:
    rows: list[tuple[object, ...]] = [
        (name, file["size"], file["sha256"]) for name, file in document["files"].items()
    ]
    return [*rows, ("chain", None, " -> ".join(document["chain"]))]

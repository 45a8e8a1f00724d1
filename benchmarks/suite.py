"""How fast are the shipped networks on this machine, in every lowering and precision, on every backend that
it has?

    python benchmarks/suite.py -o benchmarks/suite-NAME.json
    python benchmarks/suite.py --table benchmarks/suite-NAME.json

Both checkpoints are exported in each way, and `sfiin bench` runs all of them in turns; ratios are to the
first.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sfiin.export.exporter import export_model
from sfiin.export.targets import target
from sfiin.runtime.backends import machine
from sfiin.runtime.backends.select import Choice
from sfiin.runtime.bench.measure import BenchOptions, bench
from sfiin.runtime.bench.result import BenchResult
from sfiin.runtime.commands.bench import as_markdown
from sfiin.runtime.contract import Lowering, Precision, Tile
from sfiin.runtime.files import publish

CHECKPOINTS = Path(__file__).parent.parent / "sfiin" / "checkpoints"

REST = 60
"""Seconds until the exports' own load has gone from the mean of the last minute."""

VARIANTS: dict[str, tuple[Lowering, int, Precision, str | None]] = {
    "matmul": ("matmul", 17, "fp32", None),
    "matmul, --target ort": ("matmul", 17, "fp32", "ort"),
    "dft": ("dft", 20, "fp32", None),
    "matmul, fp16": ("matmul", 17, "fp16", None),
    "matmul, mixed": ("matmul", 17, "mixed", None),
}


def main() -> None:
    """Measure and write, or print the table of a file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("-o", "--output", type=Path, default=Path("benchmarks/suite.json"))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=18.0, help="for each model")
    parser.add_argument("--table", type=Path)
    options = parser.parse_args()
    if options.table:
        print(tables(json.loads(options.table.read_text("utf-8"))))
        return
    known: tuple[Choice, ...] = ("cpu", "cuda", "tensorrt")
    backends = [name for name in known if machine.backend(name)["usable"]]
    with TemporaryDirectory() as folder:
        paths = [path for name in ("vhr4", "wv8") for path in exported(name, Path(folder))]
        time.sleep(REST)
        found = {
            name: bench(
                paths, BenchOptions(provider=name, threads=options.threads, seconds=options.seconds)
            ).document()
            for name in backends
        }
    for document in found.values():
        for model in (document, *document["against"]):
            del model["samples"]
            model["model"] = model["model"].rsplit(".", 2)[0]
    document = {
        "command": f"python benchmarks/suite.py --threads {options.threads} --seconds {options.seconds:g}",
        "backends": found,
    }
    with publish(options.output) as part:
        part.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(tables(document))


def exported(name: str, folder: Path) -> list[Path]:
    """A shipped checkpoint in every way, under names that say which."""
    paths = []
    for variant, (lowering, opset, precision, wanted) in VARIANTS.items():
        paths.append(folder / f"{name}, {variant.split(', fp')[0].split(', mixed')[0]}.{precision}.onnx")
        export_model(
            CHECKPOINTS / f"sfiin-{name}.safetensors",
            paths[-1],
            lowering,
            Tile(128, 128, 32),
            opset=opset,
            precision=precision,
            target=target(wanted) if wanted else None,
        )
    return paths


def tables(document: Mapping[str, Any]) -> str:
    """The table of each backend."""
    results = map(BenchResult.from_document, document["backends"].values())
    return "\n\n".join(as_markdown(result).split("\n\n")[0] for result in results)


if __name__ == "__main__":
    main()

"""The shipped models source by source, beside all classical methods; and the table in docs/weights.md.

    python benchmarks/off_home.py --imagery DIR -o benchmarks/off-home.json [--model NAME]
    python benchmarks/off_home.py -o benchmarks/off-home.json --table

`DIR` holds `check/`, pairs that were never trained on, `train/`, and `landsat/check/` as `landsat_pairs.py`
writes it. Of each pair the middle is judged, at most `SIDE` PAN pixels a side; the report is added to model
by model.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sfiin.data import fitting, pairs
from sfiin.evaluation import judging, off_home
from sfiin.runtime.contract import Tile
from sfiin.runtime.models import FOLDER

SIDE = 512
SOURCES = {"sfiin-vhr4": "check", "sfiin-wv8": "check", "sfiin-landsat": "landsat/check"}
SHOWN = ("bicubic", "gs", "mtf_glp_hpm", "local_regression", "local_gsa", "sfiin")


def measure(name: str, folder: Path) -> dict[str, Any]:
    """All means of a shipped model on a folder's pairs of its bands."""
    model = judging.open_model(FOLDER / f"{name}.onnx", Tile(128, 128, 32))
    found = pairs.load_folder(folder, len(model.sensor.bands), model.sensor.ratio)
    middles = [fitting.central(pair, SIDE) for pair in found]
    rows = list(off_home.rows(model, middles, lambda pair: print(f"{name}: {pair}", flush=True)))
    return off_home.as_document(rows, model.name)


def table(document: Mapping[str, Any]) -> str:
    """Markdown: PSNR as given / with PAN as crisp as the truth; and at full resolution fine detail / HQNR."""
    lines = [f"| | | {' | '.join(SHOWN)} |", "|---" * (len(SHOWN) + 2) + "|"]
    for model, report in document.items():
        by_source: dict[str, dict[str, Any]] = {}
        for mean in report["means"]:
            by_source.setdefault(mean["source"], {})[mean["way"]] = mean["methods"]
        for source, ways in by_source.items():
            cells = [
                f"{ways['given'][method]['psnr']:.2f} / {ways['matched'][method]['psnr']:.2f}"
                for method in SHOWN
            ]
            lines.append(f"| {model} on {source} | PSNR dB | {' | '.join(cells)} |")
            if "full" in ways:
                cells = [
                    f"{ways['full'][method]['fine']:.2f} / {ways['full'][method]['hqnr']:.3f}"
                    for method in SHOWN
                ]
                lines.append(f"| | fine detail / HQNR | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure, or print the table of what was measured."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--imagery", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--model", action="append", choices=[*SOURCES])
    parser.add_argument("--table", action="store_true")
    options = parser.parse_args()
    document = json.loads(options.output.read_text()) if options.output.exists() else {}
    if options.table:
        print(table(document))
        return
    for name in options.model or SOURCES:
        document[name] = measure(name, options.imagery / SOURCES[name])
        options.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

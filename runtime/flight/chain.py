"""How does an unpacked bundle become a session? Its chain, each link opened when it is needed, behind a
guard.

The last link is MS resampled to PAN's grid, which cannot fail and is added to every chain. Limits for the
guard's looks at tiles come with the bundle (`limits.json`, measured on real tiles when it was made); without
them they are measured on the natural ones among the golden tiles, which is said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sfiin.runtime import golden
from sfiin.runtime.backends import plan
from sfiin.runtime.backends.select import Choice, open_session
from sfiin.runtime.backends.session import Session
from sfiin.runtime.contract import Contract
from sfiin.runtime.errors import InputError
from sfiin.runtime.flight import bundle
from sfiin.runtime.flight.checks import Limits, measure
from sfiin.runtime.flight.guard import Guard, Link, Rhythm
from sfiin.runtime.quality.classical import METHODS

LIMITS = "limits.json"
LAST = "bicubic"

Tiles = NDArray[np.float32]


class MethodSession:
    """A classical method as a session: each tile by itself, with the contract of the network that it stands
    in for."""

    def __init__(self, contract: Contract, method: str) -> None:
        self._contract, self._method = contract, METHODS[method]

    @property
    def contract(self) -> Contract:
        """Of the network that it stands in for."""
        return self._contract

    def run(self, ms: Tiles, pan: Tiles) -> Tiles:
        """Fuse a batch of tiles; shapes and units as in `Session.run`."""
        ratio = self._contract.sensor.ratio
        return np.stack([self._method(*tile, ratio) for tile in zip(ms, pan, strict=True)]).astype(np.float32)

    def close(self) -> None:
        """Nothing is held."""


def open_bundle(
    folder: Path, choice: Choice = "auto", threads: int = 0, rhythm: Rhythm | None = None
) -> Guard:
    """Open an unpacked bundle, such as a slot's.

    Raises InputError for one that is not sound, CheckFailedError where none of its artefacts can be opened
    and proven.
    """
    manifest = bundle.read_unpacked(folder)
    contract = plan.contract_of(folder / manifest.artefacts[0])
    links = [*_links(folder, manifest, contract, choice, threads), _method(contract, LAST)]
    return Guard(links, limits(folder, contract), rhythm)


def limits(folder: Path, contract: Contract) -> Limits:
    """A bundle's limits, else what its natural golden tiles show, widened. Raises InputError for a damaged
    file."""
    path = folder / LIMITS
    if not path.is_file():
        artefact = folder / bundle.read_unpacked(folder).artefacts[0]
        tiles = golden.read(golden.beside(artefact), contract)
        natural = [place for place, name in enumerate(tiles.names) if name.startswith("natural")] or [0]
        right = [(tiles.hrms[place], tiles.ms[place], tiles.pan[place]) for place in natural]
        return measure(right, contract.sensor).widened()
    return read_limits(path)


def write_limits(path: Path, found: Limits) -> None:
    """Write limits to an open place."""
    path.write_text(json.dumps(asdict(found), sort_keys=True) + "\n", encoding="utf-8")


def read_limits(path: Path) -> Limits:
    """Limits as `write_limits` wrote them. Raises InputError for anything else."""
    try:
        document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = Limits(tuple(document["rms"]), tuple(document["largest"]), document["beyond"])
        numbers = (*found.rms, *found.largest, found.beyond)
        sound = document.keys() == asdict(found).keys() and all(
            0 <= float(number) < 1e6 for number in numbers
        )
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        sound = False
    if not sound:
        raise InputError(f"{path}: no limits, or damaged ones; make the bundle again")
    return found


def _links(
    folder: Path, manifest: bundle.Manifest, contract: Contract, choice: Choice, threads: int
) -> Iterator[Link]:
    for link in manifest.chain:
        kind, _, name = link.partition(":")
        yield _method(contract, name) if kind == "method" else _artefact(folder / name, choice, threads)


def _artefact(path: Path, choice: Choice, threads: int) -> Link:
    # A GPU's sums may be ordered otherwise from run to run; ONNX Runtime on a CPU gives the same bits.
    same_bits = not plan.is_plan(path) and choice in ("auto", "cpu")
    tiles = golden.read(golden.beside(path), plan.contract_of(path))
    return Link(path.name, lambda: open_session(path, choice, threads), tiles, same_bits)


def _method(contract: Contract, name: str) -> Link:
    def opened() -> Session:
        return MethodSession(contract, name)

    return Link(name, opened)

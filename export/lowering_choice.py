"""Which lowering should a model have? `--fourier auto`: of those that the target reads, the fastest that is
right.

Each lowering's graph goes through preflight for the target, through the gate on golden tiles, and through
ONNX Runtime on this machine's CPU for its time: runs of the lowerings take turns, so that what else the
machine does hits all of them, and the median counts. For a target other than ONNX Runtime the time is a
stand-in. A lowering that needs a plugin is never chosen; who has the plugin asks for it.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from sfiin.export.preflight import Target, preflight
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.check import Gate, Parity, parity
from sfiin.runtime.contract import Lowering
from sfiin.runtime.errors import CheckFailedError
from sfiin.runtime.golden import GoldenTiles

Fourier = Literal["matmul", "dft", "plugin", "auto"]

CANDIDATES: tuple[Lowering, ...] = ("matmul", "dft")
ROUNDS = 9


@dataclass(frozen=True)
class Candidate:
    """A lowering with its error and its median time for a tile; or, in `why`, what speaks against it."""

    lowering: Lowering
    error: Parity | None = None
    milliseconds: float | None = None
    why: str = ""


@dataclass(frozen=True)
class Choice:
    """The lowering that was chosen for a target, and what it was chosen from."""

    lowering: Lowering
    target: str
    candidates: tuple[Candidate, ...]

    def figures(self) -> dict[str, float | str]:
        """The choice as a contract records it: relative L2 and milliseconds a tile, or a reason, by
        lowering."""
        record: dict[str, float | str] = {"target": self.target}
        for candidate in self.candidates:
            if candidate.error is not None and candidate.milliseconds is not None:
                figures = {"relative_l2": candidate.error.relative_l2, "ms": candidate.milliseconds}
                record |= {
                    f"{candidate.lowering}.{name}": float(f"{value:.3g}") for name, value in figures.items()
                }
            if candidate.why:
                record[f"{candidate.lowering}.why_not"] = candidate.why
        return record


def choose(
    models: Mapping[Lowering, onnx.ModelProto], tiles: GoldenTiles, peak: float, target: Target, gate: Gate
) -> Choice:
    """Choose among models of one network, each with its contract inside, by golden tiles; `peak` in DN.

    Raises CheckFailedError when none will do.
    """
    refused = {lowering: why for lowering, model in models.items() if (why := _refusal(model, target))}
    measured = _measured({k: model for k, model in models.items() if k not in refused}, tiles, peak, gate)
    candidates = tuple(
        measured.get(lowering) or Candidate(lowering, why=refused[lowering]) for lowering in models
    )
    passed = [
        (candidate.milliseconds, candidate.lowering)
        for candidate in candidates
        if candidate.milliseconds is not None and not candidate.why
    ]
    if not passed:
        reasons = "; ".join(f"{candidate.lowering}: {candidate.why}" for candidate in candidates)
        raise CheckFailedError(
            f"no lowering will do for {target.title} ({reasons}); try another tile or --opset"
        )
    return Choice(min(passed)[1], target.name, candidates)


def _refusal(model: onnx.ModelProto, target: Target) -> str:
    errors = [finding for finding in preflight(model, target) if finding.severity == "error"]
    return f"{errors[0].operator}: {errors[0].problem}" if errors else ""


def _measured(
    models: Mapping[Lowering, onnx.ModelProto], tiles: GoldenTiles, peak: float, gate: Gate
) -> dict[Lowering, Candidate]:
    first = tiles.ms[:1].astype(np.float32), tiles.pan[:1].astype(np.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        sessions = {}
        for lowering, model in models.items():
            path = Path(folder) / f"{lowering}.onnx"
            onnx.save(model, path)
            sessions[lowering] = stack.enter_context(OnnxSession(path))
        errors = {
            lowering: parity(tiles.names, tiles.through(session.run), tiles.hrms, peak)
            for lowering, session in sessions.items()
        }
        seconds: dict[Lowering, list[float]] = {lowering: [] for lowering in sessions}
        for _ in range(ROUNDS):
            for lowering, session in sessions.items():
                start = time.perf_counter()
                session.run(*first)
                seconds[lowering].append(time.perf_counter() - start)
    return {
        lowering: Candidate(
            lowering,
            error,
            1e3 * statistics.median(seconds[lowering]),
            "" if error.within(gate) else "outside the gate",
        )
        for lowering, error in errors.items()
    }

"""May a benchmark's figures be believed? INVALID with reasons, UNKNOWN where a condition cannot be read, or
VALID.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sfiin.runtime.bench import statistics
from sfiin.runtime.bench.environment import Machine, Moment
from sfiin.runtime.bench.result import ModelResult, State, Verdict

QUIET = 0.3
"""The highest load for each CPU before the start."""

STEADY = 0.1
"""The share by which clocks may move."""

SPREAD = 0.25
"""The highest coefficient of variation."""

Finding = tuple[bool | None, str, str]
"""Whether a condition is bad (None: unknown), what to say if it is, and what to call it if it is unknown."""


def verdict(
    models: Sequence[ModelResult], machine: Machine, moments: Sequence[Moment], percent: float
) -> Verdict:
    """The verdict on `models`; `moments` are the conditions from the start to the end, `percent` the highest
    percentile to be trusted.
    """
    found = [*_conditions(machine, moments), *_clocks(machine, moments)]
    bad = [reason for model in models for reason in _times(model, percent)]
    bad += [reason for is_bad, reason, _ in found if is_bad]
    unknown = [what for is_bad, _, what in found if is_bad is None]
    state: State = "INVALID" if bad else "UNKNOWN" if unknown else "VALID"
    return Verdict(state, (*bad, *(f"{what} cannot be read" for what in unknown)))


def merged(verdicts: Sequence[tuple[str, Verdict]]) -> Verdict:
    """The worst of several models' verdicts, with all their reasons."""
    reasons = [f"{model}: {reason}" for model, found in verdicts for reason in found.reasons]
    states = {found.state for _, found in verdicts}
    ranked: tuple[State, ...] = ("INVALID", "UNKNOWN", "VALID")
    return Verdict(next(state for state in ranked if state in states), tuple(dict.fromkeys(reasons)))


def _times(model: ModelResult, percent: float) -> Iterator[str]:
    needed, total = statistics.enough(percent), model.total
    if total.count < needed:
        yield (
            f"{model.model}: {total.count} samples do not bound the {percent:g}th percentile; {needed} would"
        )
    if not model.warm_up.settled:
        yield f"{model.model}: it did not settle in the warm-up"
    if total.variation > SPREAD:
        yield f"{model.model}: times vary by {total.variation:.0%}, as by other work"


def _conditions(machine: Machine, moments: Sequence[Moment]) -> Iterator[Finding]:
    mode, load = machine.power_mode, moments[0].load
    if mode or machine.jetson:
        lower = None if mode is None or mode.highest is None else not mode.highest
        yield lower, f"the power mode is {mode.name if mode else ''}, not the highest", "the power mode"
    yield machine.on_battery, "it runs on a battery", "whether it runs on a battery"
    throttled = {moment.throttled for moment in moments}
    yield (
        True if True in throttled else None if None in throttled else False,
        "it was throttled",
        "whether it was throttled",
    )
    loaded = None if load is None else load > QUIET
    yield loaded, f"other load: {load or 0:.2f} for each CPU before the start", "other load"


def _clocks(machine: Machine, moments: Sequence[Moment]) -> Iterator[Finding]:
    clocks = {"the CPU's clock": [moment.cpu_mhz for moment in moments]}
    if machine.gpu or machine.jetson:
        clocks["the GPU's clock"] = [moment.gpu_mhz for moment in moments]
    for what, values in clocks.items():
        known = [value for value in values if value is not None]
        low, high = min(known, default=0.0), max(known, default=0.0)
        moved = None if len(known) < len(values) else high > (1 + STEADY) * low
        yield moved, f"{what} moved between {low:.0f} and {high:.0f} MHz", what

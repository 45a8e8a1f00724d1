"""How much energy does it take? Power rails read beside the work, and summed over time.

| where       | what is read                                                  | gives                      |
|-------------|---------------------------------------------------------------|----------------------------|
| Jetson      | INA3221 by hwmon (Orin, Xavier): mV, mA of each labelled rail | watts                      |
| Jetson Nano | INA3221 by iio: mW of each named rail                         | watts                      |
| PC          | RAPL by powercap: a counter of microjoules for each package   | watts between two readings |
| NVIDIA card | NVML (pynvml), where it is installed                          | watts                      |

A board's whole is the rail of its input (VDD_IN, POM_5V_IN, ...) where it has one, else the sum of its rails.
All paths lie below a root, so that a copy of another machine's files can be read.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from threading import Event, Lock, Thread
from types import TracebackType

import numpy as np

Watts = Mapping[str, float]

INPUTS = ("VDD_IN", "POM_5V_IN", "VDD_SYS_IN")
"""Rails that feed a whole board."""

PERIOD = 0.05
"""Seconds between samples."""


@dataclass(frozen=True)
class Rail:
    """One source: its name, and what it draws now, W; OSError or ValueError where it cannot be read."""

    name: str
    watts: Callable[[], float]


def rails(root: Path = Path("/"), clock: Callable[[], float] = time.perf_counter) -> list[Rail]:
    """What can be read here; empty where nothing can."""
    return [*_hwmon(root), *_iio(root), *_rapl(root, clock), *_nvml(root)]


@dataclass(frozen=True)
class Energy:
    """Over a span of time, by rail: joules and mean watts; and of the whole.

    `whole` is the input rail, or the sum of all; `duty` the share of time that reading took; `samples` their
    number.
    """

    seconds: float
    joules: Mapping[str, float]
    whole: float
    duty: float
    samples: int

    @property
    def watts(self) -> float:
        """The whole's mean power."""
        return self.whole / self.seconds if self.seconds else float("nan")


@dataclass
class Sampler:
    """Reads rails in a thread of its own while the block runs; `times` (s) and `readings` (W) are there
    afterwards."""

    rails: Sequence[Rail]
    period: float = PERIOD
    clock: Callable[[], float] = time.perf_counter
    times: list[float] = field(default_factory=list)
    readings: list[Watts] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._busy = 0.0
        self._one_at_a_time = Lock()
        self._stop = Event()
        self._thread = Thread(target=self._work, name="power", daemon=True)

    def sample(self) -> None:
        """Read all rails once; one that fails is left out."""
        with self._one_at_a_time:
            began = self.clock()
            found = {}
            for rail in self.rails:
                with suppress(OSError, ValueError):
                    found[rail.name] = rail.watts()
            self.times.append(began)
            self.readings.append(found)
            self._busy += self.clock() - began

    def between(self, start: float, end: float) -> Energy | None:
        """The energy from `start` to `end` on the clock, by the trapezoid rule; None without two samples in
        it.

        The first and the last sample stand for the ends.
        """
        inside = [
            (at, watts)
            for at, watts in zip(self.times, self.readings, strict=True)
            if start <= at <= end and watts
        ]
        if len(inside) < 2:
            return None
        times = np.clip(np.array([at for at, _ in inside]), start, end)
        times[0], times[-1] = start, end
        names = [name for name in inside[0][1] if all(name in watts for _, watts in inside)]
        joules = {name: _trapezoid(np.array([watts[name] for _, watts in inside]), times) for name in names}
        span = max(self.times[-1] - self.times[0], 1e-9)
        return Energy(end - start, joules, whole(joules), self._busy / span, len(inside))

    def __enter__(self) -> Sampler:
        if self.rails:
            self.sample()
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        if self.rails:
            self._stop.set()
            self._thread.join()
            self.sample()

    def _work(self) -> None:
        while not self._stop.wait(self.period):
            self.sample()


def whole(values: Mapping[str, float]) -> float:
    """The value of a board's input rail, or the sum of all that are there."""
    inputs = [value for name, value in values.items() if name in INPUTS]
    return inputs[0] if inputs else sum(values.values())


def _trapezoid(values: np.ndarray, at: np.ndarray) -> float:
    return float(((values[1:] + values[:-1]) / 2 * np.diff(at)).sum())


def _hwmon(root: Path) -> Iterator[Rail]:
    for folder in sorted((root / "sys/class/hwmon").glob("hwmon*")):
        if _text(folder / "name") != "ina3221":
            continue
        for label in sorted(folder.glob("in*_label")):
            number = label.name[2:-6]
            volts, amperes = folder / f"in{number}_input", folder / f"curr{number}_input"
            if volts.is_file() and amperes.is_file() and "sum" not in (name := _text(label)).lower():
                yield Rail(name, partial(_product, volts, amperes))


def _iio(root: Path) -> Iterator[Rail]:
    for label in sorted((root / "sys/bus/i2c/drivers/ina3221x").glob("*/iio:device*/rail_name_*")):
        power = label.with_name(f"in_power{label.name.rsplit('_', 1)[1]}_input")
        if power.is_file():
            yield Rail(_text(label), partial(_milliwatts, power))


def _rapl(root: Path, clock: Callable[[], float]) -> Iterator[Rail]:
    for folder in sorted((root / "sys/class/powercap").glob("intel-rapl:*")):
        counter = folder / "energy_uj"
        if folder.name.count(":") == 1:  # deeper ones are parts of it
            try:
                yield Rail(_text(folder / "name") or folder.name, _Counter(counter, folder, clock))
            except (OSError, ValueError):  # since 2020 only root may read it
                continue


class _Counter:
    """A counter of microjoules as power since it was last asked; it wraps around."""

    def __init__(self, counter: Path, folder: Path, clock: Callable[[], float]) -> None:
        self._counter, self._clock = counter, clock
        self._range = _number(folder / "max_energy_range_uj")
        self._last = clock(), _number(counter)

    def __call__(self) -> float:
        (then, before), now = self._last, (self._clock(), _number(self._counter))
        self._last = now
        used = (now[1] - before) % (self._range + 1)
        if now[0] <= then:
            raise ValueError("asked twice at once")
        return used / 1e6 / (now[0] - then)


def _nvml(root: Path) -> Iterator[Rail]:
    if root != Path("/") or find_spec("pynvml") is None:
        return
    import pynvml

    try:
        pynvml.nvmlInit()
        for i in range(pynvml.nvmlDeviceGetCount()):
            handle = pynvml.nvmlDeviceGetHandleByIndex(i)
            yield Rail(f"GPU {i}", partial(_nvml_watts, pynvml.nvmlDeviceGetPowerUsage, handle))
    except pynvml.NVMLError:
        return


def _product(volts: Path, amperes: Path) -> float:
    """Watts, from files of mV and of mA."""
    return _number(volts) * _number(amperes) / 1e6


def _milliwatts(path: Path) -> float:
    """Watts, from a file of mW."""
    return _number(path) / 1e3


def _nvml_watts(usage: Callable[[object], float], handle: object) -> float:
    """Watts, from NVML's mW."""
    return usage(handle) / 1e3


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def _number(path: Path) -> float:
    return float(path.read_text())

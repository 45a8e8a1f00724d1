"""Under what conditions was something measured? What a benchmark records, before and after.

Everything is read from files below a root, or from `sfiin.runtime.backends.machine`. What cannot be read is
None, which a verdict takes for unknown, never for fine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfiin.runtime.backends import machine
from sfiin.runtime.documents import LEFT_OUT

ZONES = re.compile(r"cpu|gpu|soc|tj|x86_pkg_temp|k10temp|acpitz", re.IGNORECASE)


@dataclass(frozen=True)
class PowerMode:
    """A Jetson's mode of nvpmodel: its number, its name, and whether it is the highest (MAXN)."""

    id: int
    name: str | None
    highest: bool | None


@dataclass(frozen=True)
class Machine:
    """What does not change while something runs: platform, processors, versions, power mode and supply.

    `platform` holds the operating system, the number of CPUs and `jetson`, the board's name on a Jetson;
    `tensorrt` and `packages` hold versions by name; `jetpack` what JetPack there is; `governor` that of the
    CPU's clock.
    """

    platform: Mapping[str, Any]
    cpu: str | None
    gpu: str | None
    cuda: str | None
    tensorrt: Mapping[str, str]
    packages: Mapping[str, str | None]
    jetpack: Mapping[str, str] | None
    power_mode: PowerMode | None
    governor: str | None
    on_battery: bool | None

    @property
    def jetson(self) -> str | None:
        """The board's name on a Jetson; None elsewhere."""
        return self.platform.get("jetson")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """What may change: clocks in MHz, temperatures in degrees C by zone, whether something throttles, and how
    many processes want a CPU, for each CPU. `seconds` count from the start of the measurement.
    """

    seconds: float | None = field(default=None, metadata=LEFT_OUT)
    cpu_mhz: float | None
    gpu_mhz: float | None
    gpu_highest_mhz: float | None
    temperatures: Mapping[str, float]
    throttled: bool | None
    load: float | None


def read_machine(root: Path = Path("/")) -> Machine:
    """What this machine is, or the one whose files lie below another root."""
    here = root == Path("/")
    driver = machine.cuda_driver() if here else {"devices": [], "version": None}
    return Machine(
        platform=machine.survey()["system"] if here else {"jetson": machine.jetson(root)},
        cpu=_cpu(root),
        gpu=driver["devices"][0] if driver["devices"] else None,
        cuda=driver["version"],
        tensorrt={name: version for name in machine.TENSORRT if (version := machine.version(name))},
        packages=machine.packages(),
        jetpack=machine.jetpack(root),
        power_mode=power_mode(root),
        governor=_shared(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_governor"),
        on_battery=on_battery(root),
    )


def read_moment(root: Path = Path("/"), seconds: float | None = None) -> Moment:
    """The conditions now."""
    devices = root / "sys/class/devfreq"
    gpus = [*sorted(devices.glob("*gpu*")), *sorted(devices.glob("*.g[av]*"))]
    return Moment(
        seconds=seconds,
        cpu_mhz=_mean(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq", 1e-3),
        gpu_mhz=_scaled(gpus[0] / "cur_freq", 1e-6) if gpus else None,
        gpu_highest_mhz=_scaled(gpus[0] / "max_freq", 1e-6) if gpus else None,
        temperatures=temperatures(root),
        throttled=throttled(root),
        load=load(root),
    )


def power_mode(root: Path) -> PowerMode | None:
    """A Jetson's power mode; None elsewhere."""
    status, table = _text(root / "var/lib/nvpmodel/status"), _text(root / "etc/nvpmodel.conf")
    found = re.search(r"pmode:0*(\d+)", status or "")
    if not found:
        return None
    names = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", table or ""))
    name = names.get(found[1])
    return PowerMode(int(found[1]), name, name.startswith("MAXN") if name else None)


def on_battery(root: Path) -> bool | None:
    """Whether a battery is being discharged; False without a battery, None where that cannot be told."""
    folder = root / "sys/class/power_supply"
    if not folder.is_dir():
        return None
    batteries = [supply for supply in sorted(folder.iterdir()) if _text(supply / "type") == "Battery"]
    states = [_text(battery / "status") for battery in batteries]
    return None if None in states else any(state == "Discharging" for state in states)


def temperatures(root: Path) -> dict[str, float]:
    """Degrees C by thermal zone, of those that have to do with processors."""
    found = {}
    for zone in sorted((root / "sys/class/thermal").glob("thermal_zone*")):
        name, value = _text(zone / "type"), _scaled(zone / "temp", 1e-3)
        if name and ZONES.search(name) and value is not None:
            found[name] = value
    return found


def throttled(root: Path) -> bool | None:
    """Whether a cooling device that slows processors is at work, or a core counts throttling; None where
    neither is there to be read.
    """
    devices = [
        device
        for device in sorted((root / "sys/class/thermal").glob("cooling_device*"))
        if re.search(r"throttle|cpufreq|devfreq|Processor", _text(device / "type") or "")
    ]
    states = [_scaled(device / "cur_state", 1) for device in devices]
    known = [state for state in states if state is not None]
    return any(state > 0 for state in known) if known else None


def load(root: Path) -> float | None:
    """Processes that want a CPU, by the last minute's mean, for each CPU; this process is among them."""
    text = _text(root / "proc/loadavg")
    return float(text.split()[0]) / machine.cpus() if text else None


def _cpu(root: Path) -> str | None:
    found = re.search(r"^model name\s*:\s*(.+)$", _text(root / "proc/cpuinfo") or "", re.MULTILINE)
    return found[1].strip() if found else None


def _shared(root: Path, pattern: str) -> str | None:
    values = {_text(path) for path in root.glob(pattern)} - {None}
    return ", ".join(sorted(map(str, values))) or None


def _mean(root: Path, pattern: str, factor: float) -> float | None:
    return mean(_scaled(path, factor) for path in root.glob(pattern))


def mean(values: Iterable[float | None]) -> float | None:
    """Of those that are known; None where none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _scaled(path: Path, factor: float) -> float | None:
    text = _text(path)
    try:
        return float(text) * factor if text else None
    except ValueError:
        return None


def _text(path: Path) -> str | None:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY), errors="replace") as file:
            return file.read().strip("\0\n ")
    except OSError:
        return None

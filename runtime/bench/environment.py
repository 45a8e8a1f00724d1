"""Under what conditions was something measured? What a benchmark records, before and after.

Everything is read from files below a root, or from `sfiin.runtime.backends.machine`. What cannot be read is
None, which a verdict takes for unknown, never for fine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from sfiin.runtime.backends import machine

Facts = dict[str, Any]

ZONES = re.compile(r"cpu|gpu|soc|tj|x86_pkg_temp|k10temp|acpitz", re.IGNORECASE)


def fixed(root: Path = Path("/")) -> Facts:
    """What does not change while something runs: machine, versions, power mode, battery or mains."""
    driver = machine.cuda_driver() if root == Path("/") else {"devices": [], "version": None}
    return {
        "platform": machine.survey()["system"] if root == Path("/") else {"jetson": machine.jetson(root)},
        "cpu": _cpu(root),
        "gpu": driver["devices"][0] if driver["devices"] else None,
        "cuda": driver["version"],
        "tensorrt": {name: version for name in machine.TENSORRT if (version := machine.version(name))},
        "packages": machine.packages(),
        "jetpack": machine.jetpack(root),
        "power_mode": power_mode(root),
        "governor": _shared(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_governor"),
        "on_battery": on_battery(root),
    }


def moment(root: Path = Path("/")) -> Facts:
    """What may change: clocks (MHz) of CPU and GPU and the GPU's highest, temperatures (degrees C), whether
    something throttles, and how many other processes want a CPU.
    """
    gpu = next(iter(sorted((root / "sys/class/devfreq").glob("*gpu*"))), None) or next(
        iter(sorted((root / "sys/class/devfreq").glob("*.g[av]*"))), None
    )
    return {
        "cpu_mhz": _mean(root, "sys/devices/system/cpu/cpufreq/policy*/scaling_cur_freq", 1e-3),
        "gpu_mhz": _scaled(gpu / "cur_freq", 1e-6) if gpu else None,
        "gpu_highest_mhz": _scaled(gpu / "max_freq", 1e-6) if gpu else None,
        "temperatures": temperatures(root),
        "throttled": throttled(root),
        "load": load(root),
    }


def power_mode(root: Path) -> Facts | None:
    """A Jetson's mode of nvpmodel: its number, name, and whether it is the highest (MAXN); None elsewhere."""
    status, table = _text(root / "var/lib/nvpmodel/status"), _text(root / "etc/nvpmodel.conf")
    found = re.search(r"pmode:0*(\d+)", status or "")
    if not found:
        return None
    names = dict(re.findall(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+)\s*>", table or ""))
    name = names.get(found[1])
    return {"id": int(found[1]), "name": name, "highest": name.startswith("MAXN") if name else None}


def on_battery(root: Path) -> bool | None:
    """Whether a battery is being discharged; False without a battery, None where that cannot be told."""
    folder = root / "sys/class/power_supply"
    if not folder.is_dir():
        return None
    states = [_text(it / "status") for it in sorted(folder.iterdir()) if _text(it / "type") == "Battery"]
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
        it
        for it in sorted((root / "sys/class/thermal").glob("cooling_device*"))
        if re.search(r"throttle|cpufreq|devfreq|Processor", _text(it / "type") or "")
    ]
    states = [_scaled(it / "cur_state", 1) for it in devices]
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
    return ", ".join(sorted(str(it) for it in values)) or None


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

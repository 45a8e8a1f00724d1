"""Files of boards, as their kernels lay them out: a Jetson Orin NX, an AGX Xavier, a Nano, and a PC."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def write(root: Path, files: Mapping[str, object]) -> Path:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{content}\n")
    return root


def ina3221(number: int, rails: Mapping[str, tuple[int, int]]) -> dict[str, object]:
    """A monitor by hwmon: millivolts and milliamperes by rail."""
    folder = f"sys/class/hwmon/hwmon{number}"
    files: dict[str, object] = {f"{folder}/name": "ina3221"}
    for i, (rail, (volts, amperes)) in enumerate(rails.items(), 1):
        files |= {
            f"{folder}/in{i}_label": rail,
            f"{folder}/in{i}_input": volts,
            f"{folder}/curr{i}_input": amperes,
        }
    return files


COMMON = {
    "proc/loadavg": "0.02 0.05 0.01 1/200 999",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": 1984000,
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "schedutil",
    "sys/class/thermal/thermal_zone0/type": "CPU-therm",
    "sys/class/thermal/thermal_zone0/temp": 48500,
    "sys/class/thermal/thermal_zone1/type": "iwlwifi_1",
    "sys/class/thermal/thermal_zone1/temp": 61000,
    "sys/class/thermal/cooling_device0/type": "cpu-throttle-alert",
    "sys/class/thermal/cooling_device0/cur_state": 0,
    "sys/class/thermal/cooling_device1/type": "pwm-fan",
    "sys/class/thermal/cooling_device1/cur_state": 3,
    "sys/class/power_supply/ucsi/type": "USB",
}

MODES = "< POWER_MODEL ID=0 NAME=MAXN >\nCPU_ONLINE 1\n< POWER_MODEL ID=1 NAME=10W >"


def orin(root: Path, throttled: bool = False, mode: int = 0) -> Path:
    gpu = "sys/class/devfreq/17000000.gpu"
    rails = {"VDD_IN": (5040, 2000), "VDD_CPU_GPU_CV": (5000, 800), "VDD_SOC": (5000, 400)}
    return write(
        root,
        COMMON
        | ina3221(1, rails)
        | {
            "proc/device-tree/model": "NVIDIA Jetson Orin NX\0",
            "etc/nv_tegra_release": "# R36 (release), REVISION: 4.3, GCID: 1",
            "etc/nvpmodel.conf": MODES,
            "var/lib/nvpmodel/status": f"pmode:{mode:04d} fmode:cool",
            f"{gpu}/cur_freq": 918000000,
            f"{gpu}/max_freq": 918000000,
            "sys/class/thermal/cooling_device0/cur_state": int(throttled),
        },
    )


def xavier(root: Path) -> Path:
    gpu = "sys/class/devfreq/17000000.gv11b"
    one, other = (
        {"GPU": (19000, 100), "CPU": (19000, 200), "SOC": (19000, 50)},
        {"CV": (19000, 10), "VDDRQ": (19000, 20), "SYS5V": (5000, 500)},
    )
    return write(
        root,
        COMMON
        | ina3221(3, one)
        | ina3221(4, other)
        | {
            "proc/device-tree/model": "Jetson-AGX\0",
            "etc/nvpmodel.conf": MODES,
            "var/lib/nvpmodel/status": "pmode:0001",
            f"{gpu}/cur_freq": 670000000,
            f"{gpu}/max_freq": 1377000000,
        },
    )


def nano(root: Path) -> Path:
    device = "sys/bus/i2c/drivers/ina3221x/6-0040/iio:device0"
    files: dict[str, object] = {"proc/device-tree/model": "NVIDIA Jetson Nano Developer Kit\0"}
    for i, (rail, power) in enumerate((("POM_5V_IN", 4200), ("POM_5V_GPU", 900), ("POM_5V_CPU", 1100))):
        files |= {f"{device}/rail_name_{i}": rail, f"{device}/in_power{i}_input": power}
    return write(root, COMMON | files)


def pc(root: Path, micro: int = 1_000_000) -> Path:
    folder = "sys/class/powercap/intel-rapl:0"
    return write(
        root,
        COMMON
        | {
            f"{folder}/name": "package-0",
            f"{folder}/energy_uj": micro,
            f"{folder}/max_energy_range_uj": 262143328850,
            "sys/class/powercap/intel-rapl:0:0/name": "core",
            "sys/class/powercap/intel-rapl:0:0/energy_uj": 5,
            "proc/cpuinfo": "processor\t: 0\nmodel name\t: A Processor 9\n",
            "sys/class/power_supply/BAT0/type": "Battery",
            "sys/class/power_supply/BAT0/status": "Full",
        },
    )

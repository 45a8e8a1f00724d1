"""What is recorded of boards whose files are known; and what cannot be read is None."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sfiin.runtime.bench import environment
from sfiin.runtime.bench.environment import Moment, PowerMode


def test_an_orin(boards: Any, tmp_path: Path) -> None:
    root = boards.orin(tmp_path)
    machine, moment = environment.read_machine(root), environment.read_moment(root)
    assert machine.platform["jetson"] == "NVIDIA Jetson Orin NX"
    assert machine.power_mode == PowerMode(0, "MAXN", True)
    assert machine.jetpack is not None
    assert machine.jetpack["jetpack"] == "6.1 or 6.2"
    assert machine.governor == "schedutil"
    assert machine.on_battery is False
    assert moment.gpu_mhz == moment.gpu_highest_mhz == pytest.approx(918)
    assert moment.cpu_mhz == pytest.approx(1984)
    assert moment.temperatures == {"CPU-therm": 48.5}
    assert moment.throttled is False
    assert environment.read_moment(boards.orin(tmp_path, throttled=True)).throttled is True


def test_a_lower_mode_and_a_lower_clock(boards: Any, tmp_path: Path) -> None:
    root = boards.xavier(tmp_path)
    assert environment.read_machine(root).power_mode == PowerMode(1, "10W", False)
    moment = environment.read_moment(root)
    assert (moment.gpu_mhz, moment.gpu_highest_mhz) == (pytest.approx(670), pytest.approx(1377))


def test_a_pc_on_battery(boards: Any, tmp_path: Path) -> None:
    root = boards.pc(tmp_path)
    status = root / "sys/class/power_supply/BAT0/status"
    assert environment.read_machine(root).cpu == "A Processor 9"
    assert environment.read_machine(root).power_mode is None
    assert environment.on_battery(root) is False
    status.write_text("Discharging")
    assert environment.on_battery(root) is True
    status.unlink()
    assert environment.on_battery(root) is None


def test_what_cannot_be_read_is_unknown(tmp_path: Path) -> None:
    assert environment.read_moment(tmp_path) == Moment(
        cpu_mhz=None, gpu_mhz=None, gpu_highest_mhz=None, temperatures={}, throttled=None, load=None
    )
    machine = environment.read_machine(tmp_path)
    assert machine.on_battery is machine.power_mode is machine.governor is machine.cpu is None


def test_a_mode_without_a_table_is_not_known_to_be_the_highest(boards: Any, tmp_path: Path) -> None:
    boards.write(tmp_path, {"var/lib/nvpmodel/status": "pmode:0002"})
    assert environment.power_mode(tmp_path) == PowerMode(2, None, None)


def test_rubbish_is_unknown(boards: Any, tmp_path: Path) -> None:
    boards.write(tmp_path, {"sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "<unsupported>"})
    assert environment.read_moment(tmp_path).cpu_mhz is None


def test_this_machine_can_be_asked() -> None:
    assert environment.read_machine().packages["numpy"]
    assert environment.read_moment(seconds=2.5).seconds == 2.5

"""Measurements with a clock that tests move, conditions of boards whose files are known, and verdicts with
reasons."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfiin.runtime import golden, models
from sfiin.runtime.backends.plan import Build
from sfiin.runtime.bench import measure as benchmark
from sfiin.runtime.bench.compare import read
from sfiin.runtime.bench.measure import BenchOptions, bench, scene_budget, variants
from sfiin.runtime.bench.result import BenchResult, Verdict
from sfiin.runtime.bench.statistics import enough
from sfiin.runtime.errors import UnavailableError

Invoke = Callable[..., tuple[int, str, str]]


class Clock:
    """Every look takes a millisecond, so every run does; other threads' looks, such as the sampler's, take
    none."""

    def __init__(self) -> None:
        self.now = 0.0
        self.owner = threading.get_ident()

    def __call__(self) -> float:
        if threading.get_ident() == self.owner:
            self.now += 1e-3
        return self.now


def measured(model: Path, root: Path, **options: Any) -> BenchResult:
    """A second of the clock and more, with three looks a run."""
    chosen: dict[str, Any] = {
        "threads": 1,
        "seconds": 1.5,
        "idle": 0.0,
        "warm_up": 1.0,
        "percent": 90.0,
        "clock": Clock(),
    } | options
    return bench([model], BenchOptions(root=root, **chosen))


def test_a_fake_orin_is_valid(boards: Any, small_model: Path, tmp_path: Path) -> None:
    found = measured(small_model, boards.orin(tmp_path))
    assert found.verdict == Verdict("VALID", ())
    assert found.total.count >= enough(90.0)
    assert found.total.minimum == pytest.approx(1.0)
    assert found.total.variation < 1e-6
    assert found.throughput.tiles_per_second == pytest.approx(1000, rel=0.01)
    assert found.throughput.megapixels_per_second == pytest.approx(1.024, rel=0.01)
    assert found.throughput.square_kilometres_per_second is None
    assert found.energy is not None
    assert found.energy.watts == pytest.approx(10.08)
    assert found.energy.joules_per_tile > 0
    assert found.environment.power_mode is not None
    assert found.environment.power_mode.name == "MAXN"


@pytest.mark.parametrize(
    ("change", "state", "reason"),
    [
        (lambda boards, root: boards.orin(root, throttled=True), "INVALID", "it was throttled"),
        (lambda boards, root: boards.orin(root, mode=1), "INVALID", "the power mode is 10W, not the highest"),
        (
            lambda boards, root: boards.write(boards.orin(root), {"proc/loadavg": "64.0 1 1 1/2 3"}),
            "INVALID",
            "other load",
        ),
        (
            lambda boards, root: boards.write(
                boards.orin(root),
                {
                    "sys/class/power_supply/b/type": "Battery",
                    "sys/class/power_supply/b/status": "Discharging",
                },
            ),
            "INVALID",
            "it runs on a battery",
        ),
        (
            lambda boards, root: (boards.orin(root) / "etc/nvpmodel.conf").unlink(),
            "UNKNOWN",
            "the power mode cannot be read",
        ),
        (
            lambda boards, root: boards.write(
                boards.orin(root), {"sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "<unknown>"}
            ),
            "UNKNOWN",
            "the CPU's clock cannot be read",
        ),
        (lambda boards, root: None, "UNKNOWN", "other load cannot be read"),
    ],
)
def test_conditions_decide(
    boards: Any, small_model: Path, tmp_path: Path, change: Any, state: str, reason: str
) -> None:
    change(boards, tmp_path)
    found = measured(small_model, tmp_path).verdict
    assert found.state == state
    assert any(said.startswith(reason) for said in found.reasons), found.reasons


def test_models_take_turns_and_are_compared_in_pairs(boards: Any, small_model: Path, tmp_path: Path) -> None:
    root, order = boards.orin(tmp_path), []
    once = benchmark.Run.once

    def noted(self: benchmark.Run, i: int, clock: Callable[[], float]) -> float:
        order.append(id(self))
        return once(self, i, clock)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(benchmark.Run, "once", noted)
        found = bench(
            [small_model, small_model], BenchOptions(root=root, seconds=0.2, idle=0, threads=1, clock=Clock())
        )
    first, second = order[-2:]
    assert first != second
    assert order[-20:] == [first, second] * 10
    assert found.ratio is None
    (other,) = found.against
    assert other.ratio is not None
    assert other.ratio.value == pytest.approx(1.0)


def test_inputs_differ_are_never_empty_and_are_whole_numbers(small_model: Path, tmp_path: Path) -> None:
    contract = models.contract(small_model)
    for path in (small_model, tmp_path / "none.onnx"):  # with golden tiles, and without
        found = variants(contract, path, 3)
        assert len(found) == benchmark.VARIANTS
        for ms, pan in found:
            assert ms.shape == (3, *contract.shapes["ms"])
            assert pan.shape == (3, *contract.shapes["pan"])
            assert pan.std() > 1
            assert (pan == np.rint(pan)).all()
        assert len({pan.tobytes() for _, pan in found}) == benchmark.VARIANTS


def test_a_scenes_budget_follows_from_the_rate(small_model: Path) -> None:
    contract = models.contract(models.choose(4, 4))
    slow, fast = scene_budget(contract, 10.0), scene_budget(contract, 1e6)
    assert slow.tiles == fast.tiles == 417**2
    assert slow.seconds == pytest.approx(417**2 / 10)
    assert (slow.fits, fast.fits) == (False, True)


def test_a_plans_time_is_told_apart(
    small_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan_of_orin: Callable[..., Build]
) -> None:
    """On the fake device, whose copies and launches take known times."""
    import shutil

    from sfiin.runtime.backends import plan
    from sfiin.runtime.backends.fake_device import COMPUTE, COPY, FakeCuda, FakeTensorRT
    from sfiin.runtime.backends.plan import Sidecar
    from sfiin.runtime.backends.tensorrt_session import TensorRTSession

    path = tmp_path / "net.plan"
    shutil.copy(golden.beside(small_model), golden.beside(path))
    contract = models.contract(small_model)
    build = plan_of_orin(path, batch=(1, 1, 1))
    plan.update(path, Sidecar(contract, build))
    device = FakeCuda()
    monkeypatch.setattr(
        benchmark,
        "open_session",
        lambda *_: TensorRTSession(path, Sidecar(contract, build), device, FakeTensorRT(device, small_model)),
    )
    found = bench([path], BenchOptions(root=tmp_path, seconds=0.1, idle=0, warm_up=0.2, clock=Clock()))
    medians = {name: summary.median for name, summary in found.milliseconds.items()}
    size = sum(4 * int(np.prod(contract.shapes[name])) for name in ("ms", "pan"))
    assert medians["upload"] == pytest.approx(1e3 * COPY * size)
    assert medians["compute"] == pytest.approx(1e3 * COMPUTE)
    assert medians["download"] == pytest.approx(1e3 * COPY * 4 * int(np.prod(contract.shapes["hrms"])))
    assert medians["enqueue"] > 0
    assert found.backend == "tensorrt"
    floats = sum(int(np.prod(shape)) for shape in contract.shapes.values())
    assert found.device_bytes == 2 * 4 * floats  # two slots of a batch of one
    assert not device.living


# --- the command ---


def test_the_command(
    invoke: Invoke, small_model: Path, tmp_path: Path, html_page: Callable[[str], Any]
) -> None:
    names = {"-o": "r.json", "--markdown": "r.md", "--report": "r.html"}
    files = [part for option, name in names.items() for part in (option, tmp_path / name)]
    short = ("--seconds", 0.2, "--threads", 1, "--percentile", 50)
    code, said, errors = invoke("bench", small_model, "--against", small_model, *short, *files, "--gsd", 0.5)
    assert (code, errors) == (0, "")
    assert "tiles/s" in said
    document = read(tmp_path / "r.json")
    assert document.verdict.state in ("VALID", "INVALID", "UNKNOWN")
    assert document.throughput.square_kilometres_per_second
    assert json.loads((tmp_path / "r.json").read_text()) == document.document()
    assert (tmp_path / "r.md").read_text().count("\n|") == 3
    page = html_page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "img" in page.tags
    code, said, _ = invoke("bench", "--compare", tmp_path / "r.json", tmp_path / "r.json")
    # So short a measurement on a busy machine may be one that nobody should believe.
    assert (code, "1.000 times" in said) == (4 if document.verdict.state == "INVALID" else 0, True)
    assert invoke("bench", small_model, *short, "-o", tmp_path / "r.json")[0] == 7
    code, said, _ = invoke("bench", small_model, "--suite", *short, "--json")
    assert code == 0
    assert json.loads(said)["backend"].endswith("cpu")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "name a model, or --suite"),
        (["a.onnx", "b.onnx"], 2, "--against"),
        (["none.onnx"], 3, "no such model file"),
        (["--compare", "one.json"], 2, "two results are wanted"),
        (["--compare", "one.json", "two.json"], 3, "cannot be read"),
        (["a.onnx", "-o", "nowhere/r.json"], 7, "there is no folder"),
        (["a.onnx", "--seconds", "0"], 2, "--seconds"),
    ],
)
def test_bad_options_are_refused(
    invoke: Invoke,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    found, _, errors = invoke("bench", *arguments)
    assert found == code, errors
    assert said in " ".join(errors.split())
    assert not list(tmp_path.iterdir())


def test_without_a_backend_there_is_no_suite(invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    from sfiin.runtime.backends import machine

    monkeypatch.setattr(machine, "backend", lambda name: {"usable": False, "why": "none"})
    code, _, errors = invoke("bench", "--suite")
    assert code == UnavailableError.exit_code
    assert "no backend here" in errors

"""A guard over real sessions and over ones that fail in every way that a session can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sfiin.runtime import golden, models
from sfiin.runtime.backends.session import OnnxSession
from sfiin.runtime.errors import CheckFailedError, InputError, SfiinError, UntrustedError
from sfiin.runtime.flight.checks import Limits, alarms, measure
from sfiin.runtime.flight.guard import Guard, Link, Rhythm, laid_out, run_lengths
from sfiin.runtime.quality.bicubic import bicubic

Array = Any


class Interpolated:
    """MS on the PAN grid: what cannot fail."""

    def __init__(self, model: Path) -> None:
        self.contract = models.contract(model)

    def run(self, ms: Array, pan: Array) -> Array:
        return np.stack([bicubic(tile, self.contract.sensor.ratio) for tile in ms]).astype(np.float32)

    def close(self) -> None:
        pass


class Faulty:
    """A real session whose results are altered: `fault(call, hrms)` gives what comes out of the so manieth
    call."""

    def __init__(self, model: Path, fault: Callable[[int, Array], Array], skip: int) -> None:
        self._session, self._fault, self.calls = OnnxSession(model, threads=1), fault, -skip
        self.contract = self._session.contract

    def run(self, ms: Array, pan: Array) -> Array:
        self.calls += 1
        hrms = self._session.run(ms, pan)
        return hrms if self.calls <= 0 else self._fault(self.calls, hrms)

    def close(self) -> None:
        self._session.close()


@pytest.fixture(scope="module")
def shipped() -> Path:
    """The shipped model for four bands; an untrained network's products are nowhere near MS."""
    return models.choose(4, 4)


@pytest.fixture(scope="module")
def tiles(shipped: Path) -> golden.GoldenTiles:
    return golden.read(golden.beside(shipped), models.contract(shipped))


@pytest.fixture(scope="module")
def natural(tiles: golden.GoldenTiles) -> tuple[Array, Array]:
    return tiles.ms[:1].astype(np.float32), tiles.pan[:1].astype(np.float32)


@pytest.fixture(scope="module")
def limits(shipped: Path, tiles: golden.GoldenTiles) -> Limits:
    """Of the natural tile alone: a checkerboard or half a tile without data would allow for anything."""
    right = zip(tiles.hrms[:1], tiles.ms[:1], tiles.pan[:1], strict=True)
    return measure(right, models.contract(shipped).sensor).widened()


def chain(model: Path, tiles: golden.GoldenTiles, *openers: Callable[[], Any]) -> list[Link]:
    first = [Link(f"link {number}", opener, tiles) for number, opener in enumerate(openers)]
    return [*first, Link("interpolated", lambda: Interpolated(model))]


def test_a_sound_session_is_left_alone(shipped: Path, tiles: Any, natural: Any, limits: Limits) -> None:
    guard = Guard(chain(shipped, tiles, lambda: OnnxSession(shipped, threads=1)), limits)
    ms, pan = (np.concatenate([part] * 3) for part in natural)
    with OnnxSession(shipped, threads=1) as alone:
        assert np.array_equal(guard.run(ms, pan), alone.run(ms, pan))
    assert guard.self_test()
    log = guard.take_log()
    assert (log.origins, dict(log.alarms), log.again, log.left) == (["link 0"] * 3, {}, 0, [])
    assert guard.take_log().origins == []
    guard.close()


def nan_once(call: int, hrms: Array) -> Array:
    hrms = hrms.copy()
    hrms[0, 0, 3, 3] = np.nan if call == 1 else hrms[0, 0, 3, 3]
    return hrms


def test_a_passing_upset_is_gone_the_second_time(
    shipped: Path, tiles: Any, natural: Any, limits: Limits
) -> None:
    openers = [lambda: Faulty(shipped, nan_once, len(tiles.names))]
    guard = Guard(chain(shipped, tiles, *openers), limits)
    with OnnxSession(shipped, threads=1) as alone:
        assert np.array_equal(guard.run(*natural), alone.run(*natural))
    log = guard.take_log()
    assert (log.origins, dict(log.alarms), log.again) == (["link 0"], {"not finite": 1}, 1)
    assert guard.at == "link 0"


@pytest.mark.parametrize(
    ("fault", "alarm"),
    [
        (lambda _, hrms: hrms + np.float32(1e6), "range"),
        (lambda _, hrms: hrms * np.float32(0), "inconsistent"),
        (lambda _, hrms: np.roll(hrms, 12, 2), "inconsistent"),
        (lambda _, hrms: hrms * np.float32(np.nan), "not finite"),
    ],
)
def test_a_session_that_stays_wrong_is_opened_anew_and_then_left(
    shipped: Path, tiles: Any, natural: Any, limits: Limits, fault: Any, alarm: str
) -> None:
    made = []

    def opener() -> Faulty:
        made.append(Faulty(shipped, fault, len(tiles.names)))
        return made[-1]

    guard = Guard(chain(shipped, tiles, opener, lambda: OnnxSession(shipped, threads=1)), limits)
    with OnnxSession(shipped, threads=1) as alone:
        right = alone.run(*natural)
    assert np.array_equal(guard.run(*natural), right)
    assert guard.at == "link 0", "the first time it is opened anew"
    assert np.array_equal(guard.run(*natural), right)
    assert (guard.at, len(made)) == ("link 1", 2)
    assert np.array_equal(guard.run(*natural), right)
    log = guard.take_log()
    assert log.origins == ["link 1"] * 3
    assert log.left == ["link 0"]
    assert log.alarms[alarm] >= 4


def failing(error: Exception) -> Callable[[int, Array], Array]:
    def fault(_call: int, _hrms: Array) -> Array:
        raise error

    return fault


@pytest.mark.parametrize(
    "error", [SfiinError("device lost"), MemoryError(), RuntimeError("ort"), OSError(5, "io")]
)
def test_a_session_that_raises_is_one_that_fails(
    shipped: Path, tiles: Any, natural: Any, limits: Limits, error: Exception
) -> None:
    guard = Guard(chain(shipped, tiles, lambda: Faulty(shipped, failing(error), len(tiles.names))), limits)
    up = bicubic(natural[0][0], 4).astype(np.float32)
    for _ in range(3):
        assert np.array_equal(guard.run(*natural)[0], up)
    assert guard.at == "interpolated"
    assert guard.take_log().alarms[type(error).__name__] >= 2


def test_a_session_that_cannot_be_opened_is_passed_over(
    shipped: Path, tiles: Any, natural: Any, limits: Limits, tmp_path: Path
) -> None:
    links = chain(shipped, tiles, lambda: OnnxSession(tmp_path / "none.onnx"), lambda: OnnxSession(shipped))
    guard = Guard(links, limits)
    assert guard.contract == models.contract(shipped)
    guard.run(*natural)
    assert guard.take_log().origins == ["link 1"]
    with pytest.raises(InputError, match="no such model file"):
        Guard([Link("only", lambda: OnnxSession(tmp_path / "none.onnx"))], limits)


def flipped(model: Path, target: Path, value: float) -> Path:
    """The model with one weight of its first learned convolution multiplied, and a contract that vouches for
    it."""
    from sfiin.export.vouched import with_contract

    onnx = pytest.importorskip("onnx")
    graph = onnx.load(str(model))
    names = [
        node.input[1]
        for node in graph.graph.node
        if node.op_type == "Conv" and not node.name.startswith("local/")
    ]
    weight = next(tensor for tensor in graph.graph.initializer if tensor.name == names[0])
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] *= value
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    with_contract(graph, models.contract(model))
    onnx.save(graph, str(target))
    return target


def test_a_weight_that_flips_in_memory_shows_in_the_self_test(
    shipped: Path, tiles: Any, natural: Any, limits: Limits, tmp_path: Path
) -> None:
    """The last bit but few of one weight: far within the gate, and not within the same bits."""
    made: list[Any] = []

    def opener() -> OnnxSession:
        made.append(OnnxSession(shipped, threads=1))
        return made[-1]

    guard = Guard(chain(shipped, tiles, opener), limits)
    assert guard.self_test()
    other = OnnxSession(flipped(shipped, tmp_path / "flipped.onnx", 1 + 2.0**-12), threads=1)
    made[0]._session = other._session
    assert not guard.self_test()
    assert guard.self_test(), "opened anew, from what is on the disk"
    assert (guard.at, len(made)) == ("link 0", 2)
    assert guard.take_log().alarms["self-test"] == 1


def test_after_so_many_tiles_a_session_proves_itself(
    shipped: Path, tiles: Any, natural: Any, limits: Limits, tmp_path: Path
) -> None:
    made: list[Any] = []

    def opener() -> OnnxSession:
        made.append(OnnxSession(shipped, threads=1))
        return made[-1]

    guard = Guard(chain(shipped, tiles, opener), limits, Rhythm(tiles=2))
    for _ in range(4):
        guard.run(*natural)
    assert guard.take_log().tests == 2
    guard.run(*natural)
    flip = OnnxSession(flipped(shipped, tmp_path / "flipped.onnx", 1 + 2.0**-12), threads=1)
    made[0]._session = flip._session
    with pytest.raises(UntrustedError, match="thrown away"):
        guard.run(*natural)
    assert guard.prove()["passed"], "opened anew, from what is on the disk"
    assert len(made) == 2


@pytest.mark.parametrize("off", [0.0, 1e-3])
def test_what_a_session_gave_before_it_was_struck_is_trusted_if_it_still_proves_itself(
    shipped: Path, tiles: Any, natural: Any, limits: Limits, off: float
) -> None:
    def fault(call: int, hrms: Array) -> Array:
        wrong = np.nan if call in (2, 3) else off if call > 3 else 0.0
        return hrms + np.float32(wrong)

    opened: list[int] = []

    def opener() -> Any:
        opened.append(1)
        return (
            Faulty(shipped, fault, len(tiles.names)) if len(opened) == 1 else OnnxSession(shipped, threads=1)
        )

    guard = Guard(chain(shipped, tiles, opener, lambda: OnnxSession(shipped, threads=1)), limits)
    guard.run(*natural)
    guard.run(*natural)
    assert guard.at == "link 0"
    if off:
        with pytest.raises(UntrustedError):
            guard.vouch()
    else:
        assert guard.vouch()["origins"] == [["link 0", 1], ["link 1", 1]]
    assert guard.vouch()["passed"]


def test_a_scene_begins_with_an_empty_record(shipped: Path, tiles: Any, natural: Any, limits: Limits) -> None:
    guard = Guard(chain(shipped, tiles, lambda: OnnxSession(shipped, threads=1)), limits)
    guard.run(*natural)
    guard.begin()
    assert guard.vouch()["origins"] == []


def test_the_origin_of_each_tile() -> None:
    assert run_lengths([]) == []
    assert run_lengths("aab") == [["a", 2], ["b", 1]]
    runs = [["a", 2], ["b", 1]]
    assert laid_out(runs, [], 3) == runs
    assert laid_out(runs, [1, 4], 5) == [["a", 1], ["none", 1], ["a", 1], ["b", 1], ["none", 1]]


def test_a_session_outside_of_its_gate_is_never_used(
    shipped: Path, tiles: Any, natural: Any, limits: Limits, tmp_path: Path
) -> None:
    wrong = flipped(shipped, tmp_path / "wrong.onnx", 300.0)
    guard = Guard(chain(shipped, tiles, lambda: OnnxSession(wrong), lambda: OnnxSession(shipped)), limits)
    guard.run(*natural)
    log = guard.take_log()
    assert log.origins == ["link 1"]
    assert log.alarms[CheckFailedError.__name__] >= 1


def test_limits_are_what_right_tiles_show(shipped: Path, tiles: Any) -> None:
    sensor = models.contract(shipped).sensor
    right = list(zip(tiles.hrms, tiles.ms, tiles.pan, strict=True))
    limits = measure(right, sensor)
    assert all(alarms(*tile, sensor, limits) == [] for tile in right)
    widened = measure(right[:1], sensor).widened()
    assert "inconsistent" in alarms(right[0][0] * 1.5, *right[0][1:], sensor, widened)
    with pytest.raises(ValueError, match="no tiles"):
        measure([], sensor)

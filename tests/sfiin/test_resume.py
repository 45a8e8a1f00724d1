"""Training that is stopped and resumed, that diverges, and that is refused; its rate and its curve."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sfiin.data.pairs import Image, Pair, draw, drawn_from
from sfiin.data.sensors import SENSORS
from sfiin.data.simulate import simulate
from sfiin.model.baselines import PNN, BaselineConfig, PanNet
from sfiin.model.checkpoint import Checkpoint
from sfiin.model.network import SFIIN, NetworkConfig, PanSharpener
from sfiin.runtime.errors import InputError, OutputError, SfiinError
from sfiin.training.train import Progress, TrainingConfig, Validation, train, validate, write_curve

CONFIG = TrainingConfig(steps=7, batch=2, patch=16, rate=3e-3, validate_every=2)
PROFILE = SENSORS["vhr4"].profile


def pair(seed: int) -> Pair:
    scene = simulate(32, 32, seed)
    pan, ms, truth = (a.astype(np.float32) for a in (scene.pan[None], scene.ms, scene.truth))
    return Pair(f"s{seed}", pan, ms, truth, {})


USED, HELD = [pair(1), pair(2)], [pair(3)]


def sfiin(**changes: Any) -> SFIIN:
    torch.manual_seed(0)
    return SFIIN(NetworkConfig(channels=4, blocks=1, **changes), PROFILE)


def pnn() -> PNN:
    torch.manual_seed(0)
    return PNN(BaselineConfig(), PROFILE)


class StoppedError(Exception):
    """As if somebody pulled the plug."""


def stop_after(step: int) -> Callable[[Progress], None]:
    def watch(progress: Progress) -> None:
        if progress.step == step:
            raise StoppedError

    return watch


def assert_same(one: Checkpoint, other: Checkpoint) -> None:
    first, second = one.network.state_dict(), other.network.state_dict()
    assert list(first) == list(second)
    assert not [name for name in first if not torch.equal(first[name], second[name])]
    assert one.training == other.training


@pytest.mark.parametrize("stops", [(2,), (3,), (6,), (1,), (7,), (3, 5)])
@pytest.mark.parametrize(
    ("build", "precision"), [(sfiin, "fp32"), (lambda: sfiin(spatial="invertible"), "mixed"), (pnn, "mixed")]
)
def test_resumed_training_is_the_same_to_the_bit(
    tmp_path: Path, build: Callable[[], PanSharpener], precision: Any, stops: tuple[int, ...]
) -> None:
    """StoppedError after a validation (2, 6), between two (3, 5), before the first (1), and at the very
    end (7)."""
    config, state = replace(CONFIG, precision=precision), tmp_path / "t.state"
    whole = train(build(), USED, HELD, config)
    for stop in stops:
        with pytest.raises(StoppedError):
            train(build(), USED, HELD, config, stop_after(stop), state_file=state)
    assert state.exists() == (stops != (1,))
    torch.manual_seed(12345)  # nothing hangs on torch's random state, nor on the weights at the start
    network = build()
    if state.exists():
        with torch.no_grad():
            next(network.parameters()).zero_()
    seen: list[int] = []
    resumed = train(network, USED, HELD, config, lambda at: seen.append(at.step), state_file=state)
    assert_same(whole, resumed)
    last = stops[-1]
    assert seen == list(range(last // 2 * 2 + 1 if last < 7 else 8, 8))


class Recorded:
    """A pair that remembers where its patches were taken."""

    def __init__(self, source: Pair) -> None:
        self.name, self.ratio, self.size, self.patch_of = source.name, source.ratio, source.size, source.patch
        self.places: list[str] = []

    def patch(self, row: int, col: int, side: int) -> tuple[Image, Image, Image]:
        self.places.append(f"{self.name} at MS row {row}, column {col}")
        return self.patch_of(row, col, side)


def test_every_step_has_patches_of_its_own_determined_by_seed_and_step() -> None:
    source = Recorded(pair(1))
    train(sfiin(), [source], HELD, replace(CONFIG, seed=4))
    expected = [drawn_from([pair(1)], 16, 2, (4, step)) for step in range(1, 8)]
    drawn = [place for places in expected for place in places]
    assert source.places[: len(drawn)] == drawn
    # What is read after the last step is for the range of what was trained on.
    assert len(source.places) - len(drawn) <= 64
    # There are 25 places only, but gains besides.
    assert len({draw([pair(1)], 16, 2, (4, step))[1].tobytes() for step in range(1, 8)}) == 7


def test_resumed_training_reports_the_latest_validation(tmp_path: Path) -> None:
    seen: list[list[Progress]] = [[], []]
    train(sfiin(), USED, HELD, CONFIG, seen[0].append)
    state = tmp_path / "t.state"
    with pytest.raises(StoppedError):
        train(sfiin(), USED, HELD, CONFIG, stop_after(4), state_file=state)
    train(sfiin(), USED, HELD, CONFIG, seen[1].append, state_file=state)
    assert seen[0][4:] == seen[1]
    assert seen[0][0].ergas == math.inf
    assert math.isfinite(seen[0][1].ergas)


def stopped(path: Path, **origin: Any) -> Path:
    with pytest.raises(StoppedError):
        train(sfiin(), USED, HELD, CONFIG, stop_after(2), state_file=path, origin=origin)
    return path


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"steps": 8}, "steps was 7, now 8"),
        ({"batch": 1}, "batch was 2, now 1"),
        ({"patch": 32}, "patch was 16, now 32"),
        ({"rate": 1e-3}, "rate was 0.003, now 0.001"),
        ({"weight": 0.0}, "weight was 0.1, now 0.0"),
        ({"seed": 1}, "seed was 0, now 1"),
        ({"validate_every": 3}, "validate_every was 2, now 3"),
        ({"precision": "mixed"}, "precision was fp32, now mixed"),
    ],
)
def test_the_state_of_another_configuration_is_refused(
    tmp_path: Path, changes: dict[str, Any], text: str
) -> None:
    state = stopped(tmp_path / "t.state")
    before = state.read_bytes()
    with pytest.raises(
        InputError, match=f"t.state: the state of another training: {text}; give the same"
    ) as failure:
        train(sfiin(), USED, HELD, replace(CONFIG, **changes), state_file=state)
    assert failure.value.exit_code == 3
    assert state.read_bytes() == before


@pytest.mark.parametrize(
    ("build", "used", "held", "text"),
    [
        (sfiin, USED[:1], HELD, r"pairs was \['s1', 's2'\], now \['s1'\]"),
        (sfiin, USED, [pair(4)], r"held_out was \['s3'\], now \['s4'\]"),
        (lambda: sfiin(branches="spatial"), USED, HELD, "branches was both, now spatial"),
        (lambda: sfiin(spatial="invertible"), USED, HELD, "spatial was convolution, now invertible"),
        (lambda: SFIIN(NetworkConfig(channels=4, blocks=2), PROFILE), USED, HELD, "blocks was 1, now 2"),
        (lambda: SFIIN(NetworkConfig(channels=8, blocks=1), PROFILE), USED, HELD, "channels was 4, now 8"),
        (pnn, USED, HELD, "architecture was SFIIN, now PNN"),
        (
            lambda: SFIIN(NetworkConfig(channels=4, blocks=1), replace(PROFILE, scale=1000.0)),
            USED,
            HELD,
            r"sensor\.scale was 2047\.0, now 1000\.0",
        ),
    ],
)
def test_the_state_of_another_network_or_other_pairs_is_refused(
    tmp_path: Path, build: Callable[[], PanSharpener], used: list[Pair], held: list[Pair], text: str
) -> None:
    state = stopped(tmp_path / "t.state")
    with pytest.raises(InputError, match=f"the state of another training: {text}; give the same"):
        train(build(), used, held, CONFIG, state_file=state)


def test_two_baselines_of_one_shape_are_told_apart(tmp_path: Path) -> None:
    state = tmp_path / "t.state"
    with pytest.raises(StoppedError):
        train(pnn(), USED, HELD, CONFIG, stop_after(2), state_file=state)
    with pytest.raises(InputError, match="architecture was PNN, now PanNet"):
        train(PanNet(BaselineConfig(), PROFILE), USED, HELD, CONFIG, state_file=state)


def test_the_state_of_a_training_of_other_origin_is_refused(tmp_path: Path) -> None:
    state = stopped(tmp_path / "t.state", reduction=["mtf"])
    with pytest.raises(InputError, match=r"reduction was \['mtf'\], now \['given'\]"):
        train(sfiin(), USED, HELD, CONFIG, state_file=state, origin={"reduction": ["given"]})
    with pytest.raises(InputError, match="init was None, now other"):
        train(sfiin(), USED, HELD, CONFIG, state_file=state, origin={"reduction": ["mtf"], "init": "other"})
    with pytest.raises(InputError, match=r"reduction was \['mtf'\], now None"):
        train(sfiin(), USED, HELD, CONFIG, state_file=state)
    train(sfiin(), USED, HELD, CONFIG, state_file=state, origin={"reduction": ["mtf"]})


def without(*keys: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        document = torch.load(path, weights_only=True)
        torch.save({key: value for key, value in document.items() if key not in keys}, path)

    return damage


def other_tensors(path: Path) -> None:
    torch.save(torch.load(path, weights_only=True) | {"network": {"x": torch.zeros(1)}}, path)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-500]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello"),
        lambda path: torch.save([1, 2], path),
        lambda path: torch.save(torch.zeros(3), path),
        lambda path: torch.save({"identity": 3}, path),
        lambda path: torch.save({"identity": {}}, path),
        lambda path: (path.unlink(), path.mkdir()),
        without("identity"),
        without("network"),
        without("optimiser"),
        without("scaler", "best", "step"),
        without("curve"),
        other_tensors,
    ],
)
def test_a_damaged_state_is_refused(tmp_path: Path, damage: Callable[[Path], Any]) -> None:
    state = stopped(tmp_path / "t.state")
    damage(state)
    with pytest.raises(
        InputError, match=r"t\.state: (not the state of a training|the state of another training)"
    ):
        train(sfiin(), USED, HELD, CONFIG, state_file=state)
    assert [path.name for path in tmp_path.iterdir()] == ["t.state"]


def test_a_state_that_would_run_code_does_not(tmp_path: Path) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (exec, ("raise SystemExit('code ran')",))

    state = tmp_path / "t.state"
    torch.save({"identity": Harmful()}, state)
    with pytest.raises(InputError, match="not the state of a training"):
        train(sfiin(), USED, HELD, CONFIG, state_file=state)


def test_a_state_that_cannot_be_written_stops_training(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="no folder"):
        train(sfiin(), USED, HELD, CONFIG, state_file=tmp_path / "none" / "t.state")


# --- divergence ---


def holed(row: int, col: int) -> Pair:
    """A pair with one pixel of its truth missing, in this MS pixel."""
    whole = pair(1)
    assert whole.truth is not None
    truth = whole.truth.copy()
    truth[0, 4 * row, 4 * col] = np.nan
    return replace(whole, truth=truth, name="holed")


def test_training_names_the_patches_in_which_it_diverged(tmp_path: Path) -> None:
    """The truth's only hole lies in MS pixel (5, 6); the first batch whose patches hold it is where
    training ends."""
    sources = [holed(5, 6), pair(2)]
    first = next(
        step for step in range(1, 100) if not np.isfinite(draw(sources, 16, 2, (CONFIG.seed, step))[2]).all()
    )
    config, state = replace(CONFIG, steps=100, validate_every=1000), tmp_path / "t.state"
    with pytest.raises(
        SfiinError, match=f"training diverged: the loss is nan at step {first}, whose batch"
    ) as failure:
        train(sfiin(), sources, HELD, config, state_file=state)
    assert type(failure.value) is SfiinError
    assert failure.value.exit_code == 1
    _, places = str(failure.value).split("whose batch is ")
    found = [place.split(". Look")[0] for place in places.split("; ")[:2]]
    corners = [
        tuple(map(int, place.split("MS row ")[1].split(", column "))) for place in found if "holed" in place
    ]
    assert any(row <= 5 < row + 4 and col <= 6 < col + 4 for row, col in corners)
    assert "lower --rate or change --seed" in str(failure.value)
    assert not list(tmp_path.iterdir())


def test_training_stops_over_a_gradient_that_is_not_finite() -> None:
    """Numbers whose squares float32 cannot hold: a finite loss, and gradients of infinite norm."""
    bright = pair(1)
    bright = replace(bright, pan=bright.pan * np.float32(1e25))
    net = pnn()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    with pytest.raises(
        SfiinError, match="training diverged: a gradient is not finite at step 1, whose batch is s1 at MS"
    ):
        train(net, [bright], HELD, replace(CONFIG, weight=0.0))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_training_stops_when_the_held_out_output_is_not_finite(tmp_path: Path) -> None:
    config, state = replace(CONFIG, rate=1e30, validate_every=1), tmp_path / "t.state"
    with pytest.raises(
        SfiinError, match="diverged: the output for the held-out pair s3 is not finite; lower --rate"
    ):
        train(sfiin(), USED, HELD, config, state_file=state)
    assert not state.exists()


@pytest.mark.parametrize("part", ["pan", "ms", "truth"])
def test_what_cannot_be_judged_by_is_refused(part: str) -> None:
    image = getattr(HELD[0], part).copy()
    image[0, 3, 2] = np.inf
    with pytest.raises(InputError, match="s3: held out to judge by, but some values are not finite"):
        train(sfiin(), USED, [replace(HELD[0], **{part: image})], CONFIG)


def test_an_empty_band_to_judge_by_is_refused() -> None:
    assert HELD[0].truth is not None
    truth = HELD[0].truth.copy()
    truth[2] = 0
    with pytest.raises(InputError, match="s3: held out to judge by, but a band of its truth is empty"):
        train(sfiin(), USED, [replace(HELD[0], truth=truth)], CONFIG)


@pytest.mark.parametrize(("patch", "name"), [(36, "s1"), (64, "s1"), (18, "s1")])
def test_a_patch_that_no_pair_holds_is_refused(patch: int, name: str) -> None:
    text = f"{name}: 32x32 PAN pixels with truth do not hold a patch of {patch}, a multiple of the ratio 4"
    with pytest.raises(InputError, match=text):
        train(sfiin(), USED, HELD, replace(CONFIG, patch=patch))


def test_a_held_out_pair_smaller_than_the_patch_is_refused() -> None:
    pan, ms, truth = (np.ones(shape, np.float32) for shape in ((1, 32, 16), (4, 8, 4), (4, 32, 16)))
    small = Pair("small", pan, ms, truth, {})
    with pytest.raises(InputError, match="small: 32x16 PAN pixels with truth do not hold a patch of 32"):
        train(sfiin(), USED, [small], replace(CONFIG, patch=32))


# --- rate, curve, record ---


def test_the_rate_falls_along_a_cosine_and_the_best_is_kept() -> None:
    config = replace(CONFIG, steps=8, validate_every=2, rate=4e-3)
    losses: list[Progress] = []
    result = train(sfiin(), USED, HELD, config, losses.append)
    curve = result.training["curve"]
    assert [point["step"] for point in curve] == [2, 4, 6, 8]
    for point in curve:  # the rate of the step that led there: the first takes all, the last next to nothing
        assert point["rate"] == pytest.approx(4e-3 * math.cos(math.pi * (point["step"] - 1) / 16) ** 2)
    for at, point in zip((0, 2, 4, 6), curve, strict=True):
        assert point["loss"] == pytest.approx((losses[at].loss + losses[at + 1].loss) / 2)
        assert point["ergas"] == losses[at + 1].ergas
    best = min(curve, key=lambda point: point["ergas"])
    assert result.training["validation_ergas"] == best["ergas"]
    assert validate(result.network, HELD, 16) == (best["psnr"], best["sam"], best["ergas"])


def test_the_best_is_kept_though_training_goes_on_to_worse() -> None:
    """A rate that ruins the network: the first validation stays the best."""
    result = train(sfiin(), USED, HELD, replace(CONFIG, rate=0.5, validate_every=1))
    curve = [point["ergas"] for point in result.training["curve"]]
    assert min(curve) < curve[-1]
    assert validate(result.network, HELD, 16)[2] == min(curve) == result.training["validation_ergas"]
    assert not result.network.training


def test_a_rate_of_zero_changes_nothing() -> None:
    net = sfiin()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    train(net, USED, HELD, replace(CONFIG, rate=0.0, steps=2))
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_the_record_says_how() -> None:
    record = train(sfiin(), USED, HELD, CONFIG).training
    assert {key: record[key] for key in asdict(CONFIG)} == asdict(CONFIG)
    assert (record["pairs"], record["held_out"]) == (["s1", "s2"], ["s3"])
    assert record["torch"] == torch.__version__
    assert record["device"] == f"cpu, {torch.get_num_threads()} threads"
    assert [point["step"] for point in record["curve"]] == [2, 4, 6, 7]


def test_the_curve_is_written_as_a_table(tmp_path: Path) -> None:
    points = [Validation(2, 1e-3, 0.25, 30.5, 1.25, 2.5), Validation(4, 5e-4, 1 / 3, math.inf, 1.0, 2.0)]
    write_curve(tmp_path / "c.csv", [asdict(point) for point in points])
    text = (tmp_path / "c.csv").read_bytes().decode()
    assert text.startswith("step,rate,loss,psnr,sam,ergas\n2,0.001,0.25,30.5,1.25,2.5\n4,")
    rows = list(csv.DictReader(text.splitlines()))
    assert [
        Validation(int(row.pop("step")), **{k: float(v) for k, v in row.items()}) for row in rows
    ] == points
    with pytest.raises(OutputError, match="no folder"):
        write_curve(tmp_path / "none" / "c.csv", [])
    with pytest.raises(ValueError, match="extra"):
        write_curve(tmp_path / "d.csv", [asdict(points[0]) | {"extra": 1}])
    assert [path.name for path in tmp_path.iterdir()] == ["c.csv"]

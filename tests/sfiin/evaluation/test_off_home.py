"""Judging source by source: what is a row, what is a mean, and what keeps a model from being a default."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sfiin.data.pairs import Pair
from sfiin.data.simulate import simulate
from sfiin.evaluation import off_home
from sfiin.evaluation.judging import JudgedModel
from sfiin.evaluation.off_home import Row
from sfiin.runtime.contract import SensorProfile, Tile
from sfiin.runtime.quality.classical import METHODS

Invoke = Callable[..., tuple[int, str, str]]

SENSOR = SensorProfile("vhr4", ("blue", "green", "red", "nir"), 4, 11, 2047.0)


def resampler() -> JudgedModel:
    """A model that repeats MS pixels."""
    return JudgedModel("sfiin", SENSOR, Tile(64, 64, 16), lambda ms, _: ms.repeat(4, 2).repeat(4, 3))


def pairs() -> list[Pair]:
    scene = simulate(128, 128, 3)
    pan, ms, truth = (image.astype(np.float32) for image in (scene.pan[None], scene.ms, scene.truth))
    bands = ["R", "G", "B", "NIR"]
    return [
        Pair("a", pan, ms, truth, {"sensor": "QuickBird"}),
        Pair(
            "b", 2 * pan + 1, 2 * ms + 1, None, {"sensor": "Pleiades-1A", "nominal_bits": 12, "bands": bands}
        ),
    ]


def test_every_method_is_judged_in_every_way() -> None:
    found = list(off_home.rows(resampler(), pairs()))
    methods = {*METHODS, "sfiin"}
    means = off_home.means(found)
    assert set(means) == {
        ("QuickBird", "given"),
        ("QuickBird", "matched"),
        ("Pleiades-1A", "given"),
        ("Pleiades-1A", "matched"),
        ("Pleiades-1A", "full"),
    }
    assert all(set(by_method) == methods for by_method in means.values())
    assert set(means["Pleiades-1A", "full"]["sfiin"]) == {"fine", "correlation", "inconsistency", "hqnr"}


def test_a_model_that_only_repeats_pixels_is_no_default() -> None:
    problems = off_home.shortfalls(list(off_home.rows(resampler(), pairs())), "sfiin")
    assert any(text.startswith("QuickBird, given: ") for text in problems)


def test_shortfalls_are_by_the_margin() -> None:
    def row(way: str, method: str, **measures: float) -> Row:
        return Row("s", "p", way, method, measures)  # type: ignore[arg-type]

    near = [row("given", "gs", psnr=40.0), row("given", "sfiin", psnr=39.85)]
    far = [row("matched", "gs", psnr=40.0), row("matched", "sfiin", psnr=39.75)]
    sharp = [row("full", "sfiin", fine=1.3), row("full", "gs", fine=0.9)]
    assert off_home.shortfalls(near, "sfiin") == []
    assert off_home.shortfalls(far, "sfiin") == ["s, matched: 39.75 dB, where gs has 40.00"]
    assert off_home.shortfalls(sharp, "sfiin") == ["s: fine detail is 1.30 of PAN's, above 1.2"]


def test_the_command_says_all_of_it_and_can_refuse(
    small_checkpoint: Path, simulated_pairs: Callable[[int, str], Path], invoke: Invoke
) -> None:
    folder = simulated_pairs(64, "QuickBird")
    arguments = ("evaluate", small_checkpoint, "--data", folder, "--tile", "64", "--quiet")
    code, output, _ = invoke(*arguments, "--thorough", "--json")
    document = json.loads(output)
    assert code == 0
    assert {mean["way"] for mean in document["means"]} == {"given", "matched"}
    assert document["shortfalls"]
    code, output, errors = invoke(*arguments, "--gate")
    assert (code, output) == (6, "")
    assert "not fit to be a default" in errors
    code, output, _ = invoke(*arguments[:-1], "--thorough")
    assert code == 0
    assert "local_regression" in output
    code, _, errors = invoke(*arguments, "--gate", "--report", "r.html")
    assert code == 2
    assert "goes without --report" in errors


def test_a_band_too_many_is_told() -> None:
    good = pairs()[0]
    wrong = dataclasses.replace(good, meta={"bands": ["B", "G", "R", "SWIR"]})
    with pytest.raises(Exception, match="its bands are"):
        list(off_home.rows(resampler(), [wrong]))

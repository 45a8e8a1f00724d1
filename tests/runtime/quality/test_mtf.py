"""How a sensor blurs, by what is said, by its tags, or by default."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sfiin.data.sensors import SENSORS
from sfiin.runtime.errors import InputError
from sfiin.runtime.quality import mtf

COLOURS = ("blue", "green", "red", "nir")


def tagged(domain: str | None = None, **tags: str) -> Any:
    return SimpleNamespace(tags=lambda ns=None: tags if ns == domain else {})


@pytest.mark.parametrize("name", ["quickbird", "ikonos", "geoeye1", "worldview2", "worldview3", "worldview4"])
def test_a_sensor_is_as_in_the_table_of_the_training(name: str) -> None:
    known = SENSORS[name]
    for said in (name, *known.aliases):
        found = mtf.of_scene([], known.profile.bands, said)
        assert (found.ms, found.pan) == (known.ms_gains, known.pan_gain)


@pytest.mark.parametrize(
    "file",
    [
        tagged("IMAGERY", SATELLITEID="WV02"),
        tagged("IMD", **{"IMAGE_1.satId": '"WV02"'}),
        tagged(SATELLITE="WorldView-2"),
    ],
)
def test_tags_name_the_satellite(file: Any) -> None:
    found = mtf.of_scene([tagged(), file], ("nir2", "red"))
    assert (found.ms, found.pan) == ((0.27, 0.35), 0.11)
    assert "WorldView-2" in found.note
    assert "by its metadata" in found.note


@pytest.mark.parametrize(("file", "said"), [(tagged(), "known:"), (tagged(MISSION="PHR"), "of PHR")])
def test_an_unknown_one_is_said(file: Any, said: str) -> None:
    found = mtf.of_scene([file], COLOURS)
    assert (found.ms, found.pan) == ((0.3,) * 4, 0.15)
    assert said in found.note
    assert "--mtf" in found.note


@pytest.mark.parametrize(
    ("said", "gains", "pan"),
    [
        ("0.25", (0.25,) * 4, 0.15),
        ("0.4, 0.3,0.2,0.1, pan=0.2", (0.4, 0.3, 0.2, 0.1), 0.2),
    ],
)
def test_gains_that_are_given(said: str, gains: tuple[float, ...], pan: float) -> None:
    found = mtf.of_scene([tagged(SATELLITEID="WV02")], COLOURS, said)
    assert (found.ms, found.pan) == (gains, pan)


@pytest.mark.parametrize(
    "said", ["hubble", "0.3,0.2", "1", "0", "-0.2", "nan", "0.3,pan=2", "pan=0.2", "0.3,pan=0.1,pan=0.2"]
)
def test_what_is_no_mtf(said: str) -> None:
    with pytest.raises(InputError, match="--mtf"):
        mtf.of_scene([], COLOURS, said)

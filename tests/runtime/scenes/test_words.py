"""Names as providers write them, in the models' words."""

from __future__ import annotations

import pytest

from sfiin.runtime.scenes import words


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("Red Band", "red"),
        ("Near-Infrared Band", "nir"),
        ("near_infrared", "nir"),
        ("NearInfrared", "nir"),
        ("NIR", "nir"),
        ("NIR1", "nir"),
        ("nir2", "nir2"),
        ("infrared", "nir"),
        ("Proche infrarouge", "nir"),
        ("1: blue (450-510 nm)", "blue"),
        ("Band 2 - Green", "green"),
        ("Grün", "green"),
        ("Coastal aerosol", "coastal"),
        ("coastal_blue", "coastal"),
        ("Deep blue", "coastal"),
        ("RedEdge", "rededge"),
        ("Vegetation red edge 1", "rededge"),
        ("green_i", "green1"),
        ("SWIR 1", "swir1"),
        ("Short-wave infrared 2", "swir2"),
        ("Band 1", None),
        ("B1", None),
        ("sharpened", None),
        ("blue over red", None),
        ("", None),
        (None, None),
    ],
)
def test_a_name_by_itself(name: str | None, word: str | None) -> None:
    assert words.of_name(name) == word


RGBN, BGRN = ["red", "green", "blue", "nir"], ["blue", "green", "red", "nir"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["R", "G", "B", "N"], RGBN),
        (["Band R", "Band G", "Band B", "Band N"], RGBN),
        (["b", "g", "r", "nir"], BGRN),
        (["B2", "B1", "B0", "B3"], RGBN),
        (["B4", "B3", "B2", "B8"], RGBN),
        (["B4", "B3", "B2", "B5"], RGBN),
        (["SR_B2", "SR_B3", "SR_B4", "SR_B5"], BGRN),
        (["XS1", "XS2", "XS3"], ["green", "red", "nir"]),
        (
            ["C", "B", "G", "Y", "R", "RE", "N", "N2"],
            ["coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir2"],
        ),
        (["Band 1", "Band 2"], [None, None]),
        (["B1", "B2", "B3", "B4"], [None] * 4),
        ([None, "red"], [None, "red"]),
    ],
)
def test_names_together(names: list[str | None], expected: list[str | None]) -> None:
    assert words.of_all(names) == expected


@pytest.mark.parametrize(
    ("nanometres", "word"),
    # Landsat 8, WorldView-2, Pleiades, Planet SuperDove: their published centres
    [
        (443, "coastal"),
        (425, "coastal"),
        (480, "blue"),
        (490, "blue"),
        (561, "green"),
        (545, "green"),
        (605, "yellow"),
        (665, "red"),
        (659, "red"),
        (705, "rededge"),
        (725, "rededge"),
        (833, "nir"),
        (865, "nir"),
        (950, "nir2"),
        (1610, "swir1"),
        (2200, "swir2"),
        (300, None),
        (11000, None),
    ],
)
def test_wavelengths(nanometres: float, word: str | None) -> None:
    assert words.of_wavelength(nanometres) == word

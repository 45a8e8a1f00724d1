"""Which band is which, by what files say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import rasterio
from rasterio.enums import ColorInterp

from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.scenes import bands

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")

WANTED = ("blue", "green", "red", "nir")
RED, GREEN, BLUE, GREY = ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.gray
ALPHA, NONE = ColorInterp.alpha, ColorInterp.undefined


class Opened:
    """Files that are written and opened."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack, self.number = folder, stack, 0

    def __call__(
        self,
        count: int = 4,
        colours: tuple[Any, ...] = (),
        names: tuple[str, ...] = (),
        dtype: str = "uint16",
        tags: tuple[dict[str, str], ...] = (),
        alpha: np.ndarray | None = None,
        name: str | None = None,
    ) -> Any:
        self.number += 1
        path = self.folder / (name or f"{self.number}.tif")
        image = np.random.default_rng(count).integers(1, 200, (count, 40, 40)).astype(dtype)
        if alpha is not None:
            image[-1] = alpha
        profile = {"driver": "GTiff", "height": 40, "width": 40, "count": count, "dtype": dtype}
        with rasterio.open(path, "w", **profile, photometric="MINISBLACK") as file:
            if colours:
                file.colorinterp = colours
            file.write(image)
            if names:
                file.descriptions = names
            for i, items in enumerate(tags, 1):
                file.update_tags(i, **items)
        return self.stack.enter_context(rasterio.open(path))


@pytest.fixture()
def opened(tmp_path: Path) -> Iterator[Opened]:
    with ExitStack() as stack:
        yield Opened(tmp_path, stack)


def order(files: list[Any], wanted: tuple[str, ...] = WANTED, override: str | None = None) -> list[int]:
    return [band.number for band in bands.choose(bands.look(files), wanted, override).bands]


def test_what_is_stated_is_followed(opened: Opened) -> None:
    assert order([opened(colours=(RED, GREEN, BLUE, NONE))]) == [3, 2, 1, 4]
    assert order([opened(names=("Red", "Green", "Blue", "NIR"))]) == [3, 2, 1, 4]
    assert order([opened(names=("B2", "B1", "B0", "B3"))]) == [3, 2, 1, 4]
    lengths = tuple(
        {"wavelength": str(value), "wavelength_units": "Nanometers"} for value in (665, 560, 490, 842)
    )
    assert order([opened(tags=lengths)]) == [3, 2, 1, 4]
    micrometres = tuple({"wavelength": str(value)} for value in (0.49, 0.56, 0.665, 0.842))
    assert order([opened(tags=micrometres)]) == [1, 2, 3, 4]


def test_names_stand_above_colours(opened: Opened) -> None:
    """Writers give colours away."""
    assert order([opened(colours=(RED, GREEN, BLUE, NONE), names=("blue", "green", "red", "nir"))]) == [
        1,
        2,
        3,
        4,
    ]


def test_a_file_a_band(opened: Opened) -> None:
    files = [opened(1, (colour,)) for colour in (RED, GREEN, BLUE, NONE)]
    assert order(files) == [3, 2, 1, 4]
    named = [opened(1, name=f"scene_{word}.tif") for word in ("nir", "red", "green", "blue")]
    assert order(named) == [4, 3, 2, 1]
    landsat = [opened(1, name=f"LC08_L1TP_180032_20200101_20200113_02_T1_B{i}.TIF") for i in (5, 4, 3, 2)]
    assert order(landsat) == [4, 3, 2, 1]


def test_what_is_not_stated_is_assumed_and_said(opened: Opened) -> None:
    choice = bands.choose(bands.look([opened()]), WANTED)
    assert [band.number for band in choice.bands] == [1, 2, 3, 4]
    assert "it is assumed" in choice.notes[0]
    partly = bands.choose(bands.look([opened(names=("blue", "green", "red", "x"))]), WANTED)
    assert "band 4 is nir" in partly.notes[0]


def test_more_bands_than_wanted_are_chosen_from(opened: Opened) -> None:
    six = opened(6, names=("Deep blue", "Blue", "Green", "Red", "Red edge", "NIR"))
    assert order([six]) == [2, 3, 4, 6]
    with pytest.raises(MismatchError, match="--bands"):
        order([opened(6)])
    assert order([opened(6)], override="2,3,4,6") == [2, 3, 4, 6]


@pytest.mark.parametrize(
    "names",
    [
        ("red", "green", "blue", "rededge"),
        ("coastal", "blue", "green", "red"),
        ("red", "red", "blue", "nir"),
        ("B3", "B2", "B1", "B4"),
        ("green", "x", "y", "nir"),
    ],
)
def test_contradictions_are_refused(opened: Opened, names: tuple[str, ...]) -> None:
    with pytest.raises(MismatchError, match=r"^bands: .*--bands") as error:
        order([opened(names=names)])
    assert error.value.exit_code == 4


def test_alpha_is_no_image(opened: Opened) -> None:
    opaque, partly = np.full((40, 40), 65535), np.where(np.arange(40) < 20, 0, 65535)
    assert bands.images(opened(5, (GREY, NONE, NONE, NONE, ALPHA), alpha=partly)) == (1, 2, 3, 4)
    assert bands.images(opened(4, (RED, GREEN, BLUE, ALPHA), alpha=opaque)) == (1, 2, 3)
    assert bands.images(opened(4, (RED, GREEN, BLUE, NONE), alpha=opaque)) == (1, 2, 3)
    assert bands.images(opened(2, (GREY, ALPHA)), 1) == (1,)
    assert bands.images(opened(2, (GREY, NONE))) == (1, 2)
    with pytest.raises(MismatchError, match="red, green, blue"):
        order([opened(4, (RED, GREEN, BLUE, ALPHA), dtype="uint8", alpha=np.full((40, 40), 255))])


def test_an_image_that_a_writer_called_alpha_is_one(opened: Opened) -> None:
    file = opened(4, (RED, GREEN, BLUE, ALPHA), dtype="uint8")
    assert bands.images(file) == (1, 2, 3, 4)
    assert order([file]) == [1, 2, 3, 4]


def test_the_models_own_words_need_no_table(opened: Opened) -> None:
    assert order([opened(2, names=("b", "A"))], ("a", "b")) == [2, 1]
    assert order([opened(2, names=("red", "nir"))], ("one", "two")) == [1, 2]


@pytest.mark.parametrize(
    "text", ["1,2,3", "1,2,3,9", "0,1,2,3", "a,b,c,d", "red=1,red=2,blue=3,nir=4", "red=1", ""]
)
def test_what_is_no_choice(opened: Opened, text: str) -> None:
    if not text:
        assert order([opened()], override=text) == [1, 2, 3, 4]
        return
    with pytest.raises(InputError, match="--bands"):
        order([opened()], override=text)


def test_a_choice_by_name(opened: Opened) -> None:
    assert order([opened()], override="red=1,green=2,blue=3,infrared=4") == [3, 2, 1, 4]
    choice = bands.choose(bands.look([opened(names=("red", "green", "blue", "nir"))]), WANTED, "1,2,3,4")
    assert "1 says that it is red, and is taken for blue" in choice.notes[0]

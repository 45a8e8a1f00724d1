"""Figures: they are PNG files of the promised panels, with one scale where one is promised."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.figure import Figure

from sfiin.evaluation import figures
from sfiin.evaluation.judging import Spread
from sfiin.evaluation.phase_study import spectrum

RNG = np.random.default_rng(0)
TRUTH = RNG.normal(400, 50, (4, 40, 56))


def titles(figure: Figure) -> list[str]:
    return [axes.get_title() for axes in figure.axes if axes.get_title()]


def test_colours_are_found_by_name() -> None:
    assert figures.colours(("blue", "green", "red", "nir")) == (2, 1, 0)
    assert figures.colours(("red", "green", "blue")) == (0, 1, 2)
    assert figures.colours(("coastal", "nir")) == (0,)


@pytest.mark.parametrize("shown", [(2, 1, 0), (0,)])
def test_a_scene_tells_names_and_sizes(shown: tuple[int, ...]) -> None:
    images = {"PAN": TRUTH[0], "MS": TRUTH[:, ::4, ::4], "truth": TRUTH}
    figure = figures.scene(images, TRUTH, shown, title="a pair")
    assert titles(figure) == ["PAN, 56 x 40 px", "MS, 14 x 10 px", "truth, 56 x 40 px"]
    assert figures.png(figure).startswith(b"\x89PNG")


def test_error_maps_share_one_scale_and_tell_their_means() -> None:
    errors = {
        "b": np.arange(400.0).reshape(20, 20),
        "a": np.full((20, 20), 4.0),
        "c": np.zeros((20, 20)),
        "d": np.ones((20, 20)),
    }
    figure = figures.error_maps(errors, title="errors")
    assert titles(figure) == ["b: mean 199.5 DN²", "a: mean 4 DN²", "c: mean 0 DN²", "d: mean 1 DN²"]
    limits = {image.get_clim() for axes in figure.axes for image in axes.images}
    assert limits == {(0.0, np.percentile(errors["b"], 99))}
    assert figures.png(figure).startswith(b"\x89PNG")


def test_equal_images_have_error_maps_too() -> None:
    assert figures.png(figures.error_maps({"a": np.zeros((8, 8))}, title="nothing"))


def test_features_have_a_row_each_and_may_lack_a_branch() -> None:
    rows = {"block 1": {"frequency": TRUTH[0], "fused": TRUTH[1]}, "block 2": {"fused": np.zeros((8, 8))}}
    figure = figures.feature_maps(rows, title="features")
    assert titles(figure)[:4] == [
        "block 1\nfrequency",
        "block 1\nfused",
        "block 2\nfrequency",
        "block 2\nfused",
    ]
    assert figures.png(figure)


def test_spectra_show_both_parts_of_each_image_and_difference() -> None:
    found = {name: spectrum(TRUTH[i]) for i, name in enumerate(("PAN", "MS_up"))}
    figure = figures.spectra(found, spectrum(TRUTH[3]), 4, title="spectra")
    for part in ("amplitude", "phase"):
        assert {f"PAN: {part}", f"MS_up: {part}", f"truth: {part}"} <= set(titles(figure))
    assert "|PAN - truth|: phase" in titles(figure)
    assert figures.png(figure)


def test_block_charts_draw_means_and_deviations() -> None:
    line = {1: (Spread(38.0, 0.5, 3), Spread(2.5, 0.1, 3)), 5: (Spread(40.0, None, 1), Spread(2.0, None, 1))}
    figure = figures.block_charts({"QuickBird": line}, title="blocks")
    assert [axes.get_ylabel() for axes in figure.axes] == ["PSNR, dB", "ERGAS"]
    container = figure.axes[0].containers[0]
    np.testing.assert_allclose(container[0].get_xydata(), [[1, 38], [5, 40]])
    (bars,) = container[2]
    np.testing.assert_allclose(bars.get_segments()[0], [[1, 37.5], [1, 38.5]])
    assert figures.png(figure)

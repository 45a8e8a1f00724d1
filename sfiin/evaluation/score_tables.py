"""How are scores shown in a table? Titles, decimals, what is best, and the names of methods."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sfiin.evaluation.document import Cell
from sfiin.evaluation.judging import Spread

LABELS = {
    "brovey": "Brovey",
    "gs": "GS",
    "gsa": "GSA",
    "sfim": "SFIM",
    "mtf_glp_hpm": "MTF-GLP-HPM",
    "local_regression": "local regression",
    "local_gsa": "local GSA",
    "pnn": "PNN",
    "pannet": "PanNet",
    "sfiin": "SFIIN",
}

REFERENCE = {
    "psnr": ("PSNR dB", 2),
    "ssim": ("SSIM", 4),
    "sam": ("SAM deg", 3),
    "ergas": ("ERGAS", 3),
    "scc": ("SCC", 4),
    "q2n": ("Q2n", 4),
}
FULL_RESOLUTION = {
    "d_lambda_k": ("D_lambda_K", 4),
    "d_s": ("D_s", 4),
    "hqnr": ("HQNR", 4),
    "d_lambda": ("D_lambda", 4),
    "qnr": ("QNR", 4),
}
"""Title and decimals of each measure."""

LOWER_IS_BETTER = {"sam", "ergas", "d_lambda_k", "d_s", "d_lambda"}

Measures = Mapping[str, tuple[str, int]]


def label(method: str) -> str:
    """A method's name for people; a file's stem stays as it is."""
    return LABELS.get(method, method)


def titles(measures: Measures) -> list[str]:
    """The columns' titles."""
    return [title for title, _ in measures.values()]


def best_in_bold(
    rows: Sequence[Mapping[str, Spread]], measures: Measures, nearest: float | None = None
) -> list[list[Cell]]:
    """The cells of each row's measures; in each column the best mean, as it is shown, is bold.

    With `nearest`, the best is not the highest or lowest but the one nearest to it.
    """
    best = {
        key: min(_rank(row[key], key, digits, nearest) for row in rows)
        for key, (_, digits) in measures.items()
    }
    return [
        [
            Cell(number(row[key], digits), _rank(row[key], key, digits, nearest) == best[key])
            for key, (_, digits) in measures.items()
        ]
        for row in rows
    ]


def number(value: Spread, digits: int) -> str:
    """Mean ± standard deviation, or the mean alone where there is no deviation."""
    mean = round(value.mean, digits) + 0.0  # no negative zero
    if value.deviation is None:
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {value.deviation:.{digits}f}"


def _rank(value: Spread, key: str, digits: int, nearest: float | None) -> float:
    """The lower the better, of the number as it is shown."""
    mean = round(value.mean, digits)
    if nearest is not None:
        return abs(mean - nearest)
    return mean if key in LOWER_IS_BETTER else -mean

"""Reports: they say what was computed, both files hold the same, and what cannot be done is said in one
line."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
import pytest
import torch

from sfiin.data.pairs import load_pair
from sfiin.data.sensors import SENSORS
from sfiin.data.simulate import simulate
from sfiin.evaluation import judging, provenance, report_data, sections
from sfiin.evaluation.report_data import Request
from sfiin.evaluation.score_tables import label
from sfiin.model import checkpoint
from sfiin.model.baselines import PNN, BaselineConfig
from sfiin.model.network import SFIIN, NetworkConfig
from sfiin.runtime.contract import Tile
from sfiin.runtime.errors import InputError, MismatchError
from sfiin.runtime.quality import classical, metrics

Invoke = Callable[..., tuple[int, str, str]]
PROFILE = SENSORS["vhr4"].profile


def save(path: Path, *, truth: bool, seed: int, **meta: Any) -> None:
    scene = simulate(64, 64, seed)
    images: dict[str, Any] = {"pan": scene.pan, "ms": scene.ms} | ({"gt": scene.truth} if truth else {})
    np.savez(path, **images, meta=json.dumps(meta))


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pairs with truth of two sensors, one without, in another order and depth, one of eight bands."""
    folder = tmp_path_factory.mktemp("pairs")
    save(folder / "a0.npz", truth=True, seed=0, sensor="QuickBird", bands=["B", "G", "R", "NIR"])
    save(folder / "a1.npz", truth=True, seed=1, sensor="QuickBird")
    save(folder / "b0.npz", truth=True, seed=2, sensor="IKONOS")
    save(
        folder / "c0.npz", truth=False, seed=3, sensor="SPOT-6", bands=["R", "G", "B", "NIR"], nominal_bits=12
    )
    scene = simulate(64, 64, 4)
    np.savez(folder / "d0.npz", pan=scene.pan, ms=scene.ms.repeat(2, 0), meta="{}")
    return folder


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("beside")
    torch.manual_seed(1)
    networks = {
        "pnn": PNN(BaselineConfig(), PROFILE),
        "wide": SFIIN(NetworkConfig(blocks=1, channels=4), PROFILE),
        "deep": SFIIN(NetworkConfig(blocks=1), dataclasses.replace(PROFILE, bits=12)),
    }
    for name, network in networks.items():
        checkpoint.save(
            folder / f"{name}.safetensors", checkpoint.Checkpoint(network, {"seed": 7, "steps": 3})
        )
    return {name: folder / f"{name}.safetensors" for name in networks}


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    def run(variant: str, seed: int, psnr: float) -> dict[str, Any]:
        training: dict[str, Any] = {
            "steps": 9,
            "batch": 4,
            "patch": 128,
            "rate": 0.001,
            "weight": 0.1,
            "seed": seed,
        }
        training |= {"validate_every": 9, "precision": "fp32"}
        quality = {
            "ssim": 0.9,
            "sam": 2.0,
            "ergas": 2.5 - psnr / 100,
            "scc": 0.8,
            "q2n": 0.7,
            "psnr": psnr,
            "pairs": 2,
        }
        figures = {"parameters": 1000, "seconds_per_step": 0.5, "quality": {"QuickBird": quality}}
        made_by = {"network": {}, "validation_ergas": 2.0, "device": "cpu", "torch": "2.6"}
        return {"variant": variant, "training": training} | figures | made_by

    path = tmp_path_factory.mktemp("ablation") / "runs.json"
    runs = [
        run(name, seed, psnr + seed) for name, psnr in (("sfiin", 40), ("blocks-1", 37)) for seed in (0, 1)
    ]
    path.write_text(json.dumps({"runs": runs}))
    return path


@pytest.fixture(scope="module")
def written(
    data: Path,
    beside: dict[str, Path],
    ablation: Path,
    small_checkpoint: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, list[judging.Score]]:
    """A whole report, and the scores that it was made from."""
    from sfiin.evaluation import report

    out = tmp_path_factory.mktemp("out") / "report.html"
    request = Request(
        small_checkpoint,
        data,
        Tile(32, 32, 8),
        (beside["pnn"], beside["wide"]),
        (ablation,),
        "sfiin evaluate x <y>",
    )
    found = report_data.gather(request)
    notes: list[str] = []
    measured = report_data.measure(found, notes.append)
    document = report.assemble(found, measured, notes.append)
    assert len(notes) == found.steps + len(report.SECTIONS)
    report.write(out, document)
    return out, list(measured.scores)


@pytest.fixture
def page(written: tuple[Path, Any], html_page: Callable[[str], Any]) -> Any:
    return html_page(written[0].read_text(encoding="utf-8"))


def row(page: Any, *start: str) -> list[str]:
    """The row of a quality table that begins so."""
    (found,) = [cells for cells in page.rows if cells[: len(start)] == list(start) and len(cells) == 9]
    return list(found)


def test_the_page_is_whole_and_both_files_hold_the_same_tables(
    written: tuple[Path, Any], page: Any, markdown_rows: Callable[[str], list[list[str]]]
) -> None:
    text = written[0].with_suffix(".md").read_text(encoding="utf-8")
    assert not {"script", "link"} & set(page.tags)
    sources = [str(value) for name, value in page.attributes if name == "src"]
    assert len(sources) == 2 * 3 + 2 + 1 + 1  # three pairs are shown; tile and features; spectra; blocks
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert "url(" not in page.text
    assert markdown_rows(text) == page.rows
    assert text.count("\n## ") == page.tags.count("h2") == 7
    assert sorted(path.name for path in written[0].parent.iterdir()) == ["report.html", "report.md"]


def test_the_tables_numbers_are_those_of_the_metrics(
    written: tuple[Path, list[judging.Score]], page: Any, data: Path
) -> None:
    qualities = []
    for name in ("a0", "a1"):
        pair = load_pair(data / f"{name}.npz")
        assert pair.truth is not None
        product = np.clip(np.rint(classical.gsa(pair.ms, pair.pan, 4)), 0, 2047)
        qualities.append(metrics.reference_quality(product, pair.truth, 4, 2047.0))
    psnr, ergas = ([getattr(quality, key) for quality in qualities] for key in ("psnr", "ergas"))
    found = row(page, "QuickBird", "2", "GSA")
    assert found[3] == f"{fmean(psnr):.2f} ± {stdev(psnr):.2f}"
    assert found[6] == f"{fmean(ergas):.3f} ± {stdev(ergas):.3f}"
    ours = [score.quality.sam for score in written[1] if score.method == "sfiin"]
    assert row(page, "all pairs", "3", "SFIIN")[5] == f"{fmean(ours):.3f} ± {stdev(ours):.3f}"
    assert row(page, "IKONOS", "1", "PNN")[3].count("±") == 0


def test_all_methods_are_there_and_the_best_is_bold(
    written: tuple[Path, list[judging.Score]], page: Any
) -> None:
    methods = [cells[2] for cells in page.rows if len(cells) == 9 and cells[0] == "QuickBird"]
    classical_ones = [
        "bicubic",
        "Brovey",
        "GS",
        "GSA",
        "SFIM",
        "MTF-GLP-HPM",
        "local regression",
        "local GSA",
    ]
    assert methods == [*classical_ones, "PNN", "wide", "SFIIN"]
    text = written[0].with_suffix(".md").read_text(encoding="utf-8")
    (line,) = re.findall(r"\| IKONOS \| 1 \| ([^|]+) \| \*\*(\d\d\.\d\d)\*\* \|", text)
    best = max(
        (score for score in written[1] if score.sensor == "IKONOS"), key=lambda score: score.quality.psnr
    )
    assert line[0] == label(best.method)
    assert line[1] == f"{best.quality.psnr:.2f}"


def test_how_far_the_model_is_ahead_is_computed(written: tuple[Path, list[judging.Score]], page: Any) -> None:
    means = {
        method: fmean(
            score.quality.psnr
            for score in written[1]
            if (score.sensor, score.method) == ("QuickBird", method)
        )
        for method in {score.method for score in written[1]}
    }
    best = max(classical.METHODS, key=means.__getitem__)
    behind = means[best] - means["sfiin"]
    assert behind > 0.01  # the network is untrained
    assert f"QuickBird: SFIIN against the best classical method: behind by {behind:.2f} dB PSNR" in page.text


def test_what_was_done_to_pairs_is_said(page: Any) -> None:
    assert "Left out, as of another number of bands or ratio: d0." in page.text
    assert "c0: bands R, G, B, NIR were reordered to blue, green, red, nir, by name." in page.text
    assert (
        "c0 (SPOT-6), at full resolution: whole, 64 x 64 PAN pixels; DN (peak 4095) times 2047/4095"
        in page.text
    )
    assert "sfiin evaluate x <y>" in page.text
    assert ["training: seed", "7"] in page.rows


def test_the_ablations_table_is_over_seeds(page: Any) -> None:
    (found,) = [cells for cells in page.rows if cells[:2] == ["QuickBird", "blocks-1"]]
    assert found[2:6] == ["1,000", "2", "0.500 ± 0.000", f"37.50 ± {stdev([37, 38]):.2f}"]


def test_bands_in_another_order_are_fused_in_the_models(data: Path, small_checkpoint: Path) -> None:
    found = report_data.gather(Request(small_checkpoint, data, Tile(32, 32, 8)))
    (whole,) = found.whole
    np.testing.assert_array_equal(whole.ms, load_pair(data / "c0.npz").ms[[2, 1, 0, 3]])


def test_without_any_truth_pairs_are_reduced(data: Path, small_checkpoint: Path, tmp_path: Path) -> None:
    save(tmp_path / "x.npz", truth=False, seed=9, sensor="IKONOS")
    found = report_data.gather(Request(small_checkpoint, tmp_path, Tile(32, 32, 8)))
    assert [pair.pan.shape for pair in found.judged] == [(1, 16, 16)]
    assert any("Wald" in note for note in found.notes)


def test_a_folder_with_other_bands_only_is_refused(small_checkpoint: Path, tmp_path: Path) -> None:
    save(tmp_path / "x.npz", truth=True, seed=9, bands=["B", "G", "R", "SWIR1"])
    with pytest.raises(MismatchError, match="swir1"):
        report_data.gather(Request(small_checkpoint, tmp_path, Tile(32, 32, 8)))


def test_models_are_named_by_architecture_or_file(beside: dict[str, Path], small_checkpoint: Path) -> None:
    tile = Tile(32, 32, 8)
    found = report_data.open_models(small_checkpoint, [beside["wide"], beside["pnn"]], tile)
    assert list(found) == ["wide", "pnn", "sfiin"]
    assert list(report_data.open_models(beside["pnn"], [small_checkpoint], tile)) == ["sfiin", "pnn"]
    with pytest.raises(InputError, match="given twice"):
        report_data.open_models(small_checkpoint, [beside["wide"]] * 3, tile)


def test_a_section_without_data_says_so(data: Path, beside: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "a0.npz").write_bytes((data / "a0.npz").read_bytes())
    found = report_data.gather(Request(beside["pnn"], tmp_path, Tile(32, 32, 8)))
    measured = report_data.measure(found)
    for section, text in (
        (sections.full_resolution, "No pair without truth"),
        (sections.ablation, "No ablation file"),
        (sections.features, "it is no SFIIN"),
    ):
        (part,) = section(found, measured)
        assert text in getattr(part, "text", "")


def test_an_exported_model_tells_what_its_contract_knows() -> None:
    from sfiin.runtime import models

    facts = provenance.of_model(models.choose(4, 4))
    assert facts["lowering"].startswith("matmul, fp32")
    assert len(facts["SHA-256"]) == 64


def test_the_commit_is_told_only_inside_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "provenance.py"))
    assert provenance.commit() is None
    monkeypatch.setenv("PATH", "")
    assert provenance.commit() is None


def test_the_command_writes_a_report_or_one_document(
    invoke: Invoke, tmp_path: Path, small_checkpoint: Path, html_page: Callable[[str], Any]
) -> None:
    save(tmp_path / "x.npz", truth=True, seed=5, sensor="QuickBird")
    out = tmp_path / "r.html"
    call = ("evaluate", small_checkpoint, "--data", tmp_path, "--tile", 64, "--overlap", 0, "--report", out)
    code, output, errors = invoke(*call, "--json")
    assert (code, errors) == (0, "")
    assert [mean["method"] for mean in json.loads(output)["means"]] == [*classical.METHODS, "sfiin"]
    assert f"--report {out} --json" in html_page(out.read_text(encoding="utf-8")).text
    code, output, errors = invoke(*call)
    assert (code, output) == (7, "")
    assert "exists already" in errors
    assert invoke(*call, "--overwrite", "--quiet") == (0, "", "")


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--report", "{out}.txt"], 2, "ends in .html"),
        (["--report", "{out}/no/r.html"], 7, "there is no folder"),
        (["--beside", "{pnn}"], 2, "give --report"),
        (["--report", "{out}.html", "--beside", "{none}"], 3, "no such checkpoint"),
        (["--report", "{out}.html", "--beside", "{deep}"], 4, "sensor.bits is 12"),
        (["--report", "{out}.html", "--ablation", "{none}"], 3, "no such file"),
        (["--report", "{out}.html", "--ablation", "{pnn}"], 3, "sfiin ablate"),
        (["--report", "{out}.html", "--tile", "32", "--overlap", "32"], 4, "tile.overlap"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    invoke: Invoke,
    data: Path,
    beside: dict[str, Path],
    small_checkpoint: Path,
    tmp_path: Path,
    *,
    arguments: list[str],
    code: int,
    text: str,
) -> None:
    places = {"out": tmp_path / "r", "none": tmp_path / "none.json"} | beside
    found, _, errors = invoke(
        "evaluate", small_checkpoint, "--data", data, *(item.format(**places) for item in arguments)
    )
    assert found == code, errors
    assert text in " ".join(errors.replace("│", " ").split())
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_leaves_nothing(tmp_path: Path, file_size_limit: Any) -> None:
    from sfiin.evaluation import report
    from sfiin.evaluation.document import Document, Paragraph, Section
    from sfiin.runtime.errors import OutputError

    document = Document("t", (Section("s", (Paragraph("x" * 100_000),)),))
    with file_size_limit(50_000), pytest.raises(OutputError):
        report.write(tmp_path / "r.html", document)
    assert list(tmp_path.iterdir()) == []


def test_real_imagery_makes_a_report(
    imagery: Path, tmp_path: Path, small_checkpoint: Path, html_page: Callable[[str], Any]
) -> None:
    from sfiin.evaluation import report

    for name in ("QBRR_mmfn_00.npz", "WV3_zpnn_1.npz"):
        (tmp_path / name).symlink_to(imagery / "check" / name)
    found = report_data.gather(Request(small_checkpoint, tmp_path, Tile(128, 128, 0)))
    document = report.assemble(found, report_data.measure(found))
    report.write(tmp_path / "r.html", document)
    page = html_page((tmp_path / "r.html").read_text(encoding="utf-8")).text
    assert "WV3_zpnn_1" in page
    # The observation that the paper builds upon holds on a real pair.
    assert re.search(r"All frequencies, plain: the phase of PAN is closer .* in 1 of 1 pairs", page)

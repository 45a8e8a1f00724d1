"""What is found under a product's name, and what a document must say to be believed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfiin.runtime.errors import OutputError
from sfiin.runtime.scenes.identity import Input
from sfiin.runtime.station import done
from sfiin.runtime.station.done import Run
from sfiin.runtime.station.run_report import RunReport

WANTED = {"quicklook": True, "stac": False, "report": False}


def run(pan: str = "aa", model: str = "cc", **options: object) -> Run:
    return Run((Input("pan.tif", pan), Input("ms.tif", "bb")), Input("net.onnx", model), options)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "o.tif"


def published(out: Path, which: Run, report: RunReport) -> None:
    """A product with its draft, as it is when a run is killed just after its appearance."""
    part = out.with_name("part")
    part.write_bytes(b"pixels")
    done.draft(out, part, which, report)
    part.rename(out)


def finished(out: Path, which: Run, report: RunReport) -> None:
    published(out, which, report)
    out.with_suffix(".png").write_bytes(b"picture")
    done.finish(out, which, WANTED, report)


def state(out: Path, which: Run) -> str:
    return done.look(out, which, WANTED).state


def test_the_states_of_a_run(out: Path, report: RunReport) -> None:
    assert state(out, run()) == "absent"
    published(out, run(), report)
    found = done.look(out, run(), WANTED)
    assert (found.state, found.missing, found.report) == ("unfinished", ("quicklook",), report)
    out.with_suffix(".png").write_bytes(b"picture")
    done.finish(out, run(), WANTED, report)
    assert state(out, run()) == "equal"
    assert sorted(path.name for path in out.parent.iterdir()) == ["o.done.json", "o.png", "o.tif"]
    out.with_suffix(".png").unlink()
    assert done.look(out, run(), WANTED).missing == ("quicklook",)
    out.unlink()
    assert state(out, run()) == "absent"


@pytest.mark.parametrize("other", [run(pan="xx"), run(model="xx"), run(gain=2.0)])
def test_another_run_is_another(out: Path, other: Run, report: RunReport) -> None:
    finished(out, run(), report)
    assert state(out, other) == "other"
    published(out, run(), report)
    assert state(out, other) == "other"


def test_names_and_order_of_options_are_no_part_of_a_run() -> None:
    renamed = Run((Input("a.tif", "aa"), Input("b.tif", "bb")), Input("c", "cc"), {"x": 1, "y": 2})
    assert renamed.key == run(y=2, x=1).key != run(y=2, x=2).key
    swapped = Run((Input("ms.tif", "bb"), Input("pan.tif", "aa")), Input("net.onnx", "cc"), {})
    assert swapped.key != run().key


@pytest.mark.parametrize("name", ["o.tif", "o.done.json", "o.png"])
def test_what_was_changed_since_is_another(out: Path, name: str, report: RunReport) -> None:
    finished(out, run(), report)
    path = out.with_name(name)
    path.write_bytes(path.read_bytes() + b"x")
    assert state(out, run()) == "other"


@pytest.mark.parametrize("part", ["product", "companions", "report"])
@pytest.mark.parametrize("odd", [[], None, "x", {"quicklook": []}])
def test_a_document_of_another_shape_is_none(out: Path, part: str, odd: object, report: RunReport) -> None:
    finished(out, run(), report)
    path = out.with_suffix(".done.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {part: odd}))
    assert state(out, run()) == "other"


@pytest.mark.parametrize(
    "name", ["o.png", "o.done.json", "o.tif.aux.xml", "o.tfw", ".o.tif.sfiin", ".o.tif.sfiin/"]
)
def test_a_version_takes_a_name_that_nothing_else_uses(out: Path, name: str, report: RunReport) -> None:
    """What is left of something else would become a part of the product, or is in its way."""
    place = out.with_name(name.rstrip("/"))
    if name.endswith("/"):
        place.symlink_to(out.parent)
    else:
        place.write_text("{}")
    assert done.find(out, run(), WANTED, "version").output == out.with_name("o.2.tif")
    assert place.exists()


def test_a_document_of_something_else_is_not_written_over(out: Path, report: RunReport) -> None:
    """The STAC item of a product called o.done.tif."""
    out.with_suffix(".done.json").write_text('{"type": "Feature"}')
    with pytest.raises(OutputError, match=r"o\.done\.json: exists"):
        done.find(out, run(), WANTED)


def test_a_draft_of_a_product_that_never_appeared_says_nothing(out: Path, report: RunReport) -> None:
    """An older product is there, and the run that was to replace it was killed before it could."""
    out.write_bytes(b"older pixels")
    out.with_name("part").write_bytes(b"pixels")
    done.draft(out, out.with_name("part"), run(), report)
    assert state(out, run()) == "other"


def test_a_strangers_companion_is_in_the_way(out: Path) -> None:
    out.with_suffix(".png").write_bytes(b"precious")
    assert state(out, run()) == "other"
    with pytest.raises(OutputError, match=r"o\.png: exists already"):
        done.find(out, run(), WANTED)


def test_versions_go_beside(out: Path, report: RunReport) -> None:
    for number in range(3):
        found = done.find(out, run(pan=str(number)), WANTED, "version")
        assert found.output.name == ("o.tif", "o.2.tif", "o.3.tif")[number]
        finished(found.output, run(pan=str(number)), report)
    assert done.find(out, run(pan="1"), WANTED, "version").output.name == "o.2.tif"
    assert done.find(out, run(pan="1"), WANTED, "version").state == "equal"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"run": 3}', '{"product": null}', "[" * 100_000, None])
def test_a_document_that_makes_no_sense_is_none(out: Path, content: str | None, report: RunReport) -> None:
    finished(out, run(), report)
    path = done.path_of(out)
    if content is None:
        path.unlink()
        path.symlink_to(out)
    else:
        path.write_text(content)
    assert state(out, run()) == "other"


def test_a_report_that_cannot_be_read_vouches_for_nothing(out: Path, report: RunReport) -> None:
    finished(out, run(), report)
    path = done.path_of(out)
    document = json.loads(path.read_text())
    path.write_text(json.dumps(document | {"report": document["report"] | {"tiles": "three"}}))
    assert state(out, run()) == "other"
    path.write_text(json.dumps(document))
    assert state(out, run()) == "equal"


def test_what_was_made_before_stays_in_the_document(out: Path, report: RunReport) -> None:
    finished(out, run(), report)
    out.with_suffix(".html").write_bytes(b"page")
    done.finish(out, run(), {"report": True}, report)
    assert set(json.loads(done.path_of(out).read_text())["companions"]) == {"quicklook", "report"}

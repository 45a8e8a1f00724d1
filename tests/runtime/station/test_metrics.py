"""Numbers in Prometheus' format, read by its own parser."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from sfiin.runtime.errors import InputError, OutputError
from sfiin.runtime.station.events import Event
from sfiin.runtime.station.metrics import Metrics, exporter
from sfiin.runtime.station.run_report import RunReport

pytest.importorskip("prometheus_client")


def numbers(text: str) -> dict[str, float]:
    from prometheus_client.parser import text_string_to_metric_families

    return {
        sample.name
        + "".join(f"{{{key}={value}}}" for key, value in sample.labels.items() if key != "le"): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def night(counter: Any, report: RunReport) -> None:
    for event in (
        Event("look", waiting=3),
        Event("done", report=report),
        Event("try again"),
        Event("failed"),
        Event("skipped"),
        Event("waiting", seconds=5),
        Event("end"),
    ):
        counter.count(event)


def check(found: dict[str, float], report: RunReport) -> None:
    assert found["sfiin_scenes_total{state=done}"] == 2
    assert found["sfiin_scenes_total{state=failed}"] == 1
    assert found["sfiin_tries_total"] == 1
    assert found["sfiin_waits_total"] == found["sfiin_trouble"] == 1
    assert found["sfiin_waiting"] == 3
    assert found["sfiin_scene_seconds_sum"] == report.seconds
    assert found["sfiin_clipped_total{band=blue}"] == report.clipped["blue"] > 0
    assert found["sfiin_nodata_pixels_total"] == report.nodata > 0
    assert found["sfiin_worker_peak_bytes"] == report.memory.peak


def test_a_file(tmp_path: Path, report: RunReport) -> None:
    path = tmp_path / "sfiin.prom"
    with exporter(str(path)) as counter:
        assert path.is_file()
        night(counter, report)
    check(numbers(path.read_text()), report)
    assert [found.name for found in tmp_path.iterdir()] == ["sfiin.prom"]


def test_a_port(report: RunReport) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with exporter(str(port)) as counter:
        night(counter, report)
        with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            check(numbers(answer.read().decode()), report)
        with pytest.raises(OutputError, match="another port"), exporter(f"127.0.0.1:{port}"):
            pass


def test_how_long_scenes_have_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("sfiin.runtime.station.metrics.time.monotonic", lambda: now)
    metrics = Metrics()
    metrics.count(Event("look", waiting=2))
    now = 160.0
    metrics.count(Event("look", waiting=2))
    assert metrics.registry.get_sample_value("sfiin_queue_seconds") == 60
    metrics.count(Event("look", waiting=0))
    assert metrics.registry.get_sample_value("sfiin_queue_seconds") == 0


def test_what_cannot_be_had_is_told(tmp_path: Path, report: RunReport) -> None:
    with pytest.raises(InputError, match="65535"), exporter("70000"):
        pass
    with pytest.raises(OutputError, match="cannot be written"), exporter(str(tmp_path / "none" / "x")):
        pass
    with exporter(None) as counter:
        night(counter, report)

"""How does the station do, in numbers? Metrics in Prometheus' text format, in a file or over HTTP.

The file is for node_exporter's textfile collector and is rewritten as a whole; the port answers on this
machine alone unless a host is given. The format and the server are prometheus-client's.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from sfiin.runtime.errors import InputError, OutputError, UnavailableError
from sfiin.runtime.extras import missing
from sfiin.runtime.station.events import Event
from sfiin.runtime.station.run_report import RunReport

_SECONDS = (1, 3, 10, 30, 100, 300, 1000, 3000, 10_000, 30_000)
_ENDS = {"done": "done", "failed": "failed", "skipped": "done"}
_PORT = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:]+\]|[^:/]+):)?(?P<port>\d{1,5})")


class Counter(Protocol):
    """What is told of a station's events."""

    def count(self, event: Event) -> None:
        """Take note of an event."""
        ...


class _Nothing:
    def count(self, event: Event) -> None:
        """Nobody asked."""


class Metrics:
    """A station's numbers. `path` is rewritten after each event, None for none."""

    def __init__(self, path: Path | None = None) -> None:
        prometheus = _client()
        self.registry = prometheus.CollectorRegistry()
        self._write, self._path = prometheus.write_to_textfile, path
        own = {"registry": self.registry}
        self._scenes = prometheus.Counter("sfiin_scenes", "Scenes that came to an end.", ["state"], **own)
        self._tries = prometheus.Counter("sfiin_tries", "Tries of a scene that ended badly.", **own)
        self._waits = prometheus.Counter("sfiin_waits", "Pauses for what is no scene's fault.", **own)
        self._waiting = prometheus.Gauge("sfiin_waiting", "Scenes in the inbox.", **own)
        self._age = prometheus.Gauge(
            "sfiin_queue_seconds", "How long there have been scenes in the inbox without one done.", **own
        )
        self._trouble = prometheus.Gauge(
            "sfiin_trouble", "1 while inbox, outbox or device is missing.", **own
        )
        self._seconds = prometheus.Histogram(
            "sfiin_scene_seconds", "Seconds that scenes took.", buckets=_SECONDS, **own
        )
        self._pixels = prometheus.Counter("sfiin_pixels", "Pixels of products.", **own)
        self._clipped = prometheus.Counter(
            "sfiin_clipped", "Values that a product could not hold.", ["band"], **own
        )
        self._nodata = prometheus.Counter("sfiin_nodata_pixels", "Pixels of products without data.", **own)
        self._memory = prometheus.Gauge("sfiin_worker_peak_bytes", "Memory of the worker, at most.", **own)
        self._seen = prometheus.Gauge(
            "sfiin_last_look_seconds", "Unix time of the last look at the inbox.", **own
        )
        for state in ("done", "failed"):
            self._scenes.labels(state)
        self._since: float | None = None

    def count(self, event: Event) -> None:
        """Take note of an event, and rewrite the file."""
        name = event.event
        if name in _ENDS:
            self._scenes.labels(_ENDS[name]).inc()
            self._since = None
        if name == "done" and event.report:
            self._add(event.report)
        elif name == "try again":
            self._tries.inc()
        elif name == "waiting":
            self._waits.inc()
        elif name == "look":
            self._look(event.waiting or 0)
        if name in ("waiting", *_ENDS):
            self._trouble.set(name == "waiting")
        if self._path is not None:
            try:
                self._write(str(self._path), self.registry)
            except OSError:  # numbers must not end the work that they count
                return

    def _add(self, report: RunReport) -> None:
        self._seconds.observe(report.seconds)
        self._pixels.inc(report.pixels)
        self._nodata.inc(report.nodata)
        self._memory.set(report.memory.peak or 0)
        for band, count in report.clipped.items():
            self._clipped.labels(band).inc(count)

    def _look(self, waiting: int) -> None:
        now = time.monotonic()
        self._waiting.set(waiting)
        if not waiting:
            self._since = None
        elif self._since is None:
            self._since = now
        self._age.set(0 if self._since is None else now - self._since)
        self._seen.set(time.time())


@contextmanager
def exporter(where: str | None) -> Iterator[Counter]:
    """Metrics at a file's path, or at a port, or at HOST:PORT, while the block runs; none for None.

    Raises UnavailableError without prometheus-client, OutputError where the file or the port cannot be had.
    """
    if where is None:
        yield _Nothing()
        return
    found = _PORT.fullmatch(where)
    if not found:
        yield _in_file(Path(where))
        return
    port = int(found["port"])
    if not 0 < port < 1 << 16:
        raise InputError(
            f"--metrics {where}: ports go from 1 to 65535; for a file give a path, such as ./{where}"
        )
    metrics = Metrics()
    host = (found["host"] or "127.0.0.1").strip("[]")
    try:
        server, thread = _client().start_http_server(port, host, metrics.registry)
    except (OSError, OverflowError) as error:
        raise OutputError(f"--metrics {where}: cannot be listened on ({error}); give another port") from None
    try:
        yield metrics
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _in_file(path: Path) -> Metrics:
    metrics = Metrics(path)
    try:
        metrics._write(str(path), metrics.registry)
    except OSError as error:
        raise OutputError(
            f"--metrics {path}: cannot be written ({error.strerror}); check the folder"
        ) from None
    return metrics


def _client() -> Any:
    try:
        import prometheus_client
    except ImportError:
        raise UnavailableError(missing("prometheus-client", "station", "--metrics")) from None
    return prometheus_client

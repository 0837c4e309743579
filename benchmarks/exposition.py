"""`/metrics` at 1k, 10k and 100k lines, beside prometheus-client and a small client_golang server, over HTTP."""

from __future__ import annotations

import http.client
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks import workload
from benchmarks.measure import Row, interleaved, process_of, ratio
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from tests.parts.go import build_source
from tests.parts.part import Missing

from evalgauge.core.collect import Chunk
from evalgauge.exporters.prometheus import PrometheusExporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LINES_OF_A_TENANT = 10 * 3 * (3 + 12 + 13)
"""Workflows × methods × (a counter by status, and histograms of 9 and 10 bounds): lines that a tenant adds."""


def run(*, quick: bool) -> list[Row]:
    """Seconds of a scrape; values change between scrapes."""
    rows = []
    for lines in (1_000, 10_000, 100_000):
        tenants = max(1, round(lines / _LINES_OF_A_TENANT))
        rounds = 5 if quick else 15
        with _ours(tenants) as ours, _python(tenants) as python, _golang(tenants) as golang:
            candidates = {"ours": ours, "python": python} | ({"golang": golang} if golang else {})
            for fetch in candidates.values():
                fetch()
            values = interleaved(candidates, rounds)
        middle = {name: statistics.median(found) for name, found in values.items()}
        wanted = {"python": 20.0, "golang": 5.0} if lines == 100_000 else {}
        for name, label in (("python", "prometheus_client.generate_latest"), ("golang", "client_golang")):
            if name in middle:
                beside = f"{middle[name] * 1000:,.1f} ms {label}"
                title = f"scrape of about {lines:,} lines over HTTP"
                rows.append(
                    Row(
                        title,
                        middle["ours"] * 1000,
                        "ms",
                        beside,
                        ratio(values, name, "ours"),
                        wanted.get(name),
                    )
                )
    return rows


def _fetch(port: int) -> float:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    started = time.perf_counter()
    connection.request(
        "GET", "/metrics", headers={"Accept": "text/plain;version=0.0.4", "Accept-Encoding": "identity"}
    )
    answer = connection.getresponse()
    body = answer.read()
    seconds = time.perf_counter() - started
    connection.close()
    assert answer.status == 200, body[:200]
    return seconds


def _label_sets(tenants: int) -> Iterator[tuple[str, str, str]]:
    for tenant in range(tenants):
        for workflow in range(10):
            for method in workload.METHODS:
                yield f"tenant-{tenant:04d}", f"workflow-{workflow}", method


def _bodies(tenants: int) -> bytes:
    lines = []
    for number, (tenant, workflow, method) in enumerate(_label_sets(tenants)):
        for place, status in enumerate(workload.STATUSES):
            event = {
                "id": f"{number}-{place}",
                "source": "bench",
                "type": "bench.judged",
                "data": {
                    "tenant_id": tenant,
                    "workflow_id": workflow,
                    "method_used": method,
                    "status": status,
                    "confidence_score": (number % 97) / 97,
                    "execution_time_ms": number % 9973 + 0.25,
                },
            }
            lines.append(workload.line(event))
    return b"".join(lines)


@contextmanager
def _ours(tenants: int) -> Iterator[Callable[[], float]]:
    body = _bodies(tenants)
    with (
        tempfile.TemporaryDirectory() as folder,
        process_of(
            Path(folder),
            packs=[str(workload.PACK)],
            inputs={"bench": {"type": "file", "path": "/dev/null"}},
            exporters={"out": {"type": "prometheus", "listen": "127.0.0.1:0"}},
        ) as process,
    ):
        engine = process.pipeline.engine
        process.pipeline.start()
        exporter = process.exporters["out"]
        assert isinstance(exporter, PrometheusExporter)
        exporter.start()

        def fetch() -> float:
            # Every series changes, as it does under load.
            engine.process("bench", Chunk("bench", body, str))
            engine.commit()
            return _fetch(exporter.port)

        try:
            yield fetch
        finally:
            process.pipeline.close()
            process.close()


@contextmanager
def _python(tenants: int) -> Iterator[Callable[[], float]]:
    registry = CollectorRegistry()
    labels = ["tenant", "workflow", "method"]
    counter = Counter("bench_judgments", "Judgments made.", [*labels, "status"], registry=registry)
    bounds = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
    tenths = [tenth / 10 for tenth in range(1, 11)]
    duration = Histogram("bench_duration_seconds", "Time.", labels, registry=registry, buckets=bounds)
    confidence = Histogram("bench_confidence_ratio", "Confidence.", labels, registry=registry, buckets=tenths)

    def change() -> None:
        for number, names in enumerate(_label_sets(tenants)):
            for status in workload.STATUSES:
                counter.labels(*names, status).inc()
                duration.labels(*names).observe((number % 9973) / 1000)
                confidence.labels(*names).observe((number % 97) / 97)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = generate_latest(registry)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()

    def fetch() -> float:
        change()
        return _fetch(server.server_address[1])

    try:
        yield fetch
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def _golang(tenants: int) -> Iterator[Callable[[], float] | None]:
    try:
        program = build_source(workload.HERE / "peers" / "client_golang", "bench-client-golang")
    except Missing as missing:
        print(f"  left out: {missing}")
        yield None
        return
    with subprocess.Popen([program, str(tenants)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())

        def fetch() -> float:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/change")
            connection.getresponse().read()
            connection.close()
            return _fetch(port)

        try:
            yield fetch
        finally:
            process.terminate()

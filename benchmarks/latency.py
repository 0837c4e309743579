"""One event in by HTTP or file, until a scrape of `/metrics` shows it."""

from __future__ import annotations

import http.client
import re
import time
from urllib.parse import urlsplit

from benchmarks import workload
from benchmarks.http_door import served
from benchmarks.measure import Row, percentile

_TOTAL = re.compile(rb"^bench_judgments_total\{[^}]*\} (\d+)", re.MULTILINE)


def run(*, quick: bool) -> list[Row]:
    """Seconds from the first byte sent to the scrape that shows the event, scraping without pause."""
    times = []
    with served() as (_, url, port):
        door = http.client.HTTPConnection(urlsplit(url).netloc)
        scrape = http.client.HTTPConnection("127.0.0.1", port)
        for number, event in enumerate(workload.events(30 if quick else 300), 1):
            started = time.perf_counter()
            door.request("POST", "/v1/events", workload.line(event), {"Content-Type": "application/x-ndjson"})
            door.getresponse().read()
            while _shown(scrape) < number:
                pass
            times.append(time.perf_counter() - started)
    spread = f"p99 {percentile(times, 0.99) * 1000:.1f} ms"
    return [Row("one event by HTTP → seen on /metrics, p50", percentile(times, 0.5) * 1000, "ms", spread)]


def _shown(scrape: http.client.HTTPConnection) -> int:
    scrape.request("GET", "/metrics", headers={"Accept-Encoding": "identity"})
    return sum(int(count) for count in _TOTAL.findall(scrape.getresponse().read()))

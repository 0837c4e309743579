"""One event into a topic, until a scrape of `/metrics` shows it, while others flow at a steady rate."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import re
import sys
import tempfile
import threading
import time
import uuid
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import workload
from benchmarks.kafka import Ours
from benchmarks.kafka_topic import PARTITIONS, empty, record, topic
from benchmarks.measure import Row, percentile, process_of
from confluent_kafka import Producer
from tests.parts.part import Missing, answers, free_port, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from benchmarks.kafka_topic import Topic

_PROBE_EVERY = 0.1
_SCRAPE_PAUSE = 0.01
"""Seconds between two scrapes: without a pause their cost would be measured, on two cores, and nothing else."""
_PACE = 0.005
_PATIENCE = 120
_TOTAL = re.compile(rb"^bench_judgments_total\{[^}]*\} (\d+)", re.MULTILINE)
_SEEN = re.compile(rb'^bench_judgments_total\{[^}]*workflow="probe"[^}]*\} (\d+)', re.MULTILINE)


def run(*, quick: bool) -> list[Row]:
    """Milliseconds from `produce` to the end of the scrape; the producer sends what it has every 5 ms."""
    rows: list[Row] = []
    try:
        with topic(0) as events:
            ways = {"one reader": Ours("confluent"), "group": Ours("confluent", group=True)}
            # A broker that has just started is slow for half a minute.
            _measured(ways["one reader"], events, 10_000, 5 if quick else 30)
            for title, ours in ways.items():
                rows.extend(
                    _row(title, rate, *_measured(ours, events, rate, 5 if quick else 30))
                    for rate in (1_000, 10_000, 100_000)
                )
    except Missing as missing:
        print(f"  left out: {missing}")
    return rows


def _row(title: str, rate: int, reached: float, times: list[float]) -> Row:
    spread = f"p99 {percentile(times, 0.99) * 1000:.0f} ms; {reached:,.0f} events/s were sent"
    name = f"Kafka → /metrics, {title}, {rate:,} events/s, p50"
    row = Row(name, percentile(times, 0.5) * 1000, "ms", spread)
    print(f"  {name}: {row.value:.0f} ms, {spread}", file=sys.stderr, flush=True)
    return row


def _measured(ours: Ours, events: Topic, rate: int, seconds: float) -> tuple[float, list[float]]:
    """Events a second that the producer came to, and seconds of each probe."""
    context = multiprocessing.get_context("spawn")
    events = empty(events)  # what was sent before would have to be read first
    port = free_port()
    config = ours.config(events, f"bench-{uuid.uuid4().hex[:8]}", "replica-0")
    config["exporters"] = {"out": {"type": "prometheus", "listen": f"127.0.0.1:{port}"}}
    with (
        _child(context, _serve, config),
        contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as scraped,
    ):
        until(lambda: answers(f"http://127.0.0.1:{port}/readyz"), "evalgauge to be ready", _PATIENCE)
        with _child(context, _produce, events, rate, seconds) as producer:
            # Before it reads every partition we would measure its start.
            until(lambda: _counted(scraped) == PARTITIONS, "the first event of each partition", _PATIENCE)
            producer.send("go")
            return _watched(scraped, producer, time.monotonic() + seconds + _PATIENCE)


def _watched(
    scraped: http.client.HTTPConnection, producer: Connection, deadline: float
) -> tuple[float, list[float]]:
    """Scrape until all is sent and seen."""
    seen: dict[int, float] = {}
    sent: dict[int, float] | None = None
    reached = 0.0
    while sent is None or sent.keys() - seen.keys():
        body = _scrape(scraped)
        now = time.monotonic()
        for probe in range(len(seen), sum(map(int, _SEEN.findall(body)))):
            seen[probe] = now
        if sent is None and producer.poll():
            reached, sent = producer.recv()
        assert now < deadline, f"{len(seen)} of {len(sent or ())} probes were seen"
        time.sleep(_SCRAPE_PAUSE)
    return reached, [seen[probe] - at for probe, at in sent.items()]


def _scrape(scraped: http.client.HTTPConnection) -> bytes:
    scraped.request("GET", "/metrics", headers={"Accept-Encoding": "identity"})
    answer = scraped.getresponse()
    body = answer.read()
    assert answer.status == 200, body[:200]
    return body


def _counted(scraped: http.client.HTTPConnection) -> int:
    return sum(map(int, _TOTAL.findall(_scrape(scraped))))


@contextlib.contextmanager
def _child(context: Any, target: Any, *arguments: object) -> Iterator[Connection]:
    """A process of its own, ended afterwards."""
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()  # what runs until then ends with it
        process.join(30)
        process.kill()


def _serve(connection: Connection, config: dict[str, Any]) -> None:
    """Run evalgauge until the other end of the pipe is closed."""

    def wait() -> None:
        with contextlib.suppress(EOFError):
            connection.recv()
        process.end()

    with tempfile.TemporaryDirectory() as folder, process_of(Path(folder), **config) as process:
        threading.Thread(target=wait, daemon=True).start()
        process.run()


def _alike(event: dict[str, Any]) -> dict[str, Any]:
    event["data"] |= {"tenant_id": "tenant", "workflow_id": "workflow"}
    return event


def _produce(connection: Connection, events: Topic, rate: int, seconds: float) -> None:
    """Send at a steady rate, and every so often a probe; say when each of these was sent, by the machine's clock."""
    options = {"acks": "all", "queue.buffering.max.messages": 1_000_000}
    producer = Producer({"bootstrap.servers": events.bootstrap, **options})
    # Of few series, because scraping is not what is measured.
    values = cycle([record(_alike(event)) for event in workload.events(2_000)])
    probe = next(workload.events(1))
    probe["data"]["workflow_id"] = "probe"
    sent: dict[int, float] = {}
    for partition in range(PARTITIONS):
        producer.produce(events.name, next(values), partition=partition)
    producer.flush(60)  # it has found its brokers by now
    connection.recv()
    count = 0
    started = time.monotonic()
    while (passed := time.monotonic() - started) < seconds:
        while count < passed * rate:
            producer.produce(events.name, next(values), partition=count % PARTITIONS)
            count += 1
        if passed >= len(sent) * _PROBE_EVERY:
            number = len(sent)
            sent[number] = time.monotonic()
            producer.produce(events.name, record(probe), partition=number % PARTITIONS)
        producer.poll(_PACE)
    reached = count / (time.monotonic() - started)
    producer.flush(60)
    connection.send((reached, sent))

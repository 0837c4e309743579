"""Programs that read a topic from its beginning: evalgauge, what is compared with it, and the clients alone.

Each runs in a process of its own and speaks by a pipe: it says that it is ready, is told to begin, and then says how
many events it has counted, until it is told to end.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kafka
from benchmarks.kafka_topic import PARTITIONS
from benchmarks.measure import process_of
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from prometheus_client import CollectorRegistry, Counter, Histogram

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from benchmarks.kafka_topic import Topic

    from evalgauge.core.process import Process

_LOOK = 0.02
_CONFLUENT = {
    "fetch.queue.backoff.ms": 5,
    "queued.min.messages": 20_000,
    "fetch.max.bytes": 4_000_000,
    "enable.auto.commit": False,
}
_KAFKA_PYTHON = {"enable_auto_commit": False, "metrics_enabled": False, "isolation_level": "read_committed"}
"""As evalgauge sets them: without, both are slower."""


def evalgauge(connection: Connection, config: dict[str, Any]) -> None:
    """Count by the real process; what it says to have counted is committed."""
    with tempfile.TemporaryDirectory() as folder, process_of(Path(folder), **config) as process:
        connection.send("ready")
        connection.recv()
        watcher = threading.Thread(target=_tell, args=(process, connection), daemon=True)
        watcher.start()
        process.run()
        watcher.join()


def _tell(process: Process, connection: Connection) -> None:
    told, taken = 0, -1
    with contextlib.suppress(OSError):
        while not connection.poll(_LOOK):
            engine = process.pipeline.engine
            if engine.taken != taken:
                if not told and engine.taken:
                    connection.send(0)
                taken = engine.taken
            # Adding up costs; it is done when there is nothing else to do.
            if engine.taken and not engine.dirty:
                counted = sum(
                    int(family.values.sum())
                    for family in engine.families()
                    if family.name == "bench_judgments"
                )
                if counted != told:
                    connection.send(counted)
                    told = counted
    process.end()


def plain_loop(connection: Connection, topic: Topic) -> None:
    """What most people write first, with a client that is set well."""
    registry = CollectorRegistry()
    labels = ["tenant", "workflow", "method"]
    counter = Counter("bench_judgments", "Judgments made.", [*labels, "status"], registry=registry)
    bounds = [0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30]
    duration = Histogram("bench_duration_seconds", "Time.", labels, registry=registry, buckets=bounds)
    tenths = [tenth / 10 for tenth in range(1, 11)]
    confidence = Histogram("bench_confidence_ratio", "Confidence.", labels, registry=registry, buckets=tenths)
    for messages in _begun(connection, _confluent(connection, topic)):
        for message in messages:
            event = json.loads(message.value())["data"]
            names = (event["tenant_id"], event["workflow_id"], event["method_used"])
            counter.labels(*names, event["status"]).inc()
            duration.labels(*names).observe(event["execution_time_ms"] / 1000)
            confidence.labels(*names).observe(event["confidence_score"])
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    _counted(connection, sum(s.value for s in samples if s.name == "bench_judgments_total"))


def bare_confluent(connection: Connection, topic: Topic) -> None:
    """Read records and look at none."""
    _counted(connection, sum(map(len, _begun(connection, _confluent(connection, topic)))))


def bare_kafka_python(connection: Connection, topic: Topic) -> None:
    """Read records and look at none."""
    consumer = kafka.KafkaConsumer(bootstrap_servers=topic.bootstrap, group_id=None, **_KAFKA_PYTHON)
    consumer.assign([kafka.TopicPartition(topic.name, number) for number in range(PARTITIONS)])
    consumer.seek_to_beginning()

    def batches() -> Iterator[list[Any]]:
        connection.send("ready")
        connection.recv()
        left = topic.size
        while left:
            for records in consumer.poll(timeout_ms=200, max_records=2000).values():
                left -= len(records)
                yield records

    _counted(connection, sum(map(len, _begun(connection, batches()))))
    consumer.close()


def _confluent(connection: Connection, topic: Topic) -> Iterator[list[Any]]:
    consumer = Consumer({"bootstrap.servers": topic.bootstrap, "group.id": "bench-bare", **_CONFLUENT})
    connection.send("ready")
    connection.recv()
    consumer.assign([TopicPartition(topic.name, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
    left = topic.size
    while left:
        messages = consumer.consume(1000, 0.2)
        assert not any(message.error() for message in messages), [message.error() for message in messages]
        left -= len(messages)
        yield messages
    consumer.close()


def _begun(connection: Connection, batches: Iterator[list[Any]]) -> Iterator[list[Any]]:
    """The same; says when the first records are there."""
    for batch in batches:
        if batch:
            connection.send(0)
            yield batch
            break
    yield from batches


def _counted(connection: Connection, count: float) -> None:
    connection.send(int(count))
    connection.recv()

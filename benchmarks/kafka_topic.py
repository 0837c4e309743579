"""A topic on a real broker, with the events that are measured with: one a record."""

from __future__ import annotations

import contextlib
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from benchmarks import workload
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported untold
from tests.parts.kafka import Kafka
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PARTITIONS = 12
BATCH = 500
"""Records of one batch: what a busy producer with a few milliseconds of patience comes to."""


_PATIENT = {"broker.session.timeout.ms": "18000", "broker.heartbeat.interval.ms": "2000"}
"""On a machine that readers keep busy a broker must not take itself for lost."""


class Topic(NamedTuple):
    """Where the events are."""

    bootstrap: str
    name: str
    size: int
    """Events in it, spread evenly over `PARTITIONS`."""


@contextlib.contextmanager
def topic(count: int) -> Iterator[Topic]:
    """A broker as in production, and a topic with `count` events. Raises `Missing` where no broker can be had."""
    with tempfile.TemporaryDirectory() as folder, Kafka(Path(folder), _PATIENT, quick=False) as broker:
        made = Topic(broker.bootstrap, "bench-events", count)
        _create(made)
        _fill(made)
        yield made


def empty(beside: Topic) -> Topic:
    """A new topic on the same broker."""
    made = Topic(beside.bootstrap, f"bench-{uuid.uuid4().hex[:8]}", 0)
    _create(made)
    until(lambda: _records(made) == 0, "the new topic")
    return made


def record(event: dict[str, Any]) -> bytes:
    """An event as a record's value, 299 bytes; without the newline that ends a line."""
    return workload.line(event)[:-4] + b'x"}}'


def _create(made: Topic) -> None:
    admin = AdminClient(
        {"bootstrap.servers": made.bootstrap}
    )  # must live until it is answered, and no longer
    admin.create_topics([NewTopic(made.name, PARTITIONS, 1)])[made.name].result()


def _fill(made: Topic) -> None:
    producer = Producer(
        {
            "bootstrap.servers": made.bootstrap,
            "acks": "all",
            # Batches end when they are full, so that every topic of so many events is alike.
            "linger.ms": 1000,
            "batch.num.messages": BATCH,
            "queue.buffering.max.messages": 100_000,
        }
    )
    for number, event in enumerate(workload.events(made.size)):
        value, partition = record(event), number // BATCH % PARTITIONS
        while True:
            try:
                producer.produce(made.name, value, partition=partition)
            except BufferError:
                producer.poll(1)
            else:
                break
    assert producer.flush(60) == 0, "the broker does not take the events"
    # A new topic needs a moment until all its partitions have a leader.
    until(lambda: _records(made) == made.size, f"{made.size:,} records in the topic")


def _records(made: Topic) -> int | None:
    """Records in the topic; None while that is not known."""
    with contextlib.closing(Consumer({"bootstrap.servers": made.bootstrap, "group.id": "bench"})) as looking:
        try:
            ends = [
                looking.get_watermark_offsets(TopicPartition(made.name, number), timeout=10)
                for number in range(PARTITIONS)
            ]
        except KafkaException:
            return None
    return sum(end for _, end in ends)

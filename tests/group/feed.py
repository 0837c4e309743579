"""A paced producer that knows what it sent, and events whose sums are exact.

The values of the events are such that every sum of them is exact in a double: what replicas show can be added up
and must then be equal to the oracle's to the last digit.
"""

from __future__ import annotations

import itertools
import random
import time
from contextlib import closing
from typing import TYPE_CHECKING

from confluent_kafka import Producer as Client
from kafka import KafkaAdminClient

from tests.events import TENANTS, judgments, line
from tests.kill.feeders import Feeder
from tests.oracle import Oracle
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from confluent_kafka import KafkaError, Message

    from tests.events import Event

MANY_TENANTS = (*TENANTS, *(f"tenant-{number:02}" for number in range(20)))
"""Enough for each partition to have some; the tenant is the key."""
_GRIDS = {"execution_time_ms": 128 / 125, "confidence_score": 1024.0, "score": 4.0}
"""Field → steps in 1 of its unit; a duration is a multiple of 1/1024 s then."""


def exact(event: Event) -> Event:
    """The same event, its values on a grid on which doubles add up without rounding."""
    data = dict(event["data"])
    for name, steps in _GRIDS.items():
        if data.get(name) is not None:
            data[name] = round(data[name] * steps) / steps
    return event | {"data": data}


def stream(seed: object, births: int = 2000) -> Iterator[Event]:
    """Events without end, the same for the same seed; a new tenant after each `births`."""
    return map(exact, judgments(seed, tenants=MANY_TENANTS, births=births))


def record(event: Event) -> tuple[bytes, bytes]:
    """Key and value of an event as a record."""
    return event["data"]["tenant_id"].encode(), line(event)[:-1]


class Producer(Feeder):
    """Sends the events of a stream at a rate, keyed by tenant, and catches up with it after an outage."""

    def __init__(
        self, bootstrap: str, topic: str, seed: object, rate: float, *, ahead: int = 0, births: int = 2000
    ) -> None:
        """`ahead`: so many records are made before the first is sent, where the rate leaves little time for it.

        `births`: see `stream`.
        """
        super().__init__()
        self._seed, self._births = seed, births
        self._topic = topic
        self._rate = rate
        events = stream(seed, births)
        made = [record(event) for event in itertools.islice(events, ahead)]
        self._records: Iterator[tuple[bytes, bytes]] = itertools.chain(made, map(record, events))
        self._client = Client(
            {
                "bootstrap.servers": bootstrap,
                "enable.idempotence": True,
                "linger.ms": 5,
                "message.timeout.ms": 300_000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )
        self._refused: KafkaError | None = None
        self._begun = 0.0
        self.sent = 0
        self.bytes = 0
        """Of all records, with a newline each."""

    def start(self) -> None:
        """Begin; the pace counts from now."""
        self._begun = time.monotonic()
        super().start()

    def step(self) -> None:
        """Send what is due."""
        due = int((time.monotonic() - self._begun) * self._rate) - self.sent
        for tenant, value in itertools.islice(self._records, max(0, min(due, 2000))):
            self._send(tenant, value)
        self._client.poll(0)
        assert self._refused is None, f"a record was not delivered: {self._refused}"
        time.sleep(0.01)

    def _send(self, tenant: bytes, value: bytes) -> None:
        while True:
            try:
                self._client.produce(self._topic, value, tenant, on_delivery=self._delivered)
            except BufferError:  # the broker is away
                self._client.poll(0.1)
                continue
            self.sent += 1
            self.bytes += len(value) + 1
            return

    def _delivered(self, error: KafkaError | None, _: Message) -> None:
        self._refused = self._refused or error

    def last_step(self) -> None:
        """Wait until the broker has everything."""
        assert self._client.flush(60) == 0, "the broker does not take what was sent"
        assert self._refused is None, f"a record was not delivered: {self._refused}"

    def reach(self, number: int) -> None:
        """Wait until so many were sent."""
        seconds = 60 + 3 * max(0, number - self.sent) / self._rate
        until(lambda: self.error or self.sent >= number, f"{number} events to be sent", seconds)
        if self.error:
            raise self.error

    def oracle(self) -> Oracle:
        """What all that was sent comes to."""
        oracle = Oracle("judgment")
        oracle.add_all(itertools.islice(stream(self._seed, self._births), self.sent))
        return oracle


def make_topic(bootstrap: str, topic: str, partitions: int) -> None:
    """Create a topic with as many copies as the broker makes by default, and wait until each partition has a leader."""
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap.split(","))) as admin:
        wanted = {"num_partitions": partitions, "replication_factor": -1}
        admin.create_topics({topic: wanted}, wait_for_metadata=True)


def chance(seed: object) -> random.Random:
    """A source of chance that a seed repeats."""
    return random.Random(str(seed))  # noqa: S311 - reproducible, no secret

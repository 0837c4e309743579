"""When the reader of Kafka asks for more, and when it hands over what it has."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from evalgauge.collectors.kafka import KafkaCollector
from evalgauge.collectors.kafka_chunks import PartitionReader
from evalgauge.collectors.kafka_client import Partition, Polled
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_place import Place
from evalgauge.collectors.kafka_records import RecordFormat
from evalgauge.core.collect import Chunk, InputContext, InputStatus

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

AT = Partition("events", 0)


@dataclass
class Records:
    """Some records of the partition."""

    offsets: Sequence[int]
    partition: Partition = AT
    epoch: int | None = None
    newest: int = 0

    @property
    def values(self) -> list[bytes | None]:
        """Small events."""
        return [b"{}"] * len(self.offsets)

    def headers(self, index: int) -> list[tuple[str, bytes]]:
        """None."""
        del index
        return []

    def keys(self) -> list[bytes | None]:
        """None."""
        return [None] * len(self.offsets)

    def timestamps(self) -> list[int]:
        """All at the beginning."""
        return [0] * len(self.offsets)


class Door:
    """Takes every chunk."""

    def __init__(self) -> None:
        self.chunks: list[Chunk] = []

    def put(self, chunk: Chunk) -> None:
        """Take it."""
        self.chunks.append(chunk)

    def offer(self, chunk: Chunk) -> bool:
        """Take it."""
        self.chunks.append(chunk)
        return True


@dataclass
class Log:
    """A client whose log holds so many records for each poll, as long as there are any."""

    counts: Iterator[int]
    polls: list[float] = field(default_factory=list)
    told: Callable[[], None] = lambda: None
    end: int = 0

    def poll(self, timeout: float) -> Polled:
        """What there is, at once."""
        self.polls.append(timeout)
        self.told()
        count = next(self.counts, 0)
        self.end += count
        return Polled([Records(range(self.end - count, self.end))] if count else [])


class Bench:
    """A collector with one partition, and an engine that is idle or not."""

    def __init__(self, *counts: int) -> None:
        self.idle = False
        self.door = Door()
        context = InputContext(
            "in", {}, self.door, threading.Event(), InputStatus(), engine_idle=lambda: self.idle
        )
        config = KafkaConfig.model_validate({"bootstrap": "127.0.0.1:1", "topics": ["events"]})
        self.collector: Any = KafkaCollector(config, context)
        self.collector._readers[AT] = PartitionReader(AT, Place(0), RecordFormat.EVENTS, 1 << 20)
        self.log = Log(iter(counts))

    def step(self) -> None:
        """One round."""
        self.collector._step(self.log)

    @property
    def handed_over(self) -> int:
        """Events that the engine was given."""
        return sum(chunk.body.count(b"\n") for chunk in self.door.chunks if isinstance(chunk.body, bytes))


def test_what_is_read_does_not_wait_for_more_once_the_engine_is_idle() -> None:
    """Also where it becomes so while we read."""
    bench = Bench(3)
    bench.log.told = lambda: setattr(bench, "idle", True)
    bench.step()
    assert (bench.log.polls, bench.handed_over) == ([0, 0], 3)


def test_while_the_engine_is_busy_records_are_kept_and_looked_after() -> None:
    """They grow to a chunk; polls are short, and the engine is given them once it is idle."""
    bench = Bench(3, 0, 0, 4)
    for _ in range(3):
        bench.step()
    assert bench.handed_over == 0
    assert max(bench.log.polls) < 0.05
    bench.idle = True
    bench.step()
    assert bench.handed_over == 7


def test_nothing_to_read_is_waited_for() -> None:
    """An idle reader of an empty topic costs little."""
    bench = Bench()
    bench.idle = True
    bench.step()
    assert bench.log.polls[-1] >= 0.1


@pytest.mark.parametrize("count", [1, 2000])
def test_a_turn_ends_where_the_log_does_not(count: int) -> None:
    """The engine gets a turn, and full chunks, however much there is to read."""
    bench = Bench(*[count] * 100_000)
    bench.step()
    assert len(bench.log.polls) < 100_000
    assert bench.handed_over % 16_000 == 0

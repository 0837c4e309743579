"""A topic to metrics, one event a record: evalgauge beside a plain loop, a Collector, and its clients alone."""

from __future__ import annotations

import functools
import statistics
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks import kafka_readers, workload
from benchmarks.kafka_topic import topic
from benchmarks.kafka_turns import Turn, held, of_collector, of_processes
from benchmarks.measure import Row, interleaved, ratio
from tests.parts import otelcol
from tests.parts.part import Missing

if TYPE_CHECKING:
    from collections.abc import Callable

    from benchmarks.kafka_topic import Topic


@dataclass(frozen=True, slots=True)
class Ours:
    """One way to run evalgauge."""

    client: str
    group: bool = False
    """Exactly once, with the state in Kafka; without it one reader with its state in SQLite."""
    deduplicate: bool = False
    replicas: int = 1

    def turn(self, events: Topic) -> Turn:
        """Read the topic from its beginning, by a group that nobody has used."""
        group = f"bench-{uuid.uuid4().hex[:8]}"
        done = of_processes(
            events,
            kafka_readers.evalgauge,
            [self.config(events, group, f"replica-{number}") for number in range(self.replicas)],
        )
        if self.group:
            assert (read := held(events, group)) == events.size, f"the group holds positions of {read} events"
        return done

    def config(self, events: Topic, group: str, replica: str) -> dict[str, Any]:
        """What its process runs, but for exporters and the folder of its state."""
        reading = {
            "type": "kafka",
            "bootstrap": events.bootstrap,
            "topics": events.name,
            "client": self.client,
            "deduplicate": self.deduplicate,
        }
        config: dict[str, Any] = {"packs": [str(workload.PACK)], "inputs": {"bench": reading}}
        if self.group:
            reading["group"] = {"id": group}
            config["replica"] = replica
        return config


_OURS = {
    "fast": Ours("confluent"),
    "pure": Ours("kafka-python"),
    "fast unique": Ours("confluent", deduplicate=True),
    "fast group": Ours("confluent", group=True),
    "pure group": Ours("kafka-python", group=True),
    "fast group unique": Ours("confluent", group=True, deduplicate=True),
    "fast two": Ours("confluent", group=True, replicas=2),
}
_OTHERS = {
    "loop": "confluent-kafka + json + prometheus-client",
    "collector": f"otelcol {otelcol.VERSION}",
    "tuned collector": "the same, tuned",
    "fast alone": "confluent-kafka alone",
    "pure alone": "kafka-python alone",
}
_ORDER = [
    *("loop", "fast", "collector", "fast group", "fast two", "fast alone", "tuned collector"),
    *("fast unique", "fast group unique", "pure", "pure alone", "pure group"),
]
"""What is compared stands close together."""
_WANTED: list[tuple[str, str, str, float | None]] = [
    # What we look at, what it is called, what stands beside it, and the ratio that is aimed at. A group counts exactly
    # once, which may cost a fifth: then it comes to 0.83 of one reader with its state in SQLite, and so to 0.83 of
    # what is aimed at for that one.
    ("fast", "confluent-kafka", "collector", 10),
    ("fast", "confluent-kafka", "tuned collector", None),
    ("fast", "confluent-kafka", "loop", 6),
    ("fast", "confluent-kafka", "fast alone", None),
    ("pure", "kafka-python", "pure alone", 0.7),
    ("pure", "kafka-python", "loop", None),
    ("fast unique", "confluent-kafka, de-duplicated", "collector", 6),
    ("fast unique", "confluent-kafka, de-duplicated", "loop", 4),
    ("fast group", "confluent-kafka, group", "collector", 8.3),
    ("fast group", "confluent-kafka, group", "loop", 5),
    ("fast group", "confluent-kafka, group", "fast", 0.83),
    ("pure group", "kafka-python, group", "pure alone", 0.7),
    ("fast group unique", "confluent-kafka, group, de-duplicated", "collector", 5),
    ("fast group unique", "confluent-kafka, group, de-duplicated", "loop", 3.3),
    ("fast two", "confluent-kafka, two replicas", "fast group", 0.85),
]


def run(*, quick: bool) -> list[Row]:
    """Events a second of the readers' CPU: the broker shares the machine, so that the clock says little.

    Joining a group takes a few tenths of a CPU second, which are in its figure: of fewer events they would be much.
    """
    count, rounds = (100_000, 2) if quick else (2_000_000, 5)
    try:
        with topic(count) as events:
            turns, values = _measured(events, rounds)
    except Missing as missing:
        print(f"  left out: {missing}")
        return []
    return [
        _row(name, title, beside, wanted, turns, values)
        for name, title, beside, wanted in _WANTED
        if name in values and beside in values
    ]


def _measured(events: Topic, rounds: int) -> tuple[dict[str, list[Turn]], dict[str, list[float]]]:
    """Turns, and events a CPU second of each; left out is what cannot be had, with a line that says why."""
    turns: dict[str, list[Turn]] = {}

    def rate(name: str, turn: Callable[[], Turn]) -> Callable[[], float]:
        def take() -> float:
            done = turn()
            turns.setdefault(name, []).append(done)
            return done.events / done.cpu

        return take

    def alone(read: Callable[..., None]) -> Callable[[], Turn]:
        return lambda: of_processes(events, read, [events])

    candidates: dict[str, Callable[[], Turn]] = {
        name: functools.partial(ours.turn, events) for name, ours in _OURS.items()
    }
    candidates["loop"] = alone(kafka_readers.plain_loop)
    candidates["fast alone"] = alone(kafka_readers.bare_confluent)
    candidates["pure alone"] = alone(kafka_readers.bare_kafka_python)
    try:
        otelcol.binary()
    except Missing as missing:
        print(f"  left out: {missing}")
    else:
        candidates["collector"] = lambda: of_collector(events)
        candidates["tuned collector"] = lambda: of_collector(events, tuned=True)
    turn_of = {name: candidates[name] for name in _ORDER if name in candidates}
    return turns, interleaved({name: rate(name, turn) for name, turn in turn_of.items()}, rounds)


def _row(  # noqa: PLR0913, PLR0917 - what a row is made of
    name: str,
    title: str,
    beside: str,
    wanted: float | None,
    turns: dict[str, list[Turn]],
    values: dict[str, list[float]],
) -> Row:
    other = _OTHERS.get(beside) or next(called for one, called, *_ in _WANTED if one == beside)
    by_the_clock = statistics.median(turn.events / turn.seconds for turn in turns[name])
    return Row(
        f"Kafka → metrics, {title} ({by_the_clock:,.0f}/s by the clock)",
        statistics.median(values[name]),
        "events/CPU s",
        f"{statistics.median(values[beside]):,.0f} {other}",
        ratio(values, name, beside),
        wanted,
    )

"""State by key that moves with its partition, between replicas that die and share nothing but what they committed."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from evalgauge.core.collect import Chunk
from evalgauge.exporters.prometheus import PrometheusExporter
from tests.engine_helpers import INPUT, NOON
from tests.test_elapsed import DESK, Oracle, Samples, Told
from tests.test_partitions import Log, Replica

if TYPE_CHECKING:
    from collections.abc import Iterable

PARTITIONS = ("t/0", "t/1", "t/2", "t/3")


class Stream:
    """The events of one partition, in order, and how far they are committed."""

    def __init__(self, dice: random.Random) -> None:
        self.events = [
            Told(
                dice.choice(["asked", "asked", "answered", "closed", "opened"]),
                f"who-{dice.randrange(12)}",
                dice.choice("ab"),
                number // 2 + dice.choice([0, 0, -3, -20, 7]),
            )
            for number in range(300)
        ]
        self.read = self.committed = 0

    def take(self, count: int) -> bytes:
        """The next events as lines."""
        first, self.read = self.read, min(len(self.events), self.read + count)
        return b"".join(one.line(number) for number, one in enumerate(self.events[first : self.read], first))


def shown(replica: Replica) -> Samples:
    """Everything of the metric that is not zero."""
    families = [one for one in replica.engine.families() if not one.name.startswith("evalgauge_")]
    return {
        (one.name, tuple(sorted(one.labels.items()))): one.value
        for family in text_string_to_metric_families(PrometheusExporter.render(families).decode())
        for one in family.samples
        if one.value and one.name.startswith("desk_answer") and not one.name.endswith("_created")
    }


class Story:
    """Replicas that read, commit, die, and hand partitions over."""

    def __init__(self, seed: int) -> None:
        self.dice = random.Random(seed)  # noqa: S311 - the same story at every run
        self.log, self.streams = Log(), {name: Stream(self.dice) for name in PARTITIONS}
        self.replicas = {name: Replica(self.log, name, pack=DESK) for name in ("r1", "r2", "r3")}
        for partition in PARTITIONS:
            self._hand(partition)

    def _hand(self, partition: str) -> None:
        self.streams[partition].read = self.streams[partition].committed
        self.replicas[self.dice.choice(sorted(self.replicas))].adopt(partition)

    def commit(self, name: str) -> None:
        """All it has read is kept."""
        self.replicas[name].engine.commit()
        for partition in self.replicas[name].has:
            self.streams[partition].committed = self.streams[partition].read

    def step(self) -> None:
        """One of them does one thing."""
        name, turn = self.dice.choice(sorted(self.replicas)), self.dice.random()
        replica = self.replicas[name]
        if turn < 0.15:
            self.commit(name)
        elif turn < 0.25 and replica.has:
            partition = self.dice.choice(sorted(replica.has))
            self.commit(name)
            replica.release(partition)
            self._hand(partition)
        elif turn < 0.32:
            orphans = sorted(replica.has)
            self.replicas[name] = Replica(self.log, name, pack=DESK)
            for partition in orphans:
                self._hand(partition)
        else:
            for partition in sorted(replica.has):
                body = self.streams[partition].take(self.dice.randrange(1, 30))
                replica.engine.process(INPUT, Chunk(partition, body, str, commit=1, arrival=NOON))


def together(parts: Iterable[Samples]) -> Samples:
    """The sum of what is counted and waits, the least of what is a time."""
    found: Samples = {}
    for part in parts:
        for key, value in part.items():
            if "timestamp" in key[0]:
                found[key] = min(value, found.get(key, value))
            else:
                found[key] = found.get(key, 0) + value
    return found


@pytest.mark.parametrize("seed", range(8))
def test_what_waits_moves_with_its_partition_and_sums_stay_exact(seed: int) -> None:
    """Counters summed over replicas, and what waits over those that have its partition, are the plain count's."""
    story, oracles = Story(seed), []
    while any(one.committed < len(one.events) for one in story.streams.values()):
        story.step()
    for name in story.replicas:
        story.commit(name)
    for stream in story.streams.values():
        oracles.append(Oracle())
        for one in stream.events:
            oracles[-1].tell(one)
    expected = together(oracle.samples() for oracle in oracles)
    assert together(map(shown, story.replicas.values())) == expected
    assert len(expected) > 15, "there is too little to compare"

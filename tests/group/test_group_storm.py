"""Replicas join and leave one after the other, also while partitions move, and nothing is lost or counted twice."""

from __future__ import annotations

import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from tests.group.feed import Producer, chance, make_topic
from tests.group.harness import SOAK, Group, configuration, told

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from tests.conftest import Tell
    from tests.group.harness import Assignment, KafkaClient
    from tests.parts.kafka import Kafka

MOVES, RATE, PARTITIONS = (30, 2_000, 12) if SOAK else (6, 1_000, 6)
REPLICAS = 4
"""At most; at least one always runs."""


def _move(group: Group, rng: random.Random) -> str:
    """One replica leaves or joins; returns as soon as the broker counts it so, while partitions still move."""
    running = group.running()
    idle = [one for one in group.replicas.values() if not one.running]
    if idle and (len(running) == 1 or rng.random() < 0.5):
        rng.choice(idle).start()
        kind = "joined"
    else:
        one = rng.choice(running)
        if rng.random() < 0.5:
            one.end()
            kind = "ended"
        else:
            one.kill()
            kind = "killed"
    # A static member that ends stays one until its session is over: only then it has left.
    group.await_members(*(one.name for one in group.running()))
    return kind


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)
@pytest.mark.parametrize(
    ("client", "assignment"),
    [
        ("confluent", "cooperative"),
        ("confluent", "eager"),
        ("kafka-python", "cooperative"),
        *([("kafka-python", "eager")] if SOAK else []),
    ],
)
def test_counts_over_a_group_are_exact_through_a_storm_of_joins_and_leaves(
    client: KafkaClient,
    assignment: Assignment,
    kafka: Kafka,
    topic: str,
    tmp_path: Path,
    tell: Tell,
) -> None:
    """Orderly ends and kills, by chance; the sum over replicas equals the oracle once all are back."""
    rng = chance(f"storm {client} {assignment}")
    began = time.monotonic()
    make_topic(kafka.bootstrap, topic, PARTITIONS)
    config = configuration(rng, kafka.bootstrap, topic, client=client, assignment=assignment, timeout="3s")
    producer = Producer(kafka.bootstrap, topic, f"storm {client} {assignment}", RATE)
    moves: Counter[str] = Counter()
    with Group(kafka.bootstrap, topic, tmp_path, config, REPLICAS) as group:
        producer.start()
        for _ in range(MOVES):
            moves[_move(group, rng)] += 1
            group.check()
            time.sleep(rng.choice((0.0, rng.random() * 2)))
        sent = producer.sent
        for one in group.replicas.values():
            if not one.running:
                one.start()
                moves["joined"] += 1
        group.wait_ready()
        producer.reach(sent + RATE)
        producer.finish()
        settled = group.settle(producer)
        scrapes = group.finish()
    tell(
        f"group storm, {client}, {assignment}: {settled.events:,} events, {moves.total()} moves "
        f"({told(moves.elements())}) of up to {REPLICAS} replicas; {scrapes:,} scrapes without a decrease; "
        f"{len(settled.wrong)} differences in {settled.samples:,} samples; {time.monotonic() - began:.0f} s"
    )
    assert settled.wrong == []
    assert moves["joined"]
    assert moves["ended"] + moves["killed"]

"""Counts over a group stay exact through SIGKILL of its replicas at any moment, and nothing exposed ever falls."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from evalgauge.core.failpoints import PLACES
from tests.group.feed import Producer, chance, make_topic
from tests.group.harness import SOAK, Group, configuration, told

if TYPE_CHECKING:
    import random
    from collections.abc import Sequence
    from pathlib import Path

    from tests.conftest import Tell
    from tests.group.harness import KafkaClient
    from tests.group.replica import Replica
    from tests.kill.life import Death
    from tests.parts.kafka import Kafka

EVENTS, PARTITIONS, RATE = (1_000_000, 12, 2_000) if SOAK else (40_000, 6, 1_500)
KILLS, FAILPOINTS = (20, 6) if SOAK else (4, 3)
AIMS = ("before", "in", "any")
SESSION = 4.0


def _kill(replica: Replica, rng: random.Random, aim: str, failpoint: str) -> list[Death]:
    """Kill it where it hurts, and its successor at a failpoint if one is named; it is started again after both."""
    deaths = [replica.strike(rng, aim)]
    if failpoint:
        replica.start(f"{failpoint}:{rng.randrange(1, 8)}")
        deaths.append(replica.await_failpoint(failpoint))
    # Sometimes it is back before anybody has missed it, sometimes others have its partitions by then.
    time.sleep(rng.choice((0.0, rng.random(), 1.5 * SESSION)))
    replica.start()
    return deaths


def _kill_repeatedly(group: Group, producer: Producer, rng: random.Random) -> list[Death]:
    """All kills, spread over what is sent; what is sent goes on after the last."""
    failpoints = [PLACES[number % len(PLACES)] for number in range(FAILPOINTS)]
    failpoints += [""] * (KILLS - FAILPOINTS)
    rng.shuffle(failpoints)
    deaths: list[Death] = []
    for number, failpoint in enumerate(failpoints):
        producer.reach(EVENTS * (number + 1) // (len(failpoints) + 2))
        victims: Sequence[Replica] = [one for one in group.running() if one.ready()]
        if not victims:  # all are still coming back from earlier kills
            group.wait_ready()
            victims = group.running()
        deaths += _kill(rng.choice(victims), rng, rng.choice(AIMS), failpoint)
        group.check()
    group.wait_ready()
    return deaths


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)
@pytest.mark.parametrize("client", ["confluent", "kafka-python"])
def test_counts_over_a_group_are_exact_through_sigkill_at_any_moment(
    client: KafkaClient, kafka: Kafka, topic: str, tmp_path: Path, tell: Tell
) -> None:
    """The sum over replicas equals the oracle; every kill hit uncommitted work; nothing exposed ever fell."""
    rng = chance(f"kill {client}")
    began = time.monotonic()
    make_topic(kafka.bootstrap, topic, PARTITIONS)
    config = configuration(rng, kafka.bootstrap, topic, client=client, timeout=f"{SESSION:g}s")
    producer = Producer(kafka.bootstrap, topic, f"kill {client}", RATE)
    with Group(kafka.bootstrap, topic, tmp_path, config, replicas=3) as group:
        producer.start()
        deaths = _kill_repeatedly(group, producer, rng)
        sent = producer.sent
        producer.reach(max(EVENTS, sent + RATE))
        producer.finish()
        settled = group.settle(producer)
        scrapes = group.finish()
    tell(
        f"group kill, {client}: {settled.events:,} events, {PARTITIONS} partitions, 3 replicas, {len(deaths)} "
        f"kills ({told(death.place for death in deaths)}), {sum(one.hit_work for one in deaths)} of them "
        f"hit uncommitted work; {settled.events - sent:,} events after the last; {scrapes:,} scrapes without a "
        f"decrease; {len(settled.wrong)} differences in {settled.samples:,} samples; "
        f"{time.monotonic() - began:.0f} s"
    )
    assert settled.wrong == []
    assert len(deaths) == KILLS + FAILPOINTS
    assert all(death.hit_work for death in deaths), deaths
    assert settled.events > sent

"""Brokers die and come back under a running group: it goes on without a hand, and counts stay exact."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.group.feed import Producer, chance, make_topic
from tests.group.harness import SOAK, Group, configuration
from tests.parts.kafka import Kafka, KafkaCluster
from tests.parts.part import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Tell
    from tests.group.harness import KafkaClient, Settled

RATE = 1_000
ROUNDS = 10 if SOAK else 2
PARTITIONS = 6


def _progress(group: Group) -> None:
    """Wait until more is counted than by now. Raises `AssertionError` if a replica has ended."""

    def counted() -> int:
        group.check()
        for one in group.replicas.values():
            one.check()
        return group.accepted()

    until(lambda: counted() >= 0, "each replica to show its numbers", 120)
    before = counted()
    until(lambda: counted() > max(before, 0), f"more than {before} events to be counted", 120)


def _told(what: str, group: Group, settled: Settled, scrapes: int, began: float) -> str:
    return (
        f"group and {what}: {settled.events:,} events, {len(group.replicas)} replicas, none of them started "
        f"again; {scrapes:,} scrapes without a decrease; {len(settled.wrong)} differences in {settled.samples:,} "
        f"samples; {time.monotonic() - began:.0f} s"
    )


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)
@pytest.mark.parametrize("client", ["confluent", "kafka-python"] if SOAK else ["confluent"])
def test_counts_are_exact_through_sigkill_and_restart_of_the_broker(
    client: KafkaClient, topic: str, tmp_path: Path, tell: Tell
) -> None:
    """The only broker is killed while events flow and comes back after a while; no replica is touched."""
    rng = chance(f"broker {client}")
    began = time.monotonic()
    with Kafka(tmp_path / "kafka") as broker:
        make_topic(broker.bootstrap, topic, PARTITIONS)
        config = configuration(rng, broker.bootstrap, topic, client=client)
        producer = Producer(broker.bootstrap, topic, "broker", RATE)
        with Group(broker.bootstrap, topic, tmp_path / "group", config, replicas=2) as group:
            producer.start()
            _progress(group)
            for _ in range(ROUNDS):
                time.sleep(rng.random())
                broker.kill()
                time.sleep(rng.choice((0.0, 2.0, 8.0)))  # shorter than a session, and longer
                broker.restart()
                _progress(group)
            group.wait_ready()
            producer.finish()
            settled = group.settle(producer)
            unread = group.lost()
            scrapes = group.finish()
    what = f"{ROUNDS} SIGKILLs of its broker, {client}"
    tell(_told(what, group, settled, scrapes, began))
    assert settled.wrong == []
    assert unread == 0
    assert all(one.starts == 1 for one in group.replicas.values())


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)
@pytest.mark.parametrize("client", ["confluent", "kafka-python"] if SOAK else ["confluent"])
def test_counts_are_exact_while_a_cluster_of_three_loses_one_and_gets_it_back(
    client: KafkaClient, topic: str, tmp_path: Path, tell: Tell
) -> None:
    """Counting goes on with two brokers of three, whichever is gone: leaders and coordinators move."""
    rng = chance(f"cluster {client}")
    began = time.monotonic()
    with KafkaCluster(tmp_path / "kafka") as cluster:
        make_topic(cluster.bootstrap, topic, PARTITIONS)
        config = configuration(rng, cluster.bootstrap, topic, client=client)
        producer = Producer(cluster.bootstrap, topic, "cluster", RATE)
        with Group(cluster.bootstrap, topic, tmp_path / "group", config, replicas=2) as group:
            producer.start()
            _progress(group)
            lost = rng.sample(sorted(cluster.nodes), k=3 if SOAK else 1)
            for node in lost:
                cluster.kill(node)
                _progress(group)
                cluster.restart(node)
                _progress(group)
            group.wait_ready()
            producer.finish()
            settled = group.settle(producer)
            unread = group.lost()
            scrapes = group.finish()
    what = f"a cluster that lost broker {', then '.join(map(str, lost))}, {client}"
    tell(_told(what, group, settled, scrapes, began))
    assert settled.wrong == []
    assert unread == 0
    assert all(one.starts == 1 for one in group.replicas.values())

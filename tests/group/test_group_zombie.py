"""A replica that was frozen past its session comes back to a group that has gone on without it."""

from __future__ import annotations

import re
import time
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.group.feed import Producer, chance, make_topic
from tests.group.harness import SOAK, Group, configuration
from tests.parts.part import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import Tell
    from tests.group.harness import KafkaClient
    from tests.group.replica import Replica
    from tests.parts.kafka import Kafka

RATE = 1_000
AIMS = ("before", "in") * (5 if SOAK else 1)
SAYS = re.compile(r"thrown away")
"""What the log of a replica says that was thrown out."""


def _said(zombie: Replica, already: int) -> str:
    """What it has logged of its loss since its log was so long; empty if nothing."""
    zombie.check()
    return next(filter(SAYS.search, zombie.log()[already:].splitlines()), "")


@pytest.mark.soak
@pytest.mark.timeout(0 if SOAK else 600)
@pytest.mark.parametrize("client", ["confluent", "kafka-python"] if SOAK else ["confluent"])
def test_a_zombie_commits_nothing_of_what_it_had_and_comes_back(
    client: KafkaClient, kafka: Kafka, topic: str, tmp_path: Path, tell: Tell
) -> None:
    """Frozen with uncommitted work until others have counted it; continued, it says that it lost it, and rejoins."""
    rng = chance(f"zombie {client}")
    began = time.monotonic()
    make_topic(kafka.bootstrap, topic, partitions=6)
    config = configuration(rng, kafka.bootstrap, topic, client=client, timeout="3s")
    producer = Producer(kafka.bootstrap, topic, f"zombie {client}", RATE)
    held, said = [], []
    with Group(kafka.bootstrap, topic, tmp_path, config, replicas=3) as group:
        producer.start()
        for aim in AIMS:
            group.wait_ready()
            zombie = rng.choice(list(group.replicas.values()))
            others = [one.name for one in group.replicas.values() if one is not zombie]
            record = zombie.freeze(rng, aim)
            assert record.uncommitted > 0 or aim == "in"
            held.append(record.uncommitted)
            already = len(zombie.log())
            group.await_members(*others)
            group.await_committed(group.view.ends())
            zombie.thaw()
            said.append(until(partial(_said, zombie, already), f"{zombie.name} to say that it is out", 120))
            group.await_members(*group.replicas)
        group.wait_ready()
        sent = producer.sent
        producer.reach(sent + RATE)
        producer.finish()
        settled = group.settle(producer)
        scrapes = group.finish()
    tell(
        f"group and zombies, {client}: {settled.events:,} events, {len(AIMS)} times frozen past the session with "
        f"{', '.join(map(str, held))} events uncommitted; {scrapes:,} scrapes without a decrease; "
        f"{len(settled.wrong)} differences in {settled.samples:,} samples; {time.monotonic() - began:.0f} s"
    )
    assert settled.wrong == []
    assert all(one.starts == 1 for one in group.replicas.values()), "it came back in the same process"
    assert all(said)

"""Retiring a replica, step by step: whoever has its name is seen, or finds the mark; what it left open is ended."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaProducer
from kafka.errors import KafkaError

from evalgauge.collectors.kafka import open_library
from evalgauge.collectors.kafka_changelog import PARTITIONS, Owner, key_of
from evalgauge.collectors.kafka_client import Partition
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_orphans import transactional_id
from evalgauge.collectors.kafka_retire import Brokers, Changelog, Retiring, StillMemberError
from evalgauge.collectors.kafka_retired import MARKS, Mark, refuse_retired
from evalgauge.core.errors import StateError
from tests.parts.part import until

if TYPE_CHECKING:
    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

INPUT = "judgments"


@pytest.fixture(params=["kafka-python", "confluent"])
def config(request: pytest.FixtureRequest, kafka: Kafka, make_topic: MakeTopic) -> KafkaConfig:
    """An input of a group that has a changelog and nothing else yet, by each client."""
    changelog = make_topic(PARTITIONS, cleanup_policy="compact")
    found = KafkaConfig.model_validate(
        {
            "bootstrap": kafka.bootstrap,
            "topics": make_topic(),
            "client": request.param,
            "group": {"id": f"group-{uuid.uuid4().hex[:8]}", "changelog": changelog},
        }
    )
    slots = [Partition(changelog, number) for number in range(PARTITIONS)]
    with closing(open_library(found, INPUT).cluster()) as cluster:
        until(lambda: len(cluster.written(slots)) == PARTITIONS, "the changelog to have its leaders", 60)
    return found


def retiring(config: KafkaConfig) -> Retiring:
    """Somebody who retires."""
    return Retiring(config, INPUT, open_library(config, INPUT), "a test")


def marks(config: KafkaConfig) -> dict[str, Mark]:
    """What the changelog says now."""
    assert config.group is not None
    with Changelog(config.group, open_library(config, INPUT)) as changelog:
        return changelog.marks()


def test_a_mark_is_taken_back_when_the_replica_shows_up_meanwhile(
    config: KafkaConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It joined between the first look and the mark, and may have seen none: so it is alive, and goes on."""
    looks: list[dict[str, Any]] = [{}, {"r3": []}]
    monkeypatch.setattr(Brokers, "members", lambda _: looks.pop(0))
    with pytest.raises(StillMemberError, match="replica r3 is a member of group"):
        retiring(config).retire("r3")
    assert not looks
    assert marks(config) == {}


def test_a_retirement_is_settled_once_and_for_all(config: KafkaConfig) -> None:
    """Done again, it changes nothing; what was begun and not finished is finished, and keeps its time."""
    mark = retiring(config).retire("r3")
    assert mark.settled
    assert retiring(config).retire("r3") == mark
    assert marks(config) == {"r3": mark}
    with pytest.raises(StateError, match=r"replica r3 was retired on .* by a test"):
        refuse_retired("r3", marks(config))
    refuse_retired("r4", marks(config))


def test_a_transaction_that_the_replica_left_open_cannot_be_committed_any_more(
    kafka: Kafka, config: KafkaConfig
) -> None:
    """Its process is only stopped: what it had written is not among its totals, and must not come to them later."""
    assert config.group is not None
    owner = Owner("replica", "r3")
    zombie = KafkaProducer(
        bootstrap_servers=kafka.bootstrap,
        transactional_id=transactional_id(config.group.id, "r3", str(uuid.uuid4())),
    )
    try:
        zombie.init_transactions()
        zombie.begin_transaction()
        zombie.send(config.group.changelog_topic, b"{}", key_of(owner), partition=owner.slot).get(timeout=60)
        assert retiring(config).retire("r3").settled
        with pytest.raises(KafkaError):
            zombie.commit_transaction()
    finally:
        zombie.close(timeout=1)
    with Changelog(config.group, open_library(config, INPUT)) as changelog:
        assert changelog.replicas() == {}


def test_marks_have_a_partition_of_their_own() -> None:
    """So that everybody can read all of it at any time, however large the state of the group is."""
    names = [f"r{number}" for number in range(500)]
    others = {Owner(scope, name).slot for scope in ("replica", "partition") for name in names}
    assert others == set(range(PARTITIONS)) - {MARKS.slot}

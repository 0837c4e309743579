"""What brokers leave unsaid: a commit whose answer was lost, a transaction that its coordinator has forgotten."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from kafka import KafkaAdminClient, KafkaProducer, TopicPartition

from evalgauge.collectors.kafka import open_library
from evalgauge.collectors.kafka_client import Partition, Unavailable
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_orphans import Orphans
from evalgauge.collectors.kafka_place import Place
from evalgauge.collectors.kafka_store import KafkaStore
from evalgauge.core.errors import StoreUnavailableError
from evalgauge.core.store import Commit, DeadLetter, DeadLetterLimits
from tests.group.feed import make_topic as make_topic_on
from tests.kafka.test_kafka_transactions import written
from tests.parts import kafka as kafka_part
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from evalgauge.collectors.kafka_client import (
        Client,
        Cluster,
        Committed,
        Member,
        Ownership,
        Record,
        Standing,
        Transactions,
    )
    from evalgauge.collectors.kafka_store import Library
    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

INPUT = "judgments"
SECONDS = 90


class Forgetful:
    """A library whose transactions are told to have failed, though it has committed the first."""

    def __init__(self, library: Library) -> None:
        self._library = library
        self.commits = 0

    def client(self) -> Client:
        """As the library."""
        return self._library.client()

    def cluster(self) -> Cluster:
        """As the library."""
        return self._library.cluster()

    def member(self, ownership: Ownership, replica: str) -> Member:
        """As the library."""
        return self._library.member(ownership, replica)

    def transactions(self, replica: str) -> Transactions:
        """As the library's, but for the answer to the first."""
        outer, inner = self, self._library.transactions(replica)

        class Lost:
            def begin(self) -> None:
                inner.begin()

            def write(
                self, records: Iterable[Record], offsets: Mapping[Partition, Committed], standing: Standing
            ) -> None:
                inner.write(records, offsets, standing)
                outer.commits += 1
                if outer.commits == 1:
                    raise Unavailable("the answer was lost")

            def close(self) -> None:
                inner.close()

        return Lost()


@pytest.mark.parametrize("client", ["kafka-python", "confluent"])
def test_a_commit_whose_answer_was_lost_is_not_written_twice(
    kafka: Kafka, make_topic: MakeTopic, client: str
) -> None:
    """Pages would be the same again, but a dead letter would be there twice."""
    topic = make_topic()
    config = KafkaConfig.model_validate(
        {
            "bootstrap": kafka.bootstrap,
            "topics": topic,
            "client": client,
            "group": {"id": f"group-{uuid.uuid4().hex[:8]}"},
        }
    )
    assert config.group is not None
    library = Forgetful(open_library(config, INPUT))
    at = Partition(topic, 0)
    with closing(KafkaStore(config, library, INPUT, "r1")) as store:
        store.restore(["counts"])
        until(lambda: at in store.membership.known(), "the partition to be given", SECONDS)
        store.adopted(at, 1)
        assert store.membership.begin(at, store.membership.known()[at].term)

        def commit(offset: int, letter: bytes) -> None:
            refused = DeadLetter(time.time(), INPUT, str(at), f"offset {offset}", "", "bad", "", "", letter)
            position = Place(offset, topic_id="an-id").position()
            store.commit(
                Commit(time.time(), positions={(INPUT, str(at)): position}, dead_letters=[refused]),
                DeadLetterLimits(),
            )

        with pytest.raises(StoreUnavailableError, match="the answer was lost"):
            commit(5, b"first")
        commit(5, b"first")
        assert library.commits == 1
        commit(7, b"second")
        assert library.commits == 2
        # A topic of letters has several partitions; those of one source are in one of them.
        letters = config.group.dead_letter_topic
        found = [value for number in range(4) for value in written(kafka.bootstrap, letters, number)]
    assert found == [b"first", b"second"]


def test_a_transaction_that_its_coordinator_has_forgotten_is_ended(tmp_path: Path, topic: str) -> None:
    """Nobody would read past it ever again; one that is alive, or may be, is left alone."""
    # So that a record gets into a partition of which its transaction does not know: else brokers see to that.
    with kafka_part.Kafka(tmp_path, {"transaction.partition.verification.enable": "false"}) as broker:
        timeout = 30.0
        config = KafkaConfig.model_validate(
            {
                "bootstrap": broker.bootstrap,
                "topics": topic,
                "group": {"id": "group", "transaction_timeout": timeout},
            }
        )
        make_topic_on(broker.bootstrap, topic, 3)
        old = int((time.time() - timeout - 15) * 1000)
        producers = [open_transaction(broker.bootstrap, f"group/r1/{uuid.uuid4()}") for _ in range(3)]
        forgotten, recent, alive = producers
        try:
            slip_in(forgotten, topic, 0, old)
            slip_in(recent, topic, 1, None)
            alive.send(topic, b"alive", partition=2, timestamp_ms=old).get(timeout=60)
            orphans = Orphans(config, INPUT, "r1")
            places = [Partition(topic, number) for number in range(3)]
            assert orphans.abort_hanging(places) == 1
            assert orphans.abort_hanging(places) == 0
            alive.commit_transaction()
        finally:
            for one in producers:
                one.close(timeout=1)
        with closing(KafkaProducer(bootstrap_servers=broker.bootstrap)) as after:
            for number in range(3):
                after.send(topic, b"after", partition=number).get(timeout=60)
        assert written(broker.bootstrap, topic, 0) == [b"after"]
        assert written(broker.bootstrap, topic, 2) == [b"alive", b"after"]
        assert open_in(broker.bootstrap, places) == {1}


def open_transaction(bootstrap: str, transactional_id: str) -> Any:
    """A producer that has begun one."""
    producer = KafkaProducer(bootstrap_servers=bootstrap, transactional_id=transactional_id)
    producer.init_transactions()
    producer.begin_transaction()
    return producer


def slip_in(producer: Any, topic: str, partition: int, timestamp_ms: int | None) -> None:
    """Write a record of its transaction without telling the coordinator of the partition."""
    at = TopicPartition(topic, partition)
    producer._transaction_manager._partitions_in_transaction.add(at)
    producer.send(topic, b"slipped in", partition=partition, timestamp_ms=timestamp_ms).get(timeout=60)


def open_in(bootstrap: str, partitions: list[Partition]) -> set[int]:
    """Partitions that hold an open transaction, as their leaders say."""
    with closing(KafkaAdminClient(bootstrap_servers=bootstrap)) as admin:
        described = admin.describe_producers([TopicPartition(*one) for one in partitions])
    return {
        at.partition
        for at, state in described.items()
        if any(one.current_transaction_start_offset >= 0 for one in state.active_producers)
    }

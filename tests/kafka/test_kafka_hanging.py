"""Transactions that are over, and that brokers have left open in a partition."""

from __future__ import annotations

import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from kafka import KafkaAdminClient

from evalgauge.collectors.kafka_client import Partition
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_hanging import Endings, positions_partition, was_committed
from evalgauge.collectors.kafka_orphans import Orphans
from tests.kafka.test_kafka_transactions import written
from tests.parts.kafka import KafkaCluster
from tests.parts.part import until

if TYPE_CHECKING:
    from pathlib import Path

    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

INPUT = "judgments"
SECONDS = 90


def test_what_brokers_leave_open_is_ended_as_it_ended_elsewhere(tmp_path: Path, topic: str) -> None:
    """A transaction is over while a partition of it has no leader: this broker never writes the marker there."""
    # One copy of the positions, so that they have no leader either.
    one_copy = {"offsets.topic.replication.factor": "1", "offsets.topic.num.partitions": "1"}
    with KafkaCluster(tmp_path, {**one_copy, "min.insync.replicas": "1"}) as cluster:
        group, source = f"group-{uuid.uuid4().hex[:8]}", f"{topic}-source"
        config = KafkaConfig.model_validate(
            {"bootstrap": cluster.bootstrap, "topics": source, "group": {"id": group, "changelog": topic}}
        )
        with closing(KafkaAdminClient(bootstrap_servers=cluster.bootstrap)) as admin:
            admin.create_topics({source: {"num_partitions": 1}}, wait_for_metadata=True)
            with closing(Writing(cluster.bootstrap, group, source)) as writing:
                writing.position(3)
                lost = writing.leader("__consumer_offsets", 0)
                kept = next(node for node in cluster.nodes if node != lost)
                admin.create_topics({topic: {"assignments": {0: [lost], 1: [kept]}}}, wait_for_metadata=True)
        with closing(Writing(cluster.bootstrap, group, source)) as writing:
            ids = [f"{group}/{replica}/{uuid.uuid4()}" for replica in ("r1", "r1", "r2", "r2")]
            committed, aborted, own, open_ = map(writing.producer, ids)
            before = [b"before", b"before"]  # so that each partition knows of the coordinator
            for one in (committed, aborted):
                writing.write(one, [(topic, 0), (topic, 1)], b"before", 5)
                one.commit_transaction(SECONDS)
                one.begin_transaction()
            writing.write(committed, [(topic, 0), (topic, 1)], b"committed", 7)
            writing.write(aborted, [(topic, 0), (topic, 1)], b"aborted", 9)
            writing.write(own, [(topic, 0)], b"own", None)
            cluster.kill(lost)
            until(lambda: writing.leader(topic, 0) == -1, "the partition to have no leader", SECONDS)
            committed.commit_transaction(SECONDS)
            own.commit_transaction(SECONDS)
            aborted.abort_transaction(SECONDS)
            cluster.restart(lost)
            until(lambda: writing.leader(topic, 0) == lost, "the partition to have its leader", SECONDS)
            writing.write(open_, [(topic, 0)], b"open", None)
            assert written(cluster.bootstrap, topic, 1) == [*before, b"committed"]
            # The group has no members: r1 is gone, and r2 looks after what it has written itself.
            with closing(Endings(config, INPUT)) as endings:
                assert endings.committed(ids[2])
                endings.confirm(ids[2], [Partition(topic, 0)], committed=True)
            assert writing.committed() is None
            assert Orphans(config, INPUT, "r2").settle() == 4
            assert writing.committed() == 7
            open_.commit_transaction(SECONDS)
            assert written(cluster.bootstrap, topic, 0) == [*before, b"committed", b"own", b"open"]


class Writing:
    """Writes as a group does, and knows its position of the one partition that it reads."""

    def __init__(self, bootstrap: str, group: str, source: str) -> None:
        self._bootstrap = {"bootstrap.servers": bootstrap}
        self._source = source
        options = self._bootstrap | {"group.id": group, "isolation.level": "read_committed"}
        self._consumer = Consumer(options)

    def producer(self, transactional_id: str) -> Producer:
        """One that has begun a transaction."""
        one = Producer(self._bootstrap | {"transactional.id": transactional_id})
        one.init_transactions(SECONDS)
        one.begin_transaction()
        return one

    def write(self, one: Producer, places: list[tuple[str, int]], value: bytes, offset: int | None) -> None:
        """Records, and a position."""
        for topic, partition in places:
            one.produce(topic, value, partition=partition)
        assert one.flush(SECONDS) == 0
        if offset is not None:
            position = TopicPartition(self._source, 0, offset)
            one.send_offsets_to_transaction([position], self._consumer.consumer_group_metadata(), SECONDS)

    def position(self, offset: int) -> None:
        """Commit it outside of any transaction."""
        self._consumer.commit(offsets=[TopicPartition(self._source, 0, offset)], asynchronous=False)

    def committed(self) -> int | None:
        """The position; None while it is not certain."""
        try:
            [found] = self._consumer.committed([TopicPartition(self._source, 0)], timeout=5)
        except KafkaException:
            return None
        return found.offset

    def leader(self, topic: str, partition: int) -> int:
        """The node; -1 where there is none."""
        found = self._consumer.list_topics(topic, timeout=10).topics[topic].partitions
        return int(found[partition].leader)

    def close(self) -> None:
        """Let go."""
        self._consumer.close()


def test_the_partition_of_positions_is_that_of_the_brokers(kafka: Kafka, make_topic: MakeTopic) -> None:
    """Of groups whose hash is positive and negative; four partitions there are on this broker."""
    source = make_topic()
    groups = [f"group-{uuid.uuid4().hex[:8]}" for _ in range(12)]
    with closing(Writing(kafka.bootstrap, "first", source)) as writing:
        writing.position(1)  # makes the topic
    before = ends_of_positions(kafka.bootstrap)
    for group in groups:
        with closing(Writing(kafka.bootstrap, group, source)) as writing:
            writing.position(1)
        after = ends_of_positions(kafka.bootstrap)
        grown = [number for number, end in after.items() if end > before[number]]
        assert positions_partition(group, len(after)) in grown
        before = after


def ends_of_positions(bootstrap: str) -> dict[int, int]:
    """Partition of the topic of positions → where it ends."""
    with closing(Consumer({"bootstrap.servers": bootstrap, "group.id": "looking"})) as consumer:
        numbers = consumer.list_topics(timeout=30).topics["__consumer_offsets"].partitions
        return {
            one: consumer.get_watermark_offsets(TopicPartition("__consumer_offsets", one), timeout=30)[1]
            for one in numbers
        }


@pytest.mark.parametrize(
    ("state", "now", "committed"),
    [
        ("CompleteCommit", 4, True),
        ("Empty", 5, True),  # its id was taken over since
        ("CompleteAbort", 4, False),  # as it was asked for
        ("CompleteAbort", 5, False),  # its time was up, or its id is being taken over
        ("Empty", 6, False),
        ("Ongoing", 4, None),
        ("PrepareCommit", 4, None),
        ("PrepareAbort", 5, None),
        ("CompleteCommit", 5, None),  # a later one was
        ("CompleteAbort", 6, None),
        ("Empty", 4, None),
    ],
)
def test_how_it_ended_is_told_by_state_and_epoch(state: str, now: int, committed: bool | None) -> None:
    """Of a transaction of epoch 4."""
    assert was_committed(4, state, now) is committed

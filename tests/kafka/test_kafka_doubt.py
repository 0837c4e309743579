"""What brokers leave unsaid: a commit whose answer was lost, a transaction that is over and still open."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from kafka import KafkaAdminClient

from evalgauge.collectors.kafka import open_library
from evalgauge.collectors.kafka_client import Partition, Unavailable
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_hanging import Endings, positions_partition, was_committed
from evalgauge.collectors.kafka_orphans import Orphans
from evalgauge.collectors.kafka_place import Place
from evalgauge.collectors.kafka_store import KafkaStore
from evalgauge.core.errors import StoreUnavailableError
from evalgauge.core.store import Commit, DeadLetter, DeadLetterLimits
from tests.kafka.test_kafka_transactions import written
from tests.parts.kafka import KafkaCluster
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
            id = inner.id

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
        store.adopted(at, None, 1)
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

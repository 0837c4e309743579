"""A commit whose answer is lost, on a real broker."""

from __future__ import annotations

import time
import uuid
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from evalgauge.collectors.kafka import open_library
from evalgauge.collectors.kafka_client import Partition, Unavailable
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_place import Place
from evalgauge.collectors.kafka_store import KafkaStore
from evalgauge.core.errors import StoreUnavailableError
from evalgauge.core.store import Commit, DeadLetter, DeadLetterLimits
from tests.kafka.test_kafka_transactions import written
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
    from evalgauge.collectors.kafka_name import ReplicaName
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

    def member(self, ownership: Ownership, name: ReplicaName) -> Member:
        """As the library."""
        return self._library.member(ownership, name)

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
    group = f"group-{uuid.uuid4().hex[:8]}"
    config = KafkaConfig.model_validate(
        {"bootstrap": kafka.bootstrap, "topics": topic, "client": client, "group": {"id": group}}
    )
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
                Commit(
                    time.time(),
                    dropped=["a table of an earlier pack"],
                    positions={(INPUT, str(at)): position},
                    dead_letters=[refused],
                ),
                DeadLetterLimits(),
            )

        with pytest.raises(StoreUnavailableError, match="the answer was lost"):
            commit(5, b"first")
        commit(5, b"first")
        assert library.commits == 1
        commit(7, b"second")
        assert library.commits == 2
        # A topic of letters has several partitions; those of one source are in one of them.
        letters = f"{group}-dead-letters"
        found = [value for number in range(4) for value in written(kafka.bootstrap, letters, number)]
    assert found == [b"first", b"second"]

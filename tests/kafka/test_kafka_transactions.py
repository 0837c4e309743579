"""Transactions of a group behind their seam, on a real broker: what one library does, the other does too."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from kafka import KafkaAdminClient

from evalgauge.collectors.kafka_client import Committed, Fenced, Partition, Record, Unavailable
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_fast import FastLibrary
from evalgauge.collectors.kafka_hanging import positions_partition
from evalgauge.collectors.kafka_name import ReplicaName
from evalgauge.collectors.kafka_pure import PureLibrary
from evalgauge.core.errors import EvalgaugeError
from tests.parts import kafka as kafka_part
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from evalgauge.collectors.kafka_client import Member, Transactions
    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

LIBRARIES: dict[str, type[PureLibrary | FastLibrary]] = {
    "kafka-python": PureLibrary,
    "confluent": FastLibrary,
}
SECONDS = 90


class Nobody:
    """An owner to whom it is all the same."""

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """As the seam has it."""

    revoked = lost = assigned


class Group:
    """A group on a topic, and what one process of it has."""

    def __init__(self, library: str, bootstrap: str, topic: str, **settings: Any) -> None:
        self.name = f"group-{uuid.uuid4().hex[:12]}"
        group = {"id": self.name, "session_timeout": 6, **settings}
        self.config = KafkaConfig(bootstrap=bootstrap.split(","), topics=[topic], refresh=0.2, group=group)
        self.library = LIBRARIES[library](self.config, "in")
        self.at = Partition(topic, 0)
        self._members: list[Member] = []
        self._ends = ExitStack()

    def member(self, name: str) -> Member:
        """One that has joined; it takes part as long as it is polled."""
        member = self._ends.enter_context(
            closing(self.library.member(Nobody(), ReplicaName(self.config, name)))
        )
        self._members.append(member)
        self.join(member)
        return member

    def join(self, member: Member) -> None:
        """Poll until it is a member; the others may have to join anew for it."""

        def joined() -> bool:
            for one in self._members:
                one.poll(0.05)
            return not member.trouble()

        until(joined, "the group to be joined", SECONDS)

    def again(self, member: Member, name: str) -> Member:
        """It, joined; or the one that the process has after its next start.

        Once, after its coordinator was killed, librdkafka was told that its name was taken, though nobody else had it.
        """
        try:
            self.join(member)
        except Fenced:
            self._members.remove(member)
            return self.member(name)
        return member

    def transactions(self, name: str) -> Transactions:
        """Of one process life."""
        return self._ends.enter_context(closing(self.library.transactions(name)))

    def close(self) -> None:
        """End all."""
        self._ends.close()


@pytest.fixture(params=LIBRARIES)
def library(request: pytest.FixtureRequest) -> str:
    """Each library in turn."""
    name: str = request.param
    return name


@pytest.fixture
def log(make_topic: MakeTopic) -> str:
    """Where a transaction's records go."""
    return make_topic(2)


@pytest.fixture
def group(library: str, kafka: Kafka, make_topic: MakeTopic) -> Iterator[Group]:
    """A group that nobody else is in."""
    with closing(Group(library, kafka.bootstrap, make_topic(2))) as one:
        yield one


def written(bootstrap: str, topic: str, partition: int = 0) -> list[bytes]:
    """The values that a reader of what is committed sees."""
    options = {"bootstrap.servers": bootstrap, "group.id": "reader", "isolation.level": "read_committed"}
    consumer = Consumer(options | {"enable.partition.eof": True, "auto.offset.reset": "earliest"})
    found: list[bytes] = []
    with closing(consumer):
        consumer.assign([TopicPartition(topic, partition, 0)])
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error() is not None:
                return found
            found.append(message.value() or b"")
    raise AssertionError("the end was not reached")


def again(write: Callable[[], None]) -> None:
    """Repeat until it is written."""

    def done() -> bool:
        try:
            write()
        except Unavailable:
            return False
        return True

    until(done, "the write to succeed", SECONDS)


def test_records_and_positions_are_written_together(group: Group, log: str, kafka: Kafka) -> None:
    """Keys, values, tombstones and headers; the metadata of a position comes back as it was."""
    member, transactions = group.member("r1"), group.transactions("r1")
    text = json.dumps({"mark": "x" * 150, "umlaut": "ä"}, ensure_ascii=False)
    other = Partition(group.at.topic, 1)
    records = [
        Record(log, 0, b"k", b"v", [("reason", b"bad")]),
        Record(log, 1, b"gone", None),
        Record(log, 0, b"k2", b"v2"),
    ]
    assert member.committed([group.at, other]) == {group.at: None, other: None}
    transactions.write(records, {group.at: Committed(5, text)}, member.metadata())
    assert member.committed([group.at, other]) == {group.at: Committed(5, text), other: None}
    transactions.write([], {other: Committed(0, "")}, member.metadata())
    assert member.committed([other]) == {other: Committed(0, "")}
    assert written(kafka.bootstrap, log) == [b"v", b"v2"]
    assert written(kafka.bootstrap, log, 1) == [b""]


def test_ten_thousand_records_and_a_large_one_are_one_transaction(
    library: str, log: str, kafka: Kafka, make_topic: MakeTopic
) -> None:
    """As the first commit of a full state is."""
    with closing(Group(library, kafka.bootstrap, make_topic(1), transaction_timeout=60)) as group:
        member, transactions = group.member("r1"), group.transactions("r1")
        records = [Record(log, 0, b"%d" % n, b"%05d" % n + b"." * 2000) for n in range(10_000)]
        records.append(Record(log, 0, b"large", b"large" + b"." * 1_000_000))
        transactions.write(iter(records), {group.at: Committed(1, "")}, member.metadata())
    values = written(kafka.bootstrap, log)
    assert [value[:5] for value in values] == [b"%05d" % n for n in range(10_000)] + [b"large"]


def test_an_older_generation_commits_nothing(group: Group, log: str, kafka: Kafka) -> None:
    """Whatever moved; the same transactions go on with the new one."""
    member, transactions = group.member("r1"), group.transactions("r1")
    old = member.metadata()
    transactions.write([Record(log, 0, b"k", b"one")], {group.at: Committed(1, "")}, old)
    second = group.member("r2")

    def refused() -> bool:
        member.poll(0.05)
        second.poll(0.05)
        return not member.trouble() and member.metadata() != old

    until(refused, "the next generation", SECONDS)
    with pytest.raises(Fenced, match=r"`r1`.*nothing was committed"):
        transactions.write([Record(log, 0, b"k", b"two")], {group.at: Committed(2, "")}, old)
    assert member.committed([group.at]) == {group.at: Committed(1, "")}
    assert written(kafka.bootstrap, log) == [b"one"]
    third = [Record(log, 0, b"k", b"three")]

    def taken() -> bool:
        member.poll(0.05)
        second.poll(0.05)
        try:
            transactions.write(third, {group.at: Committed(3, "")}, member.metadata())
        except Fenced:
            return False  # partitions are still moving, and the generation with them
        return True

    until(taken, "the new generation to be taken", SECONDS)
    assert member.committed([group.at]) == {group.at: Committed(3, "")}
    assert written(kafka.bootstrap, log) == [b"one", b"three"]


def test_a_record_too_large_names_the_setting(group: Group, make_topic: MakeTopic, kafka: Kafka) -> None:
    """Nothing of its transaction is written, and the next one is."""
    small = make_topic(1, max_message_bytes="200000")
    member, transactions = group.member("r1"), group.transactions("r1")
    records = [Record(small, 0, b"k", b"small"), Record(small, 0, b"k", os.urandom(300_000))]
    with pytest.raises(EvalgaugeError, match=rf"`{small}`.* 300,001 bytes.*max\.message\.bytes") as raised:
        transactions.write(records, {group.at: Committed(1, "")}, member.metadata())
    assert not isinstance(raised.value, Unavailable)
    transactions.write(records[:1], {group.at: Committed(2, "")}, member.metadata())
    assert written(kafka.bootstrap, small) == [b"small"]
    assert member.committed([group.at]) == {group.at: Committed(2, "")}


def test_what_the_broker_timed_out_is_written_anew(
    library: str, kafka: Kafka, make_topic: MakeTopic, log: str
) -> None:
    """The producer is of no use any more; the next write makes another."""
    with ExitStack() as stack:
        group = Group(library, kafka.bootstrap, make_topic(1), transaction_timeout=1)
        stack.enter_context(closing(group))
        admin = stack.enter_context(closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)))
        member, transactions = group.member("r1"), group.transactions("r1")

        def is_open() -> bool:
            listed = admin.list_transactions(state_filters=["Ongoing"])
            return any(group.name in one.transactional_id for found in listed.values() for one in found)

        def slowly() -> Iterator[Record]:
            yield Record(log, 0, b"k", b"slow")
            until(is_open, "the transaction to begin", SECONDS)
            until(lambda: not is_open(), "the broker to give it up", SECONDS)
            yield Record(log, 0, b"k", b"late")

        transactions.write([], {group.at: Committed(1, "")}, member.metadata())
        with pytest.raises(Unavailable, match="a transaction of group"):
            transactions.write(slowly(), {group.at: Committed(2, "")}, member.metadata())
        group.join(member)
        last = [Record(log, 0, b"k", b"last")]
        again(lambda: transactions.write(last, {group.at: Committed(3, "")}, member.metadata()))
        assert written(kafka.bootstrap, log) == [b"last"]
        assert member.committed([group.at]) == {group.at: Committed(3, "")}


KILLED = """
import sys, time
from evalgauge.collectors.kafka_client import Committed, Partition, Record
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_name import ReplicaName
from tests.kafka.test_kafka_transactions import LIBRARIES, Nobody

library, config, log = sys.argv[1:]
config = KafkaConfig.model_validate_json(config)
made = LIBRARIES[library](config, "in")
owner = Nobody()
owned = []
owner.assigned = owned.extend
member = made.member(owner, ReplicaName(config, "dead"))
while not owned:
    member.poll(0.05)
transactions = made.transactions("dead")
at = Partition(config.topics[0], 0)
transactions.write([Record(log, 0, b"k", b"whole")], {at: Committed(1, "")}, member.metadata())

def stay(*_):
    print("open", flush=True)
    time.sleep(600)

class Stays:
    def __init__(self, producer):
        self.producer = producer
    def __getattr__(self, name):
        return stay if name == "commit_transaction" else getattr(self.producer, name)

if library == "confluent":
    transactions._producer = Stays(transactions._producer)
else:
    transactions._manager.begin_commit = stay
transactions.write([Record(log, 0, b"k", b"half")], {at: Committed(2, "")}, member.metadata())
"""
"""A process that has sent all of a transaction but the commit."""


def test_positions_are_not_told_while_a_dead_members_transaction_is_open(
    library: str, group: Group, log: str, kafka: Kafka
) -> None:
    """Neither the old one nor the new, until the broker has given the transaction up."""
    member = group.member("heir")
    command = [sys.executable, "-c", KILLED, library, group.config.model_dump_json(), log]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as dead:
        try:
            output = dead.stdout
            assert output is not None
            os.set_blocking(output.fileno(), False)

            def opened() -> bool:
                member.poll(0.05)
                return output.readline() == "open\n"

            until(opened, "a transaction to be open", SECONDS)
            with pytest.raises(Unavailable, match="transaction that is still open"):
                member.committed([group.at])
        finally:
            dead.kill()
    found: list[Any] = []
    reasons: set[str] = set()

    def told() -> bool:
        member.poll(0.05)
        try:
            found.append(member.committed([group.at]))
        except Unavailable as error:
            reasons.add(str(error))
        return bool(found)

    until(told, "the transaction to be given up", SECONDS)
    assert all("transaction that is still open" in reason for reason in reasons)
    assert found == [{group.at: Committed(1, "")}]
    assert written(kafka.bootstrap, log) == [b"whole"]


def test_a_broker_that_is_killed_and_comes_back_costs_nothing(
    library: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The write that was under way says why it failed; the same one again succeeds, and counts once."""
    with ExitStack() as stack:
        broker = stack.enter_context(kafka_part.Kafka(tmp_path_factory.mktemp("killed")))
        with closing(KafkaAdminClient(bootstrap_servers=broker.bootstrap)) as admin:
            for name in ("events", "log"):
                admin.create_topics(
                    {name: {"num_partitions": 1, "replication_factor": 1}}, wait_for_metadata=True
                )
        group = stack.enter_context(closing(Group(library, broker.bootstrap, "events")))
        member, transactions = group.member("r1"), group.transactions("r1")
        transactions.write(
            [Record("log", 0, b"k", b"before")], {group.at: Committed(1, "")}, member.metadata()
        )

        def under_way() -> Iterator[Record]:
            yield Record("log", 0, b"k", b"first")
            broker.kill()
            yield Record("log", 0, b"k", b"second")

        with pytest.raises(Unavailable, match="a transaction of group"):
            transactions.write(under_way(), {group.at: Committed(2, "")}, member.metadata())
        with pytest.raises(Unavailable):
            member.committed([group.at])
        broker.restart()
        whole = [Record("log", 0, b"k", value) for value in (b"first", b"second")]

        def write() -> None:
            nonlocal member
            member = group.again(member, "r1")
            try:
                transactions.write(whole, {group.at: Committed(2, "m")}, member.metadata())
            except Fenced as error:
                raise Unavailable(str(error)) from error  # it has to join anew first

        again(write)
        assert written(broker.bootstrap, "log") == [b"before", b"first", b"second"]
        assert member.committed([group.at]) == {group.at: Committed(2, "m")}


def test_a_coordinator_that_is_gone_holds_no_transaction_up_for_ever(
    library: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Librdkafka asks the one that it knew, and nobody else; then the same is written by another producer."""
    with ExitStack() as stack:
        cluster = stack.enter_context(kafka_part.KafkaCluster(tmp_path_factory.mktemp("coordinator")))
        admin = stack.enter_context(closing(KafkaAdminClient(bootstrap_servers=cluster.bootstrap.split(","))))
        for name in ("events", "log"):
            admin.create_topics({name: {"num_partitions": 1}}, wait_for_metadata=True)
        group = stack.enter_context(closing(Group(library, cluster.bootstrap, "events")))
        member, transactions = group.member("r1"), group.transactions("r1")
        before, after = (Record("log", 0, b"k", value) for value in (b"before", b"after"))
        transactions.write([before], {group.at: Committed(1, "")}, member.metadata())
        coordinator = group_coordinator(admin, group.name)
        cluster.kill(coordinator)
        until(lambda: group_coordinator(admin, group.name) != coordinator, "another coordinator", SECONDS)

        def write() -> None:
            nonlocal member
            member = group.again(member, "r1")
            try:
                transactions.write([after], {group.at: Committed(2, "")}, member.metadata())
            except Fenced as error:
                raise Unavailable(str(error)) from error  # it has to join anew first

        again(write)
        assert written(cluster.bootstrap, "log") == [b"before", b"after"]
        assert member.committed([group.at]) == {group.at: Committed(2, "")}


def group_coordinator(admin: KafkaAdminClient, group: str) -> int:
    """The node that leads the partition of the group's positions."""
    [found] = admin.describe_topics(["__consumer_offsets"])
    wanted = positions_partition(group, len(found["partitions"]))
    return next(int(one["leader_id"]) for one in found["partitions"] if one["partition_index"] == wanted)

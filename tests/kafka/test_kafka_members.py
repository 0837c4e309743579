"""Members of a group behind their seam, on a real broker: what one library does, the other does too."""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any, Self

import pytest
from kafka import KafkaAdminClient
from kafka.admin import MemberToRemove, NewPartitions

from evalgauge.collectors.kafka_client import Committed, Fenced, Partition, Record
from evalgauge.collectors.kafka_config import KafkaConfig
from evalgauge.collectors.kafka_fast import FastLibrary
from evalgauge.collectors.kafka_name import ReplicaName
from evalgauge.collectors.kafka_pure import PureLibrary
from tests.parts.part import until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.conftest import MakeTopic
    from tests.parts.kafka import Kafka

LIBRARIES = [PureLibrary, FastLibrary]
SECONDS = 90


class Replica:
    """One process's part: a member polled in a thread of its own, and what it was told."""

    def __init__(
        self, library: PureLibrary | FastLibrary, config: KafkaConfig, group: str, name: ReplicaName
    ) -> None:
        self.events: list[tuple[str, set[int]]] = []
        self.owned: set[Partition] = set()
        self.while_revoked: Callable[[], None] = lambda: None
        self.error: BaseException | None = None
        self.paused = threading.Event()
        self._stop = threading.Event()
        self.library = library
        self.config = config
        self.group = group
        self.known = name
        self.name = name.replica
        self.member = library.member(self, name)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """As the seam has it."""
        assert threading.current_thread() is self._thread
        self.events.append(("assigned", {one.number for one in partitions}))
        assert not self.owned & set(partitions)
        self.owned = self.owned | set(partitions)

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """As the seam has it."""
        assert threading.current_thread() is self._thread
        self.events.append(("revoked", {one.number for one in partitions}))
        assert set(partitions) <= self.owned
        self.while_revoked()
        self.owned = self.owned - set(partitions)

    def lost(self, partitions: Sequence[Partition]) -> None:
        """As the seam has it."""
        self.events.append(("lost", {one.number for one in partitions}))
        self.owned = self.owned - set(partitions)

    def told(self, what: str) -> list[set[int]]:
        """Partitions of each call of that name."""
        return [partitions for name, partitions in self.events if name == what]

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                if self.paused.is_set():
                    self._stop.wait(0.02)
                else:
                    self.member.poll(0.1)
        except BaseException as error:  # noqa: BLE001 - the test looks at it
            self.error = error

    def __enter__(self) -> Self:
        """Begin to poll."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End."""
        self.leave()

    def leave(self) -> None:
        """End; the group hears nothing of it."""
        if not self._stop.is_set():
            self._stop.set()
            self._thread.join(SECONDS)
            self.member.close()


@pytest.fixture
def running() -> Iterator[ExitStack]:
    """What must end with the test."""
    with ExitStack() as stack:
        yield stack


@pytest.fixture(params=["cooperative", "eager"])
def assignment(request: pytest.FixtureRequest) -> str:
    """Each way to move partitions."""
    name: str = request.param
    return name


@pytest.fixture(params=LIBRARIES, ids=["kafka-python", "confluent"])
def make(request: pytest.FixtureRequest, kafka: Kafka, running: ExitStack) -> Callable[..., Replica]:
    """Start a replica of a group that nobody else is in, by each library in turn."""
    identity = f"group-{uuid.uuid4().hex[:12]}"

    def make_one(name: str | ReplicaName, topics: list[str] | str, **group: Any) -> Replica:
        settings: dict[str, Any] = {"session_timeout": 6, "transaction_timeout": 10, **group}
        named = {"topic_pattern": topics} if isinstance(topics, str) else {"topics": topics}
        config = KafkaConfig(
            bootstrap=[kafka.bootstrap], refresh=0.2, group={"id": identity, **settings}, **named
        )
        known = name if isinstance(name, ReplicaName) else ReplicaName(config, name)
        return running.enter_context(Replica(request.param(config, "in"), config, identity, known))

    return make_one


def owns(count: int, *replicas: Replica) -> None:
    """Wait until the replicas have the partitions of a topic between them, about as many each."""

    def shared() -> bool:
        for one in replicas:
            assert one.error is None
        sizes = [len(one.owned) for one in replicas]
        together = set().union(*(one.owned for one in replicas))
        return sum(sizes) == len(together) == count and max(sizes) - min(sizes) <= 1

    try:
        until(shared, f"{count} partitions to be shared by {[one.name for one in replicas]}", SECONDS)
    except AssertionError as error:
        told = "; ".join(f"{one.name}: {one.events} {one.error!r} {one.member.trouble()}" for one in replicas)
        raise AssertionError(f"{error}: {told}") from error


def test_members_share_partitions_as_they_join_and_leave(
    make: Callable[..., Replica], make_topic: MakeTopic, assignment: str
) -> None:
    """One has all, two have three each, and one that is gone for a session time-out is inherited from."""
    name = make_topic(6)
    one = make("r1", [name], assignment=assignment)
    owns(6, one)
    assert one.member.trouble() == ""
    two = make("r2", [name], assignment=assignment)
    owns(6, one, two)
    assert one.told("lost") == []
    assert len(one.told("revoked")[0]) == (3 if assignment == "cooperative" else 6)
    two.leave()
    owns(6, one)


def test_a_revocation_may_take_longer_than_a_session(
    make: Callable[..., Replica], make_topic: MakeTopic, assignment: str
) -> None:
    """Heartbeats go on while it waits; the metadata taken from another thread then is good for a commit."""
    name = make_topic(6)
    log = make_topic(1)
    one = make("r1", [name], assignment=assignment, session_timeout=3)
    owns(6, one)
    waits, ready = threading.Event(), threading.Event()
    taken: list[Any] = []

    def wait() -> None:
        if not waits.is_set():
            waits.set()
            assert ready.wait(SECONDS)

    one.while_revoked = wait
    two = make("r2", [name], assignment=assignment, session_timeout=3)
    assert waits.wait(SECONDS)
    end = time.monotonic() + 7
    until(lambda: time.monotonic() > end, "more than two sessions to pass", SECONDS)
    transactions = one.library.transactions("r1")
    with closing(transactions):
        given = min(one.told("revoked")[0])
        offsets = {Partition(name, given): Committed(7, '{"a": "ä"}')}
        taken.append(one.member.metadata())
        transactions.write([Record(log, 0, b"k", b"v")], offsets, taken[0])
    ready.set()
    owns(6, one, two)
    assert one.told("lost") == []
    assert two.told("lost") == []


def test_a_name_that_is_taken_over_is_fenced(make: Callable[..., Replica], make_topic: MakeTopic) -> None:
    """The elder is told who has the name, and can commit nothing more."""
    name = make_topic(2)
    elder = make("r1", [name])
    owns(2, elder)
    old = elder.member.metadata()
    younger = make("r1", [name])
    until(lambda: elder.error, "the elder to be fenced", SECONDS)
    assert isinstance(elder.error, Fenced)
    assert "as replica `r1`" in str(elder.error)
    with pytest.raises(Fenced, match="as replica `r1`"):
        elder.member.poll(0)
    with pytest.raises(Fenced, match="as replica `r1`"):
        elder.member.metadata()
    owns(2, younger)
    with closing(elder.library.transactions("r1")) as transactions, pytest.raises(Fenced, match="r1"):
        transactions.write([], {Partition(name, 0): Committed(5, "")}, old)
    with closing(elder.library.transactions("r1")) as transactions:
        transactions.write([], {Partition(name, 0): Committed(6, "")}, younger.member.metadata())


def test_a_name_in_doubt_is_not_taken_back_by_the_next_member(
    make: Callable[..., Replica], make_topic: MakeTopic, assignment: str
) -> None:
    """A process that throws its state away joins anew: not before it knows whose the name is."""
    name = make_topic(2)
    elder = make("r1", [name], assignment=assignment)
    owns(2, elder)
    younger = make("r1", [name], assignment=assignment)
    until(lambda: elder.known.doubted, "the elder to be told", SECONDS)
    elder.leave()
    again = make(elder.known, [name], assignment=assignment)
    assert "another process is replica `r1`" in again.member.trouble()
    until(lambda: again.error, "the elder to be fenced", SECONDS)
    assert isinstance(again.error, Fenced)
    assert again.events == []
    assert younger.told("lost") == []
    owns(2, younger)


def test_a_name_that_nobody_else_has_is_kept(
    make: Callable[..., Replica], make_topic: MakeTopic, assignment: str
) -> None:
    """A client may throw itself out of its group: it lost what it had, and joins again."""
    name = make_topic(4)
    one = make("r1", [name], assignment=assignment)
    owns(4, one)
    itself = make("r1", [name], assignment=assignment)
    owns(4, itself)
    itself.leave()
    until(lambda: one.told("lost"), "the loss to be told", SECONDS)
    assert one.told("lost") == [{0, 1, 2, 3}]
    owns(4, one)
    with closing(one.library.transactions("r1")) as transactions:
        transactions.write([], {Partition(name, 0): Committed(5, "")}, one.member.metadata())


def test_who_is_expelled_has_lost_its_partitions_and_joins_again(
    make: Callable[..., Replica], make_topic: MakeTopic, kafka: Kafka, assignment: str
) -> None:
    """By an administrator, or because nobody heard of it."""
    name = make_topic(4)
    one = make("r1", [name], assignment=assignment)
    owns(4, one)
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        admin.remove_group_members(one.group, [MemberToRemove(group_instance_id="r1")])
    until(lambda: one.told("lost"), "the loss to be told", SECONDS)
    assert one.told("lost") == [{0, 1, 2, 3}]
    owns(4, one)


def test_metadata_of_no_member_is_refused(make: Callable[..., Replica], make_topic: MakeTopic) -> None:
    """Positions without a generation would be taken from anybody."""
    name = make_topic(1)
    one = make("r1", [name])
    owns(1, one)
    other = one.library.member(one, ReplicaName(one.config, "r2"))
    with closing(other):
        assert "waiting" in other.trouble()
        with pytest.raises(Fenced, match=r"r2.*is no member"):
            other.metadata()


def test_new_partitions_and_new_topics_are_found(
    make: Callable[..., Replica], make_topic: MakeTopic, kafka: Kafka
) -> None:
    """Also by a leader that was restarted and is not told that it leads; a pattern takes whole names alone."""
    name = make_topic(2)
    elder = make("r1", rf"(?i){name.upper()}(-\w+)?")
    owns(2, elder)
    elder.leave()
    one = make("r1", rf"(?i){name.upper()}(-\w+)?")
    owns(2, one)
    with closing(KafkaAdminClient(bootstrap_servers=kafka.bootstrap)) as admin:
        admin.create_partitions({name: NewPartitions(4)})
        owns(4, one)
        admin.create_topics({f"{name}-more": {"num_partitions": 2}, f"{name}-no-t": {"num_partitions": 2}})
        owns(6, one)
    assert {at.topic for at in one.owned} == {name, f"{name}-more"}

"""A group's member by confluent-kafka; see `kafka_client.Member`."""

# librdkafka's own error codes have names that begin with an underscore.
# ruff: noqa: SLF001

from __future__ import annotations

import logging
import math
import struct
import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from evalgauge.collectors.kafka_admin import asked, assigned_of
from evalgauge.collectors.kafka_client import (
    Committed,
    Partition,
    Standing,
    TopicPattern,
    Unavailable,
    no_member,
    taken_over,
    unstable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from evalgauge.collectors.kafka_client import Ownership
    from evalgauge.collectors.kafka_config import KafkaConfig
    from evalgauge.collectors.kafka_name import ReplicaName

_log = logging.getLogger(__name__)

_POSITIONS = 3.0
"""Seconds; longer waits are only for transactions to end, which may take minutes."""
_LISTED = 1.0
"""Seconds within which the brokers must list their topics; else they are asked again later."""
_SETTLED = 2.0
"""Seconds after which a group that was joined has given out its partitions, if nothing is in the way."""
_METADATA = b"CGMDv2:"
"""How librdkafka's metadata of a group begins: a generation follows, then texts, each ended by a zero byte."""
_GENERATION = struct.Struct("<i")
_PASSING = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT}


class FastMember:
    """Takes part in a group by a Consumer that is assigned nothing, whatever the group gives it: so it reads nothing.

    A Consumer serves one thread at a time, and is busy while a callback waits. So what other threads ask for is
    kept here, renewed whenever the group has changed.
    """

    def __init__(
        self, options: dict[str, Any], config: KafkaConfig, ownership: Ownership, name: ReplicaName
    ) -> None:
        """Begin in the first `poll`. Raises `KafkaException` and `ValueError` for options that cannot be."""
        group = config.group
        assert group is not None  # noqa: S101 - for the type checker; only a group has members
        self._config, self._group, self._name, self._ownership = config, group, name, ownership
        self._cooperative = group.assignment == "cooperative"
        self._heard = ""
        """The last that librdkafka complained of."""
        self._closing = False
        self._metadata: Standing | None = None
        self._owned: set[Partition] = set()
        self._raised: BaseException | None = None
        self._takes_part = False
        """False until the name is known to be ours, at first and again."""
        self._topics = set(config.topics or ())
        self._looked = -config.refresh
        self._check_at = 0.0
        """When to look whether partitions are left over; 0 while we have not joined, infinite once that is done."""
        self._left: set[Partition] = set()
        """Partitions that nobody had when we looked last."""
        self._pattern = None if config.topic_pattern is None else TopicPattern(config.topic_pattern, group)
        refresh = int(config.refresh * 1000)
        self._options = options | {
            "group.id": group.id,
            "group.instance.id": name.replica,
            "partition.assignment.strategy": "cooperative-sticky"
            if self._cooperative
            else "range,roundrobin",
            "session.timeout.ms": int(group.session_timeout * 1000),
            "heartbeat.interval.ms": int(min(group.session_timeout / 4, 3) * 1000),
            # Longer than any callback: a member that does not come back from one for so long is given up.
            "max.poll.interval.ms": int((2 * group.drain_timeout + 30) * 1000),
            # New topics and new partitions are found so often.
            "topic.metadata.refresh.interval.ms": refresh,
            "metadata.max.age.ms": max(3 * refresh, 10_000),
            "enable.auto.commit": False,
            # Positions of a transaction that may still be aborted are not given, but waited for.
            "isolation.level": "read_committed",
            "error_cb": self._hear,
        }
        self._consumer = Consumer(self._options)

    def _hear(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._heard = error.str()

    def _subscribe(self, topics: set[str]) -> None:
        self._topics = topics
        self._consumer.subscribe(
            sorted(topics), on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._lost
        )

    def _look(self) -> None:
        """Find topics of the pattern that are new or gone; in an outage they stay as they are."""
        assert self._pattern is not None  # noqa: S101 - for the type checker
        try:
            listed = self._consumer.list_topics(timeout=_LISTED).topics
        except KafkaException as error:
            self._heard = error.args[0].str()
        else:
            found = {name for name in listed if self._pattern.match(name)}
            if found and found != self._topics:
                self._subscribe(found)
        self._looked = time.monotonic()

    def _check(self) -> None:
        """Join anew where partitions are nobody's that came while no member was there.

        A static member that comes back is given what it had. The group's leader would have to look, but one that was
        restarted is not told that it still leads, and sees no change in topics that it has not seen before.
        """
        now = time.monotonic()
        if not self._check_at:
            self._check_at = now + _SETTLED
            return
        self._check_at = now + max(self._config.refresh, _SETTLED)
        try:
            assigned = asked(self._config, "group", lambda admin: assigned_of(admin, self._group.id))
        except Unavailable as error:
            self._heard = str(error)
            return
        if not any(assigned.values()):
            return  # it settles who has what
        listed = self._consumer.list_topics(timeout=_LISTED).topics
        there = {
            Partition(name, number)
            for name in self._topics & listed.keys()
            for number in listed[name].partitions
        }
        before, self._left = self._left, there.difference(*assigned.values())
        if self._left and not before & self._left:
            return  # one that goes from one member to another is nobody's for a moment
        self._check_at = math.inf
        if self._left:
            names = ", ".join(map(str, sorted(self._left)))
            _log.info("group %s: joined anew, because nobody has %s", self._group.id, names)
            self._consumer.unsubscribe()
            self._subscribe(self._topics)

    def poll(self, timeout: float) -> None:
        """Take part in the group, and call back."""
        end = time.monotonic() + timeout
        if not self._takes_part and self._name.is_ours():
            self._takes_part = True
            if self._topics:
                self._subscribe(self._topics)
        error = self._polled(timeout) if self._takes_part else None
        failure, self._raised = self._raised, None
        if failure is not None:
            raise failure
        if self._name.taken:
            raise taken_over(self._name.replica, self._group.id)
        if error is not None:
            # It is told once, and there is but one such error for a member: its name was taken.
            if error.code() == KafkaError._FATAL:
                self._withdraw()
            elif error.code() not in _PASSING:
                self._heard = error.str()
        if error is not None or not self._takes_part:
            time.sleep(max(end - time.monotonic(), 0))

    def _withdraw(self) -> None:
        """Somebody seems to have our name: go on with another Consumer, that has not joined, until that is known."""
        self._name.doubt()
        self._takes_part, self._metadata = False, None
        owned, self._owned = sorted(self._owned), set()
        self._closing = True
        self._consumer.close()
        self._closing, self._raised, self._check_at = False, None, 0.0
        self._consumer = Consumer(self._options)
        if owned:
            self._ownership.lost(owned)

    def _polled(self, timeout: float) -> Any:
        """What the library complains of, if it does: there are no records to be had of it."""
        try:
            if self._pattern is not None and time.monotonic() - self._looked >= self._config.refresh:
                self._look()
            message = self._consumer.poll(timeout)
            self._renew()
            if self._metadata is not None and time.monotonic() >= self._check_at:
                self._check()
        except KafkaException as error:
            return error.args[0]
        return None if message is None else message.error()

    def _renew(self) -> None:
        """Keep what the group knows us by now; nothing while it does not."""
        found: Any = self._consumer.consumer_group_metadata()
        member_id = _member_id(found)
        self._metadata = Standing(member_id, found) if member_id else None

    def _assigned(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned |= self._tell(self._ownership.assigned, partitions)
        if self._cooperative:
            consumer.incremental_assign([])
        else:
            consumer.assign([])

    def _revoked(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._owned -= self._tell(self._ownership.revoked, partitions)
        self._let_go(consumer)

    def _lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        self._metadata = None
        self._owned -= self._tell(self._ownership.lost, partitions)
        self._let_go(consumer)

    def _let_go(self, consumer: Consumer) -> None:
        if self._cooperative:
            consumer.incremental_unassign([])
        else:
            consumer.unassign()

    def _tell(
        self, what: Callable[[Sequence[Partition]], None], partitions: list[TopicPartition]
    ) -> set[Partition]:
        told = sorted(Partition(one.topic, one.partition) for one in partitions)
        try:
            self._renew()
            if told and not self._closing:
                what(told)
        except BaseException as error:  # noqa: BLE001 - `poll` raises it, once the group has its answer
            self._raised = error
        return set(told)

    def metadata(self) -> Standing:
        """What the group knew us by when it last changed."""
        found = self._metadata
        if self._name.taken:
            raise taken_over(self._name.replica, self._group.id)
        if found is None:
            raise no_member(self._name.replica, self._group.id)
        return found

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, Committed | None]:
        """Stable positions."""
        if not partitions:
            return {}
        try:
            found = self._consumer.committed([TopicPartition(*one) for one in partitions], timeout=_POSITIONS)
        except KafkaException as error:
            # It waits for a transaction to end as it waits for brokers, and says the same of both.
            if error.args[0].code() == KafkaError._TIMED_OUT and self._answered():
                raise unstable(self._group.id) from error
            raise Unavailable(f"positions of group `{self._group.id}`: {error.args[0].str()}") from error
        positions: dict[Partition, Committed | None] = {}
        for one in found:
            if one.error is not None:
                raise Unavailable(f"positions of group `{self._group.id}`: {one.error.str()}")
            known = one.offset >= 0
            positions[Partition(one.topic, one.partition)] = (
                Committed.told(one.offset, one.metadata) if known else None
            )
        return positions

    def _answered(self) -> bool:
        try:
            self._consumer.list_topics(timeout=_LISTED)
        except KafkaException:
            return False
        return True

    def trouble(self) -> str:
        """What keeps us from being a member."""
        if self._metadata is not None:
            return ""
        heard = self._name.trouble if self._name.doubted else self._heard
        return f"group `{self._group.id}`: {heard or 'waiting for its members to join'}"

    def close(self) -> None:
        """Let go of connections and threads."""
        self._closing = True
        self._metadata = None
        self._consumer.close()


def _member_id(metadata: bytes) -> str:
    """Empty where there is none, or no generation: the brokers would take positions without, from anybody."""
    if not metadata.startswith(_METADATA):
        raise RuntimeError(f"librdkafka writes the metadata of a group in an unknown way: {metadata[:16]!r}")
    [generation] = _GENERATION.unpack_from(metadata, len(_METADATA))
    _, member, _ = metadata[len(_METADATA) + _GENERATION.size :].split(b"\0", 2)
    return member.decode() if generation >= 0 else ""

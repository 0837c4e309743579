"""Ends transactions that are over, but still open in a partition.

A broker that ends a transaction writes a marker into each partition of it. One that is left out (Kafka 4.3.1 passes
over partitions that have no leader at that moment, as after a restart, and calls the transaction complete) stays open
there: nobody reads past it, or is told the positions in it, and what its producer writes there next becomes a part of
it. So who writes looks after each transaction before it begins another (`Endings`), and who waits for one of which
nobody is left to look after it asks the coordinator how it ended (`end_hanging`). To abort a part of what was committed
would tear it apart.
"""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from evalgauge.collectors.kafka_admin import administering
from evalgauge.collectors.kafka_bound import within
from evalgauge.collectors.kafka_client import Partition, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from evalgauge.collectors.kafka_config import KafkaConfig, KafkaGroup

_log = logging.getLogger(__name__)

_OFFSETS = "__consumer_offsets"
_LIVE = 5.0
"""Seconds after its last record from which on what a live member left open is nobody's."""
_PATIENCE = 10.0
"""Seconds that the brokers have for the markers of a transaction."""
_PAUSE = 0.01
_CLOSE = 2.0
_NOBODY = -1
_UNDER_WAY = {"Ongoing", "PrepareCommit", "PrepareAbort", "PrepareEpochFence"}
_ENDINGS = {"PrepareCommit": True, "CompleteCommit": True, "PrepareAbort": False, "CompleteAbort": False}
_T = TypeVar("_T")


class _Open(NamedTuple):
    """A transaction as the leader of a partition sees it."""

    at: Any
    """Topic and partition, of kafka-python."""
    producer: int
    epoch: int
    first: int
    """Offset of its first record there."""
    sequence: int
    """Of its last record."""
    time: int
    """Of its last record, in milliseconds."""
    coordinator_epoch: int
    """Of the marker before; an older one is refused."""


class Endings:
    """Looks after the transactions that one process writes. Belongs to one thread."""

    def __init__(self, config: KafkaConfig, name: str) -> None:
        """Connect to nothing yet."""
        assert config.group is not None  # noqa: S101 - for the type checker: there are none without a group
        self._config, self._group, self._name = config, config.group, name
        self._connection: ExitStack | None = None
        self._admin: Any = None
        self._refused = False
        self._positions: list[Any] = []
        self._producer: tuple[str, int] = "", _NOBODY
        """Transactional id → producer."""

    def committed(self, transactional_id: str) -> bool | None:
        """How the last transaction ended; None where it has not, or that is not said. Raises `Unavailable`."""

        def ask(admin: Any) -> bool | None:
            state = admin.describe_transactions([transactional_id])[transactional_id].state.value
            return _ENDINGS.get(state)

        return self._asked(ask)

    def confirm(
        self, transactional_id: str, partitions: Iterable[Partition], *, committed: bool | None
    ) -> None:
        """Make sure that the last transaction is over in these partitions and in that of the group's positions.

        `committed`: how it ended; None where that is to be told by the epoch of its producer, whose id has been taken
        over since. Raises `Unavailable`. Where brokers do not let us the log says so, once.
        """
        from kafka import TopicPartition  # noqa: PLC0415 - an extra, which is there by now

        def look(admin: Any) -> None:
            if not self._positions:
                self._positions = _positions(admin, self._group.id, self._name)
            wanted = [TopicPartition(*one) for one in sorted(partitions)] + self._positions
            id_, producer = self._producer
            if id_ != transactional_id or committed is not True:  # another producer may have begun since
                producer = admin.describe_transactions([transactional_id])[transactional_id].producer_id
                self._producer = transactional_id, producer
            end = time.monotonic() + _PATIENCE
            while left := {one for one in _open(admin, wanted) if one.producer == producer}:
                found = admin.describe_transactions([transactional_id])[transactional_id]
                state, now = found.state.value, found.producer_epoch
                if state not in _UNDER_WAY:
                    for one in left & _open(admin, wanted):
                        how = was_committed(one.epoch, state, now) if committed is None else committed
                        if how is None:
                            raise Unavailable(f"it is not known how a transaction ended in {_place(one)}")
                        _mark(admin, one, self._name, committed=how)
                    return
                # A commit is answered once it is decided, and the markers follow.
                if time.monotonic() > end:
                    raise Unavailable(f"the last transaction is {state} for more than {_PATIENCE:g} s")
                time.sleep(_PAUSE)

        self._asked(look)

    def _asked(self, what: Callable[[Any], _T]) -> _T | None:
        """What the brokers answer; None where they know nothing of it, or do not let us ask. Raises `Unavailable`."""
        if self._refused:
            return None

        def ask() -> _T:
            if self._connection is None:
                with ExitStack() as stack:
                    self._admin = stack.enter_context(administering(self._config, self._name))
                    self._connection = stack.pop_all()
            return what(self._admin)

        try:
            return within(2 * _PATIENCE, ask)
        except Unavailable:
            self.close()
            raise
        except Exception as error:
            from kafka import errors  # noqa: PLC0415 - an extra, which is there by now

            if isinstance(error, errors.TransactionalIdNotFoundError):
                return None  # nothing was ever written by it
            if isinstance(error, (errors.AuthorizationError, errors.UnsupportedVersionError)):
                self._refused = True
                _warn_refused(self._name, error)
                return None
            if isinstance(error, (errors.KafkaError, OSError)):
                self.close()
                raise Unavailable(f"{type(error).__name__}: {error}") from error
            raise

    def close(self) -> None:
        """Let go of the connections."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Unavailable):
                within(_CLOSE, connection.close)


def end_hanging(
    admin: Any, group: KafkaGroup, name: str, owner: Callable[[str], str | None], live: set[str]
) -> int:
    """End what is open in the topics of a group, and in its positions, though it is over; how many.

    `owner` tells the replica of a transactional id, None if it is of none. What members that are `live` wrote a moment
    ago is theirs to look after. Raises `kafka.errors.KafkaError`, but for leave that the brokers do not give: then the
    log says so.
    """
    from kafka import errors  # noqa: PLC0415 - an extra, which is there by now

    ended = 0
    topics = [group.changelog_topic, group.dead_letter_topic, group.ids_topic]
    for partitions in (*(_led(admin, topic) for topic in topics), _positions(admin, group.id, name)):
        try:
            for one, committed in _over(admin, partitions, owner, live):
                # Others may have found it too, and its owner may have gone on since.
                if one in _open(admin, [one.at]):
                    _mark(admin, one, name, committed=committed)
                    ended += 1
        except (errors.AuthorizationError, errors.UnsupportedVersionError) as error:
            _warn_refused(name, error)
    return ended


def _warn_refused(name: str, error: Exception) -> None:
    _log.warning(
        "input %s: transactions that brokers may have left open cannot be looked after: %s: %s",
        *(name, type(error).__name__, error),
    )


def _led(admin: Any, topic: str) -> list[Any]:
    """Partitions that have a leader, of a topic that may not be there."""
    from kafka import TopicPartition  # noqa: PLC0415 - an extra, which is there by now

    [found] = admin.describe_topics([topic])
    return [
        TopicPartition(topic, partition["partition_index"])
        for partition in found["partitions"]
        if not partition["error_code"] and partition["leader_id"] != _NOBODY
    ]


def _positions(admin: Any, group: str, name: str) -> list[Any]:
    """The partition that holds the positions of a group; none where brokers do not let us see it, as the log says."""
    from kafka import TopicPartition, errors  # noqa: PLC0415 - an extra, which is there by now

    [topic] = admin.describe_topics([_OFFSETS])
    kind = errors.for_code(topic["error_code"])
    if issubclass(kind, errors.AuthorizationError):
        _warn_refused(name, kind(_OFFSETS))
    elif kind not in {errors.NoError, errors.UnknownTopicOrPartitionError}:
        raise Unavailable(f"topic {_OFFSETS} cannot be looked at: {kind.__name__}")
    count = len(topic["partitions"])
    return [TopicPartition(_OFFSETS, positions_partition(group, count))] if count else []


def positions_partition(group: str, partitions: int) -> int:
    """The partition of so many that holds the positions of a group, as the brokers compute it.

    Java's `String.hashCode`, made positive by `Math.abs`, but for the one number that has no positive.
    """
    found = 0
    for unit in memoryview(group.encode("utf-16-le")).cast("H"):
        found = (31 * found + unit) & 0xFFFFFFFF
    signed = found - (1 << 32) if found >> 31 else found
    return (0 if signed == -(1 << 31) else abs(signed)) % partitions


def _over(
    admin: Any, partitions: list[Any], owner: Callable[[str], str | None], live: set[str]
) -> Iterable[tuple[_Open, bool]]:
    """Transactions that are open though they are over, and whether they were committed.

    What is open at both looks, with the coordinator asked in between and nothing written since, is either under way or
    was over before the second: its markers are all written when its coordinator calls it complete.
    """
    before = _open(admin, partitions)
    if not before:
        return
    producers = sorted({one.producer for one in before})
    listed = {
        one.producer_id: one.transactional_id
        for of_broker in admin.list_transactions(producer_id_filters=producers).values()
        for one in of_broker
    }
    described = admin.describe_transactions(list(listed.values())) if listed else {}
    for one in before & _open(admin, partitions):
        if one.producer not in listed:
            _log.info("a transaction is open in %s, and no coordinator knows its producer", _place(one))
            continue
        id_ = listed[one.producer]
        replica, found = owner(id_), described[id_]
        if (replica is None or replica in live) and time.time() - one.time / 1000 < _LIVE:
            continue
        if replica is None and (found.state.value == "Empty" or one.at.topic == _OFFSETS):
            continue  # of a command, which aborts by itself and begins under the same id again; or of another group
        committed = was_committed(one.epoch, found.state.value, found.producer_epoch)
        if committed is not None:
            yield one, committed


def was_committed(epoch: int, state: str, now: int) -> bool | None:
    """How a transaction of an epoch ended whose producer is in this state and epoch now; None where that is unknown.

    A commit keeps the epoch. The coordinator raises it when it aborts a transaction by itself, because its time is
    up or its id is taken over, and once more for whoever takes over the id. We never ask for an abort.
    """
    if state == "CompleteCommit":
        return True if now == epoch else None
    if state == "CompleteAbort":
        return False if now - epoch in {0, 1} else None
    if state == "Empty" and now > epoch:
        return now == epoch + 1
    return None


def _open(admin: Any, partitions: list[Any]) -> set[_Open]:
    """Raises `Unavailable` where one has no leader."""
    led = admin._manager.run(admin._async_get_leader_for_partitions, partitions)  # noqa: SLF001
    if missing := led.get(_NOBODY):
        at = min(missing)
        raise Unavailable(f"partition {at.topic}/{at.partition} has no leader")
    return {
        _Open(
            at,
            one.producer_id,
            one.producer_epoch,
            one.current_transaction_start_offset,
            one.last_sequence,
            one.last_timestamp,
            one.coordinator_epoch,
        )
        for leader, some in led.items()
        for at, state in admin.describe_producers(some, broker_id=leader).items()
        for one in state.active_producers
        if one.current_transaction_start_offset >= 0
    }


def _mark(admin: Any, one: _Open, name: str, *, committed: bool) -> None:
    """Write the marker. kafka-python has a call for those of aborted transactions alone."""
    from kafka.admin import AbortTransactionSpec  # noqa: PLC0415 - an extra, which is there by now

    spec = AbortTransactionSpec(one.at, one.producer, one.epoch, one.coordinator_epoch)
    request = admin._abort_transaction_request(spec)  # noqa: SLF001
    request.markers[0].transaction_result = committed

    async def send() -> None:
        [leader] = await admin._async_get_leader_for_partitions([one.at])  # noqa: SLF001
        response = await admin._manager.send(request, node_id=leader)  # noqa: SLF001
        admin._abort_transaction_process_response(response, spec)  # noqa: SLF001

    admin._manager.run(send)  # noqa: SLF001
    _log.warning(
        "input %s: the brokers had left a transaction open in %s since offset %s, though it was %s; ended",
        *(name, _place(one), one.first, "committed" if committed else "aborted"),
    )


def _place(one: _Open) -> str:
    return f"{one.at.topic}/{one.at.partition}"

"""A group's transactions by confluent-kafka; see `kafka_client.Transactions`."""

# librdkafka's own error codes have names that begin with an underscore.
# ruff: noqa: SLF001

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING, Any

from confluent_kafka import KafkaError, KafkaException, Producer, TopicPartition

from evalgauge.collectors.kafka_bound import Overdue, within
from evalgauge.collectors.kafka_client import Partition, Unavailable, refused, too_large
from evalgauge.collectors.kafka_orphans import transactional_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evalgauge.collectors.kafka_client import Committed, Record, Standing
    from evalgauge.collectors.kafka_config import KafkaGroup

_PATIENCE = 10.0
"""Seconds within which brokers must answer; a transaction has longer where its time-out is longer."""
_LATE = 1.0
"""Seconds after its time from which on a call is taken for one that never returns."""
_FULL = 0.02
"""Seconds until a full queue is tried again."""
_MAX_MESSAGE = 64 << 20
"""Bytes, far more than any topic takes: how large a record may be is for the topic to say."""
_BATCH = 128 << 10
"""Bytes; a topic that takes less in one record would refuse records that it takes alone."""
_STALE = {KafkaError.ILLEGAL_GENERATION, KafkaError.UNKNOWN_MEMBER_ID, KafkaError.FENCED_INSTANCE_ID}
"""What the group says to the positions of one that is not, or no longer, the member it takes itself for."""
_PASSING = {KafkaError._ALL_BROKERS_DOWN, KafkaError._TRANSPORT, KafkaError._RESOLVE, KafkaError._TIMED_OUT}
"""Says less than the complaint that was heard before it."""


class FastTransactions:
    """Writes by a Producer."""

    def __init__(self, options: dict[str, Any], group: KafkaGroup, replica: str) -> None:
        self._group, self._replica = group, replica
        self._patience = max(_PATIENCE, group.transaction_timeout)
        self._heard = ""
        """The last that librdkafka complained of."""
        self.id = transactional_id(group.id, replica, str(uuid.uuid4()))
        timeout = int(group.transaction_timeout * 1000)
        self._options = options | {
            "transactional.id": self.id,
            "transaction.timeout.ms": timeout,
            "message.timeout.ms": timeout,
            # The producer waits that long while the brokers end the transaction before; by default 100 ms.
            "retry.backoff.ms": 1,
            "message.max.bytes": _MAX_MESSAGE,
            "batch.size": _BATCH,
            "error_cb": self._hear,
        }
        self._producer: Producer | None = None

    def _hear(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._heard = error.str()

    def begin(self) -> None:
        """Connect, if that was not done."""
        self._producer = self._producer or self._connected()

    def write(
        self, records: Iterable[Record], offsets: Mapping[Partition, Committed], standing: Standing
    ) -> None:
        """One transaction."""
        if not offsets:
            raise ValueError("a transaction without an offset fences nobody")
        self.begin()
        producer = self._producer
        assert producer is not None  # noqa: S101 - for the type checker
        try:
            self._transact(producer, records, offsets, standing.metadata)
        except KafkaException as error:
            self._producer = None
            if error.args[0].code() in _STALE:
                raise refused(self._replica, self._group.id, error.args[0].name()) from error
            raise Unavailable(
                f"a transaction of group `{self._group.id}` failed: {self._why(error)}"
            ) from error
        except Overdue as error:
            self._producer = None
            raise Unavailable(f"a transaction of group `{self._group.id}` failed: {error}") from error
        except BaseException:
            self._producer = None
            raise

    def _transact(
        self,
        producer: Producer,
        records: Iterable[Record],
        offsets: Mapping[Partition, Committed],
        metadata: Any,
    ) -> None:
        end = time.monotonic() + self._patience
        self._heard = ""
        undelivered: list[tuple[KafkaError, Record]] = []
        producer.begin_transaction()
        for record in records:
            _send(producer, record, undelivered, end)
        # Before the positions: whoever comes after us under our name waits for all that was written when it joined.
        # What the group took from us before that must be among it, or it would go on without what was counted.
        flush(producer, _left(end))
        for error, record in undelivered:
            if error.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise too_large(record)
            raise KafkaException(error)
        positions = [TopicPartition(*at, one.offset, one.metadata) for at, one in offsets.items()]
        send_offsets(producer, positions, metadata, _left(end))
        producer.commit_transaction(_left(end))

    def _connected(self) -> Producer:
        producer = Producer(self._options)
        try:
            producer.init_transactions(self._patience)
        except KafkaException as error:
            producer.poll(0)  # calls `_hear`
            raise Unavailable(
                f"transactions of group `{self._group.id}` cannot begin: {self._why(error)}"
            ) from error
        return producer

    def _why(self, error: KafkaException) -> str:
        found = error.args[0]
        return self._heard if self._heard and found.code() in _PASSING else str(found.str())

    def close(self) -> None:
        """It ends with its last reference."""
        self._producer = None


def _send(
    producer: Producer, record: Record, undelivered: list[tuple[KafkaError, Record]], end: float
) -> None:
    """Hand a record over. What the broker says to it is told later, of an aborted transaction during the next one."""

    def delivered(error: KafkaError | None, _: Any) -> None:
        if error is not None:
            undelivered.append((error, record))

    topic, partition, key, value, headers = record
    while True:
        try:
            return producer.produce(
                topic, value, key, partition, on_delivery=delivered, headers=list(headers) or None
            )
        except BufferError:
            if time.monotonic() > end:
                raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
            producer.poll(_FULL)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
                raise too_large(record) from error
            raise


def flush(producer: Producer, seconds: float) -> None:
    """Wait until the brokers have answered all that was sent. Raises `KafkaException`."""
    try:
        producer.flush(seconds)
    except SystemError as error:  # now and then, of a producer that is fenced meanwhile
        raise KafkaException(KafkaError(KafkaError._FAIL, str(error))) from error


def send_offsets(producer: Producer, positions: list[TopicPartition], metadata: Any, seconds: float) -> None:
    """Add positions to the transaction. Raises `KafkaException`, and `Overdue` where the library does not return.

    It waits for a coordinator of the group that is gone, whatever time it is given (librdkafka issue 5456).
    """
    within(seconds + _LATE, lambda: producer.send_offsets_to_transaction(positions, metadata, seconds))


def _left(end: float) -> float:
    return max(end - time.monotonic(), 0.001)

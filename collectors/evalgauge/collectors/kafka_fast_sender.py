"""Writing under a lasting transactional id by confluent-kafka; see `kafka_sender.Sender`."""

# librdkafka's own error codes have names that begin with an underscore.
# ruff: noqa: SLF001

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition

from evalgauge.collectors.kafka_client import Partition, Record, Unavailable, too_large
from evalgauge.collectors.kafka_fast import connection_options
from evalgauge.collectors.kafka_fast_transactions import flush, send_offsets
from evalgauge.collectors.kafka_sender import superseded
from evalgauge.core import failpoints
from evalgauge.core.errors import EvalgaugeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evalgauge.collectors.kafka_client import Fenced
    from evalgauge.collectors.kafka_config import KafkaConfig
    from evalgauge.collectors.kafka_sender import Identity, Outgoing

_PATIENCE = 10.0
"""Seconds within which brokers must answer; a transaction has longer where its time-out is longer."""
_ABORT = 5.0
_FULL = 0.02
_SERVE = 1000
"""Records between two looks at what was delivered."""
_MAX_MESSAGE = 64 << 20
"""Bytes, far more than any topic takes: how large a record may be is for the topic to say."""
_FENCED = {
    KafkaError._FENCED,
    KafkaError.PRODUCER_FENCED,
    KafkaError.INVALID_PRODUCER_EPOCH,
}


class FastSender:
    """Writes by a Producer."""

    def __init__(self, config: KafkaConfig, name: str, identity: Identity) -> None:
        """Connect to nothing yet. Raises `ConfigError`."""
        self._identity = identity
        self._patience = max(_PATIENCE, identity.timeout)
        self._heard = ""
        """The last that librdkafka complained of."""
        self._connection = connection_options(config, name)
        timeout = int(identity.timeout * 1000)
        self._options = self._connection | {
            "transactional.id": identity.transactional_id,
            "transaction.timeout.ms": timeout,
            "message.timeout.ms": timeout,
            "retry.backoff.ms": 1,
            "message.max.bytes": _MAX_MESSAGE,
            "linger.ms": 5,
            "error_cb": self._hear,
        }
        self._producer: Producer | None = None
        self._consumer: Consumer | None = None
        self._undelivered: tuple[KafkaError, Outgoing] | None = None

    def _hear(self, error: KafkaError) -> None:
        if error.code() != KafkaError._ALL_BROKERS_DOWN:
            self._heard = error.str()

    def begin(self) -> None:
        """Be the only one."""
        producer = Producer(self._options)
        try:
            producer.init_transactions(self._patience)
        except KafkaException as error:
            producer.poll(0)  # calls `_hear`
            raise Unavailable(self._why(error)) from error
        self._producer = producer

    def write(self, records: Iterable[Outgoing], offsets: Mapping[Partition, int] | None = None) -> None:
        """One transaction."""
        assert self._producer is not None  # noqa: S101 - against a fault of the caller
        producer, self._producer = self._producer, None
        try:
            self._transact(producer, records, offsets or {})
        except KafkaException as error:
            raise self._told(producer, error) from error
        self._producer = producer

    def _transact(
        self, producer: Producer, records: Iterable[Outgoing], offsets: Mapping[Partition, int]
    ) -> None:
        end = time.monotonic() + self._patience
        self._heard, self._undelivered = "", None
        producer.begin_transaction()
        for number, record in enumerate(records):
            self._send(producer, record, end)
            if number % _SERVE == 0:
                producer.poll(0)
        if offsets:
            positions = [TopicPartition(*at, offset) for at, offset in offsets.items()]
            metadata: Any = self._reader().consumer_group_metadata()
            send_offsets(producer, positions, metadata, _left(end))
        flush(producer, _left(end))
        if self._undelivered is not None:
            raise KafkaException(self._undelivered[0])
        failpoints.reach("sender.inside")
        producer.commit_transaction(_left(end))
        failpoints.reach("sender.after")

    def _send(self, producer: Producer, record: Outgoing, end: float) -> None:
        def delivered(error: KafkaError | None, _: Any) -> None:
            if error is not None and self._undelivered is None:
                self._undelivered = (error, record)

        headers: Any = list(record.headers) or None
        while True:
            try:
                producer.produce(
                    record.topic,
                    record.value,
                    record.key,
                    record.partition,
                    on_delivery=delivered,
                    timestamp=record.time,
                    headers=headers,
                )
            except BufferError:
                if time.monotonic() > end:
                    raise KafkaException(KafkaError(KafkaError._TIMED_OUT)) from None
                producer.poll(_FULL)
            except KafkaException as error:
                self._undelivered = self._undelivered or (error.args[0], record)
                raise
            else:
                return

    def _told(self, producer: Producer, error: KafkaException) -> Unavailable | Fenced | EvalgaugeError:
        """What went wrong, in words, once nothing of it is left."""
        found = error.args[0]
        fatal: Any = getattr(found, "fatal", lambda: False)()
        if found.code() in _FENCED or (fatal and found.code() == KafkaError._FATAL):
            return superseded(self._identity.transactional_id)
        undelivered = self._undelivered
        try:
            producer.abort_transaction(_ABORT)
        except KafkaException as second:
            if second.args[0].code() in _FENCED:
                return superseded(self._identity.transactional_id)
        if undelivered is not None:
            cause, record = undelivered
            if cause.code() == KafkaError.MSG_SIZE_TOO_LARGE:
                return too_large(Record(record.topic, record.partition, record.key, record.value))
            if cause.code() == KafkaError.INVALID_RECORD:
                return EvalgaugeError(
                    f"topic `{record.topic}` refuses a record: {cause.str()}. A compacted topic wants keys"
                )
            if cause.code() in _FENCED:
                return superseded(self._identity.transactional_id)
        return Unavailable(self._why(error))

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Positions of the group."""
        try:
            found = self._reader().committed(
                [TopicPartition(*one) for one in partitions], timeout=self._patience
            )
        except KafkaException as error:
            raise Unavailable(self._why(error)) from error
        positions = {}
        for one in found:
            if one.error is not None:
                raise Unavailable(f"positions of {one.topic}/{one.partition}: {one.error.str()}")
            if one.offset >= 0:
                positions[Partition(one.topic, one.partition)] = one.offset
        return positions

    def _reader(self) -> Consumer:
        """A consumer that never joins: only of one can a group's metadata be had."""
        if self._consumer is None:
            self._consumer = Consumer(
                self._connection
                | {
                    "group.id": self._identity.group,
                    "enable.auto.commit": False,
                    "isolation.level": "read_committed",
                    "error_cb": self._hear,
                }
            )
        return self._consumer

    def _why(self, error: KafkaException) -> str:
        return self._heard or str(error.args[0].str())

    def close(self) -> None:
        """The producer ends with its last reference."""
        self._producer = None
        if self._consumer is not None:
            self._consumer.close()
            self._consumer = None


def _left(end: float) -> float:
    return max(end - time.monotonic(), 0.001)

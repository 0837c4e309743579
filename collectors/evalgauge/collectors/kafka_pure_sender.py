"""Writing under a lasting transactional id by kafka-python; see `kafka_sender.Sender`."""

from __future__ import annotations

import contextlib
import time
import warnings
from typing import TYPE_CHECKING, Any

from evalgauge.collectors.kafka_client import Partition, Record, Unavailable, too_large
from evalgauge.collectors.kafka_pure import connected, connection_options, quiet
from evalgauge.collectors.kafka_sender import superseded
from evalgauge.core import failpoints
from evalgauge.core.errors import EvalgaugeError

with warnings.catch_warnings():
    # It reads its own schemas in a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    import kafka
    from kafka import errors
    from kafka.structs import OffsetAndMetadata

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evalgauge.collectors.kafka_config import KafkaConfig
    from evalgauge.collectors.kafka_sender import Identity, Outgoing

_PATIENCE = 10.0
"""Seconds within which brokers must answer; a transaction has longer where its time-out is longer."""
_CLOSE = 1.0
_ABORT = 5.0
_MAX_REQUEST = 64 << 20
"""Bytes, far more than any topic takes: how large a record may be is for the topic to say."""
_BATCH = 256 << 10
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_FENCED = (errors.ProducerFencedError, errors.InvalidProducerEpochError)


class PureSender:
    """Writes by a KafkaProducer, whose blocking calls are taken apart: they have no time-out.

    One that was fenced and goes on would knock out its successor, so it is ended with the first error.
    """

    def __init__(self, config: KafkaConfig, name: str, identity: Identity) -> None:
        """Connect to nothing yet. Raises `ConfigError`."""
        quiet()
        self._identity = identity
        self._patience = max(_PATIENCE, identity.timeout)
        self._connection = connection_options(config, name)
        self._options = self._connection | {
            "transactional_id": identity.transactional_id,
            "transaction_timeout_ms": int(identity.timeout * 1000),
            # The producer sleeps that long between each two requests of a transaction; by default 100 ms.
            "retry_backoff_ms": 1,
            "delivery_timeout_ms": int(self._patience * 1000),
            "max_block_ms": int(self._patience * 1000),
            "max_request_size": _MAX_REQUEST,
            "batch_size": _BATCH,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
        }
        self._producer: Any = None
        self._admin: Any = None

    def begin(self) -> None:
        """Be the only one."""
        self._discard()
        producer = connected(kafka.KafkaProducer, self._options)
        try:
            producer.init_transactions()
        except errors.KafkaError as error:
            _end(producer)
            raise Unavailable(_why(error)) from error
        self._producer = producer

    def write(self, records: Iterable[Outgoing], offsets: Mapping[Partition, int] | None = None) -> None:
        """One transaction."""
        assert self._producer is not None  # noqa: S101 - against a fault of the caller
        end = time.monotonic() + self._patience
        try:
            self._transact(records, offsets or {}, end)
        except (errors.KafkaError, OSError) as error:
            # What failed before is found in the arguments of what fails because of it.
            if any(isinstance(one, _FENCED) for one in (error, error.__cause__, *error.args)):
                self._discard()
                raise superseded(self._identity.transactional_id) from error
            self._abort()
            raise Unavailable(_why(error)) from error
        except BaseException:
            self._abort()
            raise

    def _transact(self, records: Iterable[Outgoing], offsets: Mapping[Partition, int], end: float) -> None:
        self._manager.begin_transaction()
        sent = [(self._sent(record), record) for record in records]
        if offsets:
            positions = {_tp(at): OffsetAndMetadata(offset, "", -1) for at, offset in offsets.items()}
            # The group has no members: what fences us is the transactional id.
            self._wait(self._manager.send_offsets_to_transaction(positions, self._identity.group), end)
        for future, record in sent:
            try:
                future.get(timeout=max(end - time.monotonic(), 0))
            except _TOO_LARGE as error:
                raise _large(record) from error
            except errors.InvalidRecordError as error:
                raise EvalgaugeError(
                    f"topic `{record.topic}` refuses a record: {_why(error)}. A compacted topic wants keys"
                ) from error
        failpoints.reach("sender.inside")
        self._wait(self._manager.begin_commit(), end)
        failpoints.reach("sender.after")

    @property
    def _manager(self) -> Any:
        return self._producer._transaction_manager  # noqa: SLF001 - see the class

    def _sent(self, record: Outgoing) -> Any:
        try:
            return self._producer.send(
                record.topic,
                record.value,
                record.key,
                [(name, value or b"") for name, value in record.headers],
                record.partition,
                record.time or None,
            )
        except _TOO_LARGE as error:
            raise _large(record) from error

    def _wait(self, result: Any, end: float) -> None:
        """Until the broker has answered a step. Raises what it said, or KafkaTimeoutError."""
        self._producer._sender.wakeup()  # noqa: SLF001
        if not result.wait(timeout_ms=max(end - time.monotonic(), 0) * 1000):
            raise errors.KafkaTimeoutError(f"the brokers did not answer within {self._patience:g} s")

    def _abort(self) -> None:
        """What cannot be aborted now the next `begin` aborts, or the brokers do."""
        with contextlib.suppress(errors.KafkaError):
            self._wait(self._manager.begin_abort(), time.monotonic() + _ABORT)
        self._discard()

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Positions of the group."""
        group = self._identity.group
        try:
            if self._admin is None:
                self._admin = connected(kafka.KafkaAdminClient, self._connection)
            found = self._admin.list_group_offsets({group: [_tp(one) for one in partitions]})[group]
        except (errors.KafkaError, OSError) as error:
            raise Unavailable(_why(error)) from error
        return {Partition(*tp): one.offset for tp, one in found.items() if one.offset >= 0}

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            _end(producer)

    def close(self) -> None:
        """Let go of the connections."""
        self._discard()
        if self._admin is not None:
            self._admin.close()
            self._admin = None


def _end(producer: Any) -> None:
    """Stop it at once."""
    producer._sender.force_close()  # noqa: SLF001 - its own `close` sends first what it holds
    producer._sender.join(_CLOSE)  # noqa: SLF001
    with contextlib.suppress(errors.KafkaError):
        producer.close(timeout=0)


def _large(record: Outgoing) -> EvalgaugeError:
    return too_large(Record(record.topic, record.partition, record.key, record.value))


def _tp(partition: Partition) -> Any:
    return kafka.TopicPartition(*partition)


def _why(error: BaseException) -> str:
    name = type(error).__name__.removesuffix("Error")
    text = str(error).strip()
    return text if name in text else f"{name}: {text}" if text else name

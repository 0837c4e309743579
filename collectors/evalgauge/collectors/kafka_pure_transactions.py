"""A group's transactions by kafka-python; see `kafka_client.Transactions`."""

from __future__ import annotations

import contextlib
import time
import uuid
import warnings
from typing import TYPE_CHECKING, Any

from evalgauge.collectors.kafka_client import Partition, Unavailable, refused, too_large
from evalgauge.collectors.kafka_orphans import transactional_id

with warnings.catch_warnings():
    # It reads its own schemas in a way that Python 3.11 deprecates.
    warnings.simplefilter("ignore", DeprecationWarning)
    from kafka import TopicPartition, errors
    from kafka.structs import OffsetAndMetadata

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from evalgauge.collectors.kafka_client import Committed, Record, Standing
    from evalgauge.collectors.kafka_config import KafkaGroup

_PATIENCE = 10.0
"""Seconds within which brokers must answer; a transaction has longer where its time-out is longer."""
_CLOSE = 1.0
_MAX_REQUEST = 64 << 20
"""Bytes, far more than any topic takes: how large a record may be is for the topic to say."""
_BATCH = 256 << 10
"""Bytes; a batch that is too large for its topic is split."""
_TOO_LARGE = (errors.MessageSizeTooLargeError, errors.RecordListTooLargeError)
_STALE = (errors.CommitFailedError, errors.FencedInstanceIdError)
"""What the group says to the positions of one that is not, or no longer, the member it takes itself for."""


class PureTransactions:
    """Writes by a KafkaProducer, whose blocking calls are taken apart: they have no time-out."""

    def __init__(self, make: Callable[[dict[str, Any]], Any], group: KafkaGroup, replica: str) -> None:
        """`make` connects a producer of these options; it raises `Unavailable`."""
        self._make, self._group, self._replica = make, group, replica
        self.id = transactional_id(group.id, replica, str(uuid.uuid4()))
        self._patience = max(_PATIENCE, group.transaction_timeout)
        self._options = {
            "transactional_id": self.id,
            "transaction_timeout_ms": int(group.transaction_timeout * 1000),
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
        end = time.monotonic() + self._patience
        try:
            self._transact(records, offsets, standing.metadata, end)
        except _STALE as error:
            self._discard()
            raise refused(self._replica, self._group.id, _why(error)) from error
        except errors.KafkaError as error:
            self._discard()
            raise Unavailable(f"a transaction of group `{self._group.id}` failed: {_why(error)}") from error
        except BaseException:
            self._discard()
            raise

    def _transact(
        self, records: Iterable[Record], offsets: Mapping[Partition, Committed], metadata: Any, end: float
    ) -> None:
        self._manager.begin_transaction()
        sent = [(self._sent(record), record) for record in records]
        # Every record must be there before the commit is asked for: a producer that mends its own epoch while it
        # commits would call committed what the broker has aborted. And before the positions: whoever comes after us
        # under our name waits for all that was written when it joined. What the group took from us before that must
        # be among it, or it would go on without what was counted.
        for future, record in sent:
            try:
                future.get(timeout=max(end - time.monotonic(), 0))
            except _TOO_LARGE as error:
                raise too_large(record) from error
        positions = {
            TopicPartition(*at): OffsetAndMetadata(one.offset, one.metadata, -1)
            for at, one in offsets.items()
        }
        self._wait(self._manager.send_offsets_to_transaction(positions, metadata), end)
        self._wait(self._manager.begin_commit(), end)

    @property
    def _manager(self) -> Any:
        return self._producer._transaction_manager  # noqa: SLF001 - see the class

    def _sent(self, record: Record) -> Any:
        try:
            return self._producer.send(
                record.topic, record.value, record.key, list(record.headers), record.partition
            )
        except _TOO_LARGE as error:
            raise too_large(record) from error
        except ValueError as error:
            # A partition that this producer has not heard of; the next one asks for it anew.
            raise Unavailable(f"topic `{record.topic}`: {error}") from error

    def _wait(self, result: Any, end: float) -> None:
        """Until the broker has answered a step. Raises what it said, or KafkaTimeoutError."""
        self._producer._sender.wakeup()  # noqa: SLF001
        if not result.wait(timeout_ms=max(end - time.monotonic(), 0) * 1000):
            raise errors.KafkaTimeoutError(f"the brokers did not answer within {self._patience:g} s")

    def _connected(self) -> Any:
        producer = self._make(self._options)
        try:
            producer.init_transactions()
        except errors.KafkaError as error:
            _end(producer)
            raise Unavailable(
                f"transactions of group `{self._group.id}` cannot begin: {_why(error)}"
            ) from error
        return producer

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        _end(producer)

    def close(self) -> None:
        """Let go of the connections."""
        if self._producer is not None:
            self._discard()


def _end(producer: Any) -> None:
    """Stop it at once. One that is fenced and goes on would knock out its successor."""
    producer._sender.force_close()  # noqa: SLF001 - its own `close` sends first what it holds
    producer._sender.join(_CLOSE)  # noqa: SLF001
    with contextlib.suppress(errors.KafkaError):
        producer.close(timeout=0)


def _why(error: BaseException) -> str:
    name = type(error).__name__.removesuffix("Error")
    text = str(error).strip()
    return text if name in text else f"{name}: {text}" if text else name

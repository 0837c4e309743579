"""Writes by a transactional id that stays the same from one process to the next: who begins last is the only one.

Commands write so, of which no two may run at once, and which must be able to go on after a crash. What a process that
was killed has left open is aborted when the next one begins, and one that was only slow commits nothing any more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from evalgauge.collectors.kafka_client import Fenced
from evalgauge.core.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evalgauge.collectors.kafka_client import Partition
    from evalgauge.collectors.kafka_config import KafkaConfig


class Outgoing(NamedTuple):
    """A record to write."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes | None]] = ()
    time: int = 0
    """Milliseconds since 1970; 0 is now."""


class Identity(NamedTuple):
    """Who writes."""

    transactional_id: str
    timeout: float
    """Seconds after which the brokers abort a transaction that is open."""
    group: str
    """Group whose positions go with the records; it has no members."""


class Sender(Protocol):
    """Belongs to one thread. After anything was raised it must `begin` again, or be closed."""

    def begin(self) -> None:
        """Be the only one of this id from now on; what another has left open is aborted. Raises `Unavailable`."""

    def write(self, records: Iterable[Outgoing], offsets: Mapping[Partition, int] | None = None) -> None:
        """One transaction, durable when it returns.

        Raises `Fenced` when another process has begun with this id since: then nothing of it was written. Raises
        `EvalgaugeError` for a record that the topic does not take: nothing of it was written. Raises `Unavailable`
        where brokers fail or do not answer: then it is unknown, and known once `begin` has returned.
        """

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Positions of the group, of partitions that have one; certain after `begin`. Raises `Unavailable`."""

    def close(self) -> None:
        """Let go of connections and threads."""


def open_sender(config: KafkaConfig, name: str, identity: Identity) -> Sender:
    """By the library that the input asks for; it connects with `begin`. Raises `ConfigError`."""
    try:
        if config.client == "confluent":
            from evalgauge.collectors.kafka_fast_sender import FastSender  # noqa: PLC0415 - an extra

            return FastSender(config, name, identity)
        from evalgauge.collectors.kafka_pure_sender import PureSender  # noqa: PLC0415 - an extra

        return PureSender(config, name, identity)
    except ImportError as error:
        raise ConfigError(
            f"writing to Kafka needs the package of the client {config.client}: {error}"
        ) from error


def superseded(transactional_id: str) -> Fenced:
    """Another process has begun with our id."""
    return Fenced(
        f"another process has begun to write as `{transactional_id}` since; nothing of the last transaction was written"
    )

"""The seam of Kafka clients: what the collector asks of one, whichever library it is.

Two objects, because they live in different threads. A `Client` reads records and belongs to the thread that polls
it. A `Cluster` knows topics and the ends of their partitions, over connections of its own, so that it can look
while the client waits; it belongs to the thread that looks. Both speak `read_committed`, neither commits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

EARLIEST = -2
"""A time before every record: as the protocol writes it."""
LATEST = -1
"""A time after every record: as the protocol writes it."""


class Partition(NamedTuple):
    """A partition of a topic."""

    topic: str
    number: int

    def __str__(self) -> str:
        """`topic/number`: what the engine calls it."""
        return f"{self.topic}/{self.number}"

    @classmethod
    def named(cls, name: str) -> Partition:
        """The partition that is written `topic/number`. Raises ValueError."""
        topic, _, number = name.rpartition("/")
        if not topic or not (number.isascii() and number.isdigit()):
            raise ValueError(f"`{name}` is no partition; write it as topic/number")
        return cls(topic, int(number))


class Topic(NamedTuple):
    """A topic as the cluster has it now."""

    id: str
    """Differs from that of an earlier topic of the same name; empty where the broker knows no ids (before 2.8)."""
    partitions: tuple[int, ...]


class Unavailable(Exception):  # noqa: N818 - a state of the cluster, which passes
    """The cluster does not answer, or refuses us: the message says which. Ask again later."""


class Batch(Protocol):
    """Records of one partition, in order of their offsets."""

    @property
    def partition(self) -> Partition:
        """Whose records they are."""

    @property
    def offsets(self) -> Sequence[int]:
        """Ascending; a compacted topic and transactions leave gaps."""

    @property
    def values(self) -> Sequence[bytes | None]:
        """None is a tombstone."""

    @property
    def epoch(self) -> int | None:
        """Leader epoch of the last record, where the client knows it."""

    def headers(self, index: int) -> Sequence[tuple[str, bytes]]:
        """The headers of record `index`, in order; a header without a value has an empty one."""

    def keys(self) -> list[bytes | None]:
        """The key of each record."""

    def timestamps(self) -> list[int]:
        """The time of each record in milliseconds since 1970; negative where it has none."""


@dataclass(slots=True)
class Polled:
    """What one poll brought."""

    batches: Sequence[Batch] = field(default_factory=list)
    strayed: list[Partition] = field(default_factory=list)
    """Partitions whose next offset is not in the log any more; they are not read until assigned again."""
    trouble: str = ""
    """What the client or the broker complains of, in words: leave to read a topic, a corrupt record."""


class Client(Protocol):
    """Reads records. A group adds subscribing with callbacks and group metadata to the same object."""

    def assign(self, offsets: Mapping[Partition, int]) -> None:
        """Read these too, each from its offset; one that is read already goes on from there instead."""

    def drop(self, partitions: Iterable[Partition]) -> None:
        """Read these no more; nothing of them comes from a later poll."""

    def poll(self, timeout: float) -> Polled:
        """Records that are there, waiting up to `timeout` seconds for the first.

        Does not raise while brokers come and go.
        """

    def position(self, partition: Partition) -> int | None:
        """The next offset it would read, markers of transactions passed over; None while that is unknown."""

    def pause(self) -> None:
        """Bring nothing until `resume`; polling goes on, so that a group sees us alive."""

    def resume(self) -> None:
        """Read on after `pause`."""

    def close(self) -> None:
        """Let go of connections and threads, soon."""


class Cluster(Protocol):
    """Looks at topics and offsets."""

    def topics(self, names: Sequence[str] | None) -> dict[str, Topic]:
        """The topics of these names that exist (None: all of them); never creates one. Raises `Unavailable`."""

    def offsets(self, at: Mapping[Partition, int]) -> dict[Partition, int]:
        """For each partition the offset of `EARLIEST`, of `LATEST`, or of the first record from a time on.

        Times are milliseconds since 1970; without a record from then on it is the end. What has no leader now is left
        out. Raises `Unavailable`.
        """

    def close(self) -> None:
        """Let go of connections and threads, soon."""

"""The seam of Kafka clients: what the collector asks of one, whichever library it is.

Several objects, because they live in different threads. A `Client` reads records and belongs to the thread that
polls it. A `Cluster` knows topics and the ends of their partitions, over connections of its own, so that it can look
while the client waits; it belongs to the thread that looks. Both speak `read_committed`, neither commits.

In a group there are two more. A `Member` joins it and reads nothing: it is told which partitions are ours, in a
thread of its own, so that neither a long commit nor a slow restore keeps it from the group. `Transactions` writes
state and positions together; it belongs to the thread that commits.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from evalgauge.core.errors import EvalgaugeError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from evalgauge.collectors.kafka_config import KafkaGroup

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


class Fenced(Exception):  # noqa: N818 - a state of the group, which only a new start mends
    """The group takes nothing more from us as we are: what was not committed belongs to somebody else by now."""


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

    @property
    def newest(self) -> int:
        """The time of the last record, as in `timestamps`, without the cost of all."""

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
    """Reads records."""

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


class Committed(NamedTuple):
    """A position that the group holds of a partition."""

    offset: int
    metadata: str

    @classmethod
    def told(cls, offset: int, metadata: str | None) -> Committed:
        """As brokers tell of it. In a transaction librdkafka ends metadata with a zero byte."""
        return cls(offset, (metadata or "").rstrip("\0"))


class TopicPattern:
    """The topics that a pattern takes: by their whole name; none of the brokers' own, none that the group writes.

    Each library has regular expressions of its own, which differ from each other and from those of the configuration.
    """

    def __init__(self, pattern: str, group: KafkaGroup | None) -> None:
        self._pattern = re.compile(pattern)
        # What we write ourselves would come back to us for ever.
        self._ours = (
            set() if group is None else {group.changelog_topic, group.ids_topic, group.dead_letter_topic}
        )

    def match(self, name: str) -> bool:
        """Whether a topic of this name is read."""
        whole = self._pattern.fullmatch(name) is not None
        return whole and not name.startswith("__") and name not in self._ours


def taken_over(replica: str, group: str) -> Fenced:
    """Another process has our name."""
    return Fenced(
        f"another process has joined group `{group}` as replica `{replica}`, and the brokers know only that one now: "
        "stop one of the two, or give each a `replica` of its own"
    )


def no_member(replica: str, group: str) -> Fenced:
    """Nothing can be committed before the next join."""
    return Fenced(
        f"replica `{replica}` is no member of group `{group}` now: it has not joined yet, or was expelled"
    )


def refused(replica: str, group: str, why: str) -> Fenced:
    """The group did not take positions from us."""
    return Fenced(
        f"group `{group}` takes no positions from replica `{replica}` as it was when it wrote them ({why}): "
        "the group has changed since; nothing was committed"
    )


class Unstable(Unavailable):
    """Positions cannot be told while a transaction may change them."""


def unstable(group: str) -> Unstable:
    """Positions cannot be told yet."""
    return Unstable(
        f"positions of group `{group}` are part of a transaction that is still open, as a killed member leaves it: "
        "the brokers end it when its `transaction_timeout` is over"
    )


def too_large(record: Record) -> EvalgaugeError:
    """A record that the brokers do not take, now or later."""
    size = len(record.key or b"") + len(record.value or b"")
    return EvalgaugeError(
        f"topic `{record.topic}` does not take a record of {size:,} bytes (partition {record.partition}); nothing of "
        f"its transaction was written. Raise `max.message.bytes` of the topic (unset, it is `message.max.bytes` of the "
        f"brokers): kafka-configs.sh --alter --entity-type topics --entity-name {record.topic} "
        f"--add-config max.message.bytes={_next_power(2 * size)}"
    )


def _next_power(size: int) -> int:
    return 1 << size.bit_length()


class Standing(NamedTuple):
    """As what the group knows us."""

    member_id: str
    """Of this membership: after an expulsion the group gives another."""
    metadata: Any
    """The library's own, with the generation."""


class Ownership(Protocol):
    """Is told which partitions are ours; called within `Member.poll`, in its thread.

    Heartbeats go on meanwhile, but all must be done within `drain_timeout`. What it raises, `poll` raises.
    """

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """These are ours from now on; others stay as they are."""

    def revoked(self, partitions: Sequence[Partition]) -> None:
        """These go to somebody else once this returns. Until then positions of them can be committed."""

    def lost(self, partitions: Sequence[Partition]) -> None:
        """These may be somebody else's already: nothing of them can be committed."""


class Member(Protocol):
    """A static member of a consumer group, which reads nothing."""

    def poll(self, timeout: float) -> None:
        """Take part in the group for up to `timeout` seconds.

        Heartbeats go on between two polls, in a thread of the library. Does not raise while brokers come and go.
        Raises `Fenced` when another process has joined under our name, then and ever after.
        """

    def metadata(self) -> Standing:
        """What the group knows us by now, for `Transactions`. From any thread, while `revoked` waits too.

        Raises `Fenced` while we are no member: a transaction without a generation would fence nothing. Every rebalance
        makes it stale, those too that move nothing of ours: take it anew for each transaction.
        """

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, Committed | None]:
        """Positions the group holds; None where it has none. Never one that a transaction still may change.

        Belongs to the thread of `poll`. Raises `Unavailable`, also while a transaction of a member that died is open.
        """

    def trouble(self) -> str:
        """What keeps us from being a member, in words; empty if nothing does. From any thread."""

    def close(self) -> None:
        """Let go of connections and threads; tells nobody that partitions are gone. In the thread of `poll`.

        A static member stays one until its session ends.
        """


class Record(NamedTuple):
    """Something to write."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]] = ()


class Transactions(Protocol):
    """Writes records and positions of a group together or not at all, by one transactional id of its own.

    The id is new for each process life, so that no other process takes it; what fences a dead or stopped process is
    the group's generation. What may go wrong, and what is done:

    | The broker says | Reaction |
    |---|---|
    | stale generation, unknown member, fenced instance id | new producer, `Fenced` |
    | the transaction timed out, producer fenced, unknown producer or epoch | new producer, `Unavailable` |
    | not the coordinator, loading, no leader, connection lost | the client retries until time is up |
    | nothing, until time is up (also: is it committed?) | new producer, `Unavailable` |
    | record too large | new producer, `EvalgaugeError`: the same would be refused again |
    | anything else, such as no leave to write | new producer, `Unavailable` with the broker's words |

    A new producer takes the same id again. So whatever the one before left open is aborted at once, and a commit that
    it still has under way is refused: once a new producer has begun, the old one's outcome is settled. Nothing is
    aborted in another way, so that state and epoch of a producer tell how its last transaction ended.
    """

    id: str
    """Transactional id."""

    def begin(self) -> None:
        """Have a producer, so that the outcome of all that was written before is settled. Raises `Unavailable`."""

    def write(
        self, records: Iterable[Record], offsets: Mapping[Partition, Committed], standing: Standing
    ) -> None:
        """One transaction, durable when it returns; at least one offset. Starts clean after any earlier failure.

        Takes at most the longer of `transaction_timeout` and 10 s, and as much again where it must make a producer.
        Raises `Fenced` where the group has refused `standing`: then nothing was committed. Raises `Unavailable` where
        brokers fail or do not answer: then it is unknown whether it was committed, and the same may be written again.
        Raises `EvalgaugeError` for a record that the topic does not take: nothing was committed.
        """

    def close(self) -> None:
        """Let go of connections and threads. The brokers abort what is open, or whoever takes over the id does."""


class Cluster(Protocol):
    """Looks at topics and offsets."""

    def topics(self, names: Sequence[str] | None) -> dict[str, Topic]:
        """The topics of these names that exist (None: all of them); never creates one. Raises `Unavailable`."""

    def offsets(self, at: Mapping[Partition, int]) -> dict[Partition, int]:
        """For each partition the offset of `EARLIEST`, of `LATEST`, or of the first record from a time on.

        Times are milliseconds since 1970; without a record from then on it is the end. What has no leader now is left
        out. Raises `Unavailable`.
        """

    def written(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset after everything written, by transactions that are open too. Raises `Unavailable`."""

    def close(self) -> None:
        """Let go of connections and threads, soon."""

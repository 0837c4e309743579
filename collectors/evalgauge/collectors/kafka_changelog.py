"""The changelog of a group: a compacted topic in which each record is one page of state, under a key that says whose.

Keys are JSON arrays, so that Kafka's own tools show what they are:

    ["replica", "r1"]                             what replica r1 says of itself, written with each of its commits
    ["replica", "r1", MEANING]                    which metric a table is of
    ["replica", "r1", MEANING, "values", 3]       one page of it
    ["partition", "judgments/4@TOPIC-ID", …]      the same of a partition's tables, which move with it
    ["group", "retired", "r3"]                    that replica r3 has left for good
    ["group", "begun", "judgments/4@TOPIC-ID"]    that the group has begun to read a partition
    ["letters", "TOPIC@TOPIC-ID", 7]              that a dead letter was sent back or thrown away

All records of an owner are in one partition, given by a checksum of its name. It does not depend on how many partitions
the topic has, as long as it has `PARTITIONS`: adding some must not make state disappear. What is of the whole group has
the last of these for itself, so that everybody can look there at any time: it holds a few short records.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

import msgspec

from evalgauge.collectors.kafka_client import EARLIEST, Partition, Record, Unavailable
from evalgauge.core.errors import StateError
from evalgauge.core.store import TableInfo
from evalgauge.core.table import Page, PageKind

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from evalgauge.collectors.kafka_client import Client, Cluster, Topic

_TIME = struct.Struct(">d")
_DIGESTS_BYTES = 16 << 15
"""Of one record: half of what a topic takes by default, and many whole digests of 16 bytes."""
PARTITIONS = 17
"""Partitions of a changelog that are used."""
SETTINGS = {
    "cleanup.policy": "compact",
    # Old contents of a page go soon, so that a restart has little more to read than there is state.
    "min.cleanable.dirty.ratio": "0.1",
    "segment.ms": "600000",
    "segment.bytes": str(64 << 20),
    "max.compaction.lag.ms": "3600000",
    "max.message.bytes": str(8 << 20),
}
"""With which it is made."""
ESSENTIAL = {"cleanup.policy": "compact"}
"""What is looked at where it is there already: retention would delete state."""
STALLED = 0.5
"""Seconds without a record after which a reading that is not at its end waits for an open transaction."""

STUCK = 15.0
"""Seconds without a record after which a reading is begun anew, by another client: it may be that which is stuck."""


def ids_settings(age: float) -> dict[str, str]:
    """With which the topic of ids is made: by time, not compacted, for each record tells of other events."""
    return {
        "cleanup.policy": "delete",
        "retention.ms": str(int(age * 1000) + 3_600_000),
        "segment.ms": str(max(600_000, int(age * 1000 / 20))),
    }


class Owner(NamedTuple):
    """Whose state it is: a replica's, a partition's, the group's, or that of its dead letters."""

    scope: str
    """`replica`, `partition`, `group` or `letters`."""
    name: str

    @classmethod
    def partition(cls, partition: str, topic_id: str) -> Owner:
        """A partition of the topic that has this id: one made again under the same name has state of its own."""
        return cls("partition", f"{partition}@{topic_id}")

    @property
    def slot(self) -> int:
        """The partition of the changelog that holds its records."""
        if self.scope == "group":
            return PARTITIONS - 1
        return crc32(f"{self.scope}/{self.name}".encode()) % (PARTITIONS - 1)


def key_of(owner: Owner, *rest: str | int) -> bytes:
    """The key of a record."""
    return msgspec.json.encode([*owner, *rest])


def page_records(topic: str, owner: Owner, pages: Iterable[tuple[str, Page]]) -> Iterable[Record]:
    """Pages as records."""
    slot = owner.slot
    for meaning, page in pages:
        yield Record(topic, slot, key_of(owner, meaning, page.kind.value, page.number), page.data)


def digests_records(topic: str, owner: Owner, time: float, digests: bytes) -> Iterable[Record]:
    """Digests of the events accepted up to a time, as records of the topic of ids that fit into any topic."""
    slot, key = owner.slot, key_of(owner)
    for start in range(0, len(digests), _DIGESTS_BYTES):
        yield Record(topic, slot, key, _TIME.pack(time) + digests[start : start + _DIGESTS_BYTES])


def table_record(topic: str, owner: Owner, info: TableInfo) -> Record:
    """What a table is, as a record."""
    return Record(
        topic, owner.slot, key_of(owner, info.meaning), msgspec.json.encode({"metric": info.metric})
    )


class Said(msgspec.Struct, frozen=True):
    """What a replica says of itself with each commit."""

    time: float
    """Unix time of the commit."""
    version: str
    """Of evalgauge."""
    metrics: dict[str, str] = {}
    """Meaning → metric."""


class Held(NamedTuple):
    """What a changelog holds of one owner."""

    said: bytes | None
    """What it says of itself."""
    tables: list[TableInfo]
    pages: dict[str, list[Page]]
    """Meaning → pages."""

    @classmethod
    def of(cls, records: Mapping[tuple[str | int, ...], bytes]) -> Held:
        """The same from records by the rest of their keys. Raises `StateError`."""
        held = cls(records.get(()), [], {})
        for key, value in records.items():
            match key:
                case ():
                    pass
                case (str(meaning),):
                    held.tables.append(TableInfo(meaning, _metric(value)))
                case (str(meaning), str(kind), int(number)):
                    held.pages.setdefault(meaning, []).append(Page(PageKind(kind), number, value))
                case _:
                    raise StateError(
                        f"the changelog holds a record of an unknown kind, {key!r}: run the newer version"
                    )
        return held


def _metric(value: bytes) -> str:
    return str(msgspec.json.decode(value)["metric"])


class Reading:
    """Reads what is kept of some owners, as far as it was written when the reading began.

    What transactions have written that are still open is waited for: it may become valid. So nothing is missed that
    was committed before, whoever did it, and a transaction that a killed process left open holds the reading up until
    the brokers give it up.
    """

    def __init__(
        self,
        client: Client,
        cluster: Cluster,
        owners: Collection[Owner],
        changelog: str,
        ids: tuple[str, float] | None = None,
    ) -> None:
        """`ids`: topic of the ids remembered, and the Unix time since which. Raises `Unavailable`."""
        starts = {Partition(changelog, owner.slot): EARLIEST for owner in owners}
        if ids is not None:
            since = int(ids[1] * 1000)
            starts |= {Partition(ids[0], one.slot): since for one in owners if one.scope == "partition"}
        self._client = client
        self._changelog = changelog
        self._begins = cluster.offsets(starts)
        self._goal = cluster.written(sorted(starts))
        if missing := sorted(starts.keys() - (self._begins.keys() & self._goal.keys())):
            raise Unavailable(f"partition {missing[0]} has no leader")
        self._found: dict[Owner, dict[tuple[str | int, ...], bytes]] = {owner: {} for owner in owners}
        self._ids: dict[Owner, list[tuple[float, bytes]]] = {owner: [] for owner in owners}
        self.records = 0
        """Read so far."""
        self.moved = False
        """The last step brought something."""
        self.trouble = ""
        """What the client complained of last."""
        client.assign(self._begins)

    def step(self, timeout: float) -> bool:
        """Read for about so many seconds; True once all is read. Raises `StateError` for what is no changelog."""
        polled = self._client.poll(timeout)
        self.moved = bool(polled.batches)
        self.trouble = polled.trouble or self.trouble
        if polled.strayed:
            raise StateError(f"{polled.strayed[0]} lost records while state was read from it")
        for batch in polled.batches:
            self.records += len(batch.values)
            take = self._page if batch.partition.topic == self._changelog else self._digests
            for key, value in zip(batch.keys(), batch.values, strict=True):
                take(*parsed(key, batch.partition), value)
        return all((self._client.position(one) or 0) >= end for one, end in self._goal.items())

    def _page(self, owner: Owner, rest: tuple[str | int, ...], value: bytes | None) -> None:
        found = self._found.get(owner)
        if found is None:
            return
        if value is None:
            found.pop(rest, None)
        else:
            found[rest] = value

    def _digests(self, owner: Owner, rest: tuple[str | int, ...], value: bytes | None) -> None:
        del rest
        if owner in self._ids and value is not None:
            self._ids[owner].append((_TIME.unpack_from(value)[0], value[_TIME.size :]))

    def behind(self) -> str:
        """How far it has come, in words, where it does not go on."""
        waits = [
            f"{one} is read to {position} of {end}"
            for one, end in self._goal.items()
            if (position := self._client.position(one) or 0) < end
        ]
        return "; ".join([*waits, *([self.trouble] if self.trouble else [])])

    def records_of(self, owner: Owner) -> Mapping[tuple[str | int, ...], bytes]:
        """What was found, by the rest of the keys."""
        return self._found[owner]

    def held(self, owner: Owner) -> Held:
        """What was found. Raises `StateError`."""
        return Held.of(self._found[owner])

    def digests(self, owner: Owner) -> list[tuple[float, bytes]]:
        """(Unix time, digests of 16 bytes), oldest first."""
        return self._ids[owner]

    def close(self) -> None:
        """Read these partitions no more."""
        self._client.drop(list(self._begins))


def parsed(key: bytes | None, partition: Partition) -> tuple[Owner, tuple[str | int, ...]]:
    """Whose record it is, and the rest of its key. Raises `StateError` for a key that is not ours."""
    try:
        scope, name, *rest = msgspec.json.decode(key or b"", type=list[str | int])
    except (msgspec.DecodeError, ValueError) as error:
        raise StateError(
            f"topic {partition.topic} holds a record that is not ours, with the key {key!r}: give the group a topic of "
            "its own (`changelog`)"
        ) from error
    return Owner(str(scope), str(name)), tuple(rest)


def sound(topic: Topic | None, name: str) -> None:
    """Raise `StateError` where a topic cannot serve as changelog."""
    if topic is not None and len(topic.partitions) < PARTITIONS:
        raise StateError(
            f"topic {name} has {len(topic.partitions)} partitions, and a changelog needs {PARTITIONS}: name another "
            "one in `changelog`, which is made as it must be"
        )

"""State of a group's member in Kafka: pages, dead letters and positions go in one transaction, fenced by the group.

A transaction carries at least one position, because it is the position that the brokers check against the group.
Pages are whole and absolute, so writing the same twice does no harm: where it is unknown whether a transaction was
committed, it is simply written again.
"""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import msgspec

from evalgauge.collectors import kafka_changelog, kafka_letters
from evalgauge.collectors.kafka_begun import begun_record
from evalgauge.collectors.kafka_changelog import (
    STALLED,
    STUCK,
    Held,
    Owner,
    Reading,
    Said,
    digests_records,
    key_of,
    page_records,
    sound,
    table_record,
)
from evalgauge.collectors.kafka_client import Committed, Partition, Record, Unavailable
from evalgauge.collectors.kafka_letters import letter_record
from evalgauge.collectors.kafka_membership import Joining, Membership
from evalgauge.collectors.kafka_name import ReplicaName
from evalgauge.collectors.kafka_orphans import Orphans
from evalgauge.collectors.kafka_place import Place, committed_of
from evalgauge.collectors.kafka_retired import MARKS, marks_of, refuse_retired
from evalgauge.collectors.kafka_topics import Topic, make_topics
from evalgauge.collectors.kafka_writer import Writer
from evalgauge.core import failpoints
from evalgauge.core.collect import Stopped
from evalgauge.core.errors import StateError, StoreUnavailableError
from evalgauge.core.store import Restored

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evalgauge.collectors.kafka_client import Client, Cluster, Transactions
    from evalgauge.collectors.kafka_config import KafkaConfig, KafkaGroup
    from evalgauge.core.store import Commit, DeadLetterLimits

_log = logging.getLogger(__name__)
_RETRY = 0.5


class Library(Joining, Protocol):
    """Makes what a store needs of a client library."""

    def client(self) -> Client:
        """A reader. Raises `Unavailable`."""

    def cluster(self) -> Cluster:
        """Something to look with. Raises `Unavailable`."""

    def transactions(self, replica: str) -> Transactions:
        """A writer. Raises `Unavailable`."""


class KafkaStore:
    """The checkpoint of one replica. Between `restore` and the next it is a member of the group."""

    by_partition: ClassVar[bool] = True

    def __init__(self, config: KafkaConfig, library: Library, name: str, replica: str) -> None:
        """Connect to nothing yet."""
        assert config.group is not None  # noqa: S101 - for the type checker: without a group there is no such store
        self._config = config
        self._group: KafkaGroup = config.group
        self._library = library
        self._name = name
        self._replica = Owner("replica", replica)
        self._replica_name = ReplicaName(config, replica)
        self._changelog = self._group.changelog_topic
        self._seed = 0
        self._empty = False
        """The changelog held nothing when we began."""
        self._waits_for = ""
        self._restored_in = 0.0
        self._restored_records = 0
        self._stopped = threading.Event()
        self._membership: Membership | None = None
        self._writer = Writer(config, library.transactions, name, replica)
        self._reader: Client | None = None
        self._cluster: Cluster | None = None
        self._meanings: list[str] = []
        self._ids_age = 0.0
        """Seconds that ids are remembered; 0 where they are not."""
        self.moving = False
        """Whether partitions have state that moves with them."""
        self._keys: dict[str, set[bytes]] = {}
        """Meaning → keys of the replica's records, to delete them by."""
        self._metrics: dict[str, str] = {}
        self._version = version("evalgauge")
        self._dropped: list[str] = []
        """Meanings to delete with the next transaction."""
        self._new: dict[Partition, int] = {}
        """Partitions that the group has not begun yet, with how many their topic has."""
        self._ids: dict[str, str] = {}
        """Partition → id of the topic that its state is of, as of our last commit of it."""

    @property
    def replica(self) -> str:
        """Who we are in the group."""
        return self._replica.name

    @property
    def group(self) -> str:
        """Of which we are a member."""
        return self._group.id

    @property
    def seed(self) -> int:
        """Known once state is restored."""
        return self._seed

    def waits_for(self) -> str:
        """What `restore` waits for."""
        return self._waits_for

    def stop(self) -> None:
        """Wait for nothing any more."""
        self._stopped.set()

    # -- restore ------------------------------------------------------------------------------------------

    def restore(self, meanings: Iterable[str], moving: Iterable[str] = (), ids_age: float = 0.0) -> Restored:
        """Join the group anew, then read the replica's state: after that nobody else of our name can change it."""
        self._leave()
        self._dropped = []
        self._new = {}
        self._meanings = list(meanings)
        self._ids_age = ids_age
        self.moving = bool(list(moving) or ids_age)
        group = self._group
        self._waits_for = "the brokers"
        self._patiently(self._prepare)
        self._waits_for = f"the group {group.id}"
        self._membership = Membership(
            self._library, self._orphans(), self._replica_name, group.drain_timeout, self._name
        )
        self._patiently(self._joined)
        self._waits_for = f"the changelog {self._changelog}"
        started = time.monotonic()
        held, records = self._patiently(self._read)
        self.restored(time.monotonic() - started, records)
        _log.info(
            "input %s: state of replica %s restored in %.1f s from %s records",
            self._name,
            self.replica,
            self._restored_in,
            records,
        )
        self._waits_for = ""
        self._metrics = {info.meaning: info.metric for info in held.tables}
        self._keys = {
            meaning: {key_of(self._replica, meaning, page.kind.value, page.number) for page in pages}
            for meaning, pages in held.pages.items()
        }
        said = None if held.said is None else msgspec.json.decode(held.said, type=Said)
        return Restored(
            tables=held.tables,
            pages={meaning: held.pages.get(meaning, []) for meaning in self._meanings},
            positions={},
            digests=[],
            last_commit=0.0 if said is None else said.time,
            lost="",
        )

    def restored(self, seconds: float, records: int) -> None:
        """How long it took to read state, ours or that of partitions that came."""
        self._restored_in, self._restored_records = seconds, records

    def _patiently(self, what: Any) -> Any:
        """Do it until it succeeds. Raises `Stopped`."""
        told = ""
        while not self._stopped.is_set():
            try:
                found = what()
            except Unavailable as error:
                # What it is connected to may be what is gone.
                self.disconnect()
                if str(error) != told:
                    _log.warning("input %s: waiting for %s: %s", self._name, self._waits_for, error)
                told = str(error)
            else:
                if found is not None:
                    return found
            self._stopped.wait(_RETRY if told else 0.02)
        raise Stopped

    def _prepare(self) -> bool:
        make_topics(self._config, self._name, self._topics())
        topic = self._looking().topics([self._changelog]).get(self._changelog)
        if topic is None:
            raise Unavailable(f"topic {self._changelog} is not there yet")
        sound(topic, self._changelog)
        identity = topic.id or f"{self._group.id}/{self._changelog}"
        self._empty = self._is_empty()
        # Before we join, so that one that is retired and started again and again does not disturb the group.
        self._refuse_if_retired()
        self._seed = int.from_bytes(hashlib.blake2b(identity.encode(), digest_size=8).digest(), "big")
        return True

    def _topics(self) -> list[tuple[Topic, Topic]]:
        group = self._group
        changelog, letters = self._changelog, group.dead_letter_topic
        wanted = [
            (
                Topic(changelog, kafka_changelog.PARTITIONS, group.replication, kafka_changelog.SETTINGS),
                Topic(changelog, settings=kafka_changelog.ESSENTIAL),
            ),
            (
                Topic(letters, kafka_letters.PARTITIONS, group.replication, kafka_letters.SETTINGS),
                Topic(letters, at_least=kafka_letters.PARTITIONS),
            ),
        ]
        if self._ids_age:
            settings = kafka_changelog.ids_settings(self._ids_age)
            one = Topic(group.ids_topic, kafka_changelog.PARTITIONS, group.replication, settings)
            essential = Topic(group.ids_topic, settings=settings, at_least=kafka_changelog.PARTITIONS)
            wanted.append((one, essential))
        return wanted

    def _refuse_if_retired(self) -> None:
        reading = self.reading([MARKS])
        try:
            self._complete(reading)
        finally:
            reading.close()
        refuse_retired(self._replica.name, marks_of(reading))

    def _complete(self, reading: Reading) -> None:
        """Read to the end; whatever an earlier life of ours, or a member that is gone, left open is ended."""
        orphans = self._orphans()
        waits_since = time.monotonic()
        while not reading.step(0.1):
            if reading.moved:
                waits_since = time.monotonic()
            elif time.monotonic() - waits_since > STUCK:
                raise Unavailable(f"its reading does not go on: {reading.behind()}")
            elif time.monotonic() - waits_since > STALLED:
                orphans.settle(own=True)
            if self._stopped.is_set():
                raise Stopped
            if self._membership is not None:
                self._membership.check()

    def _orphans(self) -> Orphans:
        return Orphans(self._config, self._name, self._replica.name)

    def _joined(self) -> bool | None:
        membership = self.membership
        if membership.joined():
            return True
        self._waits_for = f"the group {self._group.id}: {membership.trouble() or 'it has not answered yet'}"
        return None

    def _read(self) -> tuple[Held, int] | None:
        # Again with the marks, because only a member is not retired any more.
        reading = self.reading([self._replica, MARKS])
        try:
            self._complete(reading)
            refuse_retired(self._replica.name, marks_of(reading))
            return reading.held(self._replica), reading.records
        finally:
            reading.close()

    def reading(self, owners: list[Owner]) -> Reading:
        """Begin to read what the changelog holds of these. One at a time. Raises `Unavailable`."""
        if self._reader is None:
            self._reader = self._library.client()
        ids = (self._group.ids_topic, time.time() - self._ids_age) if self._ids_age else None
        return Reading(self._reader, self._looking(), owners, self._changelog, ids)

    def _looking(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._library.cluster()
        return self._cluster

    @property
    def membership(self) -> Membership:
        """Of the group, once `restore` was called."""
        assert self._membership is not None  # noqa: S101 - for the type checker, and against a fault of the caller
        return self._membership

    def sound(self, partition: Partition, committed: Committed | None) -> None:
        """Raise `StateError` where the group has positions, but its changelog holds nothing. Raises `Unavailable`."""
        if committed is None or not self._empty:
            return
        self._empty = self._is_empty()
        if self._empty:
            raise StateError(
                f"group {self._group.id} has read {partition} to offset {committed.offset}, but the changelog "
                f"{self._changelog} is empty: to go on would start all counters again at zero. Is `changelog` the one "
                "it had? If it is lost: stop all replicas and delete the group's offsets (kafka-consumer-groups.sh "
                "--delete), so that what the topics still hold is counted again from `start`"
            )

    def _is_empty(self) -> bool:
        slots = [Partition(self._changelog, number) for number in range(kafka_changelog.PARTITIONS)]
        return not any(self._looking().written(slots).values())

    def adopted(self, partition: Partition, committed: Committed | None, partitions: int) -> None:
        """The input begins to read a partition from its position in the group, of a topic with so many partitions."""
        self._writer.adopted(partition, committed)
        if committed is None:
            self._new[partition] = partitions

    # -- commit -------------------------------------------------------------------------------------------

    def commit(self, commit: Commit, limits: DeadLetterLimits) -> Mapping[str, int]:
        """Write a checkpoint in one transaction. Raises `StoreUnavailableError` and `FencedError`."""
        del limits  # the topic's own retention bounds it
        self._dropped += [meaning for meaning in commit.dropped if meaning not in self._dropped]
        places = {
            Partition.named(partition): Place.of(position)
            for (_, partition), position in commit.positions.items()
        }
        offsets = {partition: committed_of(place) for partition, place in places.items()}
        # Not before: until the engine takes up a topic that was made again, what it holds is of the old one.
        ids = self._ids | {str(partition): place.topic_id for partition, place in places.items()}
        if not offsets:
            # Without a position nothing would fence it; one that is committed already does.
            partition = next(filter(self.membership.reads, list(self._writer.places)), None)
            if partition is None:
                if commit.pages or commit.partition_pages or commit.dead_letters:
                    raise StoreUnavailableError("no partition is ours, so that nothing can be committed")
                return {}
            offsets = {partition: self._writer.places[partition]}
        failpoints.reach("commit.before")
        self._writer.write(lambda: self._records(commit, ids, offsets), offsets, self.membership)
        failpoints.reach("commit.after")
        self._ids = ids
        for partition in offsets:
            self._new.pop(partition, None)
        self._committed(commit)
        return {}

    def _records(
        self, commit: Commit, ids: Mapping[str, str], offsets: Mapping[Partition, Committed]
    ) -> Iterable[Record]:
        topic, replica = self._changelog, self._replica
        for meaning in self._dropped:
            for key in sorted(self._keys.get(meaning, ())):
                yield Record(topic, replica.slot, key, None)
            yield Record(topic, replica.slot, key_of(replica, meaning), None)
        for info in commit.tables:
            yield table_record(topic, replica, info)
        yield from page_records(topic, replica, commit.pages)
        for partition, meaning, page in commit.partition_pages:
            yield from page_records(topic, Owner.partition(partition, ids[partition]), [(meaning, page)])
        gone = set(self._dropped)
        metrics = self._metrics | {info.meaning: info.metric for info in commit.tables}
        said = Said(
            commit.time, self._version, {key: name for key, name in metrics.items() if key not in gone}
        )
        yield Record(topic, replica.slot, key_of(replica), msgspec.json.encode(said))
        for partition, digests in commit.digests.items():
            owner = Owner.partition(partition, ids[partition])
            yield from digests_records(self._group.ids_topic, owner, commit.time, digests)
        for one, partitions in list(self._new.items()):
            if one in offsets:
                yield begun_record(topic, one, ids[str(one)], partitions)
        for letter in commit.dead_letters:
            yield letter_record(self._group.dead_letter_topic, letter)
        failpoints.reach("commit.inside")

    def _committed(self, commit: Commit) -> None:
        for meaning in self._dropped:
            self._keys.pop(meaning, None)
            self._metrics.pop(meaning, None)
        self._dropped = []
        self._metrics |= {info.meaning: info.metric for info in commit.tables}
        for meaning, page in commit.pages:
            key = key_of(self._replica, meaning, page.kind.value, page.number)
            self._keys.setdefault(meaning, set()).add(key)

    # -- the rest of the seam -----------------------------------------------------------------------------

    @property
    def where(self) -> str:
        """Topics of the group."""
        return (
            f"topic {self._changelog} of group {self._group.id}, as replica {self._replica.name}; "
            f"dead letters: topic {self._group.dead_letter_topic}"
        )

    def facts(self) -> Mapping[str, float]:
        """How long it takes at most until a partition of a member that was killed is read again, in its parts."""
        return {
            "evalgauge_group_session_timeout_seconds": self._group.session_timeout,
            "evalgauge_group_transaction_timeout_seconds": self._group.transaction_timeout,
            "evalgauge_state_restore_seconds": self._restored_in,
            "evalgauge_state_restore_records": self._restored_records,
        }

    def size(self) -> int:
        """The changelog is not ours alone."""
        return 0

    def dead_letters(self) -> None:
        """They are in a topic, which all replicas write to and which retention empties: how many wait is not known."""

    def forget_loss(self) -> None:
        """Nothing was lost."""

    def _leave(self) -> None:
        if self._membership is not None:
            self._membership.close()
            self._membership = None
        self._writer.close()
        # An input that did not end in time may still be using them.
        self.disconnect()

    def close(self) -> None:
        """Let go of connections and threads."""
        self._stopped.set()
        self._leave()

    def disconnect(self) -> None:
        """Look by new connections from now on: what was learnt of the brokers by the old ones may be wrong for good."""
        for one in (self._reader, self._cluster):
            if one is not None:
                one.close()
        self._reader = self._cluster = None

"""Retires replicas of a group: makes sure that nobody can go on in their name, and marks them as gone for good.

A process is a member of the group before it looks for a mark of its name, and it looks before it reads a partition,
each time that it has come into the group anew. So the order here is: mark, see that the group has no member of the
name, end what transaction it left open, and say in the mark that all is settled. Whoever joins before the look is seen
by it; whoever joins later finds the mark. What was committed by then is final, and only then the keeper shows it.

Nobody joins the group for this under the replica's name, though that would fence a process that has it: partitions
would move there and back, and a process that is no member at the moment would not be fenced by it anyway.
"""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, NamedTuple, Self

import msgspec

from evalgauge.collectors.kafka_admin import asked, assigned_of
from evalgauge.collectors.kafka_changelog import PARTITIONS, STUCK, Reading, Said, parsed
from evalgauge.collectors.kafka_client import EARLIEST, Fenced, Partition, Unavailable
from evalgauge.collectors.kafka_hanging import Endings
from evalgauge.collectors.kafka_orphans import transactional_ids
from evalgauge.collectors.kafka_retired import MARKS, Mark, mark_record, marks_of
from evalgauge.collectors.kafka_sender import Identity, Outgoing, open_sender
from evalgauge.core.errors import EvalgaugeError
from evalgauge.core.table import PageKind

if TYPE_CHECKING:
    from collections.abc import Callable

    from evalgauge.collectors.kafka_config import KafkaConfig, KafkaGroup
    from evalgauge.collectors.kafka_sender import Sender
    from evalgauge.collectors.kafka_store import Library

_POLL = 0.1


class StillMemberError(EvalgaugeError):
    """The replica is alive, as far as the group knows. Stop it, and wait until its session has ended."""


class Brokers:
    """The group and its transactions as the brokers see them."""

    def __init__(self, config: KafkaConfig, name: str) -> None:
        """Connect to nothing yet. Every call raises `ConfigError` where the library is not installed."""
        assert config.group is not None  # noqa: S101 - for the type checker
        self._group: KafkaGroup = config.group
        self._config, self._name = config, name

    def members(self) -> dict[str, list[Partition]]:
        """Replica → partitions it has now. Raises `Unavailable`."""
        return asked(self._config, self._name, lambda admin: assigned_of(admin, self._group.id))

    def open_transactions(self, replica: str) -> list[str]:
        """Ids of its transactions that are not over. Raises `Unavailable`."""
        ours = transactional_ids(self._group.id, replica)
        states = ["Ongoing", "PrepareCommit", "PrepareAbort"]
        listed = asked(self._config, self._name, lambda admin: admin.list_transactions(state_filters=states))
        found = {one.transactional_id for of_broker in listed.values() for one in of_broker}
        return sorted(one for one in found if ours.fullmatch(one))


class Seen(NamedTuple):
    """What the changelog holds of a replica, in numbers."""

    said: Said | None
    """What it said with its last commit; None where that cannot be read."""
    metrics: int
    series: int


class Changelog:
    """Reads the changelog of a group from outside. Use it with `with`."""

    def __init__(self, group: KafkaGroup, library: Library) -> None:
        """Connect. Raises `Unavailable`."""
        self._name = group.changelog_topic
        self._group = group.id
        self._cluster = library.cluster()
        self._client = library.client()

    def there(self) -> None:
        """Raise `EvalgaugeError` where there is none."""
        if self._name not in self._cluster.topics([self._name]):
            raise EvalgaugeError(
                f"topic {self._name} does not exist: group {self._group} has not been started yet, or keeps its state "
                "elsewhere (`changelog`)"
            )

    def marks(self) -> dict[str, Mark]:
        """Replica → mark. Raises `Unavailable` and `StateError`."""
        reading = Reading(self._client, self._cluster, [MARKS], self._name)
        with closing(reading):
            moved = time.monotonic()
            while not reading.step(_POLL):
                if reading.moved:
                    moved = time.monotonic()
                elif time.monotonic() - moved > STUCK:
                    raise Unavailable(f"the changelog cannot be read to its end: {reading.behind()}")
        return marks_of(reading)

    def replicas(self, stopped: Callable[[], bool] = lambda: False) -> dict[str, Seen]:
        """Every replica that has state: reads all of the changelog. Raises `Unavailable` and `StateError`.

        Gives what was found so far once `stopped` says so.
        """
        slots = [Partition(self._name, number) for number in range(PARTITIONS - 1)]
        begins = self._cluster.offsets(dict.fromkeys(slots, EARLIEST))
        goal = self._cluster.written(slots)
        if missing := sorted(set(slots) - (begins.keys() & goal.keys())):
            raise Unavailable(f"partition {missing[0]} has no leader")
        found: dict[str, dict[tuple[str | int, ...], bytes]] = {}
        self._client.assign(begins)
        heard = time.monotonic()
        try:
            while not stopped():
                batches = self._client.poll(_POLL).batches
                if batches:
                    heard = time.monotonic()
                elif time.monotonic() - heard > STUCK:
                    raise Unavailable(
                        f"nothing more came of {self._name} for {STUCK:g} s, though more is written: a transaction is "
                        "open there, or the brokers do not answer"
                    )
                for batch in batches:
                    for key, value in zip(batch.keys(), batch.values, strict=True):
                        owner, rest = parsed(key, batch.partition)
                        if owner.scope == "replica":
                            _note(found.setdefault(owner.name, {}), rest, value)
                if all((self._client.position(one) or 0) >= end for one, end in goal.items()):
                    break
        finally:
            self._client.drop(slots)
        return {name: _seen(records) for name, records in sorted(found.items()) if records}

    def __enter__(self) -> Self:
        """Connected already."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of connections."""
        self._client.close()
        self._cluster.close()


def _note(
    records: dict[tuple[str | int, ...], bytes], rest: tuple[str | int, ...], value: bytes | None
) -> None:
    if value is None:
        records.pop(rest, None)
    elif len(rest) < 2 or PageKind.LABELS.value in rest:  # noqa: PLR2004 - a page's key is longer
        records[rest] = value


def _seen(records: dict[tuple[str | int, ...], bytes]) -> Seen:
    try:
        said = msgspec.json.decode(records.get((), b""), type=Said)
    except msgspec.DecodeError:
        said = None
    tables = {rest[0] for rest in records if rest}
    labels = [value for rest, value in records.items() if len(rest) > 1]
    return Seen(said, len(tables), sum(len(msgspec.msgpack.decode(one)) for one in labels))


class Retiring:
    """Retires replicas of one group. Of all that do so at a time, the one that began last goes on."""

    def __init__(self, config: KafkaConfig, name: str, library: Library, by: str) -> None:
        """`name` is the input's; `by` says who does it, for people. Connects to nothing yet."""
        assert config.group is not None  # noqa: S101 - for the type checker
        self._config, self._name, self._library, self._by = config, name, library, by
        self._group = config.group
        self._identity = Identity(
            f"{self._group.id}/retirement", self._group.transaction_timeout, self._group.id
        )

    def retire(self, replica: str) -> Mark:
        """Retire it, or finish what was begun; the mark as it is then.

        Raises `StillMemberError` while it is a member: then nothing has changed. Raises `EvalgaugeError` where another
        process does the same, and `Unavailable`; then it can be done again, and what was begun is finished.
        """
        with closing(open_sender(self._config, self._name, self._identity)) as sender:
            sender.begin()
            try:
                return self._retire(replica, sender, Brokers(self._config, self._name))
            except Fenced as error:
                raise EvalgaugeError(
                    f"another process retires replicas of group {self._group.id} at this moment; look with "
                    "`evalgauge kafka replicas`, and do it again if it is not done"
                ) from error

    def _retire(self, replica: str, sender: Sender, brokers: Brokers) -> Mark:
        with Changelog(self._group, self._library) as changelog:
            mark = changelog.marks().get(replica)
        if mark is not None and mark.settled:
            return mark
        self._refuse_member(replica, brokers)
        mark = mark or Mark(time.time(), self._by, settled=False)
        self._write(sender, replica, mark)
        try:
            self._refuse_member(replica, brokers)
        except StillMemberError:
            self._write(sender, replica, None)
            raise
        for one in brokers.open_transactions(replica):
            # To take over its id ends it, one way or the other, and waits for that.
            of_replica = Identity(one, self._group.transaction_timeout, self._group.id)
            with closing(open_sender(self._config, self._name, of_replica)) as taker:
                taker.begin()
        mark = msgspec.structs.replace(mark, settled=True)
        self._write(sender, replica, mark)
        return mark

    def _write(self, sender: Sender, replica: str, mark: Mark | None) -> None:
        slot, key, value = mark_record(replica, mark)
        changelog = self._group.changelog_topic
        sender.write([Outgoing(changelog, slot, key, value)])
        # Nobody else looks after it, and every replica that starts reads the marks.
        with closing(Endings(self._config, self._name)) as endings:
            endings.confirm(self._identity.transactional_id, [Partition(changelog, slot)], committed=True)

    def _refuse_member(self, replica: str, brokers: Brokers) -> None:
        partitions = brokers.members().get(replica)
        if partitions is not None:
            raise StillMemberError(
                f"replica {replica} is a member of group {self._group.id}"
                f"{f' and has {len(partitions)} partitions' if partitions else ''}: stop its process for good, then "
                f"wait for its session to end, at most {self._group.session_timeout:g} s (`session_timeout`)"
            )

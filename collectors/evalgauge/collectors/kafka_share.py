"""The partitions of a group that are ours to read: each from its position, with the state that belongs to it."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

from evalgauge.collectors.kafka_begun import BEGUN, Begun
from evalgauge.collectors.kafka_changelog import STALLED, STUCK, Owner
from evalgauge.collectors.kafka_client import Unavailable
from evalgauge.collectors.kafka_retired import MARKS, Departures, first_partition
from evalgauge.core.collect import PartitionPages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evalgauge.collectors.kafka_caretaker import Caretaker
    from evalgauge.collectors.kafka_changelog import Reading
    from evalgauge.collectors.kafka_client import Committed, Partition, Topic
    from evalgauge.collectors.kafka_membership import Known
    from evalgauge.collectors.kafka_store import KafkaStore
    from evalgauge.core.collect import Departed

_log = logging.getLogger(__name__)


class Arrival(NamedTuple):
    """A partition that can be read from now on."""

    committed: Committed | None
    """Its position in the group; None where it has none."""
    topic_id: str
    pages: PartitionPages | None
    """None where the engine has its state already."""
    term: int
    """Of our holding it."""
    added: bool | None
    """It, or its topic, came after the group had begun to read; None where it has not begun."""


class Share:
    """Follows the membership. Belongs to the input's thread, and never waits: state is read in small steps."""

    def __init__(self, store: KafkaStore, caretaker: Caretaker) -> None:
        self._store = store
        self._membership = store.membership
        self._reading: Reading | None = None
        self._began = self._moved = 0.0
        """When the reading began, and when it last brought something."""
        self._owners: dict[Partition, tuple[Owner, Topic, Known]] = {}
        """Those whose state is being read."""
        self._doubted: set[Partition] = set()
        """Partitions without a position, though they were begun; asked for once more."""
        self._of_departed: list[Owner] = []
        """Retired replicas whose totals are being read; empty where it is marks and partitions."""
        self._departures = Departures(store.replica)
        self._caretaker = caretaker
        self._first: Partition | None = None
        """Its reader is the keeper: see `kafka_retired`."""
        self._loaded: dict[Partition, Arrival] = {}
        """Partitions whose state is read."""
        self.ready: dict[Partition, Arrival] = {}
        """Partitions that the input may begin with."""
        self.trouble = ""

    @property
    def busy(self) -> bool:
        """State is being read: go on soon."""
        return self._reading is not None

    def step(self, topics: Mapping[str, Topic]) -> set[Partition]:
        """Go on; the partitions that are ready and were not. Raises as `Membership.check` does, and `StateError`."""
        self._membership.check()
        self.trouble = self._membership.trouble()
        known = self._membership.known()
        self._loaded = {
            one: arrival
            for one, arrival in self._loaded.items()
            if one in known
            and known[one].term == arrival.term
            # Else its topic was made again meanwhile, and what was read is of the old one.
            and (one.topic not in topics or topics[one.topic].id == arrival.topic_id)
        }
        self._first = first_partition(topics)
        new = {one: topics[one.topic] for one in known if one not in self._loaded and one.topic in topics}
        if self._reading is not None and self._of_departed and new:
            # Partitions come first: what is frozen can wait.
            self._reading.close()
            self._reading = None
        if self._reading is None:
            self._begin(new, known)
        if self._reading is not None and self._goes_on(self._reading):
            self._take(self._reading, known)
            self._reading.close()
            self._reading = None
        before = {(one, arrival.term) for one, arrival in self.ready.items()}
        # The first partition is not begun without what is to be shown with it.
        waits = self._first if self._departures.missing() else None
        self.ready = {one: arrival for one, arrival in self._loaded.items() if one != waits}
        return {one for one, arrival in self.ready.items() if (one, arrival.term) not in before}

    def _begin(self, new: Mapping[Partition, Topic], known: Mapping[Partition, Known]) -> None:
        """Begin to read whatever is wanted next, if anything is."""
        owners = {one: (Owner.partition(str(one), topic.id), topic, known[one]) for one, topic in new.items()}
        departed: list[Owner] = []
        wanted: list[Owner] = []
        if new:
            # With every partition that comes, the marks too: one of them may be of us, set while nobody heard of us.
            wanted = [MARKS, BEGUN, *(owner for owner, _, _ in owners.values() if self._store.moving)]
        elif self._keeps():
            departed = self._departures.missing()
            wanted = departed or ([MARKS] if self._departures.due() else [])
        if not wanted:
            return
        try:
            for one in new:
                self._store.sound(one, known[one].committed)
            self._reading = self._store.reading(wanted)
            self._began = self._moved = time.monotonic()
        except Unavailable as error:
            self._store.disconnect()
            self.trouble = f"the changelog cannot be read: {error}"
            return
        self._owners, self._of_departed = owners, departed

    def _goes_on(self, reading: Reading) -> bool:
        done = reading.step(0)
        now = time.monotonic()
        if done and self._owners:
            self._store.restored(now - self._began, reading.records)
        elif reading.moved:
            self._moved = now
        elif now - self._moved > STUCK:
            self.trouble = f"the reading of the changelog does not go on: {reading.behind()}"
            _log.warning("%s; it is begun anew", self.trouble)
            reading.close()
            self._reading = None
            self._store.disconnect()
        elif now - self._moved > STALLED:
            self._membership.held_up()
        return done

    def _keeps(self) -> bool:
        return self._first is not None and (
            self._first in self._loaded or self._membership.reads(self._first)
        )

    def _take(self, reading: Reading, known: Mapping[Partition, Known]) -> None:
        if self._of_departed:
            self._departures.take(self._of_departed, reading)
            return
        self._departures.learn(reading)
        if not self._owners:
            return
        begun = Begun(reading)
        for partition, (owner, topic, was) in self._owners.items():
            if known.get(partition) != was:
                continue  # somebody had it in between, and what was read may be old
            if was.committed is None and begun.has(partition, topic):
                # Somebody may have begun it since we were told of its position.
                if partition in self._doubted:
                    raise begun.lost(partition, self._store.group)
                self._doubted.add(partition)
                self._membership.ask_again(partition, was.term)
                continue
            self._doubted.discard(partition)
            pages = PartitionPages({}, [])
            if self._store.moving:
                pages = PartitionPages(reading.held(owner).pages, reading.digests(owner))
            added = begun.added(partition, topic)
            self._loaded[partition] = Arrival(was.committed, topic.id, pages, was.term, added)

    def departed(self) -> tuple[Partition, Mapping[str, Departed]] | None:
        """With which partition the totals of which retired replicas are to be shown; None if nothing has changed."""
        keeper = self._first is not None and self._membership.reads(self._first)
        self._caretaker.on_duty(keeper=keeper)
        if self._first is not None and keeper:
            found = None if self._departures.missing() else self._departures.told(self._first)
            return None if found is None else (self._first, found)
        shown = self._departures.outdated(self._first)
        if not self._keeps():
            self._departures.forget()
        return None if shown is None else (shown, {})

    def begin(self, partition: Partition, arrival: Arrival, partitions: int) -> bool:
        """The input reads it from now on, of a topic with so many partitions; False if it is ours no more."""
        self.ready.pop(partition, None)
        self._loaded.pop(partition, None)
        # First: from `begin` on the store may commit for it, and knows a place of it perhaps from an earlier term.
        self._store.adopted(partition, arrival.committed, partitions)
        return self._membership.begin(partition, arrival.term)

    def close(self) -> None:
        """Look after nothing any more."""
        self._caretaker.close()

    def leaving(self) -> list[Partition]:
        """Partitions that the input is to let go of."""
        return self._membership.leaving()

    def let_go(self, partition: Partition) -> None:
        """All that was read of it is committed; from any thread."""
        self._membership.let_go(partition)

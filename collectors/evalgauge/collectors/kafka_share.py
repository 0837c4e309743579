"""The partitions of a group that are ours to read: each from its position, with the state that belongs to it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple

from evalgauge.collectors.kafka_changelog import Owner
from evalgauge.collectors.kafka_client import Unavailable
from evalgauge.core.collect import PartitionPages

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evalgauge.collectors.kafka_changelog import Reading
    from evalgauge.collectors.kafka_client import Committed, Partition, Topic
    from evalgauge.collectors.kafka_membership import Known
    from evalgauge.collectors.kafka_store import KafkaStore

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


class Share:
    """Follows the membership. Belongs to the input's thread, and never waits: state is read in small steps."""

    def __init__(self, store: KafkaStore) -> None:
        self._store = store
        self._membership = store.membership
        self._reading: Reading | None = None
        self._owners: dict[Partition, tuple[Owner, Topic, Known]] = {}
        """Those whose state is being read."""
        self.ready: dict[Partition, Arrival] = {}
        """Partitions that the input may begin with."""
        self.trouble = ""

    @property
    def busy(self) -> bool:
        """State is being read: go on soon."""
        return self._reading is not None

    def step(self, topics: Mapping[str, Topic]) -> bool:
        """Go on; True where a partition is ready that was not. Raises as `Membership.check` does, and `StateError`."""
        self._membership.check()
        self.trouble = self._membership.trouble()
        known = self._membership.known()
        self.ready = {
            one: arrival
            for one, arrival in self.ready.items()
            if one in known and known[one].term == arrival.term
        }
        before = len(self.ready)
        if self._reading is None:
            new = {one: topics[one.topic] for one in known if one not in self.ready and one.topic in topics}
            if new:
                self._begin(new, known)
        if self._reading is not None and self._reading.step(0):
            for partition, (owner, topic, was) in self._owners.items():
                if (
                    known.get(partition) == was
                ):  # else somebody had it in between, and what was read may be old
                    pages = PartitionPages(self._reading.held(owner).pages, self._reading.digests(owner))
                    self.ready[partition] = Arrival(was.committed, topic.id, pages, was.term)
            self._reading.close()
            self._reading = None
        return len(self.ready) > before

    def _begin(self, new: Mapping[Partition, Topic], known: Mapping[Partition, Known]) -> None:
        owners = {one: (Owner.partition(str(one), topic.id), topic, known[one]) for one, topic in new.items()}
        try:
            for one in new:
                self._store.sound(one, known[one].committed)
            if not self._store.moving:
                for one, (_, topic, was) in owners.items():
                    self.ready[one] = Arrival(was.committed, topic.id, PartitionPages({}, []), was.term)
                return
            self._reading = self._store.reading([owner for owner, _, _ in owners.values()])
        except Unavailable as error:
            self.trouble = f"the changelog cannot be read: {error}"
            return
        self._owners = owners

    def begin(self, partition: Partition, arrival: Arrival) -> bool:
        """The input reads it from now on; False if it is ours no more."""
        self.ready.pop(partition, None)
        if not self._membership.begin(partition, arrival.term):
            return False
        self._store.adopted(partition, arrival)
        return True

    def leaving(self) -> list[Partition]:
        """Partitions that the input is to let go of."""
        return self._membership.leaving()

    def let_go(self, partition: Partition) -> None:
        """All that was read of it is committed; from any thread."""
        self._membership.let_go(partition)

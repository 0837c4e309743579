"""Replicas that have left a group for good: the marks that say so, and what the keeper shows of them.

The keeper is the replica that reads the first partition: number 0 of the topic that comes first by name, of those there
are. So at any time there is one at most, and what it shows moves as a partition's state does.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from evalgauge.collectors.kafka_changelog import Owner, key_of
from evalgauge.collectors.kafka_client import Partition
from evalgauge.core.collect import Departed
from evalgauge.core.errors import StateError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evalgauge.collectors.kafka_changelog import Held, Reading

_log = logging.getLogger(__name__)
MARKS = Owner("group", "retired")
LOOK_SECONDS = 30.0
"""How often the keeper looks whether more replicas were retired."""


class Mark(msgspec.Struct, frozen=True):
    """Says that a replica has left for good."""

    time: float
    """Unix time since when."""
    by: str
    """Who retired it, in words."""
    settled: bool
    """Nothing can be committed any more in its name: its totals are final, and may be shown."""


def mark_record(replica: str, mark: Mark | None) -> tuple[int, bytes, bytes | None]:
    """A mark as a record of the changelog: partition, key and value; None takes it back."""
    value = None if mark is None else msgspec.json.encode(mark)
    return MARKS.slot, key_of(MARKS, replica), value


def marks_of(reading: Reading) -> dict[str, Mark]:
    """Replica → mark, of a reading of `MARKS`. Raises `StateError`."""
    try:
        return {
            str(replica): msgspec.json.decode(value, type=Mark)
            for (replica,), value in reading.records_of(MARKS).items()
        }
    except (msgspec.DecodeError, ValueError) as error:
        raise StateError(
            f"the changelog holds a mark of a retired replica that cannot be read: {error}"
        ) from error


def refuse_retired(replica: str, marks: Mapping[str, Mark]) -> None:
    """Raise `StateError` where this replica has left for good."""
    mark = marks.get(replica)
    if mark is not None:
        raise StateError(
            f"replica {replica} was retired on {when(mark.time)} by {mark.by}: another replica shows its totals, "
            "frozen, and a process that went on under its name would count them once more. Start this one under a name "
            "that the group has not had (`replica`, EVALGAUGE_REPLICA)"
        )


def when(moment: float) -> str:
    """A Unix time for people."""
    return time.strftime("%FT%TZ", time.gmtime(moment))


def first_partition(topics: Iterable[str]) -> Partition | None:
    """The partition whose reader is the keeper; None while there is no topic."""
    name = min(topics, default=None)
    return None if name is None else Partition(name, 0)


class Shown(NamedTuple):
    """What the engine was told to show."""

    partition: Partition
    replicas: frozenset[tuple[str, float]]
    """Names and times of the marks."""


class Departures:
    """What the changelog says of replicas that have left, and what is new of it for the engine."""

    def __init__(self, replica: str) -> None:
        """`replica` is who we are."""
        self._replica = replica
        self._marks: dict[str, Mark] = {}
        self._looked = -LOOK_SECONDS
        self._held: dict[str, tuple[float, Departed]] = {}
        """Replica → time of the mark, and totals."""
        self._shown: Shown | None = None

    def due(self) -> bool:
        """Whether to look at the marks again."""
        return time.monotonic() - self._looked >= LOOK_SECONDS

    def learn(self, reading: Reading) -> None:
        """Take in a reading of `MARKS`. Raises `StateError` where one is of us."""
        self._looked = time.monotonic()
        marks = marks_of(reading)
        # Somebody may have retired us while we were away and had nothing that the group could take from us.
        refuse_retired(self._replica, marks)
        self._marks = {name: mark for name, mark in marks.items() if mark.settled}
        self._held = {
            name: held
            for name, held in self._held.items()
            if name in self._marks and self._marks[name].time == held[0]
        }

    def missing(self) -> list[Owner]:
        """Replicas whose totals must be read before anything is shown."""
        return [Owner("replica", name) for name in sorted(self._marks.keys() - self._held.keys())]

    def take(self, owners: Iterable[Owner], reading: Reading) -> None:
        """Take in a reading of what was `missing`."""
        for owner in owners:
            if owner.name in self._marks:
                self._held[owner.name] = (self._marks[owner.name].time, _departed(owner.name, reading))

    def forget(self) -> None:
        """We do not read the first partition, and the engine shows nothing any more."""
        self._held = {}
        self._shown = None

    def told(self, first: Partition) -> Mapping[str, Departed] | None:
        """What is to be shown with the first partition, which we read; None if that is what is shown already."""
        shown = Shown(first, frozenset((name, held[0]) for name, held in self._held.items()))
        before, self._shown = self._shown, shown
        if shown == before or (before is None and not shown.replicas):
            return None
        return {name: held[1] for name, held in self._held.items()}

    def outdated(self, first: Partition | None) -> Partition | None:
        """The partition with which something is shown, if another one is the first by now; said once."""
        if self._shown is None or self._shown.partition == first:
            return None
        shown, self._shown = self._shown, None
        return shown.partition if shown.replicas else None


def _departed(replica: str, reading: Reading) -> Departed:
    try:
        held: Held = reading.held(Owner("replica", replica))
    except StateError as error:
        _log.error("the totals of replica %s, which was retired, cannot be shown: %s", replica, error)
        return Departed({}, {})
    return Departed({info.meaning: info.metric for info in held.tables}, held.pages)

"""State that moves with its partition: what was set last and which events were seen, apart for each of them.

Where one process has all partitions for good there is one such state, under the name "".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.clock import Clock
from evalgauge.core.deduplicate import Deduplicator, Window
from evalgauge.core.errors import StateError
from evalgauge.core.instrument import goes_by_time
from evalgauge.core.instruments.grouping import LocalSlots, Slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from evalgauge.core.collect import PartitionPages
    from evalgauge.core.instrument import Declared, Instrument, Part
    from evalgauge.core.table import Page, StateTable


def load(name: str, table: StateTable, pages: Iterable[Page]) -> None:
    """Take back the pages of a metric's table. Raises `StateError`."""
    try:
        table.load(pages)
    except (ValueError, TypeError) as error:
        raise StateError(f"the state of metric {name} cannot be read back: {error}") from error


class PartitionState:
    """What belongs to one partition."""

    def __init__(self, parts: dict[int, Part], clock: Clock | None, window: Window) -> None:
        self.parts = parts
        """By place among the metrics declared."""
        self.clock = clock
        """None where no metric goes by it."""
        self.heard = 0.0
        """Unix time at which events came last, or time was passed."""
        self.deduplicator = Deduplicator(window)

    def tables(self) -> Iterator[tuple[int | None, StateTable]]:
        """Each with the place of its metric; None where it is nobody's alone."""
        if self.clock is not None:
            yield None, self.clock.table
        for place, part in self.parts.items():
            for table in part.tables:
                yield place, table


class Partitions:
    """The states of the partitions that are ours. Belongs to the engine's thread."""

    def __init__(
        self, declared: Sequence[Declared], instruments: Sequence[Instrument], window: Window, *, moving: bool
    ) -> None:
        """`moving` says that partitions come and go."""
        self._declared = declared
        self._instruments = instruments
        self._window = window
        self.moving = moving
        self._timed = any(map(goes_by_time, declared, map(type, instruments)))
        self._empty = self._new()
        self.kept = self._empty.parts.keys()
        """Places, among the metrics declared, of those that keep something by partition."""
        self._held: dict[str, PartitionState] = {} if moving else {"": self._new()}

    def _new(self) -> PartitionState:
        clock = Clock()
        made = {place: instrument.part(clock) for place, instrument in enumerate(self._instruments)}
        parts = {place: part for place, part in made.items() if part is not None}
        return PartitionState(parts, clock if self._timed else None, self._window)

    def of(self, partition: str) -> PartitionState:
        """The state a partition's events change."""
        return self._held[partition if self.moving else ""]

    def has(self, partition: str) -> bool:
        """Whether it is ours."""
        return not self.moving or partition in self._held

    def items(self) -> Iterator[tuple[str, PartitionState]]:
        """Every partition's."""
        yield from self._held.items()

    def all_of(self, place: int) -> list[Part]:
        """One metric's part of every partition, in order of their names."""
        return [self._held[name].parts[place] for name in sorted(self._held) if place in self.kept]

    def restored(self, partition: str, found: PartitionPages) -> PartitionState:
        """The state that a partition comes with. Raises `StateError`."""
        state = self._new()
        for place, table in state.tables():
            load(f"{self._name(place)} for {partition}", table, found.pages.get(table.meaning, []))
        state.deduplicator.restore(found.digests)
        return state

    def put(self, partition: str, state: PartitionState) -> None:
        """It is ours from now on."""
        self._held[partition] = state

    def drop(self, partition: str) -> None:
        """It is ours no more."""
        self._held.pop(partition, None)

    def meanings(self) -> list[str]:
        """Those of all tables that come and go."""
        return [table.meaning for _, table in self._empty.tables()] if self.moving else []

    def tables(self) -> Iterator[tuple[str, StateTable]]:
        """(partition, table) of everything that comes and goes."""
        for partition, state in self._held.items() if self.moving else ():
            for _, table in state.tables():
                yield partition, table

    def staying(self) -> Iterator[tuple[str, StateTable]]:
        """(metric, table) of everything that is kept by partition though none of them ever goes."""
        for state in self._held.values() if not self.moving else ():
            for place, table in state.tables():
                yield self._name(place), table

    def _name(self, place: int | None) -> str:
        return "evalgauge_event_time" if place is None else self._declared[place].name

    def settle(self) -> None:
        """Count what time alone has decided."""
        for state in self._held.values():
            for part in state.parts.values():
                part.settle()

    def fresh(self) -> dict[str, bytes]:
        """Digests accepted since the last commit, by partition."""
        return {name: digests for name, one in self._held.items() if (digests := one.deduplicator.fresh())}

    def committed(self) -> None:
        """What `fresh` gave is durable."""
        for one in self._held.values():
            one.deduplicator.committed()

    def ids(self) -> int:
        """Ids remembered against repeats."""
        return sum(len(one.deduplicator) for one in self._held.values())


class ReducerSlots:
    """What the local slots of one reducer are in the state, of the replica and of each partition."""

    def __init__(self, generation: int, instruments: Sequence[Instrument], partitions: Partitions) -> None:
        self.generation = generation
        self._announced = [LocalSlots(instrument.index()) for instrument in instruments]
        self._partitions = partitions
        self._keys: list[list[list[str]]] = [[] for _ in instruments]
        self._replica = [
            Slots(one, None, keys) for one, keys in zip(self._announced, self._keys, strict=True)
        ]
        self._held: dict[str, list[Slots]] = {}

    def of(self, partition: str) -> list[Slots]:
        """By place among the metrics declared."""
        if not self._partitions.kept:
            return self._replica
        partition = partition if self._partitions.moving else ""
        found = self._held.get(partition)
        if found is None:
            found = self._held[partition] = list(self._replica)
            for place, part in self._partitions.of(partition).parts.items():
                found[place] = Slots(self._announced[place], part.index(), self._keys[place])
        return found

    def drop(self, partition: str) -> None:
        """Its state is gone."""
        self._held.pop(partition, None)

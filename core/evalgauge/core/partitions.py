"""State that moves with its partition: what was set last and which events were seen, apart for each of them.

Where one process has all partitions for good there is one such state, under the name "".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.deduplicate import Deduplicator, Window
from evalgauge.core.errors import StateError
from evalgauge.core.instruments.grouping import LocalSlots, Slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from evalgauge.core.collect import PartitionPages
    from evalgauge.core.instrument import Declared, Instrument, Part
    from evalgauge.core.table import Page, Table


def load(name: str, table: Table, pages: Iterable[Page]) -> None:
    """Take back the pages of a metric's table. Raises `StateError`."""
    try:
        table.load(pages)
    except (ValueError, TypeError) as error:
        raise StateError(f"the state of metric {name} cannot be read back: {error}") from error


class PartitionState:
    """What belongs to one partition."""

    def __init__(self, parts: dict[int, Part], window: Window) -> None:
        self.parts = parts
        """By place among the metrics declared."""
        self.deduplicator = Deduplicator(window)


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
        self.kept = self._parts()
        """An empty `Part` of each metric that keeps something by partition, by place among the metrics declared."""
        self._held: dict[str, PartitionState] = {} if moving else {"": PartitionState(self._parts(), window)}

    def _parts(self) -> dict[int, Part]:
        made = {place: instrument.part() for place, instrument in enumerate(self._instruments)}
        return {place: part for place, part in made.items() if part is not None}

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
        state = PartitionState(self._parts(), self._window)
        for place, part in state.parts.items():
            for table in part.tables:
                load(
                    f"{self._declared[place].name} for {partition}", table, found.pages.get(table.meaning, [])
                )
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
        return [table.meaning for part in self.kept.values() for table in part.tables] if self.moving else []

    def tables(self) -> Iterator[tuple[str, Table]]:
        """(partition, table) of everything that comes and goes."""
        for partition, state in self._held.items() if self.moving else ():
            for part in state.parts.values():
                for table in part.tables:
                    yield partition, table

    def staying(self) -> Iterator[tuple[str, Table]]:
        """(metric, table) of everything that is kept by partition though none of them ever goes."""
        for state in self._held.values() if not self.moving else ():
            for place, part in state.parts.items():
                for table in part.tables:
                    yield self._declared[place].name, table

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
        self._replica = [Slots(one, None) for one in self._announced]
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
                found[place] = Slots(self._announced[place], part.index())
        return found

    def drop(self, partition: str) -> None:
        """Its state is gone."""
        self._held.pop(partition, None)

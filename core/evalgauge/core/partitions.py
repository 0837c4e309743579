"""State that moves with its partition: what was set last and which events were seen, apart for each of them.

Where one process has all partitions for good there is one such state, under the name "".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evalgauge.core.deduplicate import Deduplicator, Window
from evalgauge.core.errors import StateError
from evalgauge.core.instruments.grouping import LocalSlots
from evalgauge.core.table import Scope

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from evalgauge.core.collect import PartitionPages
    from evalgauge.core.instrument import Declared, Instrument
    from evalgauge.core.table import Page, Table


def load(name: str, table: Table, pages: Iterable[Page]) -> None:
    """Take back the pages of a metric's table. Raises `StateError`."""
    try:
        table.load(pages)
    except (ValueError, TypeError) as error:
        raise StateError(f"the state of metric {name} cannot be read back: {error}") from error


class PartitionState:
    """What belongs to one partition."""

    def __init__(self, instruments: dict[int, Instrument], window: Window) -> None:
        self.instruments = instruments
        """By place among the metrics declared."""
        self.deduplicator = Deduplicator(window)


class Partitions:
    """The states of the partitions that are ours. Belongs to the engine's thread."""

    def __init__(
        self, declared: Sequence[Declared], instruments: Sequence[Instrument], window: Window, *, moving: bool
    ) -> None:
        """`instruments` are those of the replica; `moving` says that partitions come and go."""
        self._declared = declared
        self._window = window
        self.moving = moving
        self.places = [
            place for place, one in enumerate(instruments) if moving and one.table.scope is Scope.PARTITION
        ]
        """Places of the metrics that are kept by partition; the replica's instruments of these stay empty."""
        self._kinds = {place: type(instruments[place]) for place in self.places}
        self._held: dict[str, PartitionState] = {} if moving else {"": PartitionState({}, window)}

    def of(self, partition: str) -> PartitionState:
        """The state a partition's events change."""
        return self._held[partition if self.moving else ""]

    def has(self, partition: str) -> bool:
        """Whether it is ours."""
        return not self.moving or partition in self._held

    def items(self) -> Iterator[tuple[str, PartitionState]]:
        """Every partition's."""
        yield from self._held.items()

    def all_of(self, place: int) -> list[Instrument]:
        """One metric's instrument of every partition, in order of their names."""
        return [self._held[name].instruments[place] for name in sorted(self._held)]

    def restored(self, partition: str, found: PartitionPages) -> PartitionState:
        """The state that a partition comes with. Raises `StateError`."""
        state = PartitionState(
            {place: kind(self._declared[place]) for place, kind in self._kinds.items()}, self._window
        )
        for place, instrument in state.instruments.items():
            pages = found.pages.get(instrument.table.meaning, [])
            load(f"{self._declared[place].name} for {partition}", instrument.table, pages)
        state.deduplicator.restore(found.digests)
        return state

    def put(self, partition: str, state: PartitionState) -> None:
        """It is ours from now on."""
        self._held[partition] = state

    def drop(self, partition: str) -> None:
        """It is ours no more."""
        self._held.pop(partition, None)

    def tables(self) -> Iterator[tuple[str, Table]]:
        """(partition, table) of everything that moves."""
        for partition, state in self._held.items():
            for instrument in state.instruments.values():
                yield partition, instrument.table

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
        self._slots = [LocalSlots(instrument.index()) for instrument in instruments]
        self._partitions = partitions
        self._moving: dict[str, list[LocalSlots]] = {}

    def of(self, partition: str) -> list[LocalSlots]:
        """By place among the metrics declared."""
        if not self._partitions.places:
            return self._slots
        found = self._moving.get(partition)
        if found is None:
            found = self._moving[partition] = list(self._slots)
            for place, instrument in self._partitions.of(partition).instruments.items():
                found[place] = self._slots[place].beside(instrument.index())
        return found

    def drop(self, partition: str) -> None:
        """Its state is gone."""
        self._moving.pop(partition, None)

"""What instruments that keep keys have counted by label set, and how many keys they let go: the replica's for good."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.instrument import meaning
from evalgauge.core.series import SeriesIndex
from evalgauge.core.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    from evalgauge.core.families import Family
    from evalgauge.core.instrument import Declared
    from evalgauge.core.instruments.keyed_part import KeyedPart
    from evalgauge.core.pack.emitted import Emitted


class Tally:
    """A table by label set, and one row apart from them. Where a column is wide each place of it is a series."""

    def __init__(
        self,
        declared: Declared,
        version: int,
        index: SeriesIndex,
        columns: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
        apart: Sequence[str] = ("evicted",),
    ) -> None:
        """`apart` are counts without labels."""
        self.table = Table(meaning(declared, version), index, columns)
        self._apart = Table(
            meaning(declared, version, "apart"), SeriesIndex((), 1), dict.fromkeys(apart, ((), np.int64))
        )
        self.tables = (self.table, self._apart)
        self._wide: dict[str, list[tuple[str, ...]]] = {}
        """Label values of the rows of wide columns, by family."""

    def begin(self, part: KeyedPart, series: NDArray[np.intp], overflow: NDArray[np.bool_]) -> int:
        """Events of a partition have these `series` (n,): they are there, at zero, so that a rate sees their first.

        Returns of how many of them a limit changed the labels: the replica's, or the partition's as in `overflow` (n,).
        """
        met = series >= 0
        found, first = np.unique(series[met], return_index=True)
        # In the order of the stream: in it label sets are admitted, whatever the partition knew of them before.
        self.table.touch(part.replica_slots(found[np.argsort(first)], self.table.index))
        return int(np.count_nonzero(overflow[met] | part.overflowed(series[met])))

    def add(self, part: KeyedPart, column: str, series: NDArray[np.intp], place: int | None = None) -> None:
        """Count one for each of a partition's `series` (n,), at a place of a wide column."""
        slots = part.replica_slots(series, self.table.index)
        counts = self.table.column(column)
        np.add.at(counts if place is None else counts[:, place], slots, 1)
        self.table.touch(slots)

    def count(self, **counts: int) -> None:
        """Count what has no labels."""
        slot, fresh = self._apart.index.resolve(()), not self._apart.index.series
        if fresh or any(counts.values()):
            for name, count in counts.items():
                self._apart.column(name)[slot[0]] += count
            self._apart.touch(np.array([slot[0]]))

    def births(self, width: int = 1) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """When the rows (n,) of a column so wide were created and born."""
        return _births(self.table, width)

    def family(self, emitted: Emitted, column: str, generation: int) -> Family:
        """What is committed of a column."""
        rows = self.table.rows
        values = self.table.shown[column].reserve(rows)[:rows]
        if not emitted.more:
            # A column may be one wide, so that a label of one value can come and go while the state stays.
            return emitted.family(
                self.table.index.series, values.reshape(rows).copy(), self.births(), generation=generation
            )
        told = _combined(emitted.more)
        wide = self._wide.setdefault(emitted.name, [])
        for series in self.table.index.series[len(wide) // len(told) : rows]:
            wide += ((*series, *one) for one in told)
        return emitted.family(wide, values.reshape(-1).copy(), self.births(len(told)), generation=generation)

    def family_apart(self, emitted: Emitted, name: str, generation: int) -> Family:
        """What is committed of a count without labels."""
        rows = self._apart.rows
        return emitted.family(
            self._apart.index.series,
            self._apart.shown[name].reserve(rows)[:rows].copy(),
            _births(self._apart, 1),
            generation=generation,
        )


def _births(table: Table, width: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rows = table.rows
    created, born = (np.repeat(one.reserve(rows)[:rows], width) for one in (table.created, table.born))
    return created, born


def _combined(more: Mapping[str, Sequence[str]]) -> list[tuple[str, ...]]:
    """Every combination of the labels' values, the last label's changing fastest."""
    found: list[tuple[str, ...]] = [()]
    for values in more.values():
        found = [(*one, value) for one in found for value in values]
    return found

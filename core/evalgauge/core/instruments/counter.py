"""Counter: how many events there were, or what a field of them adds up to, by label set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core import exact
from evalgauge.core.arrays import Growing
from evalgauge.core.families import Exemplar, Family
from evalgauge.core.instrument import Declared, Merged, meaning, unit_of
from evalgauge.core.instruments.exemplars import LastExemplars
from evalgauge.core.instruments.grouping import Grouper, Groups, LocalSlots, series_index
from evalgauge.core.pack.model import CounterSpec
from evalgauge.core.table import Table
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.series import SeriesIndex

SUM_WORDS = ("top", "hi", "lo")


@dataclass(frozen=True, slots=True)
class CounterDelta:
    """Increments of local slots, in the order of `groups.slots`; `words` are exact sums where a field is summed."""

    groups: Groups
    counts: NDArray[np.int64]
    words: tuple[NDArray[np.int64], ...]
    rare: dict[int, int]
    exemplars: dict[tuple[int, int], Exemplar]


class ReducingCounter:
    """Counts of one reducer by local slot."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, CounterSpec)  # noqa: S101 - the entry point's name says so
        self._value = spec.value
        self._grouper = Grouper(spec)
        self._counts = Growing((), np.int64)
        self._words = tuple(Growing((), np.int64) for _ in SUM_WORDS) if spec.value else ()
        self._rare: exact.Rare = {}
        self._exemplars = LastExemplars(1) if spec.exemplars else None

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        values = usable = None
        if self._value is not None:
            values = columns.numbers(self._value)
            usable = np.isfinite(values) & (values >= 0)
        for group in self._grouper.rows(columns, usable):
            np.add.at(self._counts.reserve(group.size), group.slots, 1)
            if values is not None:
                _, hi, lo = (word.reserve(group.size) for word in self._words)
                exact.add(hi, lo, self._rare, group.slots, group.of(values))
            if self._exemplars is not None:
                self._exemplars.see(columns, group, None, np.ones(len(group.slots)))

    def take(self) -> CounterDelta | None:
        """Increments since the last call."""
        groups = self._grouper.take()
        if groups is None:
            return None
        slots = groups.slots
        size = int(slots.max()) + 1 if len(slots) else 0
        arrays = [array.reserve(size) for array in (self._counts, *self._words)]
        if self._value is not None:
            top, hi, lo = arrays[1:]
            exact.carry(top, hi, lo, slots)
        taken = [array[slots] for array in arrays]
        for array in arrays:
            array[slots] = 0
        rare, self._rare = self._rare, {}
        exemplars = self._exemplars.take() if self._exemplars is not None else {}
        return CounterDelta(groups, taken[0], tuple(taken[1:]), rare, exemplars)


class Counter:
    """Events counted, or an exact sum. Scope: replica. Exposed as `<name>_total`."""

    version: ClassVar[int] = 1

    def __init__(self, declared: Declared) -> None:
        assert isinstance(declared.spec, CounterSpec)  # noqa: S101 - the entry point's name says so
        self._spec = declared.spec
        self._name = declared.name
        self._unit = UNITS[unit_of(declared) or "1"]
        columns: dict[str, tuple[tuple[int, ...], type[np.int64]]] = {"count": ((), np.int64)}
        if self._spec.value:
            columns |= dict.fromkeys(SUM_WORDS, ((), np.int64))
        index = series_index(self._spec, list(declared.types.values()))
        self.table = Table(meaning(declared, self.version), index, columns)
        self._sums = Growing((), np.float64)

    @staticmethod
    def reducing(declared: Declared) -> ReducingCounter:
        """The reducing half."""
        return ReducingCounter(declared)

    def index(self) -> SeriesIndex:
        """The index of its series."""
        return self.table.index

    def merge(self, delta: CounterDelta, local: LocalSlots) -> Merged:
        """Add increments."""
        local.announce(delta.groups.new)
        slots, overflow = local.resolve(delta.groups.slots)
        table = self.table
        np.add.at(table.column("count"), slots, delta.counts)
        if self._spec.value:
            add_sums(table, slots, delta.words, delta.rare, local)
        add_exemplars(table, delta.exemplars, local)
        table.touch(slots)
        return Merged(int(delta.counts[overflow].sum()), delta.groups.skipped)

    def add(self, labels: tuple[str, ...], amount: int) -> None:
        """Count something that is no event, under a label set."""
        slot, _ = self.table.index.resolve(labels)
        self.table.column("count")[slot] += amount
        self.table.touch(np.array([slot]))

    def families(self, generation: int) -> Sequence[Family]:
        """The committed counts."""
        table = self.table
        rows = table.rows
        values: NDArray[np.float64] | NDArray[np.int64]
        if self._spec.value:
            values = shown_sums(table, self._sums, self._unit.factor)
        else:
            values = table.shown["count"].reserve(rows)[:rows].copy()
        return [
            Family(
                name=self._name,
                kind="counter",
                help=self._spec.help,
                unit=self._unit.base if self._spec.value else "",
                label_names=table.index.names,
                series=table.index.series,
                values=values,
                created=table.created.reserve(rows)[:rows].copy(),
                born=table.born.reserve(rows)[:rows].copy(),
                exemplars=table.shown_exemplars,
                generation=generation,
            )
        ]


def add_sums(
    table: Table,
    slots: NDArray[np.intp],
    words: tuple[NDArray[np.int64], ...],
    rare: dict[int, int],
    local: LocalSlots,
) -> None:
    """Add exact sums to the columns top, hi and lo of a table."""
    live = [table.column(word) for word in SUM_WORDS]
    for column, word in zip(live, words, strict=True):
        np.add.at(column, slots, word)
    top, hi, lo = live
    exact.carry(top, hi, lo, np.unique(slots))
    if rare:
        resolved = local.resolve(np.array(list(rare), np.intp))[0].tolist()
        for slot, value in zip(resolved, rare.values(), strict=True):
            table.rare[slot] = table.rare.get(slot, 0) + value
        table.touch_extras(resolved)


def shown_sums(table: Table, cache: Growing, factor: Fraction) -> NDArray[np.float64]:
    """Committed sums (n,), correctly rounded; only what changed is computed again."""
    sums = cache.reserve(table.rows)
    stale = table.take_stale()
    if len(stale):
        top, hi, lo = (table.shown[word].reserve(table.rows) for word in SUM_WORDS)
        sums[stale] = exact.rounded_all(top, hi, lo, table.shown_rare, stale, factor)
    return sums[: table.rows].copy()


def add_exemplars(table: Table, exemplars: dict[tuple[int, int], Exemplar], local: LocalSlots) -> None:
    """Keep the newest exemplar of each (slot, bucket)."""
    if exemplars:
        slots = local.resolve(np.array([slot for slot, _ in exemplars], np.intp))[0].tolist()
        for slot, ((_, bucket), exemplar) in zip(slots, exemplars.items(), strict=True):
            table.exemplars[slot, bucket] = exemplar
        table.touch_extras(slots)

"""Histogram: how the values of a field are distributed, by label set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core import exact
from evalgauge.core.arrays import Growing
from evalgauge.core.families import Exemplar, Family
from evalgauge.core.instrument import Declared, Merged, meaning, unit_of
from evalgauge.core.instruments.counter import SUM_WORDS, add_exemplars, add_sums, shown_sums
from evalgauge.core.instruments.exemplars import LastExemplars
from evalgauge.core.instruments.grouping import Grouper, Groups, LocalSlots, series_index
from evalgauge.core.pack.model import HistogramSpec
from evalgauge.core.table import Table
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.series import SeriesIndex
    from evalgauge.core.units import Unit

_NEVER_NEGATIVE = ("seconds", "bytes")


@dataclass(frozen=True, slots=True)
class HistogramDelta:
    """Increments of local slots, in the order of `groups.slots`: counts (k, B + 1) and exact sums (k,)."""

    groups: Groups
    counts: NDArray[np.int64]
    words: tuple[NDArray[np.int64], ...]
    rare: dict[int, int]
    exemplars: dict[tuple[int, int], Exemplar]


class ReducingHistogram:
    """Counts and sums of one reducer by local slot."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, HistogramSpec)  # noqa: S101 - the entry point's name says so
        self._value = str(spec.value)
        self._unit = UNITS[unit_of(declared) or "1"]
        self._bounds = np.asarray(spec.buckets, np.float64)
        self._width = len(spec.buckets) + 1
        self._grouper = Grouper(spec)
        self._counts = Growing((self._width,), np.int64)
        self._words = tuple(Growing((), np.int64) for _ in SUM_WORDS)
        self._rare: exact.Rare = {}
        self._exemplars = LastExemplars(self._width) if spec.exemplars else None

    def reduce(self, columns: Columns) -> None:
        """Add one batch. A value meets the bounds in the base unit, after one division or multiplication."""
        values = columns.numbers(self._value)
        shown = in_base_unit(values, self._unit)
        usable = np.isfinite(values)
        if self._unit.base in _NEVER_NEGATIVE:
            usable &= values >= 0
        buckets = np.searchsorted(self._bounds, shown)
        for group in self._grouper.rows(columns, usable):
            counts = self._counts.reserve(group.size)
            bucket = group.of(buckets)
            np.add.at(counts.reshape(-1), group.slots * self._width + bucket, 1)
            _, hi, lo = (word.reserve(group.size) for word in self._words)
            exact.add(hi, lo, self._rare, group.slots, group.of(values))
            if self._exemplars is not None:
                self._exemplars.see(columns, group, bucket, group.of(shown))

    def take(self) -> HistogramDelta | None:
        """Increments since the last call."""
        groups = self._grouper.take()
        if groups is None:
            return None
        slots = groups.slots
        size = int(slots.max()) + 1 if len(slots) else 0
        arrays = [array.reserve(size) for array in (self._counts, *self._words)]
        top, hi, lo = arrays[1:]
        exact.carry(top, hi, lo, slots)
        taken = [array[slots] for array in arrays]
        for array in arrays:
            array[slots] = 0
        rare, self._rare = self._rare, {}
        exemplars = self._exemplars.take() if self._exemplars is not None else {}
        return HistogramDelta(groups, taken[0], tuple(taken[1:]), rare, exemplars)


class Histogram:
    """Counts of values at or under each bound, with their exact sum. Scope: replica.

    Bounds are in the metric's base unit, ascending, without +Inf. A value that is absent, not finite, or negative
    where its unit has no negative values is not observed, and counted as such.
    Exposed as Prometheus classic histogram: <name>_bucket, _sum, _count.
    """

    version: ClassVar[int] = 1

    def __init__(self, declared: Declared) -> None:
        assert isinstance(declared.spec, HistogramSpec)  # noqa: S101 - the entry point's name says so
        self._spec = declared.spec
        self._name = declared.name
        self._unit = UNITS[unit_of(declared) or "1"]
        self._width = len(self._spec.buckets) + 1
        columns = {"buckets": ((self._width,), np.int64)} | dict.fromkeys(SUM_WORDS, ((), np.int64))
        index = series_index(self._spec, list(declared.types.values()))
        self.table = Table(meaning(declared, self.version), index, columns)
        self._sums = Growing((), np.float64)

    @staticmethod
    def reducing(declared: Declared) -> ReducingHistogram:
        """The reducing half."""
        return ReducingHistogram(declared)

    def index(self) -> SeriesIndex:
        """The index of its series."""
        return self.table.index

    def merge(self, delta: HistogramDelta, local: LocalSlots) -> Merged:
        """Add increments."""
        local.announce(delta.groups.new)
        slots, overflow = local.resolve(delta.groups.slots)
        flat = self.table.column("buckets").reshape(-1)
        np.add.at(
            flat,
            (slots[:, None] * self._width + np.arange(self._width)).reshape(-1),
            delta.counts.reshape(-1),
        )
        add_sums(self.table, slots, delta.words, delta.rare, local)
        add_exemplars(self.table, delta.exemplars, local)
        self.table.touch(slots)
        return Merged(int(delta.counts[overflow].sum()), delta.groups.skipped)

    def observe(self, labels: tuple[str, ...], value: float) -> None:
        """Observe something that is no event, in the base unit, under a label set."""
        slot, _ = self.table.index.resolve(labels)
        self.table.column("buckets")[slot, np.searchsorted(self._spec.buckets, value)] += 1
        top, hi, lo = (self.table.column(word) for word in SUM_WORDS)
        slots = np.array([slot])
        exact.add(hi, lo, self.table.rare, slots, np.array([value]))
        exact.carry(top, hi, lo, slots)
        self.table.touch(slots)
        self.table.touch_extras([slot] if slot in self.table.rare else [])

    def families(self, generation: int) -> Sequence[Family]:
        """The committed distribution."""
        table = self.table
        rows = table.rows
        return [
            Family(
                name=self._name,
                kind="histogram",
                help=self._spec.help,
                unit=self._unit.base,
                label_names=table.index.names,
                series=table.index.series,
                values=shown_sums(table, self._sums, self._unit.factor),
                created=table.created.reserve(rows)[:rows].copy(),
                born=table.born.reserve(rows)[:rows].copy(),
                bounds=tuple(self._spec.buckets),
                buckets=table.shown["buckets"].reserve(rows)[:rows].copy(),
                exemplars=table.shown_exemplars,
                generation=generation,
            )
        ]


def in_base_unit(values: NDArray[np.float64], unit: Unit) -> NDArray[np.float64]:
    """Values (N,) in the base unit by one rounding: divided where the unit is a part, multiplied where it is more."""
    if unit.factor == 1:
        return values
    if unit.factor.numerator == 1:
        return values / float(unit.factor.denominator)
    return values * float(unit.factor)

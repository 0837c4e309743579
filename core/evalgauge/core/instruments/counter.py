"""Counter: how many events there were, or what a field of them adds up to, by label set."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.families import Family
from evalgauge.core.instrument import Declared, Merged, meaning, unit_of
from evalgauge.core.instruments.grouping import Slots, series_index
from evalgauge.core.instruments.increments import (
    SUM_WORDS,
    Accumulator,
    Increments,
    Singles,
    merge,
    shown_sums,
)
from evalgauge.core.pack.metric_model import CounterSpec
from evalgauge.core.table import Table
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.series import SeriesIndex


class ReducingCounter:
    """Counts of one reducer by local slot."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, CounterSpec)  # noqa: S101 - the entry point's name says so
        self._value = spec.value
        self._kept = Accumulator(spec, width=1, summed=spec.value is not None, exemplars=spec.exemplars)

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        values = usable = None
        if self._value is not None:
            values = columns.numbers(self._value)
            usable = np.isfinite(values) & (values >= 0)
        for group in self._kept.grouper.rows(columns, usable):
            self._kept.count(group)
            if values is not None:
                self._kept.sum(group, group.of(values))
            self._kept.trace(columns, group, None, np.ones(len(group.slots)))

    def take(self) -> Increments | Singles | None:
        """Increments since the last call."""
        return self._kept.take()


class Counter:
    """Events counted, or an exact sum. Scope: replica. Exposed as `<name>_total`.

    Unobserved: events whose value is absent, not finite or negative.
    Late: none; it does not go by time.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = False

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
        self.tables = (self.table,)
        self._sums = Growing((), np.float64)

    @staticmethod
    def reducing(declared: Declared) -> ReducingCounter:
        """The reducing half."""
        return ReducingCounter(declared)

    def index(self) -> SeriesIndex:
        """The index of its series."""
        return self.table.index

    @staticmethod
    def part(clock: Clock) -> None:
        """It keeps nothing by partition."""

    def merge(self, delta: Increments | Singles, slots: Slots, part: None) -> Merged:
        """Add increments."""
        del part
        return merge(self.table, "count", delta, slots.replica)

    def add(self, labels: tuple[str, ...], amount: int) -> None:
        """Count something that is no event, under a label set."""
        slot, _ = self.table.index.resolve(labels)
        self.table.column("count")[slot] += amount
        self.table.touch(np.array([slot]))

    def families(self, generation: int, parts: Sequence[None] = ()) -> Sequence[Family]:
        """The committed counts."""
        del parts
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

"""Histogram: how the values of a field are distributed, by label set."""

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
from evalgauge.core.pack.metric_model import HistogramSpec
from evalgauge.core.table import Table
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.series import SeriesIndex
    from evalgauge.core.units import Unit

NEVER_NEGATIVE = ("seconds", "bytes")
"""Base units whose values are never negative."""
_FEW = 32


class ReducingHistogram:
    """Counts and sums of one reducer by local slot."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, HistogramSpec)  # noqa: S101 - the entry point's name says so
        self._value = str(spec.value)
        self._unit = UNITS[unit_of(declared) or "1"]
        self._bounds = np.asarray(spec.buckets, np.float64)
        self._kept = Accumulator(spec, width=len(spec.buckets) + 1, summed=True, exemplars=spec.exemplars)

    def reduce(self, columns: Columns) -> None:
        """Add one batch. A value meets the bounds in the base unit, after one division or multiplication."""
        values = columns.numbers(self._value)
        shown = in_base_unit(values, self._unit)
        usable = np.isfinite(values)
        if self._unit.base in NEVER_NEGATIVE:
            usable &= values >= 0
        buckets = bucket_of(shown, self._bounds)
        for group in self._kept.grouper.rows(columns, usable):
            bucket = group.of(buckets)
            self._kept.count(group, bucket)
            self._kept.sum(group, group.of(values))
            self._kept.trace(columns, group, bucket, group.of(shown))

    def take(self) -> Increments | Singles | None:
        """Increments since the last call."""
        return self._kept.take()


class Histogram:
    """Counts of values at or under each bound, with their exact sum. Scope: replica.

    Bounds are in the metric's base unit, ascending, without +Inf.
    Exposed as Prometheus classic histogram: `<name>_bucket`, `_sum`, `_count`.

    Unobserved: values that are absent, not finite, or negative where their unit has no negative values.
    Late: none; it does not go by time.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = False

    def __init__(self, declared: Declared) -> None:
        assert isinstance(declared.spec, HistogramSpec)  # noqa: S101 - the entry point's name says so
        self._spec = declared.spec
        self._name = declared.name
        self._unit = UNITS[unit_of(declared) or "1"]
        self._width = len(self._spec.buckets) + 1
        columns = {"buckets": ((self._width,), np.int64)} | dict.fromkeys(SUM_WORDS, ((), np.int64))
        index = series_index(self._spec, list(declared.types.values()))
        self.table = Table(meaning(declared, self.version), index, columns)
        self.tables = (self.table,)
        self._sums = Growing((), np.float64)

    @staticmethod
    def reducing(declared: Declared) -> ReducingHistogram:
        """The reducing half."""
        return ReducingHistogram(declared)

    def index(self) -> SeriesIndex:
        """The index of its series."""
        return self.table.index

    @staticmethod
    def part(clock: Clock) -> None:
        """It keeps nothing by partition."""

    def merge(self, delta: Increments | Singles, slots: Slots, part: None) -> Merged:
        """Add increments."""
        del part
        return merge(self.table, "buckets", delta, slots.replica)

    def families(self, generation: int, parts: Sequence[None] = ()) -> Sequence[Family]:
        """The committed distribution."""
        del parts
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


def bucket_of(values: NDArray[np.float64], bounds: NDArray[np.float64]) -> NDArray[np.intp]:
    """The bucket (N,) of each value (N,): how many bounds are below it. A value on a bound belongs to that bound."""
    if len(bounds) > _FEW:
        return np.searchsorted(bounds, values)
    # For a few bounds, comparing with each is several times as fast as a binary search for every value.
    buckets = np.zeros(len(values), np.uint8)
    for bound in bounds:
        buckets += values > bound
    return buckets.astype(np.intp)


def in_base_unit(values: NDArray[np.float64], unit: Unit) -> NDArray[np.float64]:
    """Values (N,) in the base unit by one rounding: divided where the unit is a part, multiplied where it is more."""
    if unit.factor == 1:
        return values
    if unit.factor.numerator == 1:
        return values / float(unit.factor.denominator)
    with np.errstate(over="ignore"):  # what is too great falls into the last bucket
        return values * float(unit.factor)

"""What counters and histograms share: counts and exact sums by series, gathered by reducers, merged by the owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from evalgauge.core import exact
from evalgauge.core.arrays import Growing
from evalgauge.core.instrument import Merged
from evalgauge.core.instruments.exemplars import LastExemplars
from evalgauge.core.instruments.grouping import Grouper, Groups, LocalSlots

if TYPE_CHECKING:
    from collections.abc import Iterable
    from fractions import Fraction

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.families import Exemplar
    from evalgauge.core.instruments.grouping import Rows
    from evalgauge.core.pack.metric_model import MetricSpec
    from evalgauge.core.table import Table

SUM_WORDS = ("top", "hi", "lo")
"""Columns of a table that hold an exact sum."""
_MOST_UNTOUCHED = 8
"""Slots for each one that was touched, up to which a plain write to all is quicker than a write to those."""


@dataclass(frozen=True, slots=True)
class Increments:
    """What is to be added to local slots, in the order of `groups.slots`."""

    groups: Groups
    counts: NDArray[np.int64]
    """Shape (k, width)."""
    words: tuple[NDArray[np.int64], ...]
    """Exact sums, shape (k,) each; none where only events are counted."""
    rare: exact.Rare
    exemplars: dict[tuple[int, int], Exemplar]
    """(local slot, bucket) → the last one."""


@dataclass(frozen=True, slots=True)
class Singles:
    """Events that are to be counted one by one, in the order of `groups.slots`, because there are many series."""

    groups: Groups
    buckets: NDArray[np.intp] | None
    """Shape (k,); None where there is one."""
    values: NDArray[np.float64] | None
    """What to add to the sums, shape (k,); None where only events are counted."""
    exemplars: dict[tuple[int, int], Exemplar]
    """(local slot, bucket) → the last one."""


class Accumulator:
    """Counts in `width` buckets and, if wanted, an exact sum for each local slot of one reducer."""

    def __init__(self, spec: MetricSpec, *, width: int, summed: bool, exemplars: bool) -> None:
        self.grouper = Grouper(spec, singly=True)
        self._width = width
        self._counts = Growing((width,), np.int64)
        self._words = tuple(Growing((), np.int64) for _ in SUM_WORDS) if summed else ()
        self._rare: exact.Rare = {}
        self._added = 0
        """Values added to sums since the last carry."""
        self._buckets: list[NDArray[np.intp]] = []
        self._values: list[NDArray[np.float64]] = []
        self._exemplars = LastExemplars(width) if exemplars else None

    def count(self, group: Rows, buckets: NDArray[np.intp] | None = None) -> None:
        """Count the events of a group (N,), each in its bucket (N,); without buckets there is one."""
        if self.grouper.singly:
            if buckets is not None:
                self._buckets.append(buckets)
            return
        places = group.slots if buckets is None else group.slots * self._width + buckets
        np.add.at(self._counts.reserve(group.size).reshape(-1), places, 1)

    def sum(self, group: Rows, values: NDArray[np.float64]) -> None:
        """Add the values (N,), finite, of a group to its sums."""
        if self.grouper.singly:
            self._values.append(values)
            return
        top, hi, lo = (word.reserve(group.size) for word in self._words)
        for start in range(0, len(values), exact.SAFE_ADDS):
            part = slice(start, start + exact.SAFE_ADDS)
            self._added += len(values[part])
            if self._added > exact.SAFE_ADDS:  # a piece of very small events holds more than a word can carry
                exact.carry(top, hi, lo, np.arange(group.size))
                self._added = len(values[part])
            exact.add(hi, lo, self._rare, group.slots[part], values[part])

    def trace(
        self, columns: Columns, group: Rows, buckets: NDArray[np.intp] | None, values: NDArray[np.float64]
    ) -> None:
        """Remember the traces of a group's events, if exemplars are wanted."""
        if self._exemplars is not None:
            self._exemplars.see(columns, group, buckets, values)

    def take(self) -> Increments | Singles | None:
        """Everything since the last call, None if there is nothing."""
        singly = self.grouper.singly
        groups = self.grouper.take()
        if groups is None:
            return None
        exemplars = self._exemplars.take() if self._exemplars is not None else {}
        if singly:
            buckets = np.concatenate(self._buckets) if self._buckets else None
            values = np.concatenate(self._values) if self._values else None
            self._buckets, self._values = [], []
            return Singles(groups, buckets, values, exemplars)
        slots = groups.slots
        size = int(slots.max()) + 1 if len(slots) else 0
        words = [word.reserve(size) for word in self._words]
        if words:
            top, hi, lo = words
            exact.carry(top, hi, lo, slots)
        arrays = [self._counts.reserve(size), *words]
        taken = [array.take(slots, axis=0) for array in arrays]  # a third of the time of `array[slots]`
        # What was not touched is zero as it is: to write over all of it is quicker, unless most was not.
        untaken = slice(size) if size < _MOST_UNTOUCHED * len(slots) else slots
        for array in arrays:
            array[untaken] = 0
        rare, self._rare, self._added = self._rare, {}, 0
        return Increments(groups, taken[0], tuple(taken[1:]), rare, exemplars)


def merge(table: Table, column: str, delta: Increments | Singles, local: LocalSlots) -> Merged:
    """Add increments to a table whose counts stand in `column`, and whose sums stand in `SUM_WORDS`."""
    slots, overflow = local.resolve(delta.groups)
    counts = table.column(column)
    if isinstance(delta, Singles):
        places = slots if delta.buckets is None else slots * counts.shape[1] + delta.buckets
        np.add.at(counts.reshape(-1), places, 1)
        overflowed = int(np.count_nonzero(overflow))
        if delta.values is not None:
            add_values(table, slots, delta.values)
    else:
        width = delta.counts.shape[1]
        places = (slots[:, np.newaxis] * width + np.arange(width)).reshape(-1)
        np.add.at(counts.reshape(-1), places, delta.counts.reshape(-1))
        overflowed = int(delta.counts[overflow].sum())
        if delta.words:
            _add_words(table, slots, delta.words)
            resolved = local.resolved(list(delta.rare))
            _add_rare(table, zip(resolved, delta.rare.values(), strict=True))
    if delta.exemplars:
        resolved = local.resolved([slot for slot, _ in delta.exemplars])
        for slot, ((_, bucket), exemplar) in zip(resolved, delta.exemplars.items(), strict=True):
            table.exemplars[slot, bucket] = exemplar
        table.touch_extras(resolved)
    table.touch(slots)
    return Merged(overflowed, delta.groups.skipped)


def _add_words(table: Table, slots: NDArray[np.intp], words: tuple[NDArray[np.int64], ...]) -> None:
    top, hi, lo = (table.column(word) for word in SUM_WORDS)
    for column, word in zip((top, hi, lo), words, strict=True):
        np.add.at(column, slots, word)
    exact.carry(top, hi, lo, slots)


class Summing(Protocol):
    """A table with columns `SUM_WORDS`."""

    rare: dict[int, int]

    def column(self, name: str) -> NDArray[Any]:
        """A column with room for every slot."""

    def touch_extras(self, slots: Iterable[int]) -> None:
        """Say that rare sums of `slots` changed."""


def add_values(table: Summing, slots: NDArray[np.intp], values: NDArray[np.float64]) -> None:
    """Add values (n,), finite, to the exact sums of slots (n,)."""
    top, hi, lo = (table.column(word) for word in SUM_WORDS)
    rare: exact.Rare = {}
    for start in range(0, len(values), exact.SAFE_ADDS):
        part = slice(start, start + exact.SAFE_ADDS)
        exact.add(hi, lo, rare, slots[part], values[part])
        exact.carry(top, hi, lo, slots[part])
    _add_rare(table, rare.items())


def _add_rare(table: Summing, rare: Iterable[tuple[int, int]]) -> None:
    for slot, value in rare:
        table.rare[slot] = table.rare.get(slot, 0) + value
        table.touch_extras((slot,))


def shown_sums(table: Table, cache: Growing, factor: Fraction) -> NDArray[np.float64]:
    """Committed sums (n,) times `factor`, correctly rounded; only what changed is computed again."""
    sums = cache.reserve(table.rows)
    stale = table.take_stale()
    if len(stale):
        top, hi, lo = (table.shown[word].reserve(table.rows) for word in SUM_WORDS)
        sums[stale] = exact.rounded_all(top, hi, lo, table.shown_rare, stale, factor)
    return sums[: table.rows].copy()

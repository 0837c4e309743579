"""What an instrument keeps of one partition by key: the keys, the series they belong to, and how many there may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.clock import Row
from evalgauge.core.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.instruments.keyed_rows import KeyedRows
    from evalgauge.core.keytable import KeyTable
    from evalgauge.core.series import SeriesIndex
    from evalgauge.core.table import StateTable

BOUND_EVERY = 1 << 16
"""Events of the metric in a partition after which surplus keys go: at places that do not depend on commits."""


class Span(NamedTuple):
    """Neighbouring events."""

    rows: KeyedRows
    series: NDArray[np.intp]
    """Shape (N,): of each event, -1 where it has none."""
    clock: NDArray[np.int64]
    """Shape (N,): how far time had come before each event."""
    bound: int | None
    """Surplus keys go after these events, at this time."""
    first: int
    """Place of the first of them among all that were given."""


class KeyedPart:
    """One partition's. Whoever makes it gives the table of keys, and what is to be done when time passes."""

    def __init__(
        self,
        hashes: tuple[str, str],
        index: SeriesIndex,
        keys: KeyTable,
        clock: Clock,
        counts: Sequence[str] = (),
    ) -> None:
        """`hashes` are the meanings of the two tables that are its own; `counts` are columns of its series."""
        self.clock = clock
        self._series = Table(hashes[0], index, dict.fromkeys(counts, ((), np.int64)))
        self._seen = Row(hashes[1], {"events": np.int64})
        self.tables: tuple[StateTable, ...] = (self._series, keys, self._seen.table)
        self._replica = Growing((), np.int64, fill=-1)
        """Slot of the replica's table for each series."""
        self._overflow = Growing((), np.bool_)
        """Of each series: whether a limit of the replica's changed its labels."""

    def index(self) -> SeriesIndex:
        """The index of its series."""
        return self._series.index

    def spans(self, rows: KeyedRows, series: NDArray[np.intp]) -> Iterator[Span]:
        """The events (N,), with the series (N,) of each, up to each place where surplus keys go."""
        self._series.touch(series[series >= 0])
        clock = np.maximum(rows.clock, self.clock.now)
        seen, first = self._seen.read("events"), 0
        while first < len(clock):
            last = min(len(clock), first + BOUND_EVERY - seen % BOUND_EVERY)
            seen += last - first
            then = rows.after(last - 1, int(clock[last - 1])) if seen % BOUND_EVERY == 0 else None
            yield Span(rows.span(first, last), series[first:last], clock[first:last], then, first)
            first = last
        self._seen.write("events", seen)

    def replica_slots(self, series: NDArray[np.intp], index: SeriesIndex) -> NDArray[np.intp]:
        """Slots (n,) of `series` (n,) in the replica's `index`."""
        known = self._replica.reserve(len(self._series.index.series))
        overflow = self._overflow.reserve(len(known))
        for one in dict.fromkeys(series[known[series] < 0].tolist()):
            known[one], overflow[one] = index.resolve(self._series.index.series[one])
        return known[series].astype(np.intp)

    def overflowed(self, series: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Whether a limit of the replica's changed the labels of `series` (n,), whose slots were asked for."""
        found: NDArray[np.bool_] = self._overflow.reserve(len(self._series.index.series))[series]
        return found


def surplus(keys: KeyTable, most: int, until: NDArray[np.int64], held: NDArray[np.intp]) -> NDArray[np.intp]:
    """Slots of those keys, of `held` (n,), that are more than `most`: those with the least `until` (n,)."""
    count = len(held) - most
    if count <= 0:
        return np.empty(0, np.intp)
    last = np.partition(until, count - 1)[count - 1]
    gone, level = held[until < last], held[until == last]
    # Of those that are equally old the slots depend on when commits were, the keys do not.
    by_key = sorted(zip(keys.keys(level), level.tolist(), strict=True))
    return np.append(gone, [slot for _, slot in by_key[: count - len(gone)]]).astype(np.intp)

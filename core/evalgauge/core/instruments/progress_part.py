"""What `progress` keeps of one partition, and what it shows of it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.instrument import meaning
from evalgauge.core.instruments.grouping import series_index
from evalgauge.core.instruments.keyed_part import KeyedPart
from evalgauge.core.instruments.progress_keys import Events, Keys
from evalgauge.core.instruments.progress_milestones import Milestones, Reached
from evalgauge.core.instruments.progress_pairs import Pairs, Told
from evalgauge.core.instruments.progress_rows import parts_of
from evalgauge.core.pack.metric_model import ProgressSpec
from evalgauge.core.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.instrument import Declared
    from evalgauge.core.instruments.grouping import Slots
    from evalgauge.core.instruments.keyed_part import Span
    from evalgauge.core.instruments.progress_rows import ProgressRows
    from evalgauge.core.series import SeriesIndex

_SECOND = 1_000_000


@dataclass(slots=True)
class Found:
    """What events came to."""

    reached: list[Reached] = field(default_factory=list)
    """Milestones, in stream order; several of one event ascend."""
    late: int = 0
    evicted: int = 0
    """Pairs and keys."""
    milestones_evicted: int = 0


@dataclass(frozen=True, slots=True)
class Shown:
    """What is shown of n series that have pairs."""

    labels: list[tuple[str, ...]] = field(default_factory=list)
    counts: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 4), np.int64))
    """Shape (n, 4): progress of all pairs together, pairs known, pairs expected, keys."""
    estimates: NDArray[np.float64] = field(default_factory=lambda: np.empty((0, 3)))
    """Shape (n, 3): rate, completion and R²; NaN where there is none."""
    by: list[tuple[list[tuple[str, ...]], NDArray[np.int64]]] = field(default_factory=list)
    """For each further label: label sets (m), and (m, 2): progress of their pairs together, pairs."""
    milestones: dict[tuple[str, ...], int] = field(default_factory=dict)


class Projects(KeyedPart):
    """Pairs, keys and milestones of one partition."""

    def __init__(
        self, declared: Declared, version: int, index: SeriesIndex, texts: Sequence[str], clock: Clock
    ) -> None:
        """`texts` are those of the milestones."""
        spec = declared.spec
        assert isinstance(spec, ProgressSpec)  # noqa: S101 - for the type checker
        names = ("keys", "points", "pairs", "series", "seen")
        keys, points, pairs, series, seen = (meaning(declared, version, name) for name in names)
        self._ttl, self._most, self._texts = round(spec.ttl * _SECOND), spec.keys, texts
        self._ratios = spec.milestones
        limits = np.array([parts_of(ratio) for ratio in spec.milestones], np.int64)
        self._keys = Keys((keys, points), spec.points, limits, self._ttl, self._publish)
        self._pairs = Pairs(pairs, len(spec.by), self._ttl, spec.keys)
        super().__init__((series, seen), index, self._keys.table, clock)
        self._by = [
            Table(meaning(declared, version, f"by {name}"), by_index(declared, name), {}) for name in spec.by
        ]
        self._milestones = _milestones(declared, version) if spec.milestones else None
        first, _, last = self.tables
        kept = self._milestones.tables if self._milestones else ()
        # What is shown is made anew when the table of keys is loaded, so that all others must have been.
        self.tables = (first, *self._by, *kept, self._pairs.table, self._keys.points, self._keys.table, last)
        self._ready: Shown | None = None
        self.shown = Shown()
        """As of the last commit."""

    def by_series(
        self, place: int, series: NDArray[np.intp], told: tuple[list[str], NDArray[np.intp]]
    ) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Series (N,) of a further label of events that have `series` (N,), and which of them a limit changed."""
        found, over = np.full(len(series), -1), np.zeros(len(series), np.bool_)
        has = np.flatnonzero(series >= 0)
        texts, codes = told
        together, first, which = np.unique(
            series[has] * len(texts) + codes[has], return_index=True, return_inverse=True
        )
        slots, changed = np.empty(len(together), np.intp), np.empty(len(together), np.bool_)
        for one in np.argsort(first).tolist():
            of, text = divmod(int(together[one]), len(texts))
            labels = (*self.index().series[of], texts[text])
            slots[one], changed[one] = self._by[place].index.resolve(labels)
        found[has], over[has] = slots[which], changed[which]
        return found, over

    def take(
        self, delta: ProgressRows, slots: Slots, series: NDArray[np.intp], by: Sequence[NDArray[np.intp]]
    ) -> Found:
        """Take events in; `series` (N,) of each, and those (N,) of each further label."""
        found = Found()
        for span in self.spans(delta.rows, series):
            self._take(span, delta, slots, by, found)
            if span.bound is not None:
                self._bound(span.bound, found)
        return found

    def _take(
        self,
        span: Span,
        delta: ProgressRows,
        slots: Slots,
        by: Sequence[NDArray[np.intp]],
        found: Found,
    ) -> None:
        rows, clock, first = span.rows, span.clock, span.first
        in_time = np.flatnonzero(rows.times + self._ttl > clock)
        found.late += len(clock) - len(in_time)
        levels = self._milestones.levels if self._milestones else _none
        keys = np.full(len(clock), -1)
        keys[in_time] = self._keys.give(slots.keys, rows.key[in_time], levels)
        some = in_time[delta.pair[in_time + first] >= 0]
        told = Told(
            slots=self._pairs.give(slots.keys_of(1), delta.pair[some + first]),
            at=some,
            times=rows.times[some],
            values=delta.values[some + first],
            keys=keys[some],
            by=[one[some + first] for one in by],
        )
        changes = self._pairs.take(told, clock)
        events = Events(
            slots=keys[in_time],
            at=in_time,
            times=rows.times[in_time],
            announced=delta.announced[in_time + first],
            series=span.series[in_time],
        )
        firings = self._keys.take(events, clock, changes)
        if self._milestones is not None and len(firings.slots):
            texts = self._keys.texts(firings.slots)
            labels = [self.index().series[one] for one in firings.series.tolist()]
            self._milestones.reach(texts, labels, firings.milestones, firings.times)
            columns = (firings.milestones, firings.times, firings.at + first, firings.series)
            for key, place, time, row, one in zip(
                texts, *(column.tolist() for column in columns), strict=True
            ):
                found.reached.append(Reached(key, self._ratios[place], time, row, one))

    def _bound(self, clock: int, found: Found) -> None:
        if len(self._pairs.table) > self._most or len(self._keys.table) > self._most:
            self._forget(clock)
            gone = self._pairs.bound()
            self._keys.subtract(gone)
            keys = self._keys.surplus(self._most)
            found.evicted += len(gone.keys) + len(keys) + (self._pairs.drop(keys) if len(keys) else 0)
            self._keys.table.free(keys)
        if self._milestones is not None:
            forgotten = self._milestones.bound()
            self._keys.unlevel(forgotten)
            found.milestones_evicted += len(forgotten)

    def _forget(self, clock: int) -> None:
        self._keys.subtract(self._pairs.forget(clock))
        self._keys.forget(clock)

    def settle(self) -> None:
        """Forget what time has passed, and make ready what is shown."""
        self._forget(self.clock.now)
        self._ready = self._show()

    def _show(self) -> Shown:
        slots = self._keys.known()
        column = self._keys.table.column
        series = column("series")[slots].astype(np.intp)
        pairs = column("pairs")[slots]
        each = (
            column("sum")[slots],
            pairs,
            np.maximum(pairs, column("announced")[slots]),
            np.ones_like(pairs),
        )
        counts = np.zeros((len(self.index().series), 4), np.int64)
        np.add.at(counts, series, np.column_stack(each))
        estimates = np.full((len(counts), 3), np.nan)
        alone = np.flatnonzero(counts[series, 3] == 1)
        estimates[series[alone]] = self._keys.estimates(slots[alone])
        there = np.flatnonzero(counts[:, 3])
        by = []
        for place, table in enumerate(self._by):
            found = np.column_stack(self._pairs.by(place, len(table.index.series)))
            some = np.flatnonzero(found[:, 1])
            by.append(([table.index.series[one] for one in some.tolist()], found[some]))
        return Shown(
            [self.index().series[one] for one in there.tolist()],
            counts[there],
            estimates[there],
            by,
            self._milestones.shown(self._texts) if self._milestones else {},
        )

    def _publish(self) -> None:
        self.shown, self._ready = self._ready or self._show(), None


def _none(keys: Sequence[str]) -> NDArray[np.int64]:
    """Milestones that keys (n,) have reached where there are none."""
    return np.zeros(len(keys), np.int64)


def by_index(declared: Declared, label: str) -> SeriesIndex:
    """An empty index of the series of a further label."""
    spec = declared.spec
    assert isinstance(spec, ProgressSpec)  # noqa: S101 - for the type checker
    labels = {**spec.labels, label: spec.by[label]}
    types = [declared.types[type_] for type_ in spec.labelled]
    return series_index(spec.model_copy(update={"labels": labels}), types)


def _milestones(declared: Declared, version: int) -> Milestones:
    """Empty milestones. What is shown beside them, and how, is no part of what they mean."""
    spec = declared.spec
    assert isinstance(spec, ProgressSpec)  # noqa: S101 - for the type checker
    lasting = replace(declared, spec=spec.model_copy(update={"by": {}, "points": 2}))
    hashes = (meaning(lasting, version, "milestone series"), meaning(lasting, version, "milestones"))
    index = series_index(spec, [declared.types[type_] for type_ in spec.labelled])
    return Milestones(hashes, index, len(spec.milestones), spec.milestone_keys)

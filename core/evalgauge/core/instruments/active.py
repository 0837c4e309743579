"""Active: how many keys were seen within a time, or were opened and not closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core.instrument import Declared, Merged, meaning
from evalgauge.core.instruments.grouping import Slots, series_index
from evalgauge.core.instruments.keyed_part import KeyedPart, surplus
from evalgauge.core.instruments.keyed_rows import KeyedRows, Keyer, KeysOf
from evalgauge.core.instruments.tally import Tally
from evalgauge.core.keytable import KeyTable
from evalgauge.core.pack.emitted import active
from evalgauge.core.pack.metric_model import ActiveSpec
from evalgauge.core.series import SeriesIndex

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.families import Family
    from evalgauge.core.keys import LocalKeys

_SECOND = 1_000_000
_NEVER = np.iinfo(np.int64).min // 2
"""Before every event, and far enough from the least number that a time may be added."""


class ReducingActive:
    """Events with their keys, in stream order."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, ActiveSpec)  # noqa: S101 - the entry point's name says so
        self._keyer = Keyer(declared, KeysOf(declared, spec.key))

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        self._keyer.reduce(columns)

    def take(self) -> KeyedRows | None:
        """Everything since the last call."""
        return self._keyer.take()


class Seen(KeyedPart):
    """When each key of one partition was seen last, and closed last.

    Both are the greatest event time, so that neither the order of events nor a repeat changes anything. A key is told
    by the label set of its newest event.
    """

    def __init__(
        self, hashes: tuple[str, str, str], spec: ActiveSpec, index: SeriesIndex, clock: Clock
    ) -> None:
        self._keys = KeyTable(
            hashes[0],
            {"seen": ((), np.int64), "closed": ((), np.int64), "series": ((), np.int32)},
            self._publish,
        )
        super().__init__(hashes[1:], index, self._keys, clock)
        self._within, self._most = round(spec.ttl * _SECOND), spec.keys
        self._closing = np.array([type_ in spec.closed for type_ in spec.on])
        self._active: NDArray[np.int64] | None = None
        self.shown: list[tuple[tuple[str, ...], int]] = []
        """Label set and active keys, as of the last commit."""

    def take(self, rows: KeyedRows, keys: LocalKeys, series: NDArray[np.intp]) -> tuple[int, int]:
        """Take events in; `series` (N,) of each. How many of them were late, and how many keys had to go."""
        late = evicted = 0
        for span in self.spans(rows, series):
            in_time = np.flatnonzero(span.rows.times + self._within > span.clock)
            late += len(span.clock) - len(in_time)
            self._note(span.rows, keys, span.series, in_time)
            if span.bound is not None and len(self._keys) > self._most:
                self._forget(span.bound)
                held = self._keys.held()
                gone = surplus(self._keys, self._most, self._newest(held), held)
                self._keys.free(gone)
                evicted += len(gone)
        return late, evicted

    def _note(
        self, rows: KeyedRows, keys: LocalKeys, series: NDArray[np.intp], some: NDArray[np.intp]
    ) -> None:
        mine = rows.key[some]
        slots, new = keys.given(self._keys, mine)
        seen, closed = self._keys.column("seen"), self._keys.column("closed")
        seen[slots[new]] = closed[slots[new]] = _NEVER
        of = slots[mine]
        before = np.maximum(seen[of], closed[of])
        closing = self._closing[rows.types[some]]
        for column, told in ((seen, ~closing), (closed, closing)):
            np.maximum.at(column, of[told], rows.times[some[told]])
        # Of several events of the newest time the last in the stream tells the label set.
        newest = (rows.times[some] >= before) & (rows.times[some] == np.maximum(seen[of], closed[of]))
        self._keys.column("series")[of[newest]] = series[some[newest]]
        self._keys.touch(of)

    def _newest(self, slots: NDArray[np.intp]) -> NDArray[np.int64]:
        newest: NDArray[np.int64] = np.maximum(
            self._keys.column("seen")[slots], self._keys.column("closed")[slots]
        )
        return newest

    def _forget(self, clock: int) -> None:
        held = self._keys.held()
        self._keys.free(held[self._newest(held) + self._within <= clock])

    def settle(self) -> None:
        """Forget keys that were not seen for long enough, and count those that are active."""
        self._forget(self.clock.now)
        self._active = self._count()

    def _count(self) -> NDArray[np.int64]:
        held = self._keys.held()
        seen, closed = self._keys.column("seen")[held], self._keys.column("closed")[held]
        active = held[(seen > closed) & (seen + self._within > self.clock.now)]
        series = self._keys.column("series")[active].astype(np.intp)
        return np.bincount(series, minlength=len(self.index().series))

    def _publish(self) -> None:
        found, self._active = self._count() if self._active is None else self._active, None
        self.shown = list(zip(self.index().series, found.tolist(), strict=False))


class Active:
    """Keys seen within a time of the partition's clock, and not closed since.

    Scope: partition; the count of keys evicted is the replica's. The greatest event time counts, of seeing and of
    closing, so that neither order nor repeats change anything.

    Unobserved: events without a key.
    Late: events that are older by `ttl` than time has come, or ahead of their arrival by more than `clock_ahead`.
    Evicted: beyond `keys`, those that were seen longest ago.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = True

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, ActiveSpec)  # noqa: S101 - the entry point's name says so
        self._declared, self._spec = declared, spec
        self._exposed = active(declared.name, spec)
        self._tally = Tally(declared, self.version, SeriesIndex((), 0), {})
        self.tables = self._tally.tables

    @staticmethod
    def reducing(declared: Declared) -> ReducingActive:
        """The reducing half."""
        return ReducingActive(declared)

    def part(self, clock: Clock) -> Seen:
        """The keys of one more partition."""
        keys, series, seen = (
            meaning(self._declared, self.version, part) for part in ("keys", "series", "seen")
        )
        index = series_index(self._spec, list(self._declared.types.values()))
        return Seen((keys, series, seen), self._spec, index, clock)

    @staticmethod
    def index() -> None:
        """Its series are the partitions'."""

    def merge(self, delta: KeyedRows, slots: Slots, part: Seen) -> Merged:
        """Take events in."""
        slots.part.resolve(delta.groups)
        series, overflow = slots.part.of_rows(delta.slots)
        late, evicted = part.take(delta, slots.keys, series)
        self._tally.count(evicted=evicted)
        return Merged(int(np.count_nonzero(overflow)), delta.groups.skipped, late + delta.early)

    def families(self, generation: int, parts: Sequence[Seen]) -> Sequence[Family]:
        """What is active in these partitions."""
        shown, evicted = self._exposed
        found: dict[tuple[str, ...], int] = {}
        for labels, count in (one for part in parts for one in part.shown):
            found[labels] = found.get(labels, 0) + count
        return [
            shown.family(list(found), np.array(list(found.values()), np.int64)),
            self._tally.family_apart(evicted, "evicted", generation),
        ]

"""How far each pair has come, and what each event, or time alone, changes in the sums of its key."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalgauge.core.instruments.keyed_part import surplus
from evalgauge.core.instruments.segments import NEVER, before, newest, segments
from evalgauge.core.keytable import KeyTable
from evalgauge.core.ordering import stable_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.keys import LocalKeys

_LATEST = int(np.iinfo(np.int64).max)


class Told(NamedTuple):
    """Events (n,) in stream order that say how far a pair is."""

    slots: NDArray[np.intp]
    """Of the pairs."""
    at: NDArray[np.intp]
    """Places of the events among all (N,) of the span."""
    times: NDArray[np.int64]
    values: NDArray[np.int64]
    keys: NDArray[np.intp]
    """Slots of their keys."""
    by: Sequence[NDArray[np.intp]]
    """Series (n,) of each further label."""


class Changes(NamedTuple):
    """What becomes of the sums of keys, (m,) each, in any order."""

    keys: NDArray[np.intp]
    """Slots."""
    when: NDArray[np.int64]
    """Twice the place of the event before which it happens; one more where the event itself does it."""
    sums: NDArray[np.int64]
    """What is added to the progress of all pairs of the key."""
    pairs: NDArray[np.int64]
    """What is added to their number."""


class Pairs:
    """The pairs of one partition.

    The newest event of a pair counts; of several of one time the last in the stream. A pair is gone as soon as time has
    come `ttl` past it, just before the event that shows so.
    """

    def __init__(self, meaning: str, by: int, ttl: int, most: int) -> None:
        columns: dict[str, tuple[tuple[int, ...], type[np.generic]]] = {
            "value": ((), np.int32),
            "newest": ((), np.int64),
            "key": ((), np.int32),
        }
        self._by = [f"by {place}" for place in range(by)]
        columns |= dict.fromkeys(self._by, ((), np.int32))
        self.table = KeyTable(meaning, columns)
        self._ttl, self._most = ttl, most
        self._oldest = NEVER
        """No pair is older."""

    def give(self, local: LocalKeys, numbers: NDArray[np.intp]) -> NDArray[np.intp]:
        """Slots (n,) of pairs (n,), new where they are not held."""
        slots, new = local.given(self.table, numbers)
        self.table.column("newest")[slots[new]] = NEVER
        return slots[numbers].astype(np.intp)

    def take(self, told: Told, clock: NDArray[np.int64]) -> Changes:
        """Take the events of a span in; `clock` (N,) is how far time had come before each event of it."""
        order = stable_order(told.slots)
        slots, times = told.slots[order], told.times[order]
        wins = newest(times, segments(slots), self.table.column("newest")[slots])
        order, slots, times = order[wins], slots[wins], times[wins]
        runs = segments(slots)
        values, keys, at = told.values[order], told.keys[order], told.at[order]
        since = before(times, runs, self.table.column("newest")[slots])
        worth = before(values, runs, self.table.column("value")[slots].astype(np.int64))
        known = since > NEVER
        held = known & (since + self._ttl > clock[at])
        left = np.flatnonzero(known & ~held)
        changes = [
            Changes(keys, 2 * at + 1, values - np.where(held, worth, 0), 1 - held.astype(np.int64)),
            self._gone(keys[left], since[left], worth[left], clock),
        ]
        last = runs.lasts()
        for name, column in (("value", values), ("newest", times), ("key", keys)):
            self.table.column(name)[slots[last]] = column[last]
        for name, series in zip(self._by, told.by, strict=True):
            self.table.column(name)[slots[last]] = series[order[last]]
        self.table.touch(slots[last])
        if len(times):
            self._oldest = min(self._oldest, int(times.min()))
        old = self._old(int(clock[-1]))
        keys, since, worth = (self.table.column(name)[old] for name in ("key", "newest", "value"))
        changes.append(self._gone(keys, since, worth, clock))
        self.table.free(old)
        return Changes(*(np.concatenate(parts) for parts in zip(*changes, strict=True)))

    def _gone(
        self,
        keys: NDArray[np.intp],
        since: NDArray[np.int64],
        worth: NDArray[np.int64],
        clock: NDArray[np.int64],
    ) -> Changes:
        """Pairs that go before the first event that shows time to be past them."""
        when = np.searchsorted(clock, since + self._ttl)
        return Changes(keys, 2 * when, -worth.astype(np.int64), np.full(len(keys), -1))

    def _old(self, clock: int) -> NDArray[np.intp]:
        """Slots of pairs that time has passed."""
        if self._oldest + self._ttl > clock:
            return np.empty(0, np.intp)
        held = self.table.held()
        since = self.table.column("newest")[held]
        old = since + self._ttl <= clock
        self._oldest = int(since[~old].min(initial=_LATEST - self._ttl))
        return held[old]

    def forget(self, clock: int) -> Changes:
        """Let pairs go that time has passed."""
        return self._free(self._old(clock))

    def _free(self, slots: NDArray[np.intp]) -> Changes:
        keys, worth = (self.table.column(name)[slots].astype(np.int64) for name in ("key", "value"))
        self.table.free(slots)
        return Changes(keys, np.zeros_like(keys), -worth, np.full(len(keys), -1))

    def bound(self) -> Changes:
        """Let those go that are too many, the oldest first."""
        held = self.table.held()
        return self._free(surplus(self.table, self._most, self.table.column("newest")[held], held))

    def drop(self, keys: NDArray[np.intp]) -> int:
        """Let all pairs of these keys go; how many they were."""
        held = self.table.held()
        gone = held[np.isin(self.table.column("key")[held], keys)]
        self.table.free(gone)
        return len(gone)

    def by(self, place: int, series: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Sums and numbers (series,) of pairs by the series of a further label."""
        held = self.table.held()
        of = self.table.column(self._by[place])[held]
        sums = np.zeros(series, np.int64)
        np.add.at(sums, of, self.table.column("value")[held])
        return sums, np.bincount(of, minlength=series)

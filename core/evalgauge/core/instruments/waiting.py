"""What waits in one partition: keys whose first event came and whose second has not, and how long others took."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.clock import NEVER
from evalgauge.core.instruments.keyed_part import surplus
from evalgauge.core.instruments.keyed_rows import rounds
from evalgauge.core.keytable import KeyTable

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from evalgauge.core.instruments.keyed_rows import KeyedRows
    from evalgauge.core.keys import LocalKeys

BEGUN, ENDED = 1, 2
_BOTH = BEGUN | ENDED
_MANY_ROUNDS = 8
_LONG = 1 << 61
"""Microseconds, longer than there are dates."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every key; times in microseconds."""

    begin: int
    """Place of the type that begins; any other ends."""
    limits: tuple[int, ...]
    """A key that ends within one has met it; one that has not ended when it has passed has missed it, for good."""
    lateness: int
    """So much later than a limit an end is still waited for: events need not come in order."""
    retention: int
    """So long after its first event a key is forgotten; an event that comes later than that is not taken in."""
    keys: int
    """Keys that are held; beyond, those go that have waited longest."""


@dataclass(slots=True)
class Outcome:
    """What is to be counted; series are slots of the partition's."""

    series: list[NDArray[np.intp]] = field(default_factory=list)
    taken: list[NDArray[np.int64]] = field(default_factory=list)
    """Microseconds from the first event to the second, of each of `series`."""
    met: list[tuple[int, NDArray[np.intp]]] = field(default_factory=list)
    """(place of the limit, series of each key)."""
    missed: list[tuple[int, NDArray[np.intp]]] = field(default_factory=list)
    expired: list[NDArray[np.intp]] = field(default_factory=list)
    """Series of each key that was forgotten without an end."""
    lone: int = 0
    """Ends that were forgotten without a beginning."""
    late: int = 0
    """Events that came too late to be taken in."""
    evicted: int = 0
    """Keys that had to go before their time."""


class Waiting:
    """The keys of one partition. What a stream comes to does not depend on how it is cut.

    The order of a key's two events does not matter: an end that comes first waits for its beginning. Of several that
    begin, or end, the first in the stream counts.
    """

    def __init__(self, meaning: str, terms: Terms, published: Callable[[], None] = lambda: None) -> None:
        self._terms = terms
        self.table = KeyTable(
            meaning,
            {
                "flags": ((), np.uint8),
                "begin": ((), np.int64),
                "end": ((), np.int64),
                "series": ((), np.int32),
                "settled": ((), np.uint32),
            },
            published,
        )

    def take(
        self,
        rows: KeyedRows,
        keys: LocalKeys,
        series: NDArray[np.intp],
        clock: NDArray[np.int64],
        outcome: Outcome,
    ) -> None:
        """Take events in; `series` (N,) of each, `clock` (N,) the partition's time before each."""
        slots = keys.slots(self.table, rows.key)
        late = rows.times + self._terms.retention <= clock
        outcome.late += int(np.count_nonzero(late))
        in_time = np.flatnonzero(~late)
        wide, rest = rounds(rows.key[in_time])
        if len(wide) + len(rest) > _MANY_ROUNDS:
            in_time = self._telling(rows, slots, clock, in_time)
            wide, rest = rounds(rows.key[in_time])
        for some in (in_time[turn] for turn in (*wide, *rest.reshape(-1, 1))):
            which = rows.key[some]
            found = slots[which]
            old = np.flatnonzero(found >= 0)
            gone = old[self._until(found[old]) <= clock[some[old]]]
            self._forget(found[gone], outcome)
            found[gone] = -1
            new = np.flatnonzero(found < 0)
            found[new] = self.table.give(keys.texts(which[new]))
            slots[which] = found
            self._note(found, some, rows, series)
            paired = self.table.column("flags")[found] == _BOTH
            # Where the beginning is what came now, nothing was decided before it.
            decided = np.where(rows.types[some] == self._terms.begin, NEVER, clock[some])
            self._settle(found[paired], decided[paired], outcome)
            self.table.touch(found)
        keys.note(self.table, rows.key)

    def _telling(
        self,
        rows: KeyedRows,
        slots: NDArray[np.int64],
        clock: NDArray[np.int64],
        some: NDArray[np.intp],
    ) -> NDArray[np.intp]:
        """Those of `some` (n,) that may change something: no repeats in one life of a key."""
        numbers, of = np.unique(rows.key[some], return_inverse=True)
        first, latest = np.full(len(numbers), np.iinfo(np.int64).max), np.full(len(numbers), NEVER)
        held = np.flatnonzero(slots[numbers] >= 0)
        first[held] = self._until(slots[numbers[held]]) - self._terms.retention
        np.minimum.at(first, of, rows.times[some])
        np.maximum.at(latest, of, clock[some])
        ends = rows.types[some] != self._terms.begin
        kept = np.zeros(len(some), np.bool_)
        kept[np.unique(2 * of + ends, return_index=True)[1]] = True
        # Keys that may be forgotten meanwhile have several lives.
        several = np.flatnonzero((latest >= first + self._terms.retention)[of])
        kept[several] = self._in_each_life(rows, slots, clock, some[several])
        return some[kept]

    def _in_each_life(
        self,
        rows: KeyedRows,
        slots: NDArray[np.int64],
        clock: NDArray[np.int64],
        some: NDArray[np.intp],
    ) -> list[bool]:
        """Which of `some` (n,) are the first of their kind since their key was forgotten."""
        lives: dict[int, tuple[int, int]] = {}
        found = []
        ends = (rows.types[some] != self._terms.begin).tolist()
        columns = (rows.key[some], slots[rows.key[some]], rows.times[some], clock[some])
        for end, key, slot, time, now in zip(ends, *(column.tolist() for column in columns), strict=True):
            life = lives.get(key)
            if life is None:
                life = (0, 0)
                if slot >= 0:
                    flags = int(self.table.column("flags")[slot])
                    life = flags, int(self._until(np.array([slot]))[0])
            flags, until = life
            if flags and until <= now:
                flags = 0
            kind = ENDED if end else BEGUN
            found.append(not flags & kind)
            if not flags & kind and (kind == BEGUN or not flags):
                until = time + self._terms.retention
            lives[key] = flags | kind, until
        return found

    def _note(
        self, found: NDArray[np.intp], some: NDArray[np.intp], rows: KeyedRows, series: NDArray[np.intp]
    ) -> None:
        flags = self.table.column("flags")
        begins = rows.types[some] == self._terms.begin
        for flag, name, these in ((BEGUN, "begin", begins), (ENDED, "end", ~begins)):
            mine = these & ((flags[found] & flag) == 0)
            slots = found[mine]
            flags[slots] |= flag
            self.table.column(name)[slots] = rows.times[some[mine]]
            if flag == BEGUN:
                self.table.column("series")[slots] = series[some[mine]]

    def _settle(self, slots: NDArray[np.intp], clock: NDArray[np.int64], outcome: Outcome) -> None:
        """Count what has both events, once; `clock` (n,) the time before the end, if that came after the beginning."""
        settled = self.table.column("settled")
        done = np.uint32(1 << len(self._terms.limits))
        fresh = (settled[slots] & done) == 0
        slots, clock = slots[fresh], clock[fresh]
        if not len(slots):
            return
        begin, series = self.table.column("begin")[slots], self.table.column("series")[slots].astype(np.intp)
        taken = np.maximum(self.table.column("end")[slots] - begin, 0)
        outcome.series.append(series)
        outcome.taken.append(taken)
        for place, limit in enumerate(self._terms.limits):
            open_ = (settled[slots] & np.uint32(1 << place)) == 0
            met = (taken <= limit) & (clock < begin + limit + self._terms.lateness)
            outcome.met.append((place, series[open_ & met]))
            outcome.missed.append((place, series[open_ & ~met]))
        settled[slots] = 2 * done - np.uint32(1)

    def pass_time(self, clock: int, outcome: Outcome) -> None:
        """Count limits that have passed and forget what is too old; before each commit, or more often."""
        held = self.table.held()
        old = held[self._until(held) <= clock]
        self._miss(held[self.table.column("flags")[held] == BEGUN], clock, outcome)
        self._forget(old, outcome)

    def _miss(self, slots: NDArray[np.intp], clock: int | NDArray[np.int64], outcome: Outcome) -> None:
        settled, begin = self.table.column("settled"), self.table.column("begin")
        for place, limit in enumerate(self._terms.limits):
            bit = np.uint32(1 << place)
            due = (begin[slots] + limit + self._terms.lateness <= clock) & ((settled[slots] & bit) == 0)
            late = slots[due]
            if len(late):
                settled[late] |= bit
                outcome.missed.append((place, self.table.column("series")[late].astype(np.intp)))
                self.table.touch(late)

    def _until(self, slots: NDArray[np.intp]) -> NDArray[np.int64]:
        """When keys are forgotten."""
        begun = (self.table.column("flags")[slots] & BEGUN) != 0
        first: NDArray[np.int64] = np.where(
            begun, self.table.column("begin")[slots], self.table.column("end")[slots]
        )
        return first + self._terms.retention

    def bound(self, clock: int, outcome: Outcome) -> None:
        """Let those go that are too many when time has taken its own: first what waits for no end, the oldest first.

        To be called at places that the stream alone decides: which keys are there depends on it.
        """
        if len(self.table) <= self._terms.keys:
            return
        self.pass_time(clock, outcome)
        held = self.table.held()
        # What still waits goes last: of the others nothing is left to be told.
        rank = self._until(held) - np.where(self.table.column("flags")[held] == BEGUN, 0, _LONG)
        gone = surplus(self.table, self._terms.keys, rank, held)
        self._miss(gone[self.table.column("flags")[gone] == BEGUN], np.iinfo(np.int64).max, outcome)
        self.table.free(gone)
        outcome.evicted += len(gone)

    def _forget(self, slots: NDArray[np.intp], outcome: Outcome) -> None:
        if not len(slots):
            return
        flags = self.table.column("flags")[slots]
        open_ = slots[flags == BEGUN]
        self._miss(open_, np.iinfo(np.int64).max, outcome)
        outcome.expired.append(self.table.column("series")[open_].astype(np.intp))
        outcome.lone += int(np.count_nonzero(flags == ENDED))
        self.table.free(slots)

    def waiting(self, series: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Keys that wait now, and the time of the oldest of them, by series, (series,) each."""
        held = self.table.held()
        open_ = held[self.table.column("flags")[held] == BEGUN]
        of = self.table.column("series")[open_]
        oldest = np.full(series, np.iinfo(np.int64).max)
        np.minimum.at(oldest, of, self.table.column("begin")[open_])
        return np.bincount(of, minlength=series), oldest

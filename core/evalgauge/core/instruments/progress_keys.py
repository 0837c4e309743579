"""What is kept of each key whose progress it is: sums over its pairs, its last points, how far it has come."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.instruments.keyed_part import surplus
from evalgauge.core.instruments.progress_line import WHOLE, lines
from evalgauge.core.instruments.progress_points import Points
from evalgauge.core.instruments.segments import (
    NEVER,
    Segments,
    before,
    carried,
    greatest_before,
    newest,
    running_sum,
    segments,
)
from evalgauge.core.keytable import KeyTable
from evalgauge.core.ordering import stable_order

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.instruments.progress_pairs import Changes
    from evalgauge.core.keys import LocalKeys

_TOGETHER = 2048
"""Keys whose lines are fitted at once: their points should stay in the cache."""
_COLUMNS: dict[str, type[np.generic]] = {
    "newest": np.int64,  # greatest event time
    "sum": np.int64,  # progress of all pairs together
    "pairs": np.int32,
    "announced": np.int32,
    "announced at": np.int64,
    "told at": np.int64,  # event time of what gave it its label set
    "series": np.int32,
    "points": np.int64,  # that it has had
    "progress": np.int32,  # at its last point
    "complete since": np.int64,  # where that is complete
    "level": np.int8,  # milestones reached
}


class Events(NamedTuple):
    """Events (n,) of keys, in stream order."""

    slots: NDArray[np.intp]
    at: NDArray[np.intp]
    """Places among all (N,) of the span."""
    times: NDArray[np.int64]
    announced: NDArray[np.int64]
    """-1 where nothing is."""
    series: NDArray[np.intp]
    """-1 where the event only announces."""


class Firings(NamedTuple):
    """Milestones that keys reached, (m,) each, in stream order."""

    slots: NDArray[np.intp]
    series: NDArray[np.intp]
    milestones: NDArray[np.intp]
    """By place."""
    times: NDArray[np.int64]
    at: NDArray[np.intp]
    """Places of the events that did it, among all of the span."""


class _Lives(NamedTuple):
    """Events (n,) by key, each key's in stream order."""

    keys: Segments
    slots: NDArray[np.intp]
    at: NDArray[np.intp]
    reached: NDArray[np.int64]
    """Greatest event time of the key after each."""
    born: NDArray[np.bool_]
    """Here nothing was known of the key: it is new, or was forgotten."""
    runs: Segments
    """Runs of a key from one birth to the next."""
    old: NDArray[np.bool_]
    """Those in a run of which something was known before the span."""
    last: NDArray[np.bool_]
    """Those in the last run of their key."""


class Keys:
    """The keys of one partition.

    One is gone as soon as time has come `ttl` past its newest event, and so are its pairs. A point of a key is its
    greatest event time so far and its progress, after each event that leaves it with a pair; of one time the last.
    """

    def __init__(
        self,
        hashes: tuple[str, str],
        points: int,
        milestones: NDArray[np.int64],
        ttl: int,
        published: Callable[[], None],
    ) -> None:
        """`hashes` are the meanings of its two tables; `milestones` are in parts of `WHOLE`, ascending."""
        self.table = KeyTable(hashes[0], {name: ((), dtype) for name, dtype in _COLUMNS.items()}, published)
        self.points = Points(hashes[1], points)
        self._most_points, self._milestones, self._ttl = points, milestones, ttl
        self._fits = Growing((3,), np.float64)
        """Rate, arrival and R² by slot."""
        self._moved = Growing((), np.bool_, fill=True)
        """Slots whose points are no more those that were fitted."""

    def give(
        self,
        local: LocalKeys,
        numbers: NDArray[np.intp],
        levels: Callable[[Sequence[str]], NDArray[np.int64]],
    ) -> NDArray[np.intp]:
        """Slots (n,) of keys (n,), new where they are not held; `levels` tells what milestones keys have reached."""
        slots, new = local.given(self.table, numbers)
        if len(new):
            fresh = slots[new]
            for name in ("newest", "announced at", "told at"):
                self.table.column(name)[fresh] = NEVER
            self.table.column("series")[fresh] = -1
            self.table.column("level")[fresh] = levels(local.texts(new))
        return slots[numbers].astype(np.intp)

    def _of(self, name: str, slots: NDArray[np.intp]) -> NDArray[np.int64]:
        return self.table.column(name)[slots].astype(np.int64)

    def take(self, events: Events, clock: NDArray[np.int64], changes: Changes) -> Firings:
        """Take the events of a span in, with what they and time change; `clock` (N,) is how far time had come."""
        order = stable_order(events.slots)
        events = Events(*(column[order] for column in events))
        lives = self._lives(events, clock)
        sums, pairs = self._sums(events, changes)
        announced = self._announce(events, lives)
        series = self._label(events, lives)
        known = np.flatnonzero(pairs > 0)
        progress = sums[known] // np.maximum(pairs, announced)[known]
        firings = self._fire(lives, series, known, progress)
        self._points(lives, known, progress)
        self.table.column("newest")[lives.slots] = lives.reached
        self.table.touch(lives.slots)
        return firings

    def _lives(self, events: Events, clock: NDArray[np.int64]) -> _Lives:
        keys = segments(events.slots)
        past = greatest_before(events.times, keys, self._of("newest", events.slots))
        born = (past <= NEVER) | (past + self._ttl <= clock[events.at])
        runs = segments(np.cumsum(keys.starts | born))
        firsts, lasts = runs.firsts(), runs.number[keys.lasts()]
        return _Lives(
            keys=keys,
            slots=events.slots,
            at=events.at,
            reached=np.maximum(past, events.times),
            born=born,
            runs=runs,
            old=~born[firsts][runs.number],
            last=runs.number == lasts[keys.number],
        )

    def _sums(self, events: Events, changes: Changes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Progress of all pairs together, and their number, after each event (n,)."""
        count = len(events.slots)
        nothing = np.zeros(count, np.int64)
        # Events that change nothing are there as well, so that each finds what it came upon.
        slots = np.concatenate((changes.keys, events.slots)).astype(np.intp)
        when = np.concatenate((changes.when, 2 * events.at + 1))
        mine = np.concatenate((np.full(len(changes.keys), -1), np.arange(count)))
        # Of one place what changes comes first, as it does above.
        order = stable_order(slots * (int(when.max(initial=0)) + 1) + when)
        slots, mine = slots[order], mine[order]
        runs, found = segments(slots), []
        for name, change in (("sum", changes.sums), ("pairs", changes.pairs)):
            column = self.table.column(name)
            after = running_sum(np.concatenate((change, nothing))[order], runs, column[slots])
            column[slots[runs.lasts()]] = after[runs.lasts()]
            told = np.empty(count, np.int64)
            told[mine[mine >= 0]] = after[mine >= 0]
            found.append(told)
        self.table.touch(slots)
        return found[0], found[1]

    def _announce(self, events: Events, lives: _Lives) -> NDArray[np.int64]:
        """Pairs announced as of each event (n,): by the newest that says so; of one time by the last."""
        has = np.flatnonzero(events.announced >= 0)
        column, since = self.table.column("announced"), self.table.column("announced at")
        initial = np.where(lives.old, column[lives.slots], 0)
        if len(has):
            at = np.where(lives.old[has], since[lives.slots[has]], NEVER)
            has = has[newest(events.times[has], lives.runs.some(has), at)]
        found = carried(events.announced, has, lives.runs, initial)
        times = carried(events.times, has, lives.runs, np.where(lives.old, since[lives.slots], NEVER))
        lasts = lives.keys.lasts()
        column[lives.slots[lasts]], since[lives.slots[lasts]] = found[lasts], times[lasts]
        return found

    def _label(self, events: Events, lives: _Lives) -> NDArray[np.int64]:
        """Series (n,) of the key at each event: that of its newest that tells of a pair; of one time of the last."""
        has = np.flatnonzero(events.series >= 0)
        column, since = self.table.column("series"), self.table.column("told at")
        at = np.where(lives.old[has], since[lives.slots[has]], NEVER)
        has = has[newest(events.times[has], lives.runs.some(has), at)]
        lasts = lives.keys.lasts()
        found = carried(events.series, has, lives.runs, np.where(lives.old, column[lives.slots], -1))
        times = carried(events.times, has, lives.runs, np.where(lives.old, since[lives.slots], NEVER))
        column[lives.slots[lasts]], since[lives.slots[lasts]] = found[lasts], times[lasts]
        return found

    def _fire(
        self,
        lives: _Lives,
        series: NDArray[np.int64],
        known: NDArray[np.intp],
        progress: NDArray[np.int64],
    ) -> Firings:
        """Milestones that were never reached before, in stream order."""
        slots = lives.slots[known]
        level = np.searchsorted(self._milestones, progress, side="right")
        past = greatest_before(level, lives.keys.some(known), self._of("level", slots))
        fires = np.flatnonzero(level > past)
        fires = fires[stable_order(lives.at[known[fires]])]
        self.table.column("level")[slots[fires]] = level[fires]
        each = level[fires] - past[fires]
        which = np.repeat(fires, each)
        first = np.cumsum(each) - each
        milestones = np.arange(len(which)) - np.repeat(first, each) + past[which]
        rows = known[which]
        return Firings(slots[which], series[rows], milestones, lives.reached[rows], lives.at[rows])

    def _points(self, lives: _Lives, known: NDArray[np.intp], progress: NDArray[np.int64]) -> None:
        """Add the points after events `known` (n,), which have made this `progress` (n,)."""
        table = self.table
        begun = lives.slots[lives.born & lives.last]
        table.column("points")[begun] = 0
        self._moved.reserve(int(lives.slots.max(initial=0)) + 1)[lives.slots] = True
        known, progress = known[lives.last[known]], progress[lives.last[known]]
        slots, runs = lives.slots[known], lives.runs.some(known)
        times, had = lives.reached[known], table.column("points")[slots]
        # What was complete already, at the point before the first of these, is so since then.
        done = (progress >= WHOLE).astype(np.int64)
        was = np.where(had > 0, table.column("progress")[slots] >= WHOLE, 0).astype(np.int64)
        became = np.flatnonzero(done > before(done, runs, was))
        table.column("complete since")[slots[became]] = times[became]
        stays = np.append(
            (times[1:] == times[:-1]) & ~runs.starts[1:], np.zeros(min(len(times), 1), np.bool_)
        )
        some = np.flatnonzero(~stays)
        slots, times, progress, had = slots[some], times[some], progress[some], had[some]
        runs = runs.some(some)
        again = np.zeros(len(some), np.int64)
        firsts = runs.firsts()
        firsts = firsts[had[firsts] > 0]
        again[firsts] = self.points.last_time(slots[firsts], had[firsts]) == times[firsts]
        ones = np.ones(len(some), np.int64)
        count = running_sum(ones - again, runs, had)
        lasts = runs.lasts()
        kept = np.flatnonzero(count > count[lasts][runs.number] - self._most_points)
        self.points.write(slots[kept], count[kept] - 1, times[kept], progress[kept])
        table.column("points")[slots[lasts]] = count[lasts]
        table.column("progress")[slots[lasts]] = progress[lasts]

    def subtract(self, changes: Changes) -> None:
        """Take in what time alone, or too many pairs, have changed."""
        if len(changes.keys):
            np.add.at(self.table.column("sum"), changes.keys, changes.sums)
            np.add.at(self.table.column("pairs"), changes.keys, changes.pairs)
            self.table.touch(changes.keys.astype(np.intp))

    def forget(self, clock: int) -> None:
        """Let keys go that time has passed; their pairs have gone before."""
        held = self.table.held()
        self.table.free(held[self.table.column("newest")[held] + self._ttl <= clock])

    def surplus(self, most: int) -> NDArray[np.intp]:
        """Slots of those that are more than `most`, the oldest first."""
        held = self.table.held()
        return surplus(self.table, most, self.table.column("newest")[held], held)

    def unlevel(self, keys: Sequence[str]) -> None:
        """Milestones of these keys are forgotten."""
        slots = self.table.find(keys)
        slots = slots[slots >= 0]
        self.table.column("level")[slots] = 0
        self.table.touch(slots)

    def texts(self, slots: NDArray[np.intp]) -> list[str]:
        """The keys of slots."""
        return [key or "" for key in self.table.keys(slots)]

    def known(self) -> NDArray[np.intp]:
        """Slots of keys that have pairs."""
        held = self.table.held()
        return held[self.table.column("pairs")[held] > 0]

    def estimates(self, slots: NDArray[np.intp]) -> NDArray[np.float64]:
        """Shape (n, 3): rate in ratio a second, completion as Unix time, and R² of keys; NaN where there is none."""
        rows = int(slots.max(initial=0)) + 1
        fits, moved = self._fits.reserve(rows), self._moved.reserve(rows)
        stale = slots[moved[slots]]
        counts = self.table.column("points")[stale]
        stale = stale[stable_order(counts)]
        for first in range(0, len(stale), _TOGETHER):
            some = stale[first : first + _TOGETHER]
            fits[some] = np.column_stack(lines(*self.points.read(some, self.table.column("points")[some])))
        moved[stale] = False
        found: NDArray[np.float64] = fits[slots]
        done = self.table.column("progress")[slots] >= WHOLE
        found[done, 1] = self.table.column("complete since")[slots[done]] / 1e6
        return found

"""The windows of one partition: when they close, and what the newest of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.clock import NEVER, Row
from evalgauge.core.instruments.keyed_part import KeyedPart, Span
from evalgauge.core.instruments.window_cells import Cells, Taken
from evalgauge.core.instruments.window_shown import Shown
from evalgauge.core.ordering import ranks

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.instruments.keyed_rows import KeyedRows
    from evalgauge.core.keys import LocalKeys
    from evalgauge.core.series import SeriesIndex

_LONG = 1 << 61
"""Microseconds, longer than there are dates."""
_UNTOLD = -(1 << 50)
"""Before every step."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for all windows."""

    step: int
    """Microseconds, or events where `counted`: so often a window ends."""
    steps: int
    """Of a window."""
    lateness: int
    """Microseconds."""
    counted: bool
    quantiles: bool
    distinct: bool
    keys: int
    ttl: int
    """Microseconds: where `counted`, so long after its newest event a window is shown."""


class Windows(KeyedPart):
    """Steps of one partition by series. A window is some neighbouring steps; the newest that is closed is shown.

    By time, step s begins s steps after 1970, and a window closes when the partition's time has come to its end and
    the lateness. What comes then for a step of it stands apart until the next one closes: that is shown with it, this
    is not. So what is shown needs no copy, and does not depend on when commits are. By events, step s of a series
    begins with its event s steps after the first.
    """

    def __init__(
        self, meaning_of: Callable[[str], str], terms: Terms, index: SeriesIndex, clock: Clock
    ) -> None:
        self._terms = terms
        self._cells = Cells(meaning_of, self._publish, quantiles=terms.quantiles, distinct=terms.distinct)
        counts = ("events",) if terms.counted else ()
        hashes = (meaning_of("series"), meaning_of("seen"))
        super().__init__(hashes, index, self._cells.texts, clock, counts)
        self._told = Row(meaning_of("told"), {"closed": np.int64, "events": np.int64})
        self.tables = (*self.tables, self._told.table, *self._cells.tables)
        self._stale = True
        self._next: Shown | None = None
        self._until: int = np.iinfo(np.int64).max
        """When, without any event, something is shown no longer."""
        self.shown = Shown()
        """As of the last commit."""

    def take(self, rows: KeyedRows, keys: LocalKeys, series: NDArray[np.intp]) -> tuple[int, int]:
        """Take events in; `series` (N,) of each. How many of them were late, and how many values had to go."""
        late = evicted = 0
        if not self._told.table.index.series:
            self._told.write("closed", _UNTOLD)
        for span in self.spans(rows, series):
            if self._terms.counted:
                self._take_counted(span, keys)
            else:
                late += self._take_timed(span, keys)
            self._told.write("events", self._told.read("events") + len(span.clock))
            if span.bound is not None:
                evicted += self._bound(span.bound)
        return late, evicted

    def _take_timed(self, span: Span, keys: LocalKeys) -> int:
        step = span.rows.times // self._terms.step
        told = self._closed()
        closed = np.where(span.clock == NEVER, told, np.maximum(told, self._closing(span.clock)))
        last = int(closed.max())
        if last > told:
            self._advance(last)
        late = step + self._terms.steps <= closed
        # What only windows need that are closed and followed by others is not needed at all.
        some = np.flatnonzero(~late & (step >= last - self._terms.steps))
        after = (step[some] < closed[some]) & (closed[some] == last)
        self._add(span, keys, some, step, after)
        return int(np.count_nonzero(late))

    def _take_counted(self, span: Span, keys: LocalKeys) -> None:
        series = span.series
        events = self._series.column("events")
        step = (events[series] + ranks(series)) // self._terms.step
        before = self._ended()
        np.add.at(events, series, 1)
        ended = self._ended()
        some = np.flatnonzero(step >= ended[series] - self._terms.steps)
        self._add(span, keys, some, step, np.zeros(len(some), np.bool_))
        if (before != ended).any():
            self._cells.drop_before(ended - self._terms.steps)
            self._stale = True

    def _add(
        self,
        span: Span,
        keys: LocalKeys,
        some: NDArray[np.intp],
        step: NDArray[np.int64],
        after: NDArray[np.bool_],
    ) -> None:
        number = self._told.read("events") + some
        self._cells.add(Taken(span.rows, keys, some, span.series[some], step[some], after, number))

    def _ended(self) -> NDArray[np.int64]:
        """By series, steps of events that are full."""
        ended: NDArray[np.int64] = self._series.column("events") // self._terms.step
        return ended

    def _closed(self) -> int:
        """The step before which the newest closed window ends."""
        return self._told.read("closed", _UNTOLD)

    def _closing(self, clock: NDArray[np.int64]) -> NDArray[np.int64]:
        """That step (n,) at times (n,)."""
        return (np.maximum(clock, -_LONG) - self._terms.lateness) // self._terms.step

    def _advance(self, closed: int) -> None:
        """Time has come to where the window before this step is closed."""
        self._told.write("closed", closed)
        self._cells.drop_before(closed - self._terms.steps)
        self._cells.join()
        self._stale = True

    def _pass(self, clock: int) -> None:
        if not self._terms.counted and clock != NEVER:
            closed = int(self._closing(np.array([clock]))[0])
            if closed > self._closed():
                self._advance(closed)

    def _bound(self, clock: int) -> int:
        """Let values go that are too many when time has taken its own."""
        self._pass(clock)
        evicted = self._cells.evict(self._terms.keys)
        self._stale = self._stale or evicted > 0
        return evicted

    def settle(self) -> None:
        """Close what time alone has closed, and look at what is shown then."""
        self._pass(self.clock.now)
        if self._terms.counted and self.clock.now >= self._until:
            self._stale = True
        self._draw()

    def _draw(self) -> None:
        if not self._stale:
            return
        steps, names = self._terms.steps, self.index().series
        if self._terms.counted:
            ended = self._ended()
            full = np.where(ended >= steps, ended, 0)
            since = max(self.clock.now, -_LONG) - self._terms.ttl
            self._next = self._cells.window(full - steps, full, names, since=since)
            self._until = int(self._next.sums.newest.min(initial=_LONG)) + self._terms.ttl
        else:
            closed = self._closed()
            end = None if closed == _UNTOLD else closed * self._terms.step
            self._next = self._cells.window(closed - steps, closed, names, end=end)
        self._stale = False

    def _publish(self) -> None:
        self._draw()
        if self._next is not None:
            self.shown, self._next = self._next, None

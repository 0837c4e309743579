"""What the events of one partition come to in each step of time, or of the stream, by series."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core import exact
from evalgauge.core.codetable import CodeTable, Folded, each_once
from evalgauge.core.instruments.increments import SUM_WORDS, add_values
from evalgauge.core.instruments.sketch import bucket_of
from evalgauge.core.instruments.window_shown import Different, Shown, Sketch, Sums, add_sums, no_sums
from evalgauge.core.keytable import KeyTable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.instruments.keyed_rows import KeyedRows
    from evalgauge.core.keys import LocalKeys

_LEAST, _GREATEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max
_SERIES_BITS = 24
_AFTER = 1 << _SERIES_BITS
"""In the code of a cell: it is one that stands apart."""
_STEP_BITS = _SERIES_BITS + 1
_SLOT_BITS = 32
"""In the code of a bucket, or value: the cell's slot stands above it."""
_LOW = (1 << _SLOT_BITS) - 1
_SUMS = {
    "count": Folded(np.int64, 0, np.add),
    "newest": Folded(np.int64, _LEAST, np.maximum),
    "least": Folded(np.float64, np.inf, np.minimum),
    "greatest": Folded(np.float64, -np.inf, np.maximum),
} | dict.fromkeys(SUM_WORDS, Folded(np.int64, 0, np.add))


@dataclass(frozen=True, slots=True)
class Taken:
    """Events (n,) that are taken in."""

    rows: KeyedRows
    keys: LocalKeys
    some: NDArray[np.intp]
    """Which of `rows` they are."""
    series: NDArray[np.intp]
    step: NDArray[np.int64]
    after: NDArray[np.bool_]
    """They stand apart: no window has them yet."""
    number: NDArray[np.int64]
    """Of all events of the metric in the partition, which they are."""


class Cells:
    """A cell for each step and series that has events, with its buckets and its different values."""

    def __init__(
        self,
        meaning_of: Callable[[str], str],
        published: Callable[[], None],
        *,
        quantiles: bool,
        distinct: bool,
    ) -> None:
        self._quantiles, self._distinct = quantiles, distinct
        self.texts = KeyTable(meaning_of("texts"), {})
        self._cells = CodeTable(meaning_of("cells"), _SUMS, published)
        self._buckets = CodeTable(meaning_of("buckets"), {"count": Folded(np.int64, 0, np.add)})
        self._values = CodeTable(meaning_of("values"), {"since": Folded(np.int64, _GREATEST, np.minimum)})
        self.tables = (self._buckets, self._values, self._cells)
        """Beside `texts`. When the last is read back, all else is there."""

    def add(self, taken: Taken) -> None:
        """Take events in."""
        rows, some = taken.rows, taken.some
        slots = self._cells.give((taken.step << _STEP_BITS) | (taken.after * _AFTER) | taken.series)
        np.add.at(self._cells.column("count"), slots, 1)
        np.maximum.at(self._cells.column("newest"), slots, rows.times[some])
        if rows.values is not None:
            values = rows.values[some] + 0.0  # so that there is one zero
            add_values(self._cells, slots, values)
            np.minimum.at(self._cells.column("least"), slots, values)
            np.maximum.at(self._cells.column("greatest"), slots, values)
            if self._quantiles:
                buckets = self._buckets.give((slots << _SLOT_BITS) | bucket_of(values))
                np.add.at(self._buckets.column("count"), buckets, 1)
                self._buckets.touch(buckets)
        if self._distinct:
            self._see(taken, slots)
        self._cells.touch(slots)

    def _see(self, taken: Taken, slots: NDArray[np.intp]) -> None:
        key = taken.rows.key[taken.some]
        text, _ = taken.keys.given(self.texts, key)
        seen = self._values.give((slots << _SLOT_BITS) | text[key])
        since = self._values.column("since")
        known = since[seen]
        np.minimum.at(since, seen, taken.number)
        self._values.touch(seen[since[seen] < known])

    def drop_before(self, step: NDArray[np.int64] | int) -> None:
        """Let steps before this go, or before that of each series, (series,)."""
        codes, slots = self._cells.codes, self._cells.slots
        least = step if isinstance(step, int) else step[codes & (_AFTER - 1)]
        slots = slots[(codes >> _STEP_BITS) < least]
        if len(slots):
            gone = self._cells.marked(slots)
            for table in (self._buckets, self._values):
                table.free(table.slots[gone[table.codes >> _SLOT_BITS]])
            self._cells.free(slots)
            self._drop_texts()

    def _drop_texts(self) -> None:
        """Let those go that no cell has."""
        held = self.texts.held()
        used = np.zeros(int(held.max(initial=-1)) + 1, np.bool_)
        used[self._values.codes & _LOW] = True
        self.texts.free(held[~used[held]])

    def join(self) -> None:
        """Let cells that stand apart become part of the others."""
        after = (self._cells.codes & _AFTER) != 0
        if not after.any():
            return
        codes, slots = self._cells.codes[after] & ~_AFTER, self._cells.slots[after]
        into = self._cells.give(codes)
        of = np.full(self._cells.places(), -1)
        of[slots] = into
        for table in (self._buckets, self._values):
            target = of[table.codes >> _SLOT_BITS]
            moved = target >= 0
            table.fold(table.slots[moved], (target[moved] << _SLOT_BITS) | (table.codes[moved] & _LOW))
        self._cells.fold(slots, codes)
        top, hi, lo = (self._cells.column(word) for word in SUM_WORDS)
        exact.carry(top, hi, lo, into)

    def evict(self, most: int) -> int:
        """Let values go that are more than `most`: those of the oldest steps, seen first. How many they were."""
        count = len(self._values.codes) - most
        if count <= 0:
            return 0
        step = np.zeros(self._cells.places(), np.int64)
        step[self._cells.slots] = self._cells.codes >> _STEP_BITS
        slots = self._values.slots
        since = self._values.column("since")[slots]
        order = np.lexsort((since, step[self._values.codes >> _SLOT_BITS]))
        self._values.free(slots[order[:count]])
        self._drop_texts()
        return count

    def window(
        self,
        first: NDArray[np.int64] | int,
        last: NDArray[np.int64] | int,
        names: Sequence[tuple[str, ...]],
        end: int | None = None,
        since: int | None = None,
    ) -> Shown:
        """What the steps from `first` to before `last` hold, or from and to those of each series, (series,).

        Without series whose newest event in it is not after `since`.
        """
        codes, slots = self._cells.codes, self._cells.slots
        series, step = codes & (_AFTER - 1), codes >> _STEP_BITS
        first, last = (one if isinstance(one, int) else one[series] for one in (first, last))
        inside = ((codes & _AFTER) == 0) & (step >= first) & (step < last)
        if since is not None:
            newest = np.full(len(names), _LEAST)
            np.maximum.at(newest, series[inside], self._cells.column("newest")[slots[inside]])
            inside &= newest[series] > since
        which, row = np.unique(series[inside], return_inverse=True)
        sums = no_sums(len(which))
        add_sums(sums, row, Sums.of(self._cells, slots[inside]))
        row_of = np.full(self._cells.places(), -1)
        row_of[slots[inside]] = row
        return Shown(
            end,
            [names[one] for one in which.tolist()],
            sums,
            self._sketch(row_of) if self._quantiles else None,
            self._different(row_of) if self._distinct else None,
        )

    def _sketch(self, row_of: NDArray[np.intp]) -> Sketch:
        rows = row_of[self._buckets.codes >> _SLOT_BITS]
        mine = rows >= 0
        counts = self._buckets.column("count")[self._buckets.slots[mine]]
        return Sketch(rows[mine], self._buckets.codes[mine] & _LOW, counts).merged()

    def _different(self, row_of: NDArray[np.intp]) -> Different:
        rows = row_of[self._values.codes >> _SLOT_BITS]
        mine = rows >= 0
        found = each_once((rows[mine] << _SLOT_BITS) | (self._values.codes[mine] & _LOW))
        texts = self.texts.keys(found & _LOW)
        return Different(found >> _SLOT_BITS, [text for text in texts if text is not None])

"""What the newest closed window of a partition holds, and what those of several partitions hold together."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalgauge.core import exact
from evalgauge.core.instruments.sketch import BUCKETS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from fractions import Fraction

    from numpy.typing import NDArray

    from evalgauge.core.codetable import CodeTable


@dataclass(frozen=True, slots=True)
class Sums:
    """What the events of each row (n,) come to; values in the field's unit."""

    count: NDArray[np.int64]
    newest: NDArray[np.int64]
    """Greatest event time in microseconds."""
    least: NDArray[np.float64]
    greatest: NDArray[np.float64]
    top: NDArray[np.int64]
    hi: NDArray[np.int64]
    lo: NDArray[np.int64]
    """Words of an exact sum; see `exact`."""
    rare: dict[int, int]
    """By row."""

    @classmethod
    def of(cls, table: CodeTable, slots: NDArray[np.intp]) -> Sums:
        """What stands in slots (n,) of a table that has a column for each of the fields but `rare`."""
        columns = {one.name: table.column(one.name)[slots] for one in fields(cls) if one.name != "rare"}
        rare = {}
        if table.rare:
            places = enumerate(slots.tolist())
            rare = {place: table.rare[slot] for place, slot in places if slot in table.rare}
        return cls(**columns, rare=rare)

    def mean(self, row: int, factor: Fraction) -> float:
        """The mean of a row times `factor`, correctly rounded."""
        return self._rounded(row, factor / int(self.count[row]))

    def sum(self, row: int, factor: Fraction) -> float:
        """The sum of a row times `factor`, correctly rounded."""
        return self._rounded(row, factor)

    def _rounded(self, row: int, factor: Fraction) -> float:
        words = (int(self.top[row]), int(self.hi[row]), int(self.lo[row]))
        return exact.rounded(*words, self.rare.get(row, 0), factor)


def no_sums(rows: int) -> Sums:
    """Those of no events."""
    top, hi, lo, count = (np.zeros(rows, np.int64) for _ in range(4))
    newest = np.full(rows, np.iinfo(np.int64).min)
    return Sums(count, newest, np.full(rows, np.inf), np.full(rows, -np.inf), top, hi, lo, {})


def add_sums(into: Sums, rows: NDArray[np.intp], more: Sums) -> None:
    """Add `more` (k,) to `rows` (k,), which may repeat."""
    np.add.at(into.count, rows, more.count)
    np.maximum.at(into.newest, rows, more.newest)
    np.minimum.at(into.least, rows, more.least)
    np.maximum.at(into.greatest, rows, more.greatest)
    for mine, other in ((into.top, more.top), (into.hi, more.hi), (into.lo, more.lo)):
        np.add.at(mine, rows, other)
    exact.carry(into.top, into.hi, into.lo, np.arange(len(into.top)))
    for place, value in more.rare.items():
        row = int(rows[place])
        into.rare[row] = into.rare.get(row, 0) + value


class Sketch(NamedTuple):
    """How many values (k,) of a row (k,) lie in a bucket (k,) of `sketch`."""

    rows: NDArray[np.intp]
    buckets: NDArray[np.intp]
    counts: NDArray[np.int64]

    def merged(self) -> Sketch:
        """The same, each bucket of a row once."""
        code, place = np.unique(self.rows * BUCKETS + self.buckets, return_inverse=True)
        counts = np.zeros(len(code), np.int64)
        np.add.at(counts, place, self.counts)
        return Sketch(code // BUCKETS, code % BUCKETS, counts)


class Different(NamedTuple):
    """Values that were seen: of each row (k,) a text (k,)."""

    rows: NDArray[np.intp]
    texts: list[str]

    def merged(self) -> Different:
        """The same, each text of a row once."""
        found = list(dict.fromkeys(zip(self.rows.tolist(), self.texts, strict=True)))
        return Different(np.array([row for row, _ in found], np.intp), [text for _, text in found])


@dataclass(frozen=True, slots=True)
class Shown:
    """A window by label set; nothing in it is changed any more."""

    end: int | None = None
    """Microseconds since 1970; None where there is none yet, and where windows are of so many events."""
    labels: list[tuple[str, ...]] = field(default_factory=list)
    """Of each row (n,)."""
    sums: Sums = field(default_factory=lambda: no_sums(0))
    sketch: Sketch | None = None
    different: Different | None = None


def together(parts: Sequence[Shown]) -> Shown:
    """The windows of several partitions as one: those that end last, where they end by time."""
    ends = [part.end for part in parts if part.end is not None]
    last = max(ends, default=None)
    found = [part for part in parts if part.end == last]
    if len(found) == 1:
        return found[0]
    row: dict[tuple[str, ...], int] = {}
    rows = [np.array([row.setdefault(one, len(row)) for one in part.labels], np.intp) for part in found]
    sums = no_sums(len(row))
    for part, at in zip(found, rows, strict=True):
        add_sums(sums, at, part.sums)
    sketches = [(at[one.sketch.rows], one.sketch) for at, one in zip(rows, found, strict=True) if one.sketch]
    sketch = different = None
    if sketches:
        sketch = Sketch(
            np.concatenate([at for at, _ in sketches]),
            np.concatenate([one.buckets for _, one in sketches]),
            np.concatenate([one.counts for _, one in sketches]),
        ).merged()
    texts = [
        (at[one.different.rows], one.different) for at, one in zip(rows, found, strict=True) if one.different
    ]
    if texts:
        different = Different(
            np.concatenate([at for at, _ in texts]), [text for _, one in texts for text in one.texts]
        ).merged()
    return Shown(last, list(row), sums, sketch, different)

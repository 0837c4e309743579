"""Sums, maxima and what came last, along each of many neighbouring runs of rows at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

NEVER = int(np.iinfo(np.int64).min // 2)
"""Before every event, and far enough from the least number that a time may be added."""
_ROOM = 1 << 62


class Segments(NamedTuple):
    """N rows in neighbouring runs."""

    starts: NDArray[np.bool_]
    """Shape (N,): where a run begins."""
    number: NDArray[np.intp]
    """Shape (N,): which run a row is in, ascending from 0."""

    def some(self, rows: NDArray[np.intp]) -> Segments:
        """Some of the rows (n,), ascending, in the same runs; runs without any of them are gone."""
        return segments(self.number[rows])

    def firsts(self) -> NDArray[np.intp]:
        """The first row of each run."""
        return np.flatnonzero(self.starts)

    def lasts(self) -> NDArray[np.intp]:
        """The last row of each run."""
        return np.append(self.firsts()[1:], len(self.starts))[: self.runs] - 1

    @property
    def runs(self) -> int:
        """Runs there are."""
        return int(self.number[-1]) + 1 if len(self.number) else 0


def segments(ids: NDArray[np.intp] | NDArray[np.int64]) -> Segments:
    """Runs of equal `ids` (N,)."""
    starts = np.ones(len(ids), np.bool_)
    np.not_equal(ids[1:], ids[:-1], out=starts[1:])
    return Segments(starts, np.cumsum(starts) - 1)


def before(values: NDArray[np.int64], runs: Segments, initial: NDArray[np.int64] | int) -> NDArray[np.int64]:
    """The value (N,) of the row before each; `initial` ((N,) or one for all) where a run begins."""
    found = np.empty_like(values)
    found[1:] = values[:-1]
    found[runs.starts] = initial if isinstance(initial, int) else initial[runs.starts]
    return found


def greatest_before(
    values: NDArray[np.int64], runs: Segments, initial: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The greatest value (N,) of the rows before each in its run, and of `initial` (N,) where the run begins."""
    if not len(values):
        return values
    reached = np.where(runs.starts, np.maximum(values, initial), values)
    low = int(reached.min())
    width = int(reached.max()) - low + 1
    if width * runs.runs < _ROOM:
        offset = runs.number * width - low
        reached = np.maximum.accumulate(reached + offset) - offset
    else:  # so far apart that runs would not fit beside each other: ranks do
        distinct, ranks = np.unique(reached, return_inverse=True)
        offset = runs.number * len(distinct)
        reached = distinct[np.maximum.accumulate(ranks + offset) - offset]
    return before(reached, runs, initial)


def newest(times: NDArray[np.int64], runs: Segments, initial: NDArray[np.int64]) -> NDArray[np.intp]:
    """Rows (n,) that are at least as new as all before them in their run, and as `initial` (N,) where it begins."""
    return np.flatnonzero(times >= greatest_before(times, runs, initial))


def running_sum(values: NDArray[np.int64], runs: Segments, initial: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sum (N,) of `initial` (N,), where a run begins, and all values of the run up to each row."""
    return np.cumsum(np.where(runs.starts, values + initial - _ends(values, initial, runs), values))


def _ends(values: NDArray[np.int64], initial: NDArray[np.int64], runs: Segments) -> NDArray[np.int64]:
    """Shape (N,): where a run begins, what the run before it came to; one sum over all then starts each anew."""
    found = np.zeros_like(values)
    firsts = runs.firsts()
    if len(firsts) > 1:
        totals = np.add.reduceat(values, firsts) + initial[firsts]
        found[firsts[1:]] = totals[:-1]
    return found


def carried(
    values: NDArray[np.int64], rows: NDArray[np.intp], runs: Segments, initial: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Of each row (N,) the value at the last of some `rows` (n,) of its run up to it; `initial` (N,) before the first.

    `values` (N,) are of all rows.
    """
    at = np.full(len(values), -1)
    at[rows] = rows
    at = np.maximum.accumulate(at)
    firsts = runs.firsts()[runs.number] if len(values) else at
    return np.where(at >= firsts, values[at], initial)

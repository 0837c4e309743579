"""Event time: how far it has come in a partition, which is what instruments that remember go by."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.series import SeriesIndex
from evalgauge.core.table import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import DTypeLike

    from evalgauge.core.columns import Columns

NEVER = int(np.iinfo(np.int64).min)
"""Before every event."""


def stamp(batch: Sequence[Columns], before: int, latest: int) -> int:
    """Tell each event how far time had come before it, in microseconds since 1970; returns how far it is after all.

    Time is the greatest event time so far, but an event takes it no further than to its own arrival, and one after
    `latest` not at all: one clock that is ahead must not make everybody else late.
    """
    lines = np.concatenate([np.empty(0, np.int64), *(columns.lines for columns in batch)])
    times = np.concatenate([np.empty(0, np.int64), *(one.times() for one in batch)])
    arrived = np.repeat([one.arrived for one in batch], [one.n for one in batch])
    times = np.where(times > latest, before, np.minimum(times, arrived))
    order = None
    if len(batch) > 1:
        order = np.argsort(lines, kind="stable")
        times = times[order]
    reached = np.maximum.accumulate(np.concatenate(([before], times)))
    if order is None:
        clock = reached[:-1]
    else:
        clock = np.empty_like(times)
        clock[order] = reached[:-1]
    start = 0
    for columns in batch:
        columns.clock = clock[start : start + columns.n]
        start += columns.n
    return int(reached[-1])


class Row:
    """A table of one row, which is there once something is written."""

    def __init__(self, meaning: str, columns: Mapping[str, DTypeLike]) -> None:
        self.table = Table(
            meaning, SeriesIndex((), 1), {name: ((), dtype) for name, dtype in columns.items()}
        )

    def read(self, column: str, absent: int = 0) -> int:
        """A value, `absent` where nothing was ever written."""
        return int(self.table.column(column)[0]) if self.table.index.series else absent

    def write(self, column: str, value: int) -> None:
        """Write a value."""
        slot, _ = self.table.index.resolve(())
        self.table.column(column)[slot] = value
        self.table.touch(np.array([slot]))


class Clock:
    """How far time has come in one partition. It moves with it."""

    def __init__(self) -> None:
        self._row = Row("clock", {"time": np.int64})
        self.table = self._row.table

    @property
    def now(self) -> int:
        """Microseconds since 1970, `NEVER` before the first event."""
        return self._row.read("time", NEVER)

    @property
    def shown(self) -> int:
        """How far it was at the last commit."""
        return int(self.table.shown["time"].data[0]) if self.table.rows else NEVER

    def advance(self, time: int) -> None:
        """Time has come as far as this, or was further already."""
        if time > self.now:
            self._row.write("time", time)

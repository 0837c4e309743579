"""Milestones: when a key's progress first reached each, kept for good."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalgauge.core.instruments.keyed_part import surplus
from evalgauge.core.instruments.segments import NEVER
from evalgauge.core.keytable import KeyTable
from evalgauge.core.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.series import SeriesIndex


class Reached(NamedTuple):
    """A milestone that a key reached for the first time."""

    key: str
    milestone: float
    """As declared."""
    time: int
    """Microseconds since 1970: the greatest event time of the key so far."""
    row: int
    """Place of the event that did it among those that were given."""
    series: int
    """The label set that the key had then."""


class Milestones:
    """One row for each key that has reached any, whatever becomes of the key's progress. Moves with its partition."""

    def __init__(
        self,
        hashes: tuple[str, str],
        index: SeriesIndex,
        milestones: int,
        most: int,
    ) -> None:
        """`hashes` are the meanings of its two tables; there are so many `milestones`, at least one."""
        self._most = most
        self._series = Table(hashes[0], index, {})
        self._keys = KeyTable(
            hashes[1],
            {"times": ((milestones,), np.int64), "series": ((), np.int32)},
        )
        self.tables = (self._series, self._keys)

    def levels(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """How many milestones each key (n,) has reached."""
        slots = self._keys.find(keys)
        reached = np.count_nonzero(self._keys.column("times")[slots] > NEVER, axis=1)
        return np.where(slots < 0, 0, reached).astype(np.int64)

    def reach(
        self,
        keys: Sequence[str],
        labels: Sequence[tuple[str, ...]],
        milestones: NDArray[np.intp],
        times: NDArray[np.int64],
    ) -> None:
        """Keys (n,) with these labels have reached `milestones` (n,), by place, at `times` (n,)."""
        known = self._keys.find(keys)
        slots = self._keys.give(keys)
        self._keys.column("times")[slots[known < 0]] = NEVER
        self._keys.column("times")[slots, milestones] = times
        self._keys.column("series")[slots] = [self._series.index.resolve(one)[0] for one in labels]
        self._keys.touch(slots)

    def bound(self) -> list[str]:
        """Let those keys go that are too many, first those whose last milestone is oldest; which they were."""
        if len(self._keys) <= self._most:
            return []
        held = self._keys.held()
        gone = surplus(self._keys, self._most, self._keys.column("times")[held].max(axis=1), held)
        keys = [key for key in self._keys.keys(gone) if key is not None]
        self._keys.free(gone)
        return keys

    def shown(self, texts: Sequence[str]) -> dict[tuple[str, ...], int]:
        """Labels, with the text of the milestone → when it was reached; the newest where keys share a series."""
        held = self._keys.held()
        times, series = self._keys.column("times")[held], self._keys.column("series")[held]
        newest = np.full((len(self._series.index.series), times.shape[1]), NEVER, np.int64)
        np.maximum.at(newest, series, times)
        rows, places = np.nonzero(newest > NEVER)
        return {
            (*self._series.index.series[row], texts[place]): time
            for row, place, time in zip(
                rows.tolist(), places.tolist(), newest[rows, places].tolist(), strict=True
            )
        }

"""Exemplars: the trace of the last event that fell into a series or bucket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.families import Exemplar

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.instruments.grouping import Rows

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
"""W3C Trace Context, section 3.2: version, trace id, parent id, flags."""


class LastExemplars:
    """The last exemplar by (local slot, bucket) since they were last taken; each series has `width` buckets."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._held: dict[tuple[int, int], tuple[int, Exemplar]] = {}

    def see(
        self, columns: Columns, group: Rows, buckets: NDArray[np.intp] | None, values: NDArray[np.float64]
    ) -> None:
        """Rows of a batch with their values (N,) in the base unit; buckets None stands for bucket 0."""
        traceparents = columns.traceparents()
        if traceparents is None:
            return
        traced = np.fromiter(map(bool, traceparents), np.bool_, columns.n)
        latest = np.flatnonzero(group.of(traced))[::-1]
        keys = group.slots * self._width + (0 if buckets is None else buckets)
        found, first = np.unique(keys[latest], return_index=True)
        for key, place in zip(found.tolist(), latest[first].tolist(), strict=True):
            exemplar = self._exemplar(columns, group, values, place)
            if exemplar is None:  # some earlier event of the series may have a sound one
                others = (
                    self._exemplar(columns, group, values, one)
                    for one in latest[keys[latest] == key].tolist()
                )
                exemplar = next((one for one in others if one is not None), None)
            if exemplar is not None:
                self._held[divmod(key, self._width)] = exemplar

    def _exemplar(
        self, columns: Columns, group: Rows, values: NDArray[np.float64], place: int
    ) -> tuple[int, Exemplar] | None:
        row = place if group.rows is None else int(group.rows[place])
        text = (columns.traceparents() or [])[row]
        found = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
        # An all-zero id is invalid by the same standard.
        if found is None or not int(found[1], 16) or not int(found[2], 16):
            return None
        ordinal, value, time = int(group.ordinals[place]), float(values[place]), columns.time(row) / 1e6
        return ordinal, Exemplar(found[1], found[2], value, time)

    def take(self) -> dict[tuple[int, int], Exemplar]:
        """What was seen since the last call, in stream order: of what a limit makes one series, the last counts."""
        held, self._held = self._held, {}
        return {key: exemplar for key, (_, exemplar) in sorted(held.items(), key=lambda item: item[1][0])}

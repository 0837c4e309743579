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

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?")
"""W3C Trace Context, section 3.2: version, trace id, parent id, flags; an id of zeros is none."""
_TRACE_ID, _SPAN_ID = slice(3, 35), slice(36, 52)


class LastExemplars:
    """The last exemplar by (local slot, bucket) since they were last taken; each series has `width` buckets."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._held: dict[int, tuple[int, str, float, int]] = {}
        """Slot times width plus bucket → ordinal, traceparent, value, microseconds."""

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
        unsound = self._hold(columns, group, values, latest[first], found)
        for key in unsound:  # some earlier event of it may have a sound one
            for place in latest[keys[latest] == key][1:, np.newaxis]:
                if not self._hold(columns, group, values, place, np.array([key])):
                    break

    def _hold(
        self,
        columns: Columns,
        group: Rows,
        values: NDArray[np.float64],
        places: NDArray[np.intp],
        keys: NDArray[np.intp],
    ) -> list[int]:
        """Hold what stands at these places of the group, if it is a trace; the keys of those that are none."""
        traceparents = columns.traceparents() or []
        rows = places if group.rows is None else group.rows[places]
        unsound = []
        taken = (keys.tolist(), rows.tolist(), group.ordinals[places].tolist(), values[places].tolist())
        for key, row, ordinal, value in zip(*taken, strict=True):
            text = traceparents[row]
            if isinstance(text, str) and _TRACEPARENT.fullmatch(text):
                self._held[key] = (ordinal, text, value, columns.time(row))
            else:
                unsound.append(key)
        return unsound

    def take(self) -> dict[tuple[int, int], Exemplar]:
        """What was seen since the last call, in stream order: of what a limit makes one series, the last counts."""
        held, self._held = self._held, {}
        return {
            divmod(key, self._width): Exemplar(text[_TRACE_ID], text[_SPAN_ID], value, time / 1e6)
            for key, (_, text, value, time) in sorted(held.items(), key=lambda item: item[1][0])
        }

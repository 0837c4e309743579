"""Exemplars: the trace of the last event that fell into a series or bucket."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from evalgauge.core.families import Exemplar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.instruments.grouping import Rows

_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(?:-.*)?")
"""W3C Trace Context, section 3.2: version, trace id, parent id, flags."""


class LastExemplars:
    """The last exemplar by (local slot, bucket) since they were last taken. Values are times `factor`."""

    def __init__(self, factor: float) -> None:
        self._factor = factor
        self._held: dict[tuple[int, int], Exemplar] = {}

    def see(
        self, columns: Columns, group: Rows, buckets: NDArray[np.intp] | None, values: NDArray[np.float64]
    ) -> None:
        """Rows of a batch with their values (N,); buckets None stands for bucket 0."""
        traceparents = columns.traceparents()
        if traceparents is None:
            return
        times = columns.times()
        rows = range(columns.n) if group.rows is None else group.rows.tolist()
        for place, row in enumerate(rows):
            text = traceparents[row]
            found = _TRACEPARENT.fullmatch(text) if text else None
            # An all-zero id is invalid by the same standard.
            if found is None or not int(found[1], 16) or not int(found[2], 16):
                continue
            bucket = 0 if buckets is None else int(buckets[place])
            value = float(values[place]) * self._factor
            self._held[int(group.slots[place]), bucket] = Exemplar(found[1], found[2], value, times[row] / 1e6)

    def take(self) -> dict[tuple[int, int], Exemplar]:
        """What was seen since the last call."""
        held, self._held = self._held, {}
        return held

"""Internal events: what a metric finds in a partition, for other metrics of the same partition to count.

They are told in the order of the events that they were found at, and then in that of the metrics, so that nothing
depends on how a stream is cut.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import numpy as np

from evalgauge.core.keys import key_fields, parted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.instrument import Declared
    from evalgauge.core.instruments.grouping import Slots
    from evalgauge.core.instruments.keyed_part import KeyedPart
    from evalgauge.core.instruments.keyed_rows import KeyedRows
    from evalgauge.core.pack.metric_model import EmitSpec

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Emission(NamedTuple):
    """One internal event."""

    ordinal: int
    """Place in the stream of the event that it was found at."""
    clock: int
    """How far time had come before that event, in microseconds since 1970."""
    event: Mapping[str, object]
    """A CloudEvent."""


class Hits(NamedTuple):
    """What a metric found."""

    rows: NDArray[np.intp]
    """Shape (n,): at which events of a delta."""
    series: NDArray[np.intp]
    """Shape (n,): of which series of the partition."""
    own: Sequence[Mapping[str, object]]
    """What the metric itself says of each; it tells apart what one event gives several of."""
    times: NDArray[np.int64] | None = None
    """Shape (n,), where it is not the event's own time."""


class Emitter:
    """Makes the internal events of one metric."""

    def __init__(self, declared: Declared, emit: EmitSpec, key: Sequence[str]) -> None:
        self._metric, self._labels, self._emit = declared.name, tuple(declared.spec.labels), emit
        self._source = f"/evalgauge/{declared.pack}/{declared.name}"
        # Types may call their tenant by different names: the first one's stands for all.
        self._fields = next(iter(key_fields(declared, key).values()))

    def emissions(self, delta: KeyedRows, slots: Slots, part: KeyedPart, hits: Hits) -> list[Emission]:
        """The events of what was found in a delta."""
        labels = part.index().series
        columns = (delta.ordinals, np.maximum(delta.clock, part.clock.now), delta.times)
        ordinals, clocks, times = (column[hits.rows].tolist() for column in columns)
        times = times if hits.times is None else hits.times.tolist()
        keys, series = slots.keys.texts(delta.key[hits.rows]), hits.series.tolist()
        return [
            Emission(ordinal, clock, self._event(key, labels[slot], time, own))
            for ordinal, clock, time, key, slot, own in zip(
                ordinals, clocks, times, keys, series, hits.own, strict=True
            )
        ]

    def _event(
        self, key: str, labels: Sequence[str], time: int, own: Mapping[str, object]
    ) -> dict[str, object]:
        data = {"metric": self._metric, **own}
        data |= zip(self._labels, labels, strict=True)
        data |= zip(self._fields, parted(key, len(self._fields)), strict=True)
        return {
            "specversion": "1.0",
            "id": ":".join(map(str, (time, *own.values(), key))),
            "source": self._source,
            "type": self._emit.event,
            "time": (_EPOCH + timedelta(microseconds=time)).isoformat(),
            "data": data | self._emit.set,
        }


def body(emissions: Sequence[Emission]) -> tuple[bytes, NDArray[np.int64]]:
    """NDJSON of them, in their order in the stream, and how far time had come before each (n,)."""
    ordered = sorted(emissions, key=lambda one: one.ordinal)
    encode = msgspec.json.encode
    return b"\n".join(encode(one.event) for one in ordered), np.array(
        [one.clock for one in ordered], np.int64
    )

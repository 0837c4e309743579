"""Window: what events come to in stretches of time, or in the last so many of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core.instrument import Declared, Merged, meaning, unit_of
from evalgauge.core.instruments.grouping import Slots, series_index
from evalgauge.core.instruments.histogram import NEVER_NEGATIVE, in_base_unit
from evalgauge.core.instruments.keyed_rows import KeyedRows, Keyer, KeysOf
from evalgauge.core.instruments.sketch import quantiles
from evalgauge.core.instruments.tally import Tally
from evalgauge.core.instruments.window_part import Terms, Windows
from evalgauge.core.instruments.window_shown import Shown, together
from evalgauge.core.pack.emitted import window
from evalgauge.core.pack.metric_model import WindowSpec
from evalgauge.core.series import SeriesIndex
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.families import Family

_SECOND = 1_000_000


class ReducingWindow:
    """Events with their values, in stream order."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, WindowSpec)  # noqa: S101 - the entry point's name says so
        least = 0.0 if UNITS[unit_of(declared) or "1"].base in NEVER_NEGATIVE else -np.inf
        keys = KeysOf(declared, [spec.distinct]) if spec.distinct else None
        self._keyer = Keyer(declared, keys, spec.value, (least, np.inf))

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        self._keyer.reduce(columns)

    def take(self) -> KeyedRows | None:
        """Everything since the last call."""
        return self._keyer.take()


class Window:
    """Gauges of the newest window that is closed.

    Scope: partition; the count of values evicted is the replica's. By time, counts and sums alone need no keys: those
    of replicas add up. What several partitions of a process have of a window is shown as one. Quantiles are within 1 %,
    all else is exact.

    Unobserved: events without the value, without the text that is to be distinct, or with a negative time or size.
    Late: events of which every window has closed, or ahead of their arrival by more than `clock_ahead`.
    Evicted: beyond `keys`, values of `distinct` in the oldest steps, then those that were seen first.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = True
    """It goes by time; see `WindowSpec.by_key`."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, WindowSpec)  # noqa: S101 - the entry point's name says so
        self._declared, self._spec = declared, spec
        self._unit = UNITS[unit_of(declared) or "1"]
        self._exposed = window(declared.name, spec, self._unit.base)
        self._tally = Tally(declared, self.version, SeriesIndex((), 0), {})
        self.tables = self._tally.tables
        self._drawn: tuple[list[Shown], list[Family]] = ([], [])
        """What was shown last, and its families."""

    @staticmethod
    def reducing(declared: Declared) -> ReducingWindow:
        """The reducing half."""
        return ReducingWindow(declared)

    def part(self, clock: Clock) -> Windows:
        """The windows of one more partition."""
        spec = self._spec
        size = spec.events or round((spec.size or 0) * _SECOND)
        every = spec.every_events or round((spec.every or 0) * _SECOND) or size
        terms = Terms(
            step=every,
            steps=size // every,
            lateness=round(spec.lateness * _SECOND),
            counted=spec.events is not None,
            quantiles=bool(spec.quantiles),
            distinct=spec.distinct is not None,
            keys=spec.keys,
            ttl=round(spec.ttl * _SECOND),
        )
        index = series_index(spec, list(self._declared.types.values()))
        return Windows(lambda part: meaning(self._declared, self.version, part), terms, index, clock)

    @staticmethod
    def index() -> None:
        """Its series are the partitions'."""

    def merge(self, delta: KeyedRows, slots: Slots, part: Windows) -> Merged:
        """Take events in."""
        slots.part.resolve(delta.groups)
        series, overflow = slots.part.of_rows(delta.slots)
        late, evicted = part.take(delta, slots.keys, series)
        self._tally.count(evicted=evicted)
        return Merged(int(np.count_nonzero(overflow)), delta.groups.skipped, late + delta.early)

    def families(self, generation: int, parts: Sequence[Windows]) -> Sequence[Family]:
        """The newest window of these partitions."""
        shown = [part.shown for part in parts]
        if [*map(id, shown)] != [*map(id, self._drawn[0])] or not shown:
            self._drawn = shown, self._draw(together(shown))
        evicted = self._exposed.get("evicted")
        told = [] if evicted is None else [self._tally.family_apart(evicted, "evicted", generation)]
        return [*self._drawn[1], *told]

    def _draw(self, shown: Shown) -> list[Family]:
        values = self._values(shown)
        found = [
            self._exposed[name].family(shown.labels, values[name])
            for name in self._exposed
            if name in values and name not in ("quantile", "end")
        ]
        if shown.sketch is not None:
            rows = quantiles(*shown.sketch, self._spec.quantiles)
            sums = shown.sums
            bounded = np.clip(rows, sums.least[:, np.newaxis], sums.greatest[:, np.newaxis])
            emitted = self._exposed["quantile"]
            series = [(*one, share) for one in shown.labels for share in emitted.more["quantile"]]
            found.append(emitted.family(series, in_base_unit(bounded.reshape(-1), self._unit)))
        end = self._exposed["end"]
        if self._spec.events is not None:
            found.append(end.family(shown.labels, shown.sums.newest / _SECOND))
        else:
            ends = [] if shown.end is None else [shown.end]
            found.append(end.family([()] * len(ends), np.array(ends, np.float64) / _SECOND))
        return found

    def _values(self, shown: Shown) -> dict[str, NDArray[np.int64] | NDArray[np.float64]]:
        sums, rows, factor = shown.sums, range(len(shown.labels)), self._unit.factor
        found: dict[str, NDArray[np.int64] | NDArray[np.float64]] = {"count": sums.count}
        if self._spec.value is not None:
            found["sum"] = np.array([sums.sum(row, factor) for row in rows], np.float64)
            found["mean"] = np.array([sums.mean(row, factor) for row in rows], np.float64)
            found["min"] = in_base_unit(sums.least, self._unit)
            found["max"] = in_base_unit(sums.greatest, self._unit)
        if shown.different is not None:
            found["distinct"] = np.bincount(shown.different.rows, minlength=len(rows))
        return found

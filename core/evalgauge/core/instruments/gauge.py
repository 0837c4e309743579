"""Gauge: a value that the newest event sets, by a field or its time, or that event types move; by label set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.families import Family
from evalgauge.core.filters import mask
from evalgauge.core.instrument import Declared, Merged, meaning, unit_of
from evalgauge.core.instruments.grouping import Grouper, Groups, LocalSlots, Slots, series_index
from evalgauge.core.instruments.histogram import in_base_unit
from evalgauge.core.pack.metric_model import GaugeSpec
from evalgauge.core.table import Table
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.instruments.grouping import Rows
    from evalgauge.core.series import SeriesIndex


_SECOND = 1_000_000


class Setting(NamedTuple):
    """The event that sets a gauge. Settings compare by event time, then source and id: the greatest wins."""

    time: int
    """Microseconds since 1970."""
    source: str
    id: str
    value: float
    place: int
    """Where in the stream it stands."""


@dataclass(frozen=True, slots=True)
class GaugeDelta:
    """Changes of local slots, in the order of `groups.slots`."""

    groups: Groups
    counts: NDArray[np.int64]
    """Events, shape (k,)."""
    net: NDArray[np.int64]
    """Ups minus downs, shape (k,)."""
    settings: dict[int, Setting]
    """Local slot → greatest setting, in stream order."""
    early: int
    """Events that set nothing because their clock is ahead."""


class ReducingGauge:
    """Settings or net movement of one reducer by local slot."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, GaugeSpec)  # noqa: S101 - the entry point's name says so
        self._value = spec.value
        self._set_by_events = spec.is_set
        self._where, self._early = spec.where, 0
        self._step = dict.fromkeys(spec.up, 1) | dict.fromkeys(spec.down, -1)
        self._grouper = Grouper(spec)
        self._counts = Growing((), np.int64)
        self._net = Growing((), np.int64)
        self._settings: dict[int, Setting] = {}

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        usable = None if self._value is None else np.isfinite(columns.numbers(self._value))
        if self._set_by_events and (good := self._not_ahead(columns)) is not None:
            usable = good if usable is None else usable & good
        for group in self._grouper.rows(columns, usable):
            np.add.at(self._counts.reserve(group.size), group.slots, 1)
            if self._set_by_events:
                self._set(columns, group)
            else:
                np.add.at(self._net.reserve(group.size), group.slots, self._step[columns.type])

    def _not_ahead(self, columns: Columns) -> NDArray[np.bool_] | None:
        """Shape (n,), None for all: one clock that is ahead must not be the newest for as long as it is ahead."""
        ahead = columns.times() > columns.latest
        if not ahead.any():
            return None
        seen = ahead if self._where is None else ahead & mask(self._where, columns)
        self._early += int(np.count_nonzero(seen))
        return ~ahead

    def _set(self, columns: Columns, group: Rows) -> None:
        if not len(group.slots):
            return
        times = group.of(columns.times())
        values = times / _SECOND if self._value is None else group.of(columns.numbers(self._value))
        series, member = np.unique(group.slots, return_inverse=True)
        newest = np.full(len(series), np.iinfo(np.int64).min)
        np.maximum.at(newest, member, times)
        sources, ids = columns.sources(), columns.ids()
        for place in np.flatnonzero(times == newest[member]).tolist():
            row = place if group.rows is None else int(group.rows[place])
            ordinal = int(group.ordinals[place])
            setting = Setting(int(times[place]), sources[row], ids[row], float(values[place]), ordinal)
            slot = int(group.slots[place])
            held = self._settings.get(slot)
            # An equal key is the same event again, or its sender's fault; the later position wins.
            if held is None or setting[:3] >= held[:3]:
                self._settings[slot] = setting

    def take(self) -> GaugeDelta | None:
        """Changes since the last call."""
        groups = self._grouper.take()
        if groups is None:
            return None
        slots = groups.slots
        size = int(slots.max()) + 1 if len(slots) else 0
        taken = []
        for growing in (self._counts, self._net):
            array = growing.reserve(size)
            taken.append(array[slots])
            array[slots] = 0
        # In stream order: a limit may make one series of several, and of equal keys the later place wins.
        settings = dict(sorted(self._settings.items(), key=lambda item: item[1].place))
        self._settings = {}
        early, self._early = self._early, 0
        return GaugeDelta(groups, taken[0], taken[1], settings, early)


class Settings:
    """What the events of one partition set: the greatest setting of each label set."""

    def __init__(self, meaning: str, index: SeriesIndex, ttl: int | None, clock: Clock) -> None:
        """`ttl` in microseconds."""
        self.table = Table(meaning, index, {"value": ((), np.float64), "time": ((), np.int64)})
        self.tables = (self.table,)
        self._ttl, self._clock = ttl, clock

    def index(self) -> SeriesIndex:
        """The index of its series."""
        return self.table.index

    def settle(self) -> None:
        """What is shown follows from how far time has come."""

    def lasting(self) -> NDArray[np.intp]:
        """Rows (n,) that are shown: those that were set within `ttl` of the partition's time."""
        rows = np.arange(self.table.rows)
        if self._ttl is None:
            return rows
        return rows[self.table.shown["time"].reserve(len(rows))[: len(rows)] + self._ttl > self._clock.shown]

    def merge(self, delta: GaugeDelta, local: LocalSlots) -> None:
        """Take greater settings over."""
        values, times = self.table.column("value"), self.table.column("time")
        resolved = local.resolved(list(delta.settings))
        for slot, setting in zip(resolved, delta.settings.values(), strict=True):
            held = self.table.ties.get(slot)
            if held is None or (setting.time, setting.source, setting.id) >= (int(times[slot]), *held):
                values[slot], times[slot] = setting.value, setting.time
                self.table.ties[slot] = (setting.source, setting.id)
        self.table.touch_extras(resolved)


class Gauge:
    """A set value, kept by partition, or a net count of ups and downs, the replica's. Exposed as `<name>`.

    Of settings the newest counts by event time, then source, then id. What was set stays until it is set anew; with
    `ttl` it disappears once the partition's time has come so far past the event that set it.

    Unobserved: events whose value is absent or not finite.
    Late: of a set value, events ahead of their arrival by more than `clock_ahead`; else none.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = False

    def __init__(self, declared: Declared) -> None:
        assert isinstance(declared.spec, GaugeSpec)  # noqa: S101 - the entry point's name says so
        self._declared = declared
        self._spec = declared.spec
        self._unit = UNITS[unit_of(declared) or "1"]
        self._net: Table | None = None
        if not self._spec.is_set:
            self._net = Table(meaning(declared, self.version), self._index(), {"net": ((), np.int64)})
        self.tables = () if self._net is None else (self._net,)

    def _index(self) -> SeriesIndex:
        return series_index(self._spec, list(self._declared.types.values()))

    @staticmethod
    def reducing(declared: Declared) -> ReducingGauge:
        """The reducing half."""
        return ReducingGauge(declared)

    def part(self, clock: Clock) -> Settings | None:
        """What is set, of one partition."""
        ttl = None if self._spec.ttl is None else round(self._spec.ttl * _SECOND)
        if self._net is not None:
            return None
        return Settings(meaning(self._declared, self.version), self._index(), ttl, clock)

    def index(self) -> SeriesIndex | None:
        """The index of the net counts."""
        return None if self._net is None else self._net.index

    def merge(self, delta: GaugeDelta, slots: Slots, part: Settings | None) -> Merged:
        """Apply changes."""
        local = slots.replica if part is None else slots.part
        places, overflow = local.resolve(delta.groups)
        if part is not None:
            part.merge(delta, local)
            part.table.touch(places)
        elif self._net is not None:
            np.add.at(self._net.column("net"), places, delta.net)
            self._net.touch(places)
        unobserved = delta.groups.skipped - delta.early
        return Merged(int(delta.counts[overflow].sum()), unobserved, delta.early)

    def families(self, generation: int, parts: Sequence[Settings] = ()) -> Sequence[Family]:
        """The committed values; of partitions that have the same series the greatest setting's."""
        series: Sequence[tuple[str, ...]]
        values: NDArray[Any]
        if self._net is not None:
            table, rows = self._net, self._net.rows
            series, values = table.index.series, table.shown["net"].reserve(rows)[:rows].copy()
            born = table.born.reserve(rows)[:rows].copy()
        elif len(parts) == 1 and self._spec.ttl is None:
            table, rows = parts[0].table, parts[0].table.rows
            series, values = table.index.series, table.shown["value"].reserve(rows)[:rows].copy()
            born = table.born.reserve(rows)[:rows].copy()
        else:
            series, values, born = _together(parts)
        if self._spec.ttl is not None:
            generation = -1  # rows come and go
        return [
            Family(
                name=self._declared.name,
                kind="gauge",
                help=self._spec.help,
                unit=self._unit.base,
                label_names=tuple(self._spec.labels),
                series=series,
                values=values if self._net is not None else in_base_unit(values, self._unit),
                created=np.full(len(values), np.nan),
                born=born,
                generation=generation,
            )
        ]


def _together(
    parts: Sequence[Settings],
) -> tuple[list[tuple[str, ...]], NDArray[np.float64], NDArray[np.float64]]:
    newest: dict[tuple[str, ...], tuple[tuple[int, tuple[str, str]], float, float]] = {}
    for part in parts:
        table, lasting = part.table, part.lasting().tolist()
        times, values = table.shown["time"].data.tolist(), table.shown["value"].data.tolist()
        born = table.born.data.tolist()
        for slot in lasting:
            labels = table.index.series[slot]
            setting = (times[slot], table.shown_ties.get(slot, ("", ""))), values[slot], born[slot]
            held = newest.get(labels)
            if held is None or setting[0] > held[0]:
                newest[labels] = setting
    found = list(newest.values())
    return list(newest), np.array([one[1] for one in found]), np.array([one[2] for one in found])

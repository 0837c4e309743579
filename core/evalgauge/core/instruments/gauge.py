"""Gauge: a value that is set by the newest event, or moved up and down by event types, by label set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Self

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.families import Family
from evalgauge.core.instrument import Declared, Merged, meaning, unit_of
from evalgauge.core.instruments.grouping import Grouper, Groups, LocalSlots, series_index
from evalgauge.core.instruments.histogram import in_base_unit
from evalgauge.core.pack.model import GaugeSpec
from evalgauge.core.table import Scope, Table
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.instruments.grouping import Rows
    from evalgauge.core.series import SeriesIndex


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


class ReducingGauge:
    """Settings or net movement of one reducer by local slot."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, GaugeSpec)  # noqa: S101 - the entry point's name says so
        self._value = spec.value
        self._step = dict.fromkeys(spec.up, 1) | dict.fromkeys(spec.down, -1)
        self._grouper = Grouper(spec)
        self._counts = Growing((), np.int64)
        self._net = Growing((), np.int64)
        self._settings: dict[int, Setting] = {}

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        usable = None if self._value is None else np.isfinite(columns.numbers(self._value))
        for group in self._grouper.rows(columns, usable):
            np.add.at(self._counts.reserve(group.size), group.slots, 1)
            if self._value is None:
                np.add.at(self._net.reserve(group.size), group.slots, self._step[columns.type])
            elif len(group.slots):
                self._set(columns, group, group.of(columns.numbers(self._value)))

    def _set(self, columns: Columns, group: Rows, values: NDArray[np.float64]) -> None:
        times = group.of(columns.times())
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
        return GaugeDelta(groups, taken[0], taken[1], settings)


class Gauge:
    """A set value (scope: partition) or a net count of ups and downs (scope: replica). Exposed as `<name>`."""

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = False

    def __init__(self, declared: Declared) -> None:
        assert isinstance(declared.spec, GaugeSpec)  # noqa: S101 - the entry point's name says so
        self._spec = declared.spec
        self._name = declared.name
        self._unit = UNITS[unit_of(declared) or "1"]
        index = series_index(self._spec, list(declared.types.values()))
        hashed = meaning(declared, self.version)
        if self._spec.value is None:
            self.table = Table(hashed, index, {"net": ((), np.int64)})
        else:
            columns = {"value": ((), np.float64), "time": ((), np.int64)}
            self.table = Table(hashed, index, columns, Scope.PARTITION)

    @staticmethod
    def reducing(declared: Declared) -> ReducingGauge:
        """The reducing half."""
        return ReducingGauge(declared)

    def index(self) -> SeriesIndex:
        """The index of its series."""
        return self.table.index

    def merge(self, delta: GaugeDelta, local: LocalSlots) -> Merged:
        """Apply changes."""
        local.announce(delta.groups.new)
        slots, overflow = local.resolve(delta.groups)
        if self._spec.value is None:
            np.add.at(self.table.column("net"), slots, delta.net)
        else:
            self._merge_settings(delta, local)
        self.table.touch(slots)
        return Merged(int(delta.counts[overflow].sum()), delta.groups.skipped)

    def _merge_settings(self, delta: GaugeDelta, local: LocalSlots) -> None:
        values, times = self.table.column("value"), self.table.column("time")
        resolved = local.resolved(list(delta.settings))
        for slot, setting in zip(resolved, delta.settings.values(), strict=True):
            held = self.table.ties.get(slot)
            if held is None or (setting.time, setting.source, setting.id) >= (int(times[slot]), *held):
                values[slot], times[slot] = setting.value, setting.time
                self.table.ties[slot] = (setting.source, setting.id)
        self.table.touch_extras(resolved)

    def set(self, labels: tuple[str, ...], value: float) -> None:
        """Set something that no event tells, in the base unit, under a label set."""
        slot, _ = self.table.index.resolve(labels)
        self.table.column("value")[slot] = value
        self.table.touch(np.array([slot]))

    def families(self, generation: int, beside: Sequence[Self] = ()) -> Sequence[Family]:
        """The committed values; of partitions that have the same series the greatest setting's."""
        table, rows = self.table, self.table.rows
        if beside:
            series, values, born = self._together([self, *beside])
        elif self._spec.value is None:
            series, values = table.index.series, table.shown["net"].reserve(rows)[:rows].copy()
            born = table.born.reserve(rows)[:rows].copy()
        else:
            series, values = table.index.series, table.shown["value"].reserve(rows)[:rows].copy()
            born = table.born.reserve(rows)[:rows].copy()
        return [
            Family(
                name=self._name,
                kind="gauge",
                help=self._spec.help,
                unit=self._unit.base,
                label_names=table.index.names,
                series=series,
                values=values if self._spec.value is None else in_base_unit(values, self._unit),
                created=np.full(len(values), np.nan),
                born=born,
                generation=generation,
            )
        ]

    @staticmethod
    def _together(gauges: Sequence[Gauge]) -> tuple[list[tuple[str, ...]], NDArray[Any], NDArray[np.float64]]:
        newest: dict[tuple[str, ...], tuple[tuple[int, tuple[str, str]], float, float]] = {}
        for table in (gauge.table for gauge in gauges):
            times, values = table.shown["time"].data.tolist(), table.shown["value"].data.tolist()
            born = table.born.data.tolist()
            for slot, labels in enumerate(table.index.series[: table.rows]):
                setting = (times[slot], table.shown_ties.get(slot, ("", ""))), values[slot], born[slot]
                held = newest.get(labels)
                if held is None or setting[0] > held[0]:
                    newest[labels] = setting
        found = list(newest.values())
        return list(newest), np.array([one[1] for one in found]), np.array([one[2] for one in found])

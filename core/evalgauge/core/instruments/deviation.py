"""Deviation: how many values lie far from what their key has shown before."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core.emission import Emitter, Hits
from evalgauge.core.instrument import Declared, Merged, meaning
from evalgauge.core.instruments.grouping import Slots, series_index
from evalgauge.core.instruments.keyed_part import KeyedPart, Span, surplus
from evalgauge.core.instruments.keyed_rows import KeyedRows, Keyer, KeysOf, rounds
from evalgauge.core.instruments.tally import Tally
from evalgauge.core.keytable import KeyTable
from evalgauge.core.pack.emitted import deviation
from evalgauge.core.pack.metric_model import DeviationSpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.emission import Emission
    from evalgauge.core.families import Family
    from evalgauge.core.keys import LocalKeys
    from evalgauge.core.series import SeriesIndex

_SECOND = 1_000_000
SIDES = ("above", "below")
_MOST = 1e100
"""Greater values cannot be squared and summed up: they are none."""


class ReducingDeviation:
    """Events with their keys and values, in stream order."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, DeviationSpec)  # noqa: S101 - the entry point's name says so
        self._keyer = Keyer(declared, KeysOf(declared, spec.key), spec.value, (-_MOST, _MOST))

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        self._keyer.reduce(columns)

    def take(self) -> KeyedRows | None:
        """Everything since the last call."""
        return self._keyer.take()


@dataclass(slots=True)
class Found:
    """What events came to; series are the partition's."""

    judged: list[NDArray[np.intp]]
    """Series of each event whose key had enough history."""
    beyond: list[list[NDArray[np.intp]]]
    """By side: series of each event that lies beyond."""
    rows: list[list[NDArray[np.intp]]]
    """By side: places of the same events among those that were given."""
    late: int = 0
    evicted: int = 0


class Histories(KeyedPart):
    """Number, mean and sum of squared differences of each key's values in one partition.

    By Welford's method (Technometrics 4, 1962, 419 to 420), value after value in the order of the stream, so that the
    last digit does not depend on how it is cut.
    """

    def __init__(
        self, hashes: tuple[str, str, str], spec: DeviationSpec, index: SeriesIndex, clock: Clock
    ) -> None:
        self._keys = KeyTable(
            hashes[0],
            {
                "count": ((), np.int64),
                "mean": ((), np.float64),
                "squares": ((), np.float64),
                "newest": ((), np.int64),
            },
        )
        super().__init__(hashes[1:], index, self._keys, clock)
        self._spec = spec
        self._retention = round(spec.ttl * _SECOND)

    def take(self, rows: KeyedRows, keys: LocalKeys, series: NDArray[np.intp]) -> Found:
        """Judge events by what came before them, and add them to it; `series` (N,) of each."""
        found = Found([], [[] for _ in SIDES], [[] for _ in SIDES])
        for span in self.spans(rows, series):
            self._take(span, keys, found)
            if span.bound is not None and len(self._keys) > self._spec.keys:
                self._forget(span.bound)
                held = self._keys.held()
                gone = surplus(self._keys, self._spec.keys, self._keys.column("newest")[held], held)
                self._keys.free(gone)
                found.evicted += len(gone)
        return found

    def _take(self, span: Span, keys: LocalKeys, found: Found) -> None:
        rows = span.rows
        assert rows.values is not None  # noqa: S101 - for the type checker: the metric has a value
        late = rows.times + self._retention <= span.clock
        found.late += int(np.count_nonzero(late))
        in_time = np.flatnonzero(~late)
        slots = keys.slots(self._keys, rows.key)
        wide, rest = rounds(rows.key[in_time])
        for some in (in_time[turn] for turn in wide):
            which = rows.key[some]
            at = slots[which]
            old = np.flatnonzero(at >= 0)
            gone = old[self._keys.column("newest")[at[old]] + self._retention <= span.clock[some[old]]]
            self._keys.free(at[gone])
            at[gone] = -1
            new = np.flatnonzero(at < 0)
            at[new] = self._keys.give(keys.texts(which[new]))
            newest = self._keys.column("newest")
            newest[at[new]] = rows.times[some[new]]
            slots[which] = at
            newest[at] = np.maximum(newest[at], rows.times[some])
            self._judge(at, rows.values[some], span.series[some], some + span.first, found)
            self._keys.touch(at)
        self._take_one_by_one(span, in_time[rest], slots, found)
        keys.note(self._keys, rows.key)

    def _take_one_by_one(
        self, span: Span, some: NDArray[np.intp], slots: NDArray[np.intp], found: Found
    ) -> None:
        """Further events (n,) of keys that have `slots` by number."""
        rows = span.rows
        assert rows.values is not None  # noqa: S101 - for the type checker: the metric has a value
        names = ("count", "mean", "squares", "newest")
        table = [self._keys.column(name) for name in names]
        states: dict[int, list[float]] = {}
        judged, hits = [], ([], [])  # type: tuple[list[int], tuple[list[int], list[int]]]
        columns = (some, slots[rows.key[some]], rows.values[some], rows.times[some], span.clock[some])
        for row, slot, value, time, clock in zip(*(column.tolist() for column in columns), strict=True):
            state = states.get(slot)
            if state is None:
                state = states[slot] = [column[slot].item() for column in table]
            count, mean, squares, newest = state
            if newest + self._retention <= clock:
                count, mean, squares, newest = 0, 0.0, 0.0, time
            apart = value - mean
            if count >= self._spec.samples:
                judged.append(row)
                limit = self._spec.sigma * math.sqrt(squares / (count - 1))
                for side, beyond in zip(hits, (apart > limit, apart < -limit), strict=True):
                    if beyond:
                        side.append(row)
            count += 1
            mean += apart / count
            squares += apart * (value - mean)
            state[:] = count, mean, squares, max(newest, time)
        touched = np.array([*states], np.intp)
        for column, values in zip(table, zip(*states.values(), strict=True), strict=False):
            column[touched] = values
        self._keys.touch(touched)
        found.judged.append(span.series[judged])
        for place, told in enumerate(hits):
            found.beyond[place].append(span.series[told])
            found.rows[place].append(np.array(told, np.intp) + span.first)

    def _judge(
        self,
        at: NDArray[np.intp],
        values: NDArray[np.float64],
        series: NDArray[np.intp],
        rows: NDArray[np.intp],
        found: Found,
    ) -> None:
        count, mean, squares = (self._keys.column(name) for name in ("count", "mean", "squares"))
        apart = values - mean[at]
        enough = count[at] >= self._spec.samples
        limit = self._spec.sigma * np.sqrt(squares[at] / np.maximum(count[at] - 1, 1))
        found.judged.append(series[enough])
        for side, beyond in enumerate((apart > limit, apart < -limit)):
            found.beyond[side].append(series[enough & beyond])
            found.rows[side].append(rows[enough & beyond])
        count[at] += 1
        mean[at] += apart / count[at]
        squares[at] += apart * (values - mean[at])

    def _forget(self, clock: int) -> None:
        held = self._keys.held()
        self._keys.free(held[self._keys.column("newest")[held] + self._retention <= clock])

    def settle(self) -> None:
        """Forget keys of which nothing came for long."""
        self._forget(self.clock.now)


class Deviation:
    """Values that are further from the mean of their key's history than `sigma` standard deviations of it.

    The standard deviation is the sample's, with n - 1. A value is judged by what came before it, once that is at least
    `samples` values, and then belongs to the history, whatever the judgment. What is counted is the replica's;
    histories move with their partition.

    Unobserved: events without a key, or whose value is absent or not finite.
    Late: events that are older by `ttl` than time has come, or ahead of their arrival by more than `clock_ahead`.
    Evicted: beyond `keys`, those whose newest event is oldest.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = True

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, DeviationSpec)  # noqa: S101 - the entry point's name says so
        self._declared, self._spec = declared, spec
        self._exposed = deviation(declared.name, spec)
        self._emitter = None if spec.emit is None else Emitter(declared, spec.emit, spec.key)
        self._tally = Tally(
            declared,
            self.version,
            self._fresh_index(),
            {"judged": ((), np.int64), "beyond": ((len(SIDES),), np.int64)},
        )
        self.tables = self._tally.tables

    def _fresh_index(self) -> SeriesIndex:
        return series_index(self._spec, list(self._declared.types.values()))

    @staticmethod
    def reducing(declared: Declared) -> ReducingDeviation:
        """The reducing half."""
        return ReducingDeviation(declared)

    def part(self, clock: Clock) -> Histories:
        """The histories of one more partition."""
        keys, series, seen = (
            meaning(self._declared, self.version, part) for part in ("keys", "series", "seen")
        )
        return Histories((keys, series, seen), self._spec, self._fresh_index(), clock)

    def index(self) -> SeriesIndex:
        """The index of the replica's series."""
        return self._tally.table.index

    def merge(self, delta: KeyedRows, slots: Slots, part: Histories) -> Merged:
        """Take events in."""
        slots.part.resolve(delta.groups)
        series, overflow = slots.part.of_rows(delta.slots)
        found = part.take(delta, slots.keys, series)
        overflowed = self._tally.begin(part, series, overflow)
        for judged in found.judged:
            self._tally.add(part, "judged", judged)
        for side, beyond in enumerate(found.beyond):
            for one in beyond:
                self._tally.add(part, "beyond", one, side)
        self._tally.count(evicted=found.evicted)
        emitted = [] if self._emitter is None else self._emissions(self._emitter, delta, slots, part, found)
        late = found.late + delta.early
        return Merged(overflowed, delta.groups.skipped, late, emitted)

    @staticmethod
    def _emissions(
        emitter: Emitter, delta: KeyedRows, slots: Slots, part: Histories, found: Found
    ) -> list[Emission]:
        emitted: list[Emission] = []
        for name, rows, series in zip(SIDES, found.rows, found.beyond, strict=True):
            places, of = (np.concatenate([np.empty(0, np.intp), *one]) for one in (rows, series))
            values = [] if delta.values is None else delta.values[places].tolist()
            own = [{"side": name, "value": value} for value in values]
            emitted += emitter.emissions(delta, slots, part, Hits(places, of, own))
        return emitted

    def families(self, generation: int, parts: Sequence[Histories]) -> Sequence[Family]:
        """What is committed."""
        del parts
        beyond, judged, evicted = self._exposed
        return [
            self._tally.family(beyond, "beyond", generation),
            self._tally.family(judged, "judged", generation),
            self._tally.family_apart(evicted, "evicted", generation),
        ]

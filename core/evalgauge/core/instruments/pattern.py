"""Pattern: how often the events of a key came in a certain way, and when they last did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core.emission import Emitter, Hits
from evalgauge.core.instrument import Declared, Merged, meaning
from evalgauge.core.instruments.grouping import Slots, series_index
from evalgauge.core.instruments.keyed_part import KeyedPart, Span, surplus
from evalgauge.core.instruments.keyed_rows import KeyedRows, Keyer, KeysOf, rounds
from evalgauge.core.instruments.matchers import NEVER, Every, InOrder, Matcher, OftenAmong, OftenWithin
from evalgauge.core.instruments.tally import Tally
from evalgauge.core.keytable import KeyTable
from evalgauge.core.pack.emitted import pattern
from evalgauge.core.pack.metric_model import PatternSpec

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


class ReducingPattern:
    """Events with their keys, in stream order."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, PatternSpec)  # noqa: S101 - the entry point's name says so
        self._keyer = Keyer(declared, KeysOf(declared, spec.key))

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        self._keyer.reduce(columns)

    def take(self) -> KeyedRows | None:
        """Everything since the last call."""
        return self._keyer.take()


@dataclass(slots=True)
class Found:
    """What events came to."""

    series: list[NDArray[np.intp]] = field(default_factory=list)
    """Of the event that completed each match; the partition's."""
    rows: list[NDArray[np.intp]] = field(default_factory=list)
    """Places of the same events among those that were given."""
    late: int = 0
    evicted: int = 0


class Traces(KeyedPart):
    """How far each key of one partition has come."""

    def __init__(
        self, hashes: tuple[str, str, str], spec: PatternSpec, index: SeriesIndex, clock: Clock
    ) -> None:
        self._matcher = matcher(spec)
        self._keys = KeyTable(hashes[0], self._matcher.columns | {"newest": ((), np.int64)})
        super().__init__(hashes[1:], index, self._keys, clock)
        self._most, self._retention = spec.keys, round(spec.ttl * _SECOND)

    def take(self, rows: KeyedRows, keys: LocalKeys, series: NDArray[np.intp]) -> Found:
        """Take events in; `series` (N,) of each."""
        found = Found()
        for span in self.spans(rows, series):
            self._take(span, keys, found)
            if span.bound is not None and len(self._keys) > self._most:
                self._forget(span.bound)
                held = self._keys.held()
                gone = surplus(self._keys, self._most, self._keys.column("newest")[held], held)
                self._keys.free(gone)
                found.evicted += len(gone)
        return found

    def _take(self, span: Span, keys: LocalKeys, found: Found) -> None:
        rows = span.rows
        late = rows.times + self._retention <= span.clock
        found.late += int(np.count_nonzero(late))
        in_time = np.flatnonzero(~late)
        slots = keys.slots(self._keys, rows.key)
        wide, rest = rounds(rows.key[in_time])
        for some in (in_time[turn] for turn in wide):
            which, times = rows.key[some], rows.times[some]
            at = self._slots_of(keys, which, slots, times, span.clock[some])
            complete = self._matcher.take(self._keys, at, rows.types[some], times)
            found.series.append(span.series[some[complete]])
            found.rows.append(some[complete] + span.first)
            self._keys.touch(at)
        self._take_one_by_one(span, in_time[rest], slots, found)
        keys.note(self._keys, rows.key)

    def _take_one_by_one(
        self, span: Span, some: NDArray[np.intp], slots: NDArray[np.intp], found: Found
    ) -> None:
        """Further events (n,) of keys that have `slots` by number."""
        rows, newest, matcher = span.rows, self._keys.column("newest"), self._matcher
        states: dict[int, list[int]] = {}
        last: dict[int, int] = {}
        complete = []
        columns = (some, slots[rows.key[some]], rows.types[some], rows.times[some], span.clock[some])
        for row, slot, type_, time, clock in zip(*(column.tolist() for column in columns), strict=True):
            state = states.get(slot)
            if state is None:
                state, last[slot] = matcher.state(self._keys, slot), int(newest[slot])
            if last[slot] + self._retention <= clock:
                state, last[slot] = matcher.fresh(), time
            states[slot] = state
            last[slot] = max(last[slot], time)
            if matcher.take_one(state, type_, time):
                complete.append(row)
        for slot, state in states.items():
            matcher.keep(self._keys, slot, state)
            newest[slot] = last[slot]
        self._keys.touch(np.array([*states], np.intp))
        matched = np.array(complete, np.intp)
        found.series.append(span.series[matched])
        found.rows.append(matched + span.first)

    def _slots_of(
        self,
        keys: LocalKeys,
        which: NDArray[np.intp],
        slots: NDArray[np.intp],
        times: NDArray[np.int64],
        clock: NDArray[np.int64],
    ) -> NDArray[np.intp]:
        """The slot (n,) of each of `which` (n,), no two of them the same; those too old, or not held, begin anew."""
        at = slots[which]
        old = np.flatnonzero(at >= 0)
        gone = old[self._keys.column("newest")[at[old]] + self._retention <= clock[old]]
        self._keys.free(at[gone])
        at[gone] = -1
        new = np.flatnonzero(at < 0)
        at[new] = self._keys.give(keys.texts(which[new]))
        slots[which] = at
        newest = self._keys.column("newest")
        newest[at[new]] = times[new]
        newest[at] = np.maximum(newest[at], times)
        self._matcher.begin(self._keys, at[new])
        return at

    def _forget(self, clock: int) -> None:
        held = self._keys.held()
        self._keys.free(held[self._keys.column("newest")[held] + self._retention <= clock])

    def settle(self) -> None:
        """Forget keys of which nothing came for long."""
        self._forget(self.clock.now)


class Pattern:
    """Matches of a pattern, by the label set of the event that completes each. A match uses up its events.

    What is counted is the replica's; how far keys have come moves with their partition.

    Unobserved: events without a key.
    Late: events that are older by `ttl` than time has come, or ahead of their arrival by more than `clock_ahead`.
    Evicted: beyond `keys`, those whose newest event is oldest.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = True

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, PatternSpec)  # noqa: S101 - the entry point's name says so
        self._declared, self._spec = declared, spec
        self._exposed = pattern(declared.name, spec)
        self._severity = {} if spec.severity is None else {"severity": str(spec.severity)}
        self._emitter = None if spec.emit is None else Emitter(declared, spec.emit, spec.key)
        self._tally = Tally(
            declared,
            self.version,
            self._fresh_index(),
            {"matches": ((1,), np.int64), "last": ((), np.int64)},
        )
        self.tables = self._tally.tables

    def _fresh_index(self) -> SeriesIndex:
        return series_index(self._spec, list(self._declared.types.values()))

    @staticmethod
    def reducing(declared: Declared) -> ReducingPattern:
        """The reducing half."""
        return ReducingPattern(declared)

    def part(self, clock: Clock) -> Traces:
        """The keys of one more partition."""
        keys, series, seen = (
            meaning(self._declared, self.version, part) for part in ("keys", "series", "seen")
        )
        return Traces((keys, series, seen), self._spec, self._fresh_index(), clock)

    def index(self) -> SeriesIndex:
        """The index of the replica's series."""
        return self._tally.table.index

    def merge(self, delta: KeyedRows, slots: Slots, part: Traces) -> Merged:
        """Take events in."""
        slots.part.resolve(delta.groups)
        series, overflow = slots.part.of_rows(delta.slots)
        found = part.take(delta, slots.keys, series)
        overflowed = self._tally.begin(part, series, overflow)
        table = self._tally.table
        for matched, rows in zip(found.series, found.rows, strict=True):
            self._tally.add(part, "matches", matched, 0)
            at, last = part.replica_slots(matched, table.index), table.column("last")
            last[at[last[at] == 0]] = NEVER
            np.maximum.at(last, at, delta.times[rows])
        self._tally.count(evicted=found.evicted)
        emitted: list[Emission] = []
        if self._emitter is not None:
            rows, matched = (
                np.concatenate([np.empty(0, np.intp), *one]) for one in (found.rows, found.series)
            )
            own: list[dict[str, str]] = [dict(self._severity)] * len(rows)
            emitted = self._emitter.emissions(delta, slots, part, Hits(rows, matched, own))
        late = found.late + delta.early
        return Merged(overflowed, delta.groups.skipped, late, emitted)

    def families(self, generation: int, parts: Sequence[Traces]) -> Sequence[Family]:
        """What is committed."""
        del parts
        matches, last, evicted = self._exposed
        table, rows = self._tally.table, self._tally.table.rows
        some = np.flatnonzero(table.shown["matches"].reserve(rows)[:rows, 0])
        severity = tuple(self._severity.values())
        return [
            self._tally.family(matches, "matches", generation),
            last.family(
                [table.index.series[slot] + severity for slot in some.tolist()],
                table.shown["last"].reserve(rows)[some] / _SECOND,
            ),
            self._tally.family_apart(evicted, "evicted", generation),
        ]


def matcher(spec: PatternSpec) -> Matcher:
    """What a declared pattern is."""
    within = None if spec.within is None else round(spec.within * _SECOND)
    places = {type_: place for place, type_ in enumerate(spec.on)}
    if spec.sequence:
        return InOrder(np.array([places[type_] for type_ in spec.sequence]), within, spec.among)
    if within is not None:
        return OftenWithin(spec.count, within)
    if spec.among is not None:
        wanted = np.array([type_ in (spec.counted or spec.on) for type_ in spec.on])
        return OftenAmong(spec.count, spec.among, wanted)
    return Every()

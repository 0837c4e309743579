"""Elapsed: the time between two events of one key, and what still waits for the second of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.instrument import Declared, Merged, meaning
from evalgauge.core.instruments.grouping import Slots, series_index
from evalgauge.core.instruments.histogram import bucket_of, in_base_unit
from evalgauge.core.instruments.increments import SUM_WORDS, add_values, shown_sums
from evalgauge.core.instruments.keyed_part import KeyedPart
from evalgauge.core.instruments.keyed_rows import KeyedRows, Keyer, KeysOf
from evalgauge.core.instruments.tally import Tally
from evalgauge.core.instruments.waiting import Outcome, Terms, Waiting
from evalgauge.core.pack.emitted import elapsed
from evalgauge.core.pack.metric_model import ElapsedSpec
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.families import Family
    from evalgauge.core.keys import LocalKeys
    from evalgauge.core.series import SeriesIndex

_SECOND = 1_000_000


class ReducingElapsed:
    """Events with their keys, in stream order."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, ElapsedSpec)  # noqa: S101 - the entry point's name says so
        self._keyer = Keyer(declared, KeysOf(declared, spec.key))

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        self._keyer.reduce(columns)

    def take(self) -> KeyedRows | None:
        """Everything since the last call."""
        return self._keyer.take()


class OpenPairs(KeyedPart):
    """What waits in one partition."""

    def __init__(self, owner: Elapsed, hashes: tuple[str, str, str], terms: Terms, clock: Clock) -> None:
        self.waiting = Waiting(hashes[0], terms, self._publish)
        super().__init__(hashes[1:], owner.fresh_index(), self.waiting.table, clock)
        self._owner = owner
        self._open: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None
        self.shown: tuple[list[tuple[str, ...]], NDArray[np.int64], NDArray[np.int64]] | None = None
        """Of each series (n,) as of the last commit: labels, keys that wait, microseconds of the oldest of them."""

    def take(self, rows: KeyedRows, keys: LocalKeys, series: NDArray[np.intp], outcome: Outcome) -> None:
        """Take events in; `series` (N,) of each."""
        for span in self.spans(rows, series):
            self.waiting.take(span.rows, keys, span.series, span.clock, outcome)
            if span.bound is not None:
                self.waiting.bound(span.bound, outcome)

    def settle(self) -> None:
        """Count what time alone has decided, before each commit."""
        outcome = Outcome()
        self.waiting.pass_time(self.clock.now, outcome)
        self._owner.count(self, outcome)
        self._open = self.waiting.waiting(len(self.index().series))

    def _publish(self) -> None:
        found, self._open = self._open or self.waiting.waiting(len(self.index().series)), None
        self.shown = (self.index().series[: len(found[0])], *found)


class Elapsed:
    """Time from the first event that begins a key to the first that ends it, observed once both are there.

    What is counted is the replica's; keys that wait move with their partition. A key's time is its events' own, and
    how far time has come is the partition's. A time below zero is observed as zero.

    Unobserved: events without a key.
    Late: events that are older by `ttl` than time has come, or ahead of their arrival by more than `clock_ahead`.
    Evicted: beyond `keys`, those that wait for no end, then the oldest.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = True

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, ElapsedSpec)  # noqa: S101 - the entry point's name says so
        self._declared, self._spec = declared, spec
        self._families = elapsed(declared.name, spec)
        self._bounds = np.asarray(spec.buckets, np.float64)
        limits = len(spec.within)
        columns: dict[str, tuple[tuple[int, ...], type[np.int64]]] = dict.fromkeys(SUM_WORDS, ((), np.int64))
        columns["buckets"] = ((len(spec.buckets) + 1,), np.int64)
        columns |= {"expired": ((), np.int64)} | ({"limits": ((2 * limits,), np.int64)} if limits else {})
        self._tally = Tally(declared, self.version, self.fresh_index(), columns, ("unmatched", "evicted"))
        self.tables = self._tally.tables
        self._sums = Growing((), np.float64)

    def fresh_index(self) -> SeriesIndex:
        """An empty index of the series of this metric."""
        return series_index(self._spec, [self._declared.types[self._spec.begin]])

    @staticmethod
    def reducing(declared: Declared) -> ReducingElapsed:
        """The reducing half."""
        return ReducingElapsed(declared)

    def part(self, clock: Clock) -> OpenPairs:
        """What waits in one more partition."""
        spec = self._spec
        terms = Terms(
            begin=0,
            limits=tuple(round(limit * _SECOND) for limit in spec.within),
            lateness=round(spec.lateness * _SECOND),
            retention=round(spec.ttl * _SECOND),
            keys=spec.keys,
        )
        keys, series, seen = (
            meaning(self._declared, self.version, part) for part in ("keys", "series", "seen")
        )
        return OpenPairs(self, (keys, series, seen), terms, clock)

    def index(self) -> SeriesIndex:
        """The index of the replica's series."""
        return self._tally.table.index

    def merge(self, delta: KeyedRows, slots: Slots, part: OpenPairs) -> Merged:
        """Take events in."""
        slots.part.resolve(delta.groups)
        series, overflow = slots.part.of_rows(delta.slots)
        outcome = Outcome(late=delta.early)
        part.take(delta, slots.keys, series, outcome)
        overflowed = self._tally.begin(part, series, overflow)
        self.count(part, outcome)
        return Merged(overflowed, delta.groups.skipped, outcome.late)

    def count(self, part: OpenPairs, outcome: Outcome) -> None:
        """Add what keys of a partition have come to."""
        table = self._tally.table
        if outcome.series:
            slots = part.replica_slots(np.concatenate(outcome.series), table.index)
            taken = np.concatenate(outcome.taken).astype(np.float64)
            counts = table.column("buckets")
            places = slots * counts.shape[1] + bucket_of(in_base_unit(taken, UNITS["us"]), self._bounds)
            np.add.at(counts.reshape(-1), places, 1)
            add_values(table, slots, taken)
            table.touch(slots)
        for result, told in enumerate((outcome.met, outcome.missed)):
            for limit, series in told:
                self._tally.add(part, "limits", series, 2 * limit + result)
        for series in outcome.expired:
            self._tally.add(part, "expired", series)
        self._tally.count(unmatched=outcome.lone, evicted=outcome.evicted)

    def families(self, generation: int, parts: Sequence[OpenPairs]) -> Sequence[Family]:
        """What is committed of counts, and what waits in these partitions."""
        taken, limits, expired, unmatched, evicted, open_, oldest = self._families
        table, rows = self._tally.table, self._tally.table.rows
        waiting, oldest_series, since = _together([part.shown for part in parts if part.shown is not None])
        return [
            taken.family(
                table.index.series,
                shown_sums(table, self._sums, UNITS["us"].factor),
                self._tally.births(),
                generation=generation,
                buckets=table.shown["buckets"].reserve(rows)[:rows].copy(),
            ),
            *([self._tally.family(limits, "limits", generation)] if self._spec.within else []),
            self._tally.family(expired, "expired", generation),
            self._tally.family_apart(unmatched, "unmatched", generation),
            self._tally.family_apart(evicted, "evicted", generation),
            open_.family(list(waiting), np.array(list(waiting.values()), np.int64)),
            oldest.family(oldest_series, np.array(since, np.float64)),
        ]


def _together(
    shown: Sequence[tuple[list[tuple[str, ...]], NDArray[np.int64], NDArray[np.int64]]],
) -> tuple[dict[tuple[str, ...], int], list[tuple[str, ...]], list[float]]:
    """Keys that wait by label set, and of those where any does the label set and the Unix time of the oldest."""
    waiting: dict[tuple[str, ...], int] = {}
    oldest: dict[tuple[str, ...], int] = {}
    for labels, counts, since in shown:
        for series, count, time in zip(labels, counts.tolist(), since.tolist(), strict=True):
            waiting[series] = waiting.get(series, 0) + count
            if count:
                oldest[series] = min(time, oldest.get(series, time))
    return waiting, list(oldest), [time / _SECOND for time in oldest.values()]

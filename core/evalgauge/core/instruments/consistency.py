"""Consistency: Saaty's consistency ratio of nodes whose pairwise comparisons are complete."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.instrument import Declared, Merged, meaning
from evalgauge.core.instruments.grouping import Slots, series_index
from evalgauge.core.instruments.histogram import bucket_of
from evalgauge.core.instruments.increments import SUM_WORDS, add_values, shown_sums
from evalgauge.core.instruments.judgements import COMPARISON, REASONS, SOURCES, Found, Judgements
from evalgauge.core.instruments.keyed_rows import KeyedRows, Keyer
from evalgauge.core.instruments.tally import Tally
from evalgauge.core.keys import NO_KEY, joined, key_fields, parted
from evalgauge.core.pack.emitted import consistency
from evalgauge.core.pack.metric_model import ConsistencySpec
from evalgauge.core.series import Encoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.columns import Columns
    from evalgauge.core.families import Family
    from evalgauge.core.keys import KeyNumbers
    from evalgauge.core.series import SeriesIndex

_SECOND = 1_000_000
_UNMET = -2


class _Pairs:
    """A comparison has the key of its node and pair, a completion that of its node.

    (right, left, v) is (left, right, 1/v): the pair stands in order of its texts. An element compared with itself has
    no key.
    """

    def __init__(self, declared: Declared, spec: ConsistencySpec) -> None:
        self._comparison = spec.comparison
        pair = (spec.left, spec.right)
        fields = key_fields(declared, spec.key)
        self._fields = {
            type_: (*names, *pair) if type_ == spec.comparison else names for type_, names in fields.items()
        }
        self._tenanted = len(fields[spec.complete]) > len(spec.key)
        self._known = Encoder(str)
        self._announced = 0
        self._ours = {type_: Growing((), np.int64, fill=_UNMET) for type_ in fields}
        """By the number of all the texts: ours."""
        self._turned = Growing((), np.bool_)
        """By the number of all the texts of a comparison: its pair stands the other way round."""

    def numbers(self, columns: Columns) -> NDArray[np.intp]:
        """The numbers (n,) of a batch's keys."""
        found, known = self._told(columns)
        ours = self._ours[columns.type].reserve(len(known))
        there = found >= 0
        for number in np.unique(found[there & (ours[found] == _UNMET)]).tolist():
            ours[number] = self._number(columns.type, number, str(known.texts[number]))
        return np.where(there, ours[found], NO_KEY)

    def _told(self, columns: Columns) -> tuple[NDArray[np.intp], KeyNumbers]:
        return columns.keys(self._fields[columns.type], tenanted=self._tenanted)

    def _number(self, type_: str, number: int, text: str) -> int:
        if type_ != self._comparison:
            return self._known[text]
        *node, left, right = parted(text, len(self._fields[type_]))
        if left == right:
            return NO_KEY
        self._turned.reserve(number + 1)[number] = left > right
        return self._known[joined((joined(node), *sorted((left, right))))]

    def turned(self, columns: Columns) -> NDArray[np.bool_]:
        """Of a batch of comparisons, whether each pair (n,) stands the other way round; once it was numbered."""
        found, known = self._told(columns)
        turned: NDArray[np.bool_] = self._turned.reserve(len(known))[found]
        return turned

    def announce(self) -> list[str]:
        """The keys of the numbers that follow those told before."""
        new = [str(text) for text in self._known.texts[self._announced :]]
        self._announced += len(new)
        return new


class _Comparisons(Keyer):
    """Of comparisons the value with the pair in order, of completions the ratio that they may carry."""

    def __init__(self, declared: Declared, spec: ConsistencySpec) -> None:
        self._pairs = _Pairs(declared, spec)
        super().__init__(declared, self._pairs, spec.value)
        self._spec = spec

    def _values(self, columns: Columns) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        if columns.type != self._spec.comparison:
            given = self._spec.given
            values = np.full(columns.n, np.nan) if given is None else columns.numbers(given)
            return values, np.ones(columns.n, np.bool_)
        values = columns.numbers(self._spec.value)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            turned = 1.0 / values
        # Either way round it must be a number.
        fit = np.isfinite(values) & np.isfinite(turned) & (values > 0) & (turned > 0)
        return np.where(self._pairs.turned(columns), turned, values), fit


class ReducingConsistency:
    """Comparisons and completions with their keys, in stream order."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, ConsistencySpec)  # noqa: S101 - the entry point's name says so
        assert spec.on[COMPARISON] == spec.comparison  # noqa: S101 - rows name their type by its place
        self._keyer = _Comparisons(declared, spec)

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        self._keyer.reduce(columns)

    def take(self) -> KeyedRows | None:
        """Everything since the last call."""
        return self._keyer.take()


class Consistency:
    """The ratio that a completing event carries, else Saaty's of the node's comparisons that came before it.

    It is computed by `evalgauge.core.saaty`. What is observed is the replica's; comparisons move with their partition.

    Unobserved: events without a key, comparisons whose value is not above zero or of an element with itself, and given
        ratios below zero.
    Late: events that are older by `ttl` than time has come, or ahead of their arrival by more than `clock_ahead`.
    Evicted: beyond `keys`, nodes whose newest event is oldest.
    """

    version: ClassVar[int] = 1
    keyed: ClassVar[bool] = True

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, ConsistencySpec)  # noqa: S101 - the entry point's name says so
        self._declared, self._spec = declared, spec
        self._exposed = consistency(declared.name, spec)
        self._bounds = np.asarray(spec.buckets, np.float64)
        columns: dict[str, tuple[tuple[int, ...], type[np.int64]]] = dict.fromkeys(SUM_WORDS, ((), np.int64))
        columns["buckets"] = ((len(spec.buckets) + 1,), np.int64)
        columns["source"], columns["without"] = ((len(SOURCES),), np.int64), ((len(REASONS),), np.int64)
        columns["repeated"] = ((), np.int64)
        self._tally = Tally(declared, self.version, self._fresh_index(), columns)
        self.tables = self._tally.tables
        self._sums = Growing((), np.float64)

    def _fresh_index(self) -> SeriesIndex:
        return series_index(self._spec, [self._declared.types[self._spec.complete]])

    @staticmethod
    def reducing(declared: Declared) -> ReducingConsistency:
        """The reducing half."""
        return ReducingConsistency(declared)

    def part(self, clock: Clock) -> Judgements:
        """The comparisons of one more partition."""
        nodes, pairs, series, seen = (
            meaning(self._declared, self.version, part) for part in ("nodes", "pairs", "series", "seen")
        )
        retention = round(self._spec.ttl * _SECOND)
        return Judgements(
            (nodes, pairs, series, seen), self._spec.keys, retention, self._fresh_index(), clock
        )

    def index(self) -> SeriesIndex:
        """The index of the replica's series."""
        return self._tally.table.index

    def merge(self, delta: KeyedRows, slots: Slots, part: Judgements) -> Merged:
        """Take events in."""
        slots.part.resolve(delta.groups)
        series, overflow = slots.part.of_rows(delta.slots)
        found = part.take(delta, slots.keys, series)
        overflowed = self._tally.begin(part, series, overflow)
        self._count(part, found)
        return Merged(
            overflowed,
            delta.groups.skipped + found.unobserved,
            found.late + delta.early,
        )

    def _count(self, part: Judgements, found: Found) -> None:
        table = self._tally.table
        if found.observed:
            series, ratios, sources = (np.array(one) for one in zip(*found.observed, strict=True))
            slots = part.replica_slots(series, table.index)
            counts = table.column("buckets")
            places = slots * counts.shape[1] + bucket_of(ratios, self._bounds)
            np.add.at(counts.reshape(-1), places, 1)
            np.add.at(table.column("source"), (slots, sources), 1)
            add_values(table, slots, ratios.astype(np.float64))
            table.touch(slots)
        for reason in range(len(REASONS)):
            mine = [one for one, why in found.without if why == reason]
            self._tally.add(part, "without", np.array(mine, np.intp), reason)
        self._tally.add(part, "repeated", np.array(found.repeated, np.intp))
        self._tally.count(evicted=found.evicted)

    def families(self, generation: int, parts: Sequence[Judgements]) -> Sequence[Family]:
        """What is committed."""
        del parts
        ratios, sources, without, repeated, evicted = self._exposed
        table = self._tally.table
        return [
            ratios.family(
                table.index.series,
                shown_sums(table, self._sums, Fraction(1)),
                self._tally.births(),
                generation=generation,
                buckets=table.shown["buckets"].reserve(table.rows)[: table.rows].copy(),
            ),
            self._tally.family(sources, "source", generation),
            self._tally.family(without, "without", generation),
            self._tally.family(repeated, "repeated", generation),
            self._tally.family_apart(evicted, "evicted", generation),
        ]

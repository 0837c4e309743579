"""Events of a `progress` metric in stream order: whose pair it is, how far it has come, what is announced."""

from __future__ import annotations

from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalgauge.core.clock import NEVER
from evalgauge.core.instrument import unit_of
from evalgauge.core.instruments.grouping import Grouper, Groups, label_text
from evalgauge.core.instruments.keyed_rows import KeyedRows, KeysOf
from evalgauge.core.instruments.progress_line import WHOLE
from evalgauge.core.pack.metric_model import ProgressSpec
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.instrument import Declared

MOST_ANNOUNCED = 1_000_000_000
"""Pairs that can be announced for a key."""


@dataclass(frozen=True, slots=True)
class ProgressRows:
    """N events in stream order, with what only `progress` wants of them."""

    rows: KeyedRows
    pair: NDArray[np.intp]
    """Shape (N,): number of the pair that an event tells of; -1 where it only announces."""
    values: NDArray[np.int64]
    """How far it is, in parts of `WHOLE`, (N,)."""
    announced: NDArray[np.int64]
    """Pairs that the key will have, (N,); -1 where the event does not say."""
    by: list[tuple[list[str], NDArray[np.intp]]]
    """For each further label: values, and which of them an event has, (N,)."""
    unobserved: int
    """Events that told of a pair, and announced what is no number of pairs."""

    @property
    def groups(self) -> Groups:
        """Label sets, for the engine."""
        return self.rows.groups


class _Some(NamedTuple):
    """Events of one type in one batch, (n,) each."""

    ordinals: NDArray[np.int64]
    slots: NDArray[np.intp]
    times: NDArray[np.int64]
    clock: NDArray[np.int64]
    key: NDArray[np.intp]
    pair: NDArray[np.intp]
    values: NDArray[np.int64]
    announced: NDArray[np.int64]
    by: NDArray[np.intp]
    """Shape (n, further labels)."""

    def only(self, rows: NDArray[np.intp]) -> _Some:
        """Some of them."""
        return _Some(*(column[rows] for column in self))


class ReducingProgress:
    """Events with their keys and pairs. What is no progress, or has no key or pair, is skipped and counted."""

    def __init__(self, declared: Declared) -> None:
        spec = declared.spec
        assert isinstance(spec, ProgressSpec)  # noqa: S101 - the entry point's name says so
        self._spec, self._types = spec, declared.types
        self._grouper = Grouper(spec)
        self._keys, self._pairs = KeysOf(declared, spec.key), KeysOf(declared, [*spec.key, *spec.pairs])
        self._factor = UNITS[unit_of(declared)].factor
        self._places = {type_: place for place, type_ in enumerate(spec.on)}
        self._held: list[tuple[str, _Some]] = []
        self._by: list[dict[str, int]] = [{} for _ in spec.by]
        self._early = self._unobserved = self._arrived = 0

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        self._arrived = columns.arrived
        type_ = columns.type
        valued, announces = type_ in self._spec.on_, self._spec.expected.get(type_)
        key = self._keys.numbers(columns)
        usable = key >= 0
        pair, values = np.full(columns.n, -1), np.zeros(columns.n, np.int64)
        announced, wrong = np.full(columns.n, -1), np.zeros(columns.n, np.bool_)
        if valued:
            pair = self._pairs.numbers(columns)
            found = columns.numbers(self._spec.value)
            good = (found >= 0) & (found <= float(1 / self._factor))
            values = np.rint(np.where(good, found, 0.0) * float(self._factor * WHOLE)).astype(np.int64)
            usable &= good & (pair >= 0)
        if announces is not None:
            found = columns.numbers(announces)
            good = (found >= 0) & (found <= MOST_ANNOUNCED) & (np.floor(found) == found)
            announced = np.where(good, found, -1.0).astype(np.int64)
            if valued:
                wrong = ~good & ~np.isnan(found)
            else:
                usable &= good
        for group in self._grouper.rows(columns, usable):
            times = group.of(columns.times())
            some = _Some(
                group.ordinals,
                group.slots,
                times,
                np.full(len(times), NEVER) if columns.clock is None else group.of(columns.clock),
                group.of(key),
                group.of(pair),
                group.of(values),
                group.of(announced),
                self._by_codes(columns, group.rows, len(times)) if valued else self._no_codes(len(times)),
            )
            self._unobserved += int(np.count_nonzero(group.of(wrong)))
            if len(times) and times.max() > columns.latest:
                some = some.only(np.flatnonzero(times <= columns.latest))
                self._early += len(times) - len(some.times)
            self._held.append((type_, some))

    def _no_codes(self, count: int) -> NDArray[np.intp]:
        return np.full((count, len(self._by)), -1, np.intp)

    def _by_codes(self, columns: Columns, rows: NDArray[np.intp] | None, count: int) -> NDArray[np.intp]:
        found = self._no_codes(count)
        for place, (label, known) in enumerate(zip(self._spec.by.values(), self._by, strict=True)):
            assert label.field is not None  # noqa: S101 - for the type checker: checked with the pack
            codes, texts = columns.codes(label.field)
            used, which = np.unique(codes if rows is None else codes[rows], return_inverse=True)
            numbers = [known.setdefault(label_text(label, texts[code]), len(known)) for code in used.tolist()]
            found[:, place] = np.array(numbers, np.intp)[which]
        return found

    def take(self) -> ProgressRows | None:
        """Everything since the last call, None if there is nothing."""
        groups = self._grouper.take()
        held, self._held = self._held, []
        early, unobserved, self._early, self._unobserved = self._early, self._unobserved, 0, 0
        texts, self._by = [list(known) for known in self._by], [{} for _ in self._by]
        if groups is None:
            if not held:
                return None
            groups = Groups(np.empty(0, np.intp), np.empty(0, np.int64), [], 0)
        groups = replace(groups, keys=[self._keys.announce(), self._pairs.announce()])
        types = np.repeat(
            np.array([self._places[type_] for type_, _ in held], np.intp),
            np.array([len(some.key) for _, some in held], np.intp),
        )
        none = np.empty(0, np.int64)
        empty = _Some(none, none, none, none, none, none, none, none, self._no_codes(0))
        parts = zip(empty, *(some for _, some in held), strict=True)
        whole = _Some(*(np.concatenate(columns) for columns in parts))
        if (np.diff(whole.ordinals) < 0).any():  # the types of a batch come one after the other
            order = np.argsort(whole.ordinals, kind="stable")
            whole, types = whole.only(order), types[order]
        rows = KeyedRows(
            groups=groups,
            ordinals=whole.ordinals,
            key=whole.key,
            slots=whole.slots,
            types=types,
            times=whole.times,
            clock=whole.clock,
            values=None,
            early=early,
            arrived=self._arrived,
        )
        by = [(names, whole.by[:, place]) for place, names in enumerate(texts)]
        return ProgressRows(rows, whole.pair, whole.values, whole.announced, by, unobserved)


def parts_of(ratio: float) -> int:
    """A ratio in parts of `WHOLE`, rounded up: what has come so far has reached it."""
    return -(-(Fraction(str(ratio)) * WHOLE) // 1)

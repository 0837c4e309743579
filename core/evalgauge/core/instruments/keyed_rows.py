"""Events of a metric with the key of each, in stream order: what instruments that remember are given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from evalgauge.core.clock import NEVER
from evalgauge.core.instruments.grouping import Grouper, Groups
from evalgauge.core.keys import key_fields
from evalgauge.core.ordering import ranks, stable_order

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.instrument import Declared
    from evalgauge.core.keys import KeyNumbers


@dataclass(frozen=True, slots=True)
class KeyedRows:
    """N events in stream order."""

    groups: Groups
    ordinals: NDArray[np.int64]
    """Places in the stream, (N,)."""
    key: NDArray[np.intp]
    """Number of each event's key (N,), in the one who reduced them, see `LocalKeys`; 0 where the metric has none."""
    slots: NDArray[np.intp]
    """Local slots of the label sets, (N,); -1 where events of the type have none."""
    types: NDArray[np.intp]
    """Shape (N,): place of the event's type in the metric's `on`."""
    times: NDArray[np.int64]
    """Event times in microseconds since 1970, (N,)."""
    clock: NDArray[np.int64]
    """How far time had come before each event, (N,), since the delta began."""
    values: NDArray[np.float64] | None
    """Shape (N,), finite; None where the metric has no value."""
    early: int
    """Events that are not among them because their clock is ahead."""
    arrived: int
    """When all of them came, in microseconds since 1970: an event takes time no further, whatever its own says."""

    def after(self, row: int, before: int) -> int:
        """How far time has come after an event, where it had come as far as `before`."""
        return max(before, min(int(self.times[row]), self.arrived))

    def span(self, first: int, last: int) -> KeyedRows:
        """Some neighbouring events; what they have in common stays."""
        some = slice(first, last)
        return replace(
            self,
            ordinals=self.ordinals[some],
            key=self.key[some],
            slots=self.slots[some],
            types=self.types[some],
            times=self.times[some],
            clock=self.clock[some],
            values=None if self.values is None else self.values[some],
        )


class _Some(NamedTuple):
    """Events of one type in one batch."""

    ordinals: NDArray[np.int64]
    keys: NDArray[np.intp]
    slots: NDArray[np.intp]
    type: int
    times: NDArray[np.int64]
    clock: NDArray[np.int64]
    values: NDArray[np.float64] | None


class Numbered(Protocol):
    """Keys of a metric's events as numbers."""

    def numbers(self, columns: Columns) -> NDArray[np.intp]:
        """The numbers (n,) of a batch's keys, `NO_KEY` where there is none."""

    def announce(self) -> list[str]:
        """The keys of the numbers that follow those told before."""


class KeysOf:
    """The keys of one metric's events, and which of them its owner knows."""

    def __init__(self, declared: Declared, key: Sequence[str]) -> None:
        """`key` are fields of every event type that is asked for."""
        self._fields, self._width = key_fields(declared, key), len(key)
        self._known: KeyNumbers | None = None
        self._announced = 0

    def numbers(self, columns: Columns) -> NDArray[np.intp]:
        """The numbers (n,) of a batch's keys, `NO_KEY` where there is none."""
        fields = self._fields[columns.type]
        found, self._known = columns.keys(fields, tenanted=len(fields) > self._width)
        return found

    def announce(self) -> list[str]:
        """The keys of the numbers that follow those told before."""
        new = [] if self._known is None else self._known.known(self._announced)
        self._announced += len(new)
        return new


class Keyer:
    """Gathers the events of a metric with their keys.

    An event without a key, or without a value where one is wanted, is skipped. One whose clock is ahead is early. Both
    are counted.
    """

    def __init__(
        self,
        declared: Declared,
        keys: Numbered | None,
        value: str | None = None,
        bounds: tuple[float, float] = (-np.inf, np.inf),
    ) -> None:
        """`value` is a field of every event type that the metric is `on`; there may be none, and no keys.

        A value outside `bounds` is none.
        """
        spec = declared.spec
        self._grouper = Grouper(spec)
        self._keys = keys
        self._places = {type_: place for place, type_ in enumerate(spec.on)}
        self._value, self._bounds = value, bounds
        self._held: list[_Some] = []
        self._early = self._arrived = 0

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        self._arrived = columns.arrived
        keys = np.zeros(columns.n, np.intp) if self._keys is None else self._keys.numbers(columns)
        usable = keys >= 0
        numbers, fit = self._values(columns)
        usable &= fit
        for group in self._grouper.rows(columns, usable):
            values = None if numbers is None else group.of(numbers)
            times = group.of(columns.times())
            clock = np.full(len(times), NEVER) if columns.clock is None else group.of(columns.clock)
            place = self._places[columns.type]
            one = _Some(group.ordinals, group.of(keys), group.slots, place, times, clock, values)
            if len(times) and times.max() > columns.latest:
                one = _only(one, times <= columns.latest)
                self._early += len(times) - len(one.times)
            self._held.append(one)

    def _values(self, columns: Columns) -> tuple[NDArray[np.float64] | None, NDArray[np.bool_]]:
        """The value of each event (n,), None where none is wanted; and whether it can be used (n,)."""
        if self._value is None:
            return None, np.ones(columns.n, np.bool_)
        values = columns.numbers(self._value)
        least, most = self._bounds
        return values, np.isfinite(values) & (values >= least) & (values <= most)

    def take(self) -> KeyedRows | None:
        """Everything since the last call, None if there is nothing."""
        groups = self._grouper.take()
        held, self._held = self._held, []
        early, self._early = self._early, 0
        if groups is None:
            if not held:
                return None
            groups = Groups(np.empty(0, np.intp), np.empty(0, np.int64), [], 0)
        if self._keys is not None:
            groups = replace(groups, keys=[self._keys.announce()])
        ordinals = np.concatenate([np.empty(0, np.int64), *(one.ordinals for one in held)])
        types = np.repeat([one.type for one in held], [len(one.keys) for one in held]).astype(np.intp)
        key = np.concatenate([np.empty(0, np.intp), *(one.keys for one in held)])
        slots = np.concatenate([np.empty(0, np.intp), *(one.slots for one in held)])
        times = np.concatenate([np.empty(0, np.int64), *(one.times for one in held)])
        clock = np.concatenate([np.empty(0, np.int64), *(one.clock for one in held)])
        values = None
        if self._value is not None:
            values = np.concatenate([np.empty(0), *(one.values for one in held if one.values is not None)])
        if (np.diff(ordinals) < 0).any():  # the types of a batch come one after the other
            order = np.argsort(ordinals, kind="stable")
            columns = (ordinals, key, slots, types, times, clock)
            ordinals, key, slots, types, times, clock = (column[order] for column in columns)
            values = None if values is None else values[order]
        return KeyedRows(groups, ordinals, key, slots, types, times, clock, values, early, self._arrived)


def _only(some: _Some, rows: NDArray[np.bool_]) -> _Some:
    return _Some(
        some.ordinals[rows],
        some.keys[rows],
        some.slots[rows],
        some.type,
        some.times[rows],
        some.clock[rows],
        None if some.values is None else some.values[rows],
    )


FEW = 16
"""Events of a round below which one after the other takes less time than all at once."""


def rounds(key: NDArray[np.intp]) -> tuple[list[NDArray[np.intp]], NDArray[np.intp]]:
    """The rows (n,) that are the first of their key, then those that are the second, and so on; and all the rest.

    In a round no key comes twice, so that what depends on the order within a key can be done for all of them at once.
    What is left once a round would have fewer than `FEW` rows are further events of some frequent keys. Ascending each.
    """
    if not len(key):
        return [], key
    rank = ranks(key)
    sizes = np.bincount(rank)
    # Sizes never grow. The first is a round in any case: in it every key comes once.
    wide = max(1, int(np.count_nonzero(sizes >= FEW)))
    by_rank = stable_order(rank)
    ends = np.cumsum(sizes[:wide]).tolist()
    found = [by_rank[first:end] for first, end in zip([0, *ends], ends, strict=False)]
    return found, np.sort(by_rank[ends[-1] :])

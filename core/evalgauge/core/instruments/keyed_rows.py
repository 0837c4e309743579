"""Events of a metric with the key of each, in stream order: what instruments that remember are given."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from evalgauge.core.clock import NEVER
from evalgauge.core.instruments.grouping import Grouper, Groups

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.instrument import Declared


@dataclass(frozen=True, slots=True)
class KeyedRows:
    """N events in stream order."""

    groups: Groups
    keys: list[str]
    """Every key once, in order of first appearance."""
    key: NDArray[np.intp]
    """Shape (N,): which of them an event has."""
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

    def span(self, first: int, last: int) -> KeyedRows:
        """Some neighbouring events; what they have in common stays."""
        some = slice(first, last)
        return replace(
            self,
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
    keys: list[str]
    slots: NDArray[np.intp]
    type: int
    times: NDArray[np.int64]
    clock: NDArray[np.int64]
    values: NDArray[np.float64] | None


class Keyer:
    """Gathers the events of a metric with their keys.

    An event without a key, or without a value where one is wanted, is skipped. One whose clock is ahead is early. Both
    are counted.
    """

    def __init__(self, declared: Declared, key: Sequence[str], value: str | None = None) -> None:
        """`key` and `value` are fields of every event type that the metric is `on`."""
        spec = declared.spec
        self._grouper = Grouper(spec)
        self._by_tenant = all(event.tenant is not None for event in declared.types.values())
        self._places = {type_: place for place, type_ in enumerate(spec.on)}
        self._key, self._value = key, value
        self._held: list[_Some] = []
        self._early = 0

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        keys = self._keys(columns)
        usable = np.fromiter((key is not None for key in keys), np.bool_, columns.n)
        if self._value is not None:
            usable &= np.isfinite(columns.numbers(self._value))
        for group in self._grouper.rows(columns, usable):
            values = None if self._value is None else group.of(columns.numbers(self._value))
            some = keys if group.rows is None else [keys[row] for row in group.rows.tolist()]
            times = group.of(columns.times())
            clock = np.full(len(times), NEVER) if columns.clock is None else group.of(columns.clock)
            one = _Some(group.ordinals, some, group.slots, self._places[columns.type], times, clock, values)
            if len(times) and times.max() > columns.latest:
                one = _only(one, np.flatnonzero(times <= columns.latest))
                self._early += len(times) - len(one.times)
            self._held.append(one)

    def _keys(self, columns: Columns) -> list[Any]:
        """The key of each event, None where it has none. Tenants have keys of their own."""
        texts = [_texts(columns, field) for field in self._key]
        tenant = columns.reader.spec.tenant
        if self._by_tenant and tenant is not None and tenant not in self._key:
            texts.insert(0, [text or "" for text in _texts(columns, tenant)])
        if len(texts) == 1:
            return texts[0]
        return [None if None in part else joined(part) for part in zip(*texts, strict=True)]

    def take(self) -> KeyedRows | None:
        """Everything since the last call, None if there is nothing."""
        groups = self._grouper.take()
        held, self._held = self._held, []
        early, self._early = self._early, 0
        if groups is None:
            if not held:
                return None
            groups = Groups(np.empty(0, np.intp), np.empty(0, np.int64), [], 0)
        number: dict[str, int] = {}
        ordinals = np.concatenate([np.empty(0, np.int64), *(one.ordinals for one in held)])
        types = np.repeat([one.type for one in held], [len(one.keys) for one in held]).astype(np.intp)
        names = [key for one in held for key in one.keys]
        slots = np.concatenate([np.empty(0, np.intp), *(one.slots for one in held)])
        times = np.concatenate([np.empty(0, np.int64), *(one.times for one in held)])
        clock = np.concatenate([np.empty(0, np.int64), *(one.clock for one in held)])
        values = None
        if self._value is not None:
            values = np.concatenate([np.empty(0), *(one.values for one in held if one.values is not None)])
        if (np.diff(ordinals) < 0).any():  # the types of a batch come one after the other
            order = np.argsort(ordinals, kind="stable")
            names = [names[row] for row in order.tolist()]
            slots, types, times, clock = slots[order], types[order], times[order], clock[order]
            values = None if values is None else values[order]
        key = np.array([number.setdefault(name, len(number)) for name in names], np.intp)
        return KeyedRows(groups, list(number), key, slots, types, times, clock, values, early)


def _texts(columns: Columns, field: str) -> list[Any]:
    """The texts of a field; a mapping may read them from any JSON scalar."""
    reader, values = columns.reader.fields[field], columns.raw(field)
    return list(map(reader.translate, values)) if reader.scalar else values


def joined(parts: Iterable[str]) -> str:
    """A key of several texts. The length of each but the last stands before it, so that no two give the same."""
    *first, last = parts
    return "".join(f"{len(part)}:{part}" for part in first) + last


def _only(some: _Some, rows: NDArray[np.intp]) -> _Some:
    return _Some(
        some.ordinals[rows],
        [some.keys[row] for row in rows.tolist()],
        some.slots[rows],
        some.type,
        some.times[rows],
        some.clock[rows],
        None if some.values is None else some.values[rows],
    )


def rounds(key: NDArray[np.intp]) -> Iterator[NDArray[np.intp]]:
    """The rows (n,) that are the first of their key, then those that are the second, and so on; ascending each.

    In a round no key comes twice, so that what depends on the order within a key can be done for all of them at once.
    There are as many rounds as the most frequent key has events.
    """
    order = np.argsort(key, kind="stable")
    sorted_ = key[order]
    starts = np.flatnonzero(np.diff(sorted_, prepend=-1))
    rank = np.arange(len(key)) - np.repeat(starts, np.diff(starts, append=len(key)))
    by_rank = np.argsort(rank, kind="stable")
    first = 0
    for end in np.cumsum(np.bincount(rank)).tolist():
        yield np.sort(order[by_rank[first:end]])
        first = end

"""Events of a metric with the key of each, in stream order: what instruments that remember are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalgauge.core.instruments.grouping import Grouper, Groups

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.pack.model import MetricSpec


@dataclass(frozen=True, slots=True)
class KeyedRows:
    """N events in stream order."""

    groups: Groups
    keys: list[str]
    """Every key once, in order of first appearance."""
    key: NDArray[np.intp]
    """Shape (N,): which of them an event has."""
    slots: NDArray[np.intp]
    """Local slots of the label sets, (N,)."""
    types: NDArray[np.intp]
    """Shape (N,): place of the event's type in the metric's `on`."""
    times: NDArray[np.int64]
    """Event times in microseconds since 1970, (N,)."""
    values: NDArray[np.float64] | None
    """Shape (N,), NaN where absent; None where the metric has no value."""


class _Some(NamedTuple):
    """Events of one type in one batch."""

    ordinals: NDArray[np.int64]
    keys: list[str]
    slots: NDArray[np.intp]
    type: int
    times: NDArray[np.int64]
    values: NDArray[np.float64] | None


class Keyer:
    """Gathers the events of a metric with their keys. An event without one is skipped, and counted."""

    def __init__(self, spec: MetricSpec, key: str, value: str | None = None) -> None:
        """`key` and `value` are fields of every event type that the metric is `on`."""
        self._grouper = Grouper(spec)
        self._places = {type_: place for place, type_ in enumerate(spec.on)}
        self._key, self._value = key, value
        self._held: list[_Some] = []

    def reduce(self, columns: Columns) -> None:
        """Add one batch."""
        keys = columns.raw(self._key)
        usable = np.fromiter((key is not None for key in keys), np.bool_, columns.n)
        for group in self._grouper.rows(columns, usable):
            values = None if self._value is None else group.of(columns.numbers(self._value))
            some = keys if group.rows is None else [keys[row] for row in group.rows.tolist()]
            times = group.of(columns.times())
            self._held.append(
                _Some(group.ordinals, some, group.slots, self._places[columns.type], times, values)
            )

    def take(self) -> KeyedRows | None:
        """Everything since the last call, None if there is nothing."""
        groups = self._grouper.take()
        if groups is None:
            return None
        held, self._held = self._held, []
        number: dict[str, int] = {}
        ordinals = np.concatenate([np.empty(0, np.int64), *(one.ordinals for one in held)])
        types = np.repeat([one.type for one in held], [len(one.keys) for one in held]).astype(np.intp)
        names = [key for one in held for key in one.keys]
        slots = np.concatenate([np.empty(0, np.intp), *(one.slots for one in held)])
        times = np.concatenate([np.empty(0, np.int64), *(one.times for one in held)])
        values = None
        if self._value is not None:
            values = np.concatenate([np.empty(0), *(one.values for one in held if one.values is not None)])
        if (np.diff(ordinals) < 0).any():  # the types of a batch come one after the other
            order = np.argsort(ordinals, kind="stable")
            names = [names[row] for row in order.tolist()]
            slots, types, times = slots[order], types[order], times[order]
            values = None if values is None else values[order]
        key = np.array([number.setdefault(name, len(number)) for name in names], np.intp)
        return KeyedRows(groups, list(number), key, slots, types, times, values)


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

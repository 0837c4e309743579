"""Pairwise comparisons by node, as one partition knows them, and what a node comes to when it is completed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from evalgauge.core.clock import NEVER
from evalgauge.core.instruments.keyed_part import KeyedPart, surplus
from evalgauge.core.keys import parted
from evalgauge.core.keytable import KeyTable
from evalgauge.core.ordering import stable_order
from evalgauge.core.saaty import MOST, consistency_ratios, reciprocal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from evalgauge.core.clock import Clock
    from evalgauge.core.instruments.keyed_part import Span
    from evalgauge.core.instruments.keyed_rows import KeyedRows
    from evalgauge.core.keys import LocalKeys
    from evalgauge.core.series import SeriesIndex

COMPARISON, COMPLETE = 0, 1
"""Types of events."""
REASONS = ("missing", "large")
"""Why a completed node has no ratio: pairs are missing, or there is no random index for so many elements."""
SOURCES = ("given", "computed")
_MOST_PAIRS = MOST * (MOST - 1) // 2
"""With more pairs than these a node has more elements than `MOST`, so that no more need be kept."""


def _first(key: str) -> str:
    """The first of them."""
    length, _, rest = key.partition(":")
    return rest[: int(length)]


@dataclass(slots=True)
class Found:
    """What events came to; series are the partition's."""

    observed: list[tuple[int, float, int]] = field(default_factory=list)
    """Series, ratio, and place among `SOURCES`."""
    without: list[tuple[int, int]] = field(default_factory=list)
    """Series of each completed node that has no ratio, and place among `REASONS`."""
    repeated: list[int] = field(default_factory=list)
    """Series of each completion since the last of which nothing was compared."""
    matrices: dict[int, list[tuple[int, NDArray[np.float64]]]] = field(default_factory=dict)
    """By order: series and matrix of each node whose ratio is to be computed."""
    unobserved: int = 0
    """Completions whose given ratio cannot be one."""
    late: int = 0
    evicted: int = 0

    def compute(self) -> None:
        """Observe what is to be computed, all matrices of one order at once."""
        for some in self.matrices.values():
            ratios = consistency_ratios(np.stack([matrix for _, matrix in some])).tolist()
            for (series, _), ratio in zip(some, ratios, strict=True):
                if np.isfinite(ratio):
                    self.observed.append((series, ratio, SOURCES.index("computed")))
                else:  # values so far apart that no double holds the eigenvalue
                    self.unobserved += 1
        self.matrices = {}


class _Batch(NamedTuple):
    """Events (N,) with their nodes."""

    rows: KeyedRows
    keys: LocalKeys
    names: list[str]
    """Nodes."""
    node: NDArray[np.intp]
    """Which of them an event has, (N,)."""
    held: NDArray[np.intp]
    """Slot of each node, -1 where it is not held."""


class Judgements(KeyedPart):
    """The newest value of each pair of elements of each node.

    A node is forgotten, with its comparisons, when nothing has come of it for `retention`.
    """

    def __init__(
        self, hashes: tuple[str, str, str, str], most: int, retention: int, index: SeriesIndex, clock: Clock
    ) -> None:
        """`most` nodes, each for `retention` microseconds."""
        self._nodes = KeyTable(
            hashes[0], {"newest": ((), np.int64), "told": ((), np.bool_), "large": ((), np.bool_)}
        )
        self._pairs = KeyTable(
            hashes[1], {"value": ((), np.float64), "time": ((), np.int64), "node": ((), np.int64)}
        )
        super().__init__(hashes[2:], index, self._nodes, clock)
        self.tables = (*self.tables, self._pairs)
        self._most, self._retention = most, retention
        self._of: dict[int, list[int]] | None = None
        """Slot of a node → slots of its pairs; None until they are looked up."""
        self._compared: dict[int, tuple[str, str]] = {}
        """Slot of a pair → its two elements, once they were asked for."""

    def take(self, rows: KeyedRows, keys: LocalKeys, series: NDArray[np.intp]) -> Found:
        """Take events in; `series` (N,) of each."""
        found = Found()
        names, node = _nodes_of(rows, keys)
        first = 0
        for span in self.spans(rows, series):
            last = first + len(span.clock)
            self._take(span, keys, names, node[first:last], found)
            first = last
            if span.bound is not None and len(self._nodes) > self._most:
                self._forget(span.bound)
                held = self._nodes.held()
                gone = surplus(self._nodes, self._most, self._nodes.column("newest")[held], held)
                self._drop(gone)
                found.evicted += len(gone)
        found.compute()
        return found

    def settle(self) -> None:
        """Forget nodes of which nothing came for long."""
        self._forget(self.clock.now)

    def _forget(self, clock: int) -> None:
        held = self._nodes.held()
        self._drop(held[self._nodes.column("newest")[held] + self._retention <= clock])

    def _drop(self, nodes: NDArray[np.intp]) -> None:
        of = self._lists()
        pairs = [pair for node in nodes.tolist() for pair in of.pop(node)]
        for pair in pairs:
            self._compared.pop(pair, None)
        self._pairs.free(np.array(pairs, np.intp))
        self._nodes.free(nodes)

    def _lists(self) -> dict[int, list[int]]:
        if self._of is None:  # the tables are as they were saved
            self._of = {node: [] for node in self._nodes.held().tolist()}
            held = self._pairs.held()
            for pair, node in zip(held.tolist(), self._pairs.column("node")[held].tolist(), strict=True):
                self._of[node].append(pair)
        return self._of

    def _take(
        self, span: Span, keys: LocalKeys, names: list[str], node: NDArray[np.intp], found: Found
    ) -> None:
        rows = span.rows
        late = rows.times + self._retention <= span.clock
        found.late += int(np.count_nonzero(late))
        some = np.flatnonzero(~late)
        held = np.full(len(names), -1)
        mine = np.unique(node[some])
        held[mine] = self._nodes.find([names[one] for one in mine.tolist()])
        batch = _Batch(rows, keys, names, node, held)
        for gone, phase in self._phases(rows, span.clock, node, some, held):
            dropped = np.unique(held[node[gone]])
            self._drop(dropped[dropped >= 0])
            held[node[gone]] = -1
            completes = rows.types[phase] == COMPLETE
            self._note(batch, phase[~completes])
            self._complete(span, node, held, phase[completes], found)

    def _phases(
        self,
        rows: KeyedRows,
        clock: NDArray[np.int64],
        node: NDArray[np.intp],
        some: NDArray[np.intp],
        held: NDArray[np.intp],
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp]]]:
        """Events of `some`, as many at once as their nodes allow: up to the next completion of each, or until it is
        forgotten. First those whose node is forgotten before them, then all.

        There are as many phases as the node that is completed most often has completions: of a node's comparisons all
        go at once.
        """  # noqa: D205 - the first sentence is long
        order = some[stable_order(node[some])]
        if not len(order):
            return
        mine, times = node[order], rows.times[order]
        starts = np.flatnonzero(np.diff(mine, prepend=-1))
        group = np.repeat(np.arange(len(starts)), np.diff(starts, append=len(order)))
        slots = held[mine[starts]]
        newest = np.full(len(starts), NEVER)
        newest[slots >= 0] = self._nodes.column("newest")[slots[slots >= 0]]
        forgotten = np.zeros(len(order), np.bool_)
        least = np.minimum.reduceat(times, starts)
        least = np.where(newest > NEVER, np.minimum(least, newest), least)
        latest = np.maximum.reduceat(clock[order], starts)
        ends = np.append(starts[1:], len(order))
        for one in np.flatnonzero(latest >= least + self._retention).tolist():
            span = slice(int(starts[one]), int(ends[one]))
            compares = rows.types[order[span]] == COMPARISON
            forgotten[span] = self._forgets(int(newest[one]), times[span], clock[order[span]], compares)
        begins = forgotten.copy()
        begins[1:] |= rows.types[order[:-1]] == COMPLETE
        begins[starts] = forgotten[starts]
        count = np.cumsum(begins)
        number: NDArray[np.intp] = count - (count - begins)[starts][group]
        by_number = stable_order(number)
        first = 0
        for last in np.cumsum(np.bincount(number)).tolist():
            turn = by_number[first:last]
            yield order[turn[forgotten[turn]]], np.sort(order[turn])
            first = last

    def _forgets(
        self,
        newest: int,
        times: NDArray[np.int64],
        clock: NDArray[np.int64],
        compares: NDArray[np.bool_],
    ) -> list[bool]:
        """Before which events (n,) of a node it is forgotten; a completion makes no node, and so keeps none."""
        found = []
        for time, now, comparison in zip(times.tolist(), clock.tolist(), compares.tolist(), strict=True):
            gone = newest > NEVER and newest + self._retention <= now
            newest = NEVER if gone else newest
            if comparison or newest > NEVER:
                newest = max(newest, time)
            found.append(gone)
        return found

    def _note(self, batch: _Batch, some: NDArray[np.intp]) -> None:
        """Keep comparisons, each the newest of its pair."""
        rows, node, held = batch.rows, batch.node, batch.held
        if not len(some):
            return
        assert rows.values is not None  # noqa: S101 - for the type checker: the metric has a value
        of = self._lists()
        new = np.unique(node[some][held[node[some]] < 0])
        held[new] = self._nodes.give([batch.names[one] for one in new.tolist()])
        self._nodes.column("newest")[held[new]] = NEVER
        of.update((slot, []) for slot in held[new].tolist())
        nodes = held[node[some]]
        pairs = self._slots_of(batch, nodes, some)
        newest, told = self._nodes.column("newest"), self._nodes.column("told")
        np.maximum.at(newest, nodes, rows.times[some])
        self._nodes.touch(nodes)
        kept = pairs >= 0
        pairs, nodes, some = pairs[kept], nodes[kept], some[kept]
        value, time = self._pairs.column("value"), self._pairs.column("time")
        values, times = rows.values[some], rows.times[some]
        changes = (times > time[pairs]) | ((times == time[pairs]) & (values != value[pairs]))
        told[nodes[changes]] = False
        # Of each pair the newest, and of those of one time the last in the stream.
        order = np.lexsort((times, pairs))
        last = order[np.flatnonzero(np.diff(pairs[order], append=-1))]
        last = last[times[last] >= time[pairs[last]]]
        value[pairs[last]], time[pairs[last]] = values[last], times[last]
        self._pairs.touch(pairs[last])

    def _slots_of(self, batch: _Batch, nodes: NDArray[np.intp], some: NDArray[np.intp]) -> NDArray[np.intp]:
        """The slot of each event's pair, -1 where its node has too many to keep."""
        of, large = self._lists(), self._nodes.column("large")
        which, first, place = np.unique(batch.rows.key[some], return_index=True, return_inverse=True)
        keys = batch.keys.texts(which)
        slots = self._pairs.find(keys)
        new = np.flatnonzero(slots < 0)
        new = new[np.argsort(first[new])]  # those that come first in the stream are kept
        room: dict[int, int] = {}
        kept: list[int] = []
        for row, node in zip(new.tolist(), nodes[first[new]].tolist(), strict=True):
            left = room.get(node)
            left = _MOST_PAIRS - len(of[node]) if left is None else left
            if left > 0:
                kept.append(row)
            elif not large[node]:
                large[node] = True
                self._nodes.column("told")[node] = False
            room[node] = left - 1
        given, owners = self._pairs.give([keys[row] for row in kept]), nodes[first[kept]]
        slots[kept] = given
        self._pairs.column("time")[given], self._pairs.column("node")[given] = NEVER, owners
        for node, slot in zip(owners.tolist(), given.tolist(), strict=True):
            of[node].append(slot)
        return slots[place]

    def _complete(
        self,
        span: Span,
        node: NDArray[np.intp],
        held: NDArray[np.intp],
        some: NDArray[np.intp],
        found: Found,
    ) -> None:
        """Nodes that are completed, each once."""
        assert span.rows.values is not None  # noqa: S101 - for the type checker: the metric has a value
        newest, told = self._nodes.column("newest"), self._nodes.column("told")
        slots = held[node[some]]
        known = slots >= 0
        newest[slots[known]] = np.maximum(newest[slots[known]], span.rows.times[some[known]])
        repeated = known & told[slots] if len(told) else known
        told[slots[known]] = True
        self._nodes.touch(slots[known])
        found.repeated += span.series[some[repeated]].tolist()
        for slot, series, given in zip(
            slots[~repeated].tolist(),
            span.series[some[~repeated]].tolist(),
            span.rows.values[some[~repeated]].tolist(),
            strict=True,
        ):
            if np.isnan(given):
                self._judge(slot, series, found)
            elif 0 <= given < np.inf:
                found.observed.append((series, given, SOURCES.index("given")))
            else:
                found.unobserved += 1

    def _elements(self, pair: int) -> tuple[str, str]:
        found = self._compared.get(pair)
        if found is None:
            (key,) = self._pairs.keys(np.array([pair]))
            _, left, right = parted(str(key), 3)
            found = self._compared[pair] = left, right
        return found

    def _judge(self, slot: int, series: int, found: Found) -> None:
        """What the comparisons of a completed node come to; `slot` is -1 where there is none."""
        matrix, large = None, slot >= 0 and bool(self._nodes.column("large")[slot])
        if slot >= 0 and not large:
            pairs = np.array(self._lists()[slot], np.intp)
            values = self._pairs.column("value")[pairs].tolist()
            matrix = reciprocal(dict(zip(map(self._elements, pairs.tolist()), values, strict=True)))
        if large or (matrix is not None and len(matrix) > MOST):
            found.without.append((series, REASONS.index("large")))
        elif matrix is None:
            found.without.append((series, REASONS.index("missing")))
        else:
            found.matrices.setdefault(len(matrix), []).append((series, matrix))


def _nodes_of(rows: KeyedRows, local: LocalKeys) -> tuple[list[str], NDArray[np.intp]]:
    """Every node that events are of, and which of them each (N,) is of."""
    number: dict[str, int] = {}
    node = np.empty(len(rows.key), np.intp)
    for type_ in (COMPARISON, COMPLETE):
        mine = np.flatnonzero(rows.types == type_)
        which, place = np.unique(rows.key[mine], return_inverse=True)
        keys = local.texts(which)
        names = keys if type_ == COMPLETE else map(_first, keys)
        node[mine] = np.array([number.setdefault(name, len(number)) for name in names], np.intp)[place]
    return list(number), node

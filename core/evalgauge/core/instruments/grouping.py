"""Label sets of a batch: which series each event belongs to, for every instrument that has labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.calendar_time import NAMES, calendar_codes
from evalgauge.core.filters import mask
from evalgauge.core.keys import LocalKeys
from evalgauge.core.ordering import stable_order
from evalgauge.core.pack.names import is_bounded
from evalgauge.core.series import LabelRule, LocalIndex, SeriesIndex, Touched

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from evalgauge.core.columns import Columns
    from evalgauge.core.pack.event_model import EventSpec, LabelSpec
    from evalgauge.core.pack.metric_model import MetricSpec

T = TypeVar("T", bound=np.generic)

LINE_STEP = 1 << 16
"""Ordinals of two neighbouring lines differ by it, so that an event counted several times keeps its order."""
MANY_SERIES = 1 << 15
"""From so many series on the events of a delta fall into about as many series as there are events."""


@dataclass(frozen=True, slots=True)
class Groups:
    """The series a delta touched, and label sets never announced before."""

    slots: NDArray[np.intp]
    """Local slots (k,), in any order."""
    places: NDArray[np.int64]
    """Where in the stream each was first met, (k,): label sets are admitted in that order."""
    new: list[tuple[str, ...]]
    """Label values of the local slots that follow those announced so far."""
    skipped: int
    """Events that passed the filter but had no usable value."""
    keys: Sequence[list[str]] = ()
    """Keys of the numbers that follow those announced so far; metrics that go by several have a list for each."""


class Rows(NamedTuple):
    """Some events of a batch with the series each belongs to."""

    rows: NDArray[np.intp] | None
    """Their rows (N,) in the columns; None means all of them."""
    slots: NDArray[np.intp]
    """Local slots (N,); -1 where events of the type have no labels."""
    ordinals: NDArray[np.int64]
    """Places in the stream (N,)."""
    size: int
    """Local slots there are."""

    def of(self, column: NDArray[T]) -> NDArray[T]:
        """The same rows of a column."""
        return column if self.rows is None else column[self.rows]


class Grouper:
    """Events of a metric → local slots. Lives where batches are reduced; knows nothing of limits.

    Where `singly` is allowed, and as soon as a metric has more series than a delta has events, every event is passed
    on by itself: gathering by series would only walk through memory once more.
    """

    def __init__(self, spec: MetricSpec, *, singly: bool = False) -> None:
        self._labels = list(spec.labels.values())
        self._labelled = frozenset(spec.labelled)
        self._where = spec.where
        self._by_rule = any(label.quality == "rule" for label in self._labels)
        self._indexes: dict[str, LocalIndex] = {}
        self._size = 0
        self._new: list[tuple[str, ...]] = []
        self._touched = Touched()
        self._each: list[Rows] = []
        self._may_be_single = singly
        self.singly = False
        """Whether the delta being gathered holds every event by itself."""
        self.skipped = 0

    def rows(self, columns: Columns, usable: NDArray[np.bool_] | None = None) -> Iterator[Rows]:
        """The events that pass the filter, with their series; once, or once for each broken quality rule.

        Events that are not `usable` (n,) belong to no series; `skipped` counts them.
        """
        rows = None
        if self._where is not None:
            rows = np.flatnonzero(mask(self._where, columns))
        if usable is not None and not usable.all():
            seen = columns.n if rows is None else len(rows)
            rows = np.flatnonzero(usable) if rows is None else rows[usable[rows]]
            self.skipped += seen - len(rows)
        if not self._by_rule:
            yield self._group(columns, rows, None, 0)
            return
        for number, (rule, broken) in enumerate(columns.broken().items()):
            hit = np.flatnonzero(broken) if rows is None else rows[broken[rows]]
            if len(hit):
                yield self._group(columns, hit, rule, number)

    def _group(self, columns: Columns, rows: NDArray[np.intp] | None, rule: str | None, number: int) -> Rows:
        lines = columns.lines if rows is None else columns.lines[rows]
        count = len(lines)
        if columns.type not in self._labelled:
            return Rows(rows, np.full(count, -1, np.intp), lines * LINE_STEP, self._size)
        codes, sizes, texts = [], [], []
        for label in self._labels:
            column, names = self._codes(label, columns, rule, number)
            codes.append(column if rows is None else column[rows])
            sizes.append(len(names))
            texts.append(names)
        ordinals = lines * LINE_STEP + number
        if not count:
            return Rows(rows, np.empty(0, np.intp), ordinals, self._size)
        index = self._indexes.setdefault(columns.type, LocalIndex(max(len(codes), 1)))
        if not codes:
            codes, sizes = [np.zeros(count, np.intp)], [1]
        slots, births = index.slots(codes, sizes, self._size)
        self._size += len(births)
        for row in births:
            values = (
                label_text(label, names[column[row]])
                for label, names, column in zip(self._labels, texts, codes, strict=False)
            )
            self._new.append(tuple(values))
        found = Rows(rows, slots, ordinals, self._size)
        if self.singly:
            self._each.append(found)
        else:
            self._touched.mark(slots, ordinals, self._size)
        return found

    def _codes(
        self, label: LabelSpec, columns: Columns, rule: str | None, number: int
    ) -> tuple[NDArray[np.intp], Sequence[str | None]]:
        if label.field is not None:
            return columns.codes(label.field)
        if label.quality == "validity":
            broken = np.zeros(columns.n, np.bool_)
            for breaks in columns.broken().values():
                broken |= breaks
            return broken.astype(np.intp), ("valid", "invalid")
        if label.quality == "rule":
            names: list[str | None] = list(columns.reader.spec.quality)
            return np.full(columns.n, number, np.intp), names if rule is not None else [None]
        if label.calendar is not None:
            return calendar_codes(columns.times(), label.calendar, label.zone), NAMES[label.calendar]
        return np.zeros(columns.n, np.intp), (label.constant,)

    def take(self) -> Groups | None:
        """What was touched since the last call; None if nothing was."""
        if self.singly:
            slots = np.concatenate([np.empty(0, np.intp), *(rows.slots for rows in self._each)])
            places = np.concatenate([np.empty(0, np.int64), *(rows.ordinals for rows in self._each)])
            self._each = []
        else:
            slots, places = self._touched.take()
        new, self._new = self._new, []
        skipped, self.skipped = self.skipped, 0
        self.singly = self._may_be_single and self._size > MANY_SERIES
        return Groups(slots, places, new, skipped) if len(slots) or new or skipped else None


def label_text(label: LabelSpec, text: str | None) -> str:
    """What a label shows for the text of its field, None where it is absent."""
    if text is None:
        return label.default
    if label.table is not None:
        return label.table.get(text, text if label.table_default is None else label.table_default)
    return text


def series_index(spec: MetricSpec, types: Sequence[EventSpec]) -> SeriesIndex:
    """The index of a metric's series: labels from an enum, a constant, a table or quality are bounded."""
    rules = [LabelRule(name, label.limit, is_bounded(label, types)) for name, label in spec.labels.items()]
    return SeriesIndex(rules, spec.limit)


class LocalSlots:
    """Local slots of one reducer → slots of the state, resolved in stream order when first used."""

    def __init__(self, index: SeriesIndex | None) -> None:
        """Without an index label sets are only announced, for those `beside`."""
        self._index = index or SeriesIndex((), 0)
        self._slots = Growing((), np.int32, fill=-1)
        self._overflow = Growing((), np.bool_)
        self._announced: list[tuple[str, ...] | None] = []
        """By local slot; None once it is resolved and nobody else needs it."""
        self._shared = False

    def beside(self, index: SeriesIndex) -> LocalSlots:
        """The same local slots for another index; what is announced to either is known to both."""
        self._shared = True
        other = LocalSlots(index)
        other._announced, other._shared = self._announced, True
        return other

    def announce(self, new: Sequence[tuple[str, ...]]) -> None:
        """Label sets of the local slots that come next."""
        self._announced += new

    def resolve(self, groups: Groups) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Slots (k,) of the state for what a delta touched, and which of them (k,) a limit changed."""
        size = len(self._announced)
        slots, overflow = self._slots.reserve(size), self._overflow.reserve(size)
        local = groups.slots
        found = slots[local]
        unknown = np.flatnonzero(found < 0)
        if len(unknown):
            unknown = unknown[stable_order(groups.places[unknown])]
            for slot in dict.fromkeys(local[unknown].tolist()):
                labels = self._announced[slot]
                assert labels is not None  # noqa: S101 - for the type checker: a slot is resolved once
                slots[slot], overflow[slot] = self._index.resolve(labels)
                if not self._shared:
                    self._announced[slot] = None
            found = slots[local]
        return found.astype(np.intp), overflow[local]

    def of_rows(self, local: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
        """Slots (n,) of the state for local slots (n,), and which of them a limit changed; -1 where one is -1.

        `resolve` was called before for what they are of.
        """
        found = np.where(local < 0, -1, self._slots.data[local]).astype(np.intp)
        return found, (local >= 0) & self._overflow.data[local]

    def resolved(self, local: Sequence[int]) -> list[int]:
        """Slots of the state for local slots that a delta touched, once `resolve` was called for it."""
        found: list[int] = self._slots.data[np.array(local, np.intp)].tolist()
        return found


class Slots:
    """What the local slots and numbers of one metric in one reducer are, for one partition's events."""

    def __init__(self, announced: LocalSlots, part: SeriesIndex | None, keys: list[list[str]]) -> None:
        """`announced` are those of the replica, `part` the index of what is kept of the partition.

        `keys` are those announced for any partition.
        """
        self.replica = announced
        self._part = None if part is None else announced.beside(part)
        self._announced_keys = keys
        self._keys: list[LocalKeys] = []

    def announce(self, groups: Groups) -> None:
        """Label sets and keys of the local slots and numbers that come next."""
        self.replica.announce(groups.new)
        for place, keys in enumerate(groups.keys):
            self._numbered(place).extend(keys)

    def _numbered(self, place: int) -> list[str]:
        while len(self._announced_keys) <= place:
            self._announced_keys.append([])
        return self._announced_keys[place]

    @property
    def keys(self) -> LocalKeys:
        """The metric's keys."""
        return self.keys_of(0)

    def keys_of(self, place: int) -> LocalKeys:
        """Those of one of several things that the metric goes by."""
        while len(self._keys) <= place:
            self._keys.append(LocalKeys(self._numbered(len(self._keys))))
        return self._keys[place]

    @property
    def part(self) -> LocalSlots:
        """In what is kept of the partition."""
        assert self._part is not None  # noqa: S101 - against a fault of the caller: it keeps nothing of partitions
        return self._part

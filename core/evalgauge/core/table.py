"""State tables: what an instrument keeps for each series, live, as last committed, and as pages of a checkpoint."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import msgspec
import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.families import Exemplar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

    from evalgauge.core.series import SeriesIndex

PAGE_BITS = 8
PAGE = 1 << PAGE_BITS
"""Slots of one page: the unit that a checkpoint writes whole."""


_Extras = tuple[dict[int, str], list[tuple[int, int, str, str, float, float]], dict[int, tuple[str, str]]]


class PageKind(StrEnum):
    """What a page holds of its slots."""

    VALUES = "values"
    LABELS = "labels"
    BIRTHS = "births"
    """When each slot was created and born: written once, not with every change of a value."""
    EXTRAS = "extras"
    KEYS = "keys"
    """Which key each slot is given to."""


class Page(NamedTuple):
    """The absolute contents of one page, never an increment."""

    kind: PageKind
    number: int
    data: bytes


class StateTable(Protocol):
    """What the engine does with any table."""

    meaning: str

    def dirty(self) -> bool:
        """True where a commit would write something."""

    def pages(self, now: float, before: float) -> Iterator[Page]:
        """Every page that changed since the last `publish`; `now` is the commit's time, `before` lies before it."""

    def publish(self) -> None:
        """The pages are durable: show them. Called with the engine's lock held."""

    def load(self, pages: Iterable[Page]) -> None:
        """Take back the pages of a checkpoint, at start. Raises ValueError where they do not fit together."""


class Table:
    """Columns of one value (or row of values) per slot, with the label sets of the slots.

    `columns` maps a name to (shape of one slot's value, dtype). Only the engine's thread writes. `publish`
    copies what a commit made durable; `shown` is what exporters may read, under the engine's lock.
    """

    def __init__(
        self,
        meaning: str,
        index: SeriesIndex,
        columns: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
    ) -> None:
        self.meaning = meaning
        self.index = index
        self.live = {name: Growing(shape, dtype) for name, (shape, dtype) in columns.items()}
        self.shown = {name: Growing(shape, dtype) for name, (shape, dtype) in columns.items()}
        self.created = Growing((), np.float64, fill=np.nan)
        self.born = Growing((), np.float64, fill=np.nan)
        self.rows = 0
        """Slots that a commit has made durable and `shown` holds."""
        self.rare: dict[int, int] = {}
        self.exemplars: dict[tuple[int, int], Exemplar] = {}
        self.ties: dict[int, tuple[str, str]] = {}
        """Slot → (source, id) of the event that set it, to decide between events of one time."""
        self.shown_rare: dict[int, int] = {}
        self.shown_exemplars: dict[tuple[int, int], Exemplar] = {}
        self.shown_ties: dict[int, tuple[str, str]] = {}
        self._dirty = Growing((), np.bool_)
        """By page."""
        self._dirty_extras: set[int] = set()
        self._stale = Growing((), np.bool_, fill=1)
        self._pending: list[int] = []

    def column(self, name: str) -> NDArray[Any]:
        """The live column, with room for every slot of the index."""
        return self.live[name].reserve(len(self.index.series))

    def touch(self, slots: NDArray[np.intp]) -> None:
        """Say that the values of `slots` changed."""
        self._dirty.reserve(self._page_count())[slots >> PAGE_BITS] = True

    def touch_extras(self, slots: Iterable[int]) -> None:
        """Say that rare sums or exemplars of `slots` changed."""
        self._dirty_extras.update(slot >> PAGE_BITS for slot in slots)

    def dirty(self) -> bool:
        """True where a commit would write something."""
        return bool(self._dirty.data.any() or self._dirty_extras) or len(self.index.series) > self.rows

    def _page_count(self) -> int:
        return (len(self.index.series) + PAGE - 1) >> PAGE_BITS

    def pages(self, now: float, before: float) -> Iterator[Page]:
        """Every page that changed since the last `publish`. New slots are born `now`, created at `before`."""
        rows = len(self.index.series)
        born, created = self.born.reserve(rows), self.created.reserve(rows)
        if rows > self.rows:
            born[self.rows : rows] = now
            created[self.rows : rows] = before
            first = self.rows >> PAGE_BITS
            self._dirty.reserve(self._page_count())[first : self._page_count()] = True
            for number in range(first, self._page_count()):
                labels = self.index.series[number << PAGE_BITS : (number + 1) << PAGE_BITS]
                yield Page(PageKind.LABELS, number, msgspec.msgpack.encode(labels))
                yield Page(PageKind.BIRTHS, number, packed((created, born), number, rows))
        live = [column.reserve(rows) for column in self.live.values()]
        yield from value_pages(live, self._dirty.data, rows)
        for number in sorted(self._dirty_extras):
            yield Page(PageKind.EXTRAS, number, self._extras(number))

    def _extras(self, number: int) -> bytes:
        # Asked slot by slot: a look through all of them for each page would cost the square of the series.
        slots = range(number << PAGE_BITS, (number + 1) << PAGE_BITS)
        rare = {slot: str(self.rare[slot]) for slot in slots if slot in self.rare}
        width = max((growing.data[0].size for growing in self.live.values()), default=1)
        exemplars = [
            (slot, bucket, one.trace_id, one.span_id, one.value, one.time)
            for slot in slots
            for bucket in range(width if self.exemplars else 0)
            if (one := self.exemplars.get((slot, bucket))) is not None
        ]
        ties = {slot: self.ties[slot] for slot in slots if slot in self.ties}
        return msgspec.msgpack.encode((rare, exemplars, ties))

    def publish(self) -> None:
        """The pages are durable: show them. Call with the engine's lock held."""
        rows = len(self.index.series)
        stale = self._stale.reserve(rows)
        for first, last in runs(self._dirty.data):
            span = slice(first << PAGE_BITS, min(last << PAGE_BITS, rows))
            for name, live in self.live.items():
                shown = self.shown[name].reserve(rows)
                changed = shown[span] != live.data[span]
                stale[span] |= changed if changed.ndim == 1 else changed.any(axis=1)
                shown[span] = live.data[span]
        if self._dirty_extras:
            self.shown_rare = dict(self.rare)
            self.shown_exemplars = dict(self.exemplars)
            self.shown_ties = dict(self.ties)
            stale[list(self.rare)] = True
        self._dirty.data[:] = False
        self._dirty_extras.clear()
        self.rows = rows

    def take_stale(self) -> NDArray[np.intp]:
        """Shown slots whose values changed since the last call: what is derived from them must be made anew."""
        stale = self._stale.reserve(self.rows)[: self.rows]
        slots = np.flatnonzero(stale)
        stale[slots] = False
        return slots

    def load(self, pages: Iterable[Page]) -> None:
        """Take back the pages of a checkpoint, at start. Raises ValueError where they do not fit together."""
        held = sorted(pages, key=lambda page: (page.kind != PageKind.LABELS, page.number))
        for page in held:
            if page.kind is PageKind.LABELS:
                if page.number << PAGE_BITS != len(self.index.series):
                    msg = f"label page {page.number} does not follow {len(self.index.series)} series"
                    raise ValueError(msg)
                self.index.restore(msgspec.msgpack.decode(page.data, type=list[tuple[str, ...]]))
        rows = len(self.index.series)
        live = [column.reserve(rows) for column in self.live.values()]
        births = [self.created.reserve(rows), self.born.reserve(rows)]
        for page in held:
            if page.kind is PageKind.VALUES:
                unpack(page, live, rows)
            elif page.kind is PageKind.BIRTHS:
                unpack(page, births, rows)
            elif page.kind is PageKind.EXTRAS:
                rare, exemplars, ties = msgspec.msgpack.decode(page.data, type=_Extras)
                self.ties.update(ties)
                self.rare.update({slot: int(value) for slot, value in rare.items()})
                self.exemplars.update({(slot, bucket): Exemplar(*rest) for slot, bucket, *rest in exemplars})
                self._dirty_extras.add(page.number)
        self._dirty.reserve(self._page_count())[: self._page_count()] = True
        self.publish()


def runs(dirty: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """First and last plus one of each row of neighbouring dirty pages."""
    numbers = np.flatnonzero(dirty)
    if len(numbers):
        cuts = np.flatnonzero(np.diff(numbers) > 1)
        firsts, lasts = numbers[np.append(0, cuts + 1)], numbers[np.append(cuts, len(numbers) - 1)]
        yield from zip(firsts.tolist(), (lasts + 1).tolist(), strict=True)


def value_pages(arrays: Sequence[NDArray[Any]], dirty: NDArray[np.bool_], rows: int) -> Iterator[Page]:
    """The dirty pages of columns that have `rows` rows."""
    if not arrays:
        return
    for first, last in runs(dirty):
        whole = min(last, rows >> PAGE_BITS)
        if whole > first:
            for number, data in enumerate(packed_all(arrays, first, whole), first):
                yield Page(PageKind.VALUES, number, data.tobytes())
        if last > whole:
            yield Page(PageKind.VALUES, whole, packed(arrays, whole, rows))


def packed(arrays: Sequence[NDArray[Any]], number: int, rows: int) -> bytes:
    """One page of columns that have `rows` rows."""
    span = slice(number << PAGE_BITS, min((number + 1) << PAGE_BITS, rows))
    return b"".join(array[span].tobytes() for array in arrays)


def packed_all(arrays: Sequence[NDArray[Any]], first: int, last: int) -> NDArray[np.uint8]:
    """Pages `first` to `last` - 1, which are full: one row of bytes (last - first, bytes of a page) each."""
    span = slice(first << PAGE_BITS, last << PAGE_BITS)
    rows = [array[span].view(np.uint8).reshape(last - first, -1) for array in arrays]
    return rows[0] if len(rows) == 1 else np.concatenate(rows, axis=1)


def unpack(page: Page, arrays: Sequence[NDArray[Any]], rows: int) -> None:
    """Write one page back into its columns. Raises ValueError where it does not fit."""
    first = page.number << PAGE_BITS
    count = min(PAGE, rows - first)
    at = 0
    for array in arrays:
        size = array[first : first + count].nbytes
        found = np.frombuffer(page.data[at : at + size], array.dtype)
        array[first : first + count] = found.reshape(count, *array.shape[1:])
        at += size
    if at != len(page.data):
        msg = f"page {page.number} of {page.kind.value} has {len(page.data)} bytes, {at} expected"
        raise ValueError(msg)

"""State by number: what an instrument keeps for each cell of a grid, found for many at once, written as pages."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.table import PAGE, PAGE_BITS, Page, PageKind, unpack, value_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from numpy.typing import DTypeLike, NDArray

_FREE = int(np.iinfo(np.int64).min)
"""Stands in place of a code where a slot is free."""


class Folded(NamedTuple):
    """A column, and how two values of it become one."""

    dtype: DTypeLike
    fill: float
    """What a new slot holds: together with any value it gives that value."""
    by: np.ufunc


def each_once(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Every code of `codes` (n,) once, ascending.

    As `numpy.unique` does, which takes ten times as long where codes differ in their upper bits: it hashes them.
    """
    ordered = np.sort(codes)
    found: NDArray[np.int64] = ordered[np.diff(ordered, prepend=_FREE) != 0]
    return found


class CodeTable:
    """Columns of one value per code, a whole number (int64) above the least there is. Belongs to the engine's thread.

    Codes are found by binary search for all events at once, so that no code costs work of its own in Python. A code has
    a slot while it is held; slots that were freed first are given first. `rare` holds what sums have outside the window
    of `exact`, by slot.
    """

    def __init__(
        self, meaning: str, columns: Mapping[str, Folded], published: Callable[[], None] = lambda: None
    ) -> None:
        """`published` makes anew what is shown."""
        self.meaning = meaning
        self._folded = columns
        self._code = Growing((), np.int64, fill=_FREE)
        self._columns = {name: Growing((), one.dtype, one.fill) for name, one in columns.items()}
        self._published = published
        self._rows = 0
        """Slots there are: always whole pages."""
        self._free = np.empty(0, np.intp)
        self.codes = np.empty(0, np.int64)
        """Those that are held, ascending."""
        self.slots = np.empty(0, np.intp)
        """The slot of each of `codes`."""
        self.rare: dict[int, int] = {}
        self._dirty = Growing((), np.bool_)
        """By page."""
        self._dirty_extras: set[int] = set()

    def column(self, name: str) -> NDArray[Any]:
        """A column with room for every slot."""
        return self._columns[name].reserve(self._rows)

    def places(self) -> int:
        """Slots there are, free ones among them."""
        return self._rows

    def _find(self, codes: NDArray[np.int64]) -> NDArray[np.intp]:
        if not len(self.codes):
            return np.full(len(codes), -1, np.intp)
        at = np.minimum(np.searchsorted(self.codes, codes), len(self.codes) - 1)
        return np.where(self.codes[at] == codes, self.slots[at], -1)

    def give(self, codes: NDArray[np.int64]) -> NDArray[np.intp]:
        """The slot (n,) of each code (n,), a new one where it is not held; codes may repeat."""
        found = self._find(codes)
        if len(found) and found.min() < 0:
            new = each_once(codes[found < 0])
            slots = self._allot(len(new))
            self._code.data[slots] = new
            self.touch(slots)
            at = np.searchsorted(self.codes, new)
            self.codes = np.insert(self.codes, at, new)
            self.slots = np.insert(self.slots, at, slots)
            found = self._find(codes)
        return found

    def _allot(self, count: int) -> NDArray[np.intp]:
        if count > len(self._free):
            rows = self._rows + -(-(count - len(self._free)) // PAGE) * PAGE
            self._free = np.append(self._free, np.arange(self._rows, rows))
            self._reserve(rows)
        slots, self._free = self._free[:count], self._free[count:]
        return slots

    def _reserve(self, rows: int) -> None:
        self._rows = rows
        for column in (self._code, *self._columns.values()):
            column.reserve(rows)
        self._dirty.reserve(rows >> PAGE_BITS)

    def free(self, slots: NDArray[np.intp]) -> None:
        """Let the codes of these slots go."""
        if not len(slots):
            return
        gone = self.marked(slots)
        held = ~gone[self.slots]
        self.codes, self.slots = self.codes[held], self.slots[held]
        self._code.data[slots] = _FREE
        for name, column in self._columns.items():
            column.data[slots] = self._folded[name].fill
        for slot in [slot for slot in self.rare if gone[slot]]:
            del self.rare[slot]
            self.touch_extras((slot,))
        self._free = np.append(self._free, np.sort(slots))
        self.touch(slots)

    def marked(self, slots: NDArray[np.intp]) -> NDArray[np.bool_]:
        """Of every slot there is, whether it is one of `slots`."""
        found = np.zeros(self._rows, np.bool_)
        found[slots] = True
        return found

    def fold(self, slots: NDArray[np.intp], codes: NDArray[np.int64]) -> NDArray[np.intp]:
        """Let the values of `slots` (n,) become part of those of `codes` (n,), whose slots (n,) are returned."""
        into = self.give(codes)
        for name, one in self._folded.items():
            column = self.column(name)
            one.by.at(column, into, column[slots])
        if self.rare:
            for old, new in zip(slots.tolist(), into.tolist(), strict=True):
                if old in self.rare:
                    self.rare[new] = self.rare.get(new, 0) + self.rare[old]
                    self.touch_extras((new,))
        self.touch(into)
        self.free(slots)
        return into

    def touch(self, slots: NDArray[np.intp]) -> None:
        """Say that values of `slots` changed."""
        self._dirty.data[slots >> PAGE_BITS] = True

    def touch_extras(self, slots: Iterable[int]) -> None:
        """Say that rare sums of `slots` changed."""
        self._dirty_extras.update(slot >> PAGE_BITS for slot in slots)

    def dirty(self) -> bool:
        """True where a commit would write something."""
        return bool(self._dirty.data.any() or self._dirty_extras)

    def pages(self, now: float, before: float) -> Iterator[Page]:
        """Every page that changed since the last `publish`."""
        del now, before  # codes have no birth that is shown
        arrays = [self._code.data, *(column.data for column in self._columns.values())]
        yield from value_pages(arrays, self._dirty.data, self._rows)
        for number in sorted(self._dirty_extras):
            slots = range(number << PAGE_BITS, (number + 1) << PAGE_BITS)
            rare = {slot: str(self.rare[slot]) for slot in slots if slot in self.rare}
            yield Page(PageKind.EXTRAS, number, msgspec.msgpack.encode(rare))

    def publish(self) -> None:
        """The pages are durable: show them. Call with the engine's lock held."""
        self._dirty.data[:] = False
        self._dirty_extras.clear()
        self._published()

    def load(self, pages: Iterable[Page]) -> None:
        """Take back the pages of a checkpoint, at start. Raises ValueError where they do not fit together."""
        held = list(pages)
        self._reserve(max((page.number + 1 << PAGE_BITS for page in held), default=0))
        arrays = [self._code.data, *(column.data for column in self._columns.values())]
        for page in held:
            if page.kind is PageKind.VALUES:
                unpack(page, arrays, self._rows)
            elif page.kind is PageKind.EXTRAS:
                rare = msgspec.msgpack.decode(page.data, type=dict[int, str])
                self.rare.update({slot: int(value) for slot, value in rare.items()})
        code = self._code.data[: self._rows]
        used = np.flatnonzero(code != _FREE)
        self.slots = used[np.argsort(code[used], kind="stable")]
        self.codes = code[self.slots]
        self._free = np.flatnonzero(code == _FREE)
        self.publish()

"""State by key: what an instrument keeps for each question, session or evaluator, and writes as pages that changed."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.table import PAGE, PAGE_BITS, Page, PageKind, unpack, value_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from numpy.typing import DTypeLike, NDArray

_Keys = list[str | None]


class KeyTable:
    """Columns of one value (or row of values) per key. Belongs to the engine's thread.

    A key has a slot while it is held. A slot that was freed is given to another key, those first that were freed first:
    keys that come together, and so go together, stay together in pages, and a commit writes few of them.
    """

    def __init__(
        self,
        meaning: str,
        columns: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
        published: Callable[[], None] = lambda: None,
    ) -> None:
        """`columns` maps a name to (shape of one key's value, dtype); `published` makes anew what is shown of them."""
        self.meaning = meaning
        self._columns = {name: Growing(shape, dtype) for name, (shape, dtype) in columns.items()}
        self._published = published
        self._slots: dict[str, int] = {}
        self._keys: _Keys = []
        """By slot; None where it is free."""
        self._used = Growing((), np.bool_)
        """By slot."""
        self._serials = Growing((), np.int64)
        """By slot: how often it was freed."""
        self._free: deque[int] = deque()
        self._dirty = Growing((), np.bool_)
        """By page."""
        self._dirty_keys: set[int] = set()

    def __len__(self) -> int:
        """Keys held."""
        return len(self._slots)

    def column(self, name: str) -> NDArray[Any]:
        """A column with room for every slot; those that are free hold zeros."""
        return self._columns[name].reserve(len(self._keys))

    def find(self, keys: Iterable[str]) -> NDArray[np.intp]:
        """The slot of each key, -1 where it is not held."""
        get = self._slots.get
        return np.array([get(key, -1) for key in keys], np.intp)

    def give(self, keys: Iterable[str]) -> NDArray[np.intp]:
        """The slot of each key, a new one of zeros where it is not held."""
        found, new = [], []
        for key in keys:
            slot = self._slots.get(key)
            if slot is None:
                slot = self._slots[key] = self._new(key)
                new.append(slot)
            found.append(slot)
        if new:
            slots = np.array(new, np.intp)
            self._used.reserve(len(self._keys))[slots] = True
            self._mark_keys(slots)
        return np.array(found, np.intp)

    def _new(self, key: str) -> int:
        if self._free:
            slot = self._free.popleft()
            self._keys[slot] = key
        else:
            slot = len(self._keys)
            self._keys.append(key)
        return slot

    def serials(self, slots: NDArray[np.intp]) -> NDArray[np.int64]:
        """How often each slot (n,) was freed: a slot found before is still its key's where that is as it was."""
        found: NDArray[np.int64] = self._serials.reserve(len(self._keys))[slots]
        return found

    def free(self, slots: NDArray[np.intp]) -> None:
        """Let the keys of these slots go."""
        if not len(slots):
            return
        self._serials.reserve(len(self._keys))[slots] += 1
        for column in self._columns.values():
            column.data[slots] = 0
        self._used.data[slots] = False
        for slot in slots.tolist():
            key = self._keys[slot]
            assert key is not None  # noqa: S101 - against a fault of the caller: a slot is freed once
            del self._slots[key]
            self._keys[slot] = None
            self._free.append(slot)
        self._mark_keys(slots)

    def _mark_keys(self, slots: NDArray[np.intp]) -> None:
        numbers = np.unique(slots >> PAGE_BITS)
        self._dirty_keys.update(numbers.tolist())
        self._dirty.reserve(self._page_count())[numbers] = True

    def held(self) -> NDArray[np.intp]:
        """The slots of all keys, ascending."""
        return np.flatnonzero(self._used.data[: len(self._keys)])

    def keys(self, slots: NDArray[np.intp]) -> list[str | None]:
        """The keys of slots."""
        return [self._keys[slot] for slot in slots.tolist()]

    def touch(self, slots: NDArray[np.intp]) -> None:
        """Say that values of `slots` changed."""
        self._dirty.reserve(self._page_count())[slots >> PAGE_BITS] = True

    def _page_count(self) -> int:
        return (len(self._keys) + PAGE - 1) >> PAGE_BITS

    def dirty(self) -> bool:
        """True where a commit would write something."""
        return bool(self._dirty.data.any())

    def pages(self, now: float, before: float) -> Iterator[Page]:
        """Every page that changed since the last `publish`."""
        del now, before  # keys have no birth that is shown
        rows = len(self._keys)
        for number in sorted(self._dirty_keys):
            keys = self._keys[number << PAGE_BITS : (number + 1) << PAGE_BITS]
            yield Page(PageKind.KEYS, number, msgspec.msgpack.encode(keys))
        yield from value_pages(
            [column.reserve(rows) for column in self._columns.values()], self._dirty.data, rows
        )

    def publish(self) -> None:
        """The pages are durable: show them. Call with the engine's lock held."""
        self._dirty.data[:] = False
        self._dirty_keys.clear()
        self._published()

    def load(self, pages: Iterable[Page]) -> None:
        """Take back the pages of a checkpoint, at start. Raises ValueError where they do not fit together."""
        held = sorted(pages, key=lambda page: (page.kind != PageKind.KEYS, page.number))
        for page in held:
            if page.kind is PageKind.KEYS:
                if page.number << PAGE_BITS != len(self._keys):
                    msg = f"key page {page.number} does not follow {len(self._keys)} slots"
                    raise ValueError(msg)
                self._keys += msgspec.msgpack.decode(page.data, type=_Keys)
        rows = len(self._keys)
        columns: Sequence[NDArray[Any]] = [column.reserve(rows) for column in self._columns.values()]
        for page in held:
            if page.kind is PageKind.VALUES:
                unpack(page, columns, rows)
        self._slots = {key: slot for slot, key in enumerate(self._keys) if key is not None}
        self._free = deque(slot for slot, key in enumerate(self._keys) if key is None)
        self._used.reserve(rows)[:rows] = [key is not None for key in self._keys]
        self.publish()

"""The last points of each key, in blocks: a commit writes the few blocks that new points fell into."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from evalgauge.core.arrays import Growing
from evalgauge.core.table import PAGE, PAGE_BITS, Page, PageKind, unpack, value_pages

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from numpy.typing import NDArray

BLOCK = 4
"""Points of a key that are written together."""


class Points:
    """Rings of `most` points by slot of a table of keys, which says how many points each key has had.

    Points of a key that has had few take little memory: a block is there only up to the last slot that came to it.
    A slot that is given to another key is begun anew by its first point; what it still holds is never looked at.
    """

    def __init__(self, meaning: str, most: int) -> None:
        self.meaning = meaning
        self._most = most
        self._blocks = -(-most // BLOCK)
        self._times = [Growing((BLOCK,), np.int64) for _ in range(self._blocks)]
        self._progress = [Growing((BLOCK,), np.int32) for _ in range(self._blocks)]
        self._dirty = [Growing((), np.bool_) for _ in range(self._blocks)]
        """Of each block, by page."""
        self._rows = [0] * self._blocks
        """Of each block, slots there is something for; whole pages."""

    def write(
        self,
        slots: NDArray[np.intp],
        numbers: NDArray[np.int64],
        times: NDArray[np.int64],
        progress: NDArray[np.int64],
    ) -> None:
        """Write points (n,), the `numbers`-th of their keys from 0 on; no two of them in one place."""
        place = numbers % self._most
        for block in np.unique(place // BLOCK).tolist():
            some = np.flatnonzero(place // BLOCK == block)
            at, column = slots[some], place[some] % BLOCK
            rows = max(self._rows[block], ((int(at.max()) >> PAGE_BITS) + 1) << PAGE_BITS)
            self._rows[block] = rows
            self._times[block].reserve(rows)[at, column] = times[some]
            self._progress[block].reserve(rows)[at, column] = progress[some]
            self._dirty[block].reserve(rows >> PAGE_BITS)[at >> PAGE_BITS] = True

    def last_time(self, slots: NDArray[np.intp], counts: NDArray[np.int64]) -> NDArray[np.int64]:
        """Time (n,) of the newest point of keys that have had `counts` (n,), above 0."""
        place = (counts - 1) % self._most
        found = np.empty(len(slots), np.int64)
        for block in np.unique(place // BLOCK).tolist():
            some = np.flatnonzero(place // BLOCK == block)
            found[some] = self._times[block].data[slots[some], place[some] % BLOCK]
        return found

    def read(
        self, slots: NDArray[np.intp], counts: NDArray[np.int64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Times (n, w) and progress (n, w) of the points held, oldest first, and how many they are (n,)."""
        held = np.minimum(counts, self._most)
        width = int(held.max(initial=0))
        place = ((counts - held)[:, np.newaxis] + np.arange(width)) % self._most
        blocks = range(-(-width // BLOCK))
        last = int(slots.max(initial=0)) + 1
        times = [self._times[block].reserve(last)[slots] for block in blocks]
        progress = [self._progress[block].reserve(last)[slots] for block in blocks]
        if not width:
            return np.zeros((len(slots), 0), np.int64), np.zeros((len(slots), 0), np.int64), held
        # Where a key has fewer points than others its places go beyond what is there; they are not looked at.
        place = np.where(np.arange(width) < held[:, np.newaxis], place, 0)
        return (
            np.take_along_axis(np.concatenate(times, axis=1), place, axis=1),
            np.take_along_axis(np.concatenate(progress, axis=1), place, axis=1).astype(np.int64),
            held,
        )

    def dirty(self) -> bool:
        """True where a commit would write something."""
        return any(dirty.data.any() for dirty in self._dirty)

    def pages(self, now: float, before: float) -> Iterator[Page]:
        """Every page that changed since the last `publish`; the pages of all blocks are numbered in turn."""
        del now, before
        for block, dirty in enumerate(self._dirty):
            rows = self._rows[block]
            arrays = [self._times[block].reserve(rows), self._progress[block].reserve(rows)]
            for page in value_pages(arrays, dirty.data, rows):
                yield page._replace(number=page.number * self._blocks + block)

    def publish(self) -> None:
        """The pages are durable."""
        for dirty in self._dirty:
            dirty.data[:] = False

    def load(self, pages: Iterable[Page]) -> None:
        """Take back the pages of a checkpoint, at start. Raises ValueError where they do not fit together."""
        for page in pages:
            if page.kind is not PageKind.VALUES:
                msg = f"points have no page of {page.kind.value}"
                raise ValueError(msg)
            number, block = divmod(page.number, self._blocks)
            rows = self._rows[block] = max(self._rows[block], (number + 1) * PAGE)
            arrays = [self._times[block].reserve(rows), self._progress[block].reserve(rows)]
            unpack(page._replace(number=number), arrays, rows)

"""The queue between inputs and the engine: bounded in bytes, so that a slow engine holds its inputs back."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

from evalgauge.core.collect import FileRange, Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from evalgauge.core.collect import Chunk


class Item(NamedTuple):
    """A chunk with the input it came from."""

    input: str
    chunk: Chunk
    size: int


class Intake:
    """Chunks in the order they came, whichever input brought them."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0
        """Bytes waiting; ranges of files count with their length, though they are not read yet."""
        self._items: deque[Item] = deque()
        self._closed = False
        self._changed = threading.Condition()

    def put(self, name: str, chunk: Chunk, held_back: Callable[[float], None]) -> None:
        """Add a chunk, waiting for room; `held_back` is told the seconds that took. Raises `Stopped`."""
        size = _size(chunk)
        with self._changed:
            started = None
            while chunk.release is None and not self._closed and self.used and self.used + size > self.limit:
                started = started or time.monotonic()
                self._changed.wait(1.0)
            if started is not None:
                held_back(time.monotonic() - started)
            self._add(name, chunk, size)

    def offer(self, name: str, chunk: Chunk) -> bool:
        """Add a chunk if there is room. Raises `Stopped`."""
        size = _size(chunk)
        with self._changed:
            if chunk.release is None and not self._closed and self.used and self.used + size > self.limit:
                return False
            self._add(name, chunk, size)
            return True

    def _add(self, name: str, chunk: Chunk, size: int) -> None:
        if self._closed:
            raise Stopped
        if chunk.release is None:
            self._items.append(Item(name, chunk, size))
        else:
            # What waits of the partition would come after its end.
            kept = [one for one in self._items if (one.input, one.chunk.partition) != (name, chunk.partition)]
            self.used -= sum(one.size for one in self._items) - sum(one.size for one in kept)
            self._items = deque([Item(name, chunk, size), *kept])
        self.used += size
        self._changed.notify_all()

    def get(self, timeout: float) -> Item | None:
        """The oldest chunk, None if there is none in time or somebody called `wake`."""
        with self._changed:
            if not self._items and timeout > 0:
                self._changed.wait(timeout)
            if not self._items:
                return None
            item = self._items.popleft()
            self.used -= item.size
            self._changed.notify_all()
            return item

    def more(self, like: Item, limit: int) -> list[Chunk]:
        """Chunks that follow at once and can be worked on with a pushed chunk as one, up to `limit` bytes in all."""
        found: list[Chunk] = []
        if like.chunk.acknowledge is None:
            return found
        total = like.size
        with self._changed:
            while self._items:
                name, chunk, size = self._items[0]
                alike = (
                    name == like.input and chunk.tenant == like.chunk.tenant and chunk.acknowledge is not None
                )
                if not alike or total + size > limit:
                    break
                self._items.popleft()
                self.used -= size
                total += size
                found.append(chunk)
            if found:
                self._changed.notify_all()
        return found

    def wake(self) -> None:
        """Let a waiting `get` return."""
        with self._changed:
            self._changed.notify_all()

    def close(self) -> None:
        """Take no more; what is in the queue can still be had."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __len__(self) -> int:
        """Chunks waiting."""
        return len(self._items)


def _size(chunk: Chunk) -> int:
    return chunk.body.length if isinstance(chunk.body, FileRange) else len(chunk.body)

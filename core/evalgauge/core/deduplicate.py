"""De-duplication: which events were accepted before, within a number of ids and a time."""

from __future__ import annotations

import itertools
from collections import deque
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

DIGEST = 16
"""Bytes of a digest."""


class Window(NamedTuple):
    """How far back repeats are recognised: the last `ids` accepted ids, none older than `age` seconds."""

    ids: int = 1_000_000
    age: float = 86_400.0


class Deduplicator:
    """Digests of accepted events, about 120 bytes of memory each.

    An id is a repeat exactly if it is among the last `ids` that were accepted, whatever the batches were, and if
    the batch that brought it is not older than `age`.
    """

    def __init__(self, window: Window) -> None:
        self._window = window
        self._seen: set[bytes] = set()
        self._order: deque[tuple[float, list[bytes]]] = deque()
        self._gone = 0
        """Digests of the oldest batch that were evicted by number already."""
        self._fresh: list[bytes] = []

    def __len__(self) -> int:
        """Ids remembered."""
        return len(self._seen)

    @property
    def window(self) -> Window:
        """The window it was made with."""
        return self._window

    def restore(self, batches: Iterable[tuple[float, bytes]]) -> None:
        """Take back what a store held, oldest first."""
        # An id that left the window and came again is held twice: only its newest place counts.
        kept: list[tuple[float, list[bytes]]] = []
        for time, data in reversed(list(batches)):
            newest = dict.fromkeys(reversed(cut(data)))
            digests = [digest for digest in newest if digest not in self._seen]
            self._seen.update(digests)
            kept.append((time, digests[::-1]))
        self._seen.clear()
        for time, digests in reversed(kept):
            self.accept(time, digests)
        self._fresh.clear()

    def repeats(self, digests: list[bytes], now: float) -> list[int]:
        """Indexes of the digests that are repeats, of earlier events or of one before them in the same list."""
        self.expire(now)
        known = self._seen
        if len(set(digests)) == len(digests) and known.isdisjoint(digests):
            return []
        # The window moves on while the list is read: each accepted id may push the oldest one out.
        room = self._window.ids - len(known)
        here: set[bytes] = set()
        accepted: list[bytes] = []
        oldest = itertools.chain(self._held(), accepted)
        evicted: set[bytes] = set()
        found = []
        for index, digest in enumerate(digests):
            if digest in here or (digest in known and digest not in evicted):
                found.append(index)
                continue
            here.add(digest)
            accepted.append(digest)
            if room > 0:
                room -= 1
            else:
                leaving = next(oldest)
                here.discard(leaving)
                evicted.add(leaving)
        return found

    def _held(self) -> Iterator[bytes]:
        for number, (_, batch) in enumerate(self._order):
            yield from batch[0 if number else self._gone :]

    def accept(self, time: float, digests: list[bytes]) -> None:
        """Remember digests that are no repeats."""
        if not digests:
            return
        self._fresh += digests
        excess = len(self._seen) + len(digests) - self._window.ids
        while excess > 0 and self._order:
            oldest = self._order[0][1]
            leaving = oldest[self._gone : self._gone + excess]
            self._seen.difference_update(leaving)
            excess -= len(leaving)
            self._gone += len(leaving)
            if self._gone == len(oldest):
                self._order.popleft()
                self._gone = 0
        if excess > 0:
            digests = digests[excess:]
        self._order.append((time, digests))
        self._seen.update(digests)

    def expire(self, now: float) -> None:
        """Forget batches that are older than the window."""
        while self._order and self._order[0][0] < now - self._window.age:
            _, oldest = self._order.popleft()
            self._seen.difference_update(oldest[self._gone :])
            self._gone = 0

    def fresh(self) -> bytes:
        """Digests accepted since the last `committed`, for the store."""
        return b"".join(self._fresh)

    def committed(self) -> None:
        """What `fresh` gave is durable."""
        self._fresh.clear()


def cut(data: bytes) -> list[bytes]:
    """Bytes as digests."""
    return [data[at : at + DIGEST] for at in range(0, len(data), DIGEST)]

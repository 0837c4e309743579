"""What a request holds until it is answered: bytes of memory, chunks under way, a place to hear the verdict."""

from __future__ import annotations

import contextlib
from collections import deque
from typing import TYPE_CHECKING

from evalgauge.collectors.http_answer import unavailable
from evalgauge.core.collect import Verdict

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterator

_NOT_KNOWN = "No commit came in time"


class Acknowledgements:
    """Verdicts on their way from the engine's thread to the requests that wait for them.

    A commit acknowledges many chunks at once, and the event loop is woken once for all of them.
    """

    def __init__(self) -> None:
        self._arrived: deque[tuple[asyncio.Future[Verdict], Verdict]] = deque()
        self._awake = False

    def bridge(
        self, loop: asyncio.AbstractEventLoop, waiter: asyncio.Future[Verdict]
    ) -> Callable[[Verdict], None]:
        """Make the `acknowledge` of a chunk: sets `waiter`, from any thread."""

        def acknowledge(verdict: Verdict) -> None:
            self._arrived.append((waiter, verdict))
            if not self._awake:
                self._awake = True
                with contextlib.suppress(RuntimeError):  # the server has stopped; nobody waits any more
                    loop.call_soon_threadsafe(self._deliver)

        return acknowledge

    def _deliver(self) -> None:
        self._awake = False  # before the look: whoever comes after it wakes the loop again
        while self._arrived:
            waiter, verdict = self._arrived.popleft()
            if not waiter.done():
                waiter.set_result(verdict)


class Room:
    """Bytes that all requests together may hold, so that many large ones cannot fill the memory."""

    def __init__(self, limit: int, retry_after: float) -> None:
        self._limit = limit
        self._retry_after = retry_after
        self._used = 0

    def lease(self) -> Lease:
        """Begin a request that holds nothing yet."""
        return Lease(self)

    def change(self, held: int, wanted: int) -> None:
        """Let a request that holds `held` bytes hold `wanted`. Raises `Refused` (503) when others need them."""
        others = self._used - held
        if wanted > held and others and others + wanted > self._limit:
            detail = "Too many large requests are under way. Send the events again."
            raise unavailable("The server is busy", detail, self._retry_after)
        self._used = others + wanted


class Lease:
    """What one request holds of the room."""

    __slots__ = ("_held", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0

    def take(self, more: int) -> None:
        """Hold `more` bytes besides."""
        self.become(self._held + more)

    def become(self, wanted: int) -> None:
        """Hold `wanted` bytes in all."""
        self._room.change(self._held, wanted)
        self._held = wanted


def chunks_of(body: bytes, most: int) -> Iterator[tuple[int, bytes]]:
    """Cut lines into chunks of at most `most` bytes, each with the number of its first line.

    A single line that is longer stays whole: whether it is too large is for the engine to say.
    """
    first = start = 0
    while len(body) - start > most:
        cut = body.rfind(b"\n", start, start + most) + 1 or body.find(b"\n", start + most) + 1
        if not cut:
            break
        yield first, body[start:cut]
        first += body.count(b"\n", start, cut)
        start = cut
    if start < len(body):
        yield first, body[start:] if start else body


def locator(request_id: str, first: int) -> Callable[[int], str]:
    """Make the `locate` of a chunk whose first line is line `first` of its request."""
    return lambda line: f"request {request_id}, event {first + line}"


def give_up(waiters: list[asyncio.Future[Verdict]]) -> None:
    """Let nobody wait any longer for a commit that may come or not."""
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(Verdict(error=_NOT_KNOWN))

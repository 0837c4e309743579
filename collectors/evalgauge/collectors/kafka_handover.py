"""Between a poll loop and the engine: hands chunks over in order, without keeping the loop from polling."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from evalgauge.core.collect import Stopped

if TYPE_CHECKING:
    from collections.abc import Callable

    from evalgauge.core.collect import Chunk, Sink


class Handover:
    """A short queue before the sink. While the sink has room a chunk goes straight through, in the caller's thread.

    Only when it has none a thread of its own waits there, so that the wait is counted as back-pressure and the
    caller can go on polling. `put`, `wait` and `close` belong to one thread.
    """

    def __init__(self, sink: Sink, limit: int, name: str) -> None:
        self._sink = sink
        self._limit = limit
        self._name = name
        self._queue: deque[Chunk] = deque()
        self._size = 0
        """Bytes in the queue, the chunk that the thread is handing over included."""
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._stopped = False

    def put(self, chunk: Chunk) -> None:
        """Hand over, or queue behind what waits. Raises `Stopped` once the engine takes no more."""
        with self._changed:
            self._check()
            if chunk.release is not None:
                self._withdraw(chunk.partition)
            elif self._queue:
                self._add(chunk)
                return
        if not self._sink.offer(chunk):
            with self._changed:
                self._add(chunk)

    def _withdraw(self, partition: str) -> None:
        """Forget what waits of a partition; what the thread is handing over is waited for."""
        first = list(self._queue)[:1]
        kept = first + [one for one in list(self._queue)[1:] if one.partition != partition]
        self._size -= sum(map(_size, self._queue)) - sum(map(_size, kept))
        self._queue = deque(kept)
        self._changed.wait_for(
            lambda: self._stopped or not self._queue or self._queue[0].partition != partition
        )
        self._check()

    def _add(self, chunk: Chunk) -> None:
        self._queue.append(chunk)
        self._size += _size(chunk)
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"{self._name}-handover", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until there is room in the queue; False if there is none in time. Raises `Stopped`."""
        return self._wait_for(lambda: self._size < self._limit, timeout)

    def wait_empty(self, timeout: float) -> bool:
        """Wait until the sink has everything; False if it has not in time. Raises `Stopped`."""
        return self._wait_for(lambda: not self._queue, timeout)

    def _wait_for(self, what: Callable[[], bool], timeout: float) -> bool:
        with self._changed:
            found = self._changed.wait_for(lambda: self._stopped or what(), timeout)
            self._check()
            return found

    def close(self) -> None:
        """Forget what waits: it is read again from its position. Returns when the sink has let go of the thread."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _check(self) -> None:
        if self._stopped:
            raise Stopped

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._closed)
                if self._closed:
                    return
                chunk = self._queue[0]
            try:
                self._sink.put(chunk)
            except Stopped:
                with self._changed:
                    self._stopped = True
                    self._changed.notify_all()
                return
            with self._changed:
                self._queue.popleft()
                self._size -= _size(chunk)
                self._changed.notify_all()


def _size(chunk: Chunk) -> int:
    return len(chunk.body) if isinstance(chunk.body, bytes) else 0

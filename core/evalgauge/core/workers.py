"""Worker processes that reduce bulk input beside the engine, which stays the only owner of state.

Work goes out in stream order and comes back in stream order, so that one worker and many give the same result.
"""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections import deque
from typing import TYPE_CHECKING

from evalgauge.core.errors import EvalgaugeError
from evalgauge.core.memory import few_collections, keep_freed
from evalgauge.core.reduce import Reducer

if TYPE_CHECKING:
    from collections.abc import Mapping
    from multiprocessing.connection import Connection

    from evalgauge.core.collect import Chunk
    from evalgauge.core.reduce import Delta, Plan, Work

AHEAD = 2
"""Chunks each worker has before it: one it works on, one that waits."""


class WorkerFailedError(EvalgaugeError):
    """A worker process ended or could not do its work. Restart: everything goes on at the last commit."""


class WorkerPool:
    """Processes with one reducer for each input."""

    def __init__(self, plans: Mapping[str, Plan], count: int) -> None:
        context = multiprocessing.get_context("spawn")
        self._workers = [_Worker(context, dict(plans), number) for number in range(count)]
        for worker in self._workers:
            worker.ready()
        self._pending: deque[tuple[str, Chunk, int]] = deque()
        self._next = 0

    @property
    def full(self) -> bool:
        """Every worker has enough before it."""
        return len(self._pending) >= AHEAD * len(self._workers)

    def waits_for(self, name: str) -> bool:
        """Work of this input is under way."""
        return any(pending == name for pending, _, _ in self._pending)

    def __bool__(self) -> bool:
        """Work is under way."""
        return bool(self._pending)

    def submit(self, name: str, chunk: Chunk, work: Work) -> None:
        """Give a chunk to the next worker."""
        self._workers[self._next].send(name, work)
        self._pending.append((name, chunk, self._next))
        self._next = (self._next + 1) % len(self._workers)

    def next(self, timeout: float) -> tuple[str, Chunk, list[Delta], int] | None:
        """The oldest chunk with its deltas and its worker, None if it is not done in time.

        Raises `WorkerFailedError`, or `OSError` where the chunk's file could not be read.
        """
        if not self._pending:
            return None
        name, chunk, number = self._pending[0]
        try:
            result = self._workers[number].results.get(timeout=timeout)
        except queue.Empty:
            return None
        if isinstance(result, OSError):
            raise result
        if isinstance(result, BaseException):
            msg = f"worker {number} failed on {chunk.partition}: {result}"
            raise WorkerFailedError(msg) from result
        self._pending.popleft()
        return name, chunk, result, number

    def close(self) -> None:
        """End the processes; what they have not given back is worked on again after a restart."""
        for worker in self._workers:
            worker.close()


class _Worker:
    def __init__(
        self, context: multiprocessing.context.SpawnContext, plans: dict[str, Plan], number: int
    ) -> None:
        take, self._give = context.Pipe(duplex=False)
        self._take, give = context.Pipe(duplex=False)
        self._process = context.Process(
            target=_work, args=(plans, take, give), name=f"evalgauge-worker-{number}", daemon=True
        )
        self._process.start()
        take.close()
        give.close()
        self.results: queue.SimpleQueue[list[Delta] | BaseException] = queue.SimpleQueue()
        # Both sides may write much at once: somebody must always be reading.
        self._reader = threading.Thread(target=self._read, name=f"worker-{number}", daemon=True)
        self._reader.start()

    def ready(self) -> None:
        """Wait until the process has started. Raises `WorkerFailedError`."""
        first = self.results.get()
        if isinstance(first, BaseException):
            msg = f"a worker process does not start: {first}"
            raise WorkerFailedError(msg) from first

    def send(self, name: str, work: Work) -> None:
        try:
            self._give.send((name, work))
        except OSError:
            self.results.put(WorkerFailedError("the process is gone"))

    def _read(self) -> None:
        try:
            while True:
                self.results.put(self._take.recv())
        except (EOFError, OSError):
            self.results.put(WorkerFailedError("the process ended"))
        except Exception as error:  # what cannot be read must not be waited for  # noqa: BLE001 - a plug-in may raise anything
            self.results.put(error)

    def close(self) -> None:
        self._give.close()
        self._process.join(timeout=2)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()


def _work(plans: dict[str, Plan], take: Connection, give: Connection) -> None:
    """The worker process: reduce until the other end is closed."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    os.environ.pop("EVALGAUGE_FAILPOINT", None)
    give.send([])
    keep_freed()
    with few_collections():
        _reduce(plans, take, give)


def _reduce(plans: dict[str, Plan], take: Connection, give: Connection) -> None:
    reducers: dict[str, Reducer] = {}
    while True:
        try:
            name, work = take.recv()
        except EOFError:
            return
        reducer = reducers.get(name)
        if reducer is None:
            reducer = reducers[name] = Reducer(plans[name])
        try:
            give.send(reducer.reduce(work))
        except BrokenPipeError:
            return
        except OSError as error:
            give.send(error)
        except Exception as error:  # noqa: BLE001 - a plug-in may raise anything
            # Only its words: an exception of a plug-in may not be made to cross between processes.
            give.send(WorkerFailedError(f"{type(error).__name__}: {error}"))

"""A sink in memory that commits like the engine: what it has not committed is forgotten at a restart."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from evalgauge.collectors.file_lines import read_range
from evalgauge.core.collect import Chunk, Stopped, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable

    from evalgauge.core.collect import Position

DEADLINE = 60.0
"""Seconds after which something that should have happened did not."""


def wait_until(what: Callable[[], object], why: str = "it never came to pass") -> None:
    """Wait until `what()` is true; fails with `why` at the deadline."""
    end = time.monotonic() + DEADLINE
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.005)


class MemorySink:
    """Takes chunks in order. `positions` and `committed` outlive a restart, as the state folder does.

    With `room` set, at most so many chunks wait to be committed: the collector blocks, until `commit`.
    """

    def __init__(self, *, room: int | None = None, automatic: bool = True) -> None:
        self.positions: dict[str, Position] = {}
        self.committed: list[tuple[str, str, bytes]] = []
        """(partition, position in words, line without newline) of every committed line, in order."""
        self.chunks: list[Chunk] = []
        """Every chunk ever handed over."""
        self.fail_commits = 0
        """So many commits fail from now on: their chunks are told so, and nothing of them is kept."""
        self._automatic = automatic
        self._room = room
        self._pending: list[Chunk] = []
        self._changed = threading.Condition()
        self._stopped = False

    def put(self, chunk: Chunk) -> None:
        """Take a chunk, blocking while there is no room."""
        with self._changed:
            while self._room is not None and len(self._pending) >= self._room and not self._stopped:
                self._changed.wait()
            self._take(chunk)

    def offer(self, chunk: Chunk) -> bool:
        """Take a chunk if there is room."""
        with self._changed:
            if self._room is not None and len(self._pending) >= self._room:
                return False
            self._take(chunk)
            return True

    def _take(self, chunk: Chunk) -> None:
        if self._stopped:
            raise Stopped
        self.chunks.append(chunk)
        self._pending.append(chunk)
        if self._automatic:
            self._commit()

    def commit(self) -> int:
        """Make what has been taken durable, and acknowledge it; the number of lines committed so far."""
        with self._changed:
            self._commit()
        return len(self.lines())

    def _commit(self) -> None:
        chunks, self._pending = self._pending, []
        failed, self.fail_commits = self.fail_commits > 0, max(0, self.fail_commits - 1)
        for chunk in chunks:
            lines = chunk_lines(chunk)
            if not failed:
                self.committed += [(chunk.partition, where, line) for where, line in lines]
                if chunk.commit is not None:
                    self.positions[chunk.partition] = chunk.commit
            if chunk.acknowledge is not None:
                count = sum(1 for _, line in lines if line.strip())
                verdict = (
                    Verdict(error="the disk is full") if failed else Verdict(received=count, accepted=count)
                )
                chunk.acknowledge(verdict)
        self._changed.notify_all()

    def crash(self) -> None:
        """End as a killed engine does: what was not committed is gone, and no more is taken."""
        with self._changed:
            self._pending.clear()
            self._stopped = True
            self._changed.notify_all()

    def revive(self) -> None:
        """Take chunks again, after a restart."""
        self._stopped = False

    def lines(self, partition: str | None = None) -> list[bytes]:
        """Every committed line that is not blank, in order."""
        return [line for name, _, line in self.committed if line.strip() and partition in {None, name}]


def chunk_lines(chunk: Chunk) -> list[tuple[str, bytes]]:
    """The lines of a chunk as the engine sees them, each with its position in words."""
    body = chunk.body if isinstance(chunk.body, bytes) else read_range(chunk.body)
    lines = body.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return [(chunk.locate(index), line) for index, line in enumerate(lines)]

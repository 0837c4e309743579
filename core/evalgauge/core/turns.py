"""Threads that need the interpreter for long take turns, so that they do not fight for it."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 0.1
"""Seconds that anyone waits for a turn."""


class Turns:
    """One works while the others wait, for a while.

    The interpreter runs one thread at a time whatever we do, but changes between two that want it some 200 times a
    second, which costs both. Nothing depends on a turn but time: who waits too long goes on without, so that nobody is
    held up by somebody who always has work.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def turn(self) -> Iterator[None]:
        """Work, for much less time than anyone waits; nothing should be waited for meanwhile."""
        mine = self._lock.acquire(timeout=_PATIENCE)
        try:
            yield
        finally:
            if mine:
                self._lock.release()

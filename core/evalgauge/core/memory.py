"""When the interpreter looks for cyclic garbage while events flow."""

from __future__ import annotations

import contextlib
import gc
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_YOUNG = 20_000
"""Containers made and still held before the youngest are looked through; the interpreter's own figure is 700."""
_lock = threading.Lock()
_running = 0
_before = gc.get_threshold()


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """Look for garbage seldom, and never among what was there before; until the last of those who want it so ends.

    Events are no containers to the collector, but the lists that hold thousands of them are: each of its visits
    touches every event of a batch, and a thousand refusals among a hundred thousand events called for many visits,
    which took a third of the time.
    """
    global _before, _running  # noqa: PLW0603 - the collector is one for the whole process
    with _lock:
        _running += 1
        if _running == 1:
            _before = gc.get_threshold()
            gc.collect()
            gc.freeze()
            gc.set_threshold(_YOUNG, *_before[1:])
    try:
        yield
    finally:
        with _lock:
            _running -= 1
            if _running == 0:
                gc.set_threshold(*_before)
                gc.unfreeze()

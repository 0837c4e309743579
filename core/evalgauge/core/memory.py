"""Memory while events flow: when the interpreter looks for cyclic garbage, and what is given back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_YOUNG = 20_000
"""Containers made and still held before the youngest are looked through; the interpreter's own figure is 700."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Parameters of mallopt(3)."""
_KEPT = 64 << 20
"""Bytes that were freed and are kept to be used again; by default some hundred thousand."""
_APART = 8 << 20
"""Allocations from this size on are made apart, and given back at once."""
_lock = threading.Lock()
_running = 0
_before = gc.get_threshold()


def keep_freed() -> None:
    """Let the C library keep freed memory, for the rest of the process. Does nothing where it is not glibc.

    Each chunk takes and frees several blocks of hundreds of kilobytes. Given back to the system, every page of the
    next one must be made anew. One reader of Kafka took some hundredths less time without that; for a group the
    difference was lost in the noise.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _APART)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)


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

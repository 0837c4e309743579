"""When the interpreter looks for cyclic garbage while events flow."""

from __future__ import annotations

import contextlib
import gc
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_YOUNG = 20_000
"""Containers made and still held before the youngest are looked through; the interpreter's own figure is 700."""


@contextlib.contextmanager
def few_collections() -> Iterator[None]:
    """Look for garbage seldom, and never among what was there before.

    Events are no containers to the collector, but the lists that hold thousands of them are: each of its visits
    touches every event of a batch, and a thousand refusals among a hundred thousand events called for many visits,
    which took a third of the time.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()

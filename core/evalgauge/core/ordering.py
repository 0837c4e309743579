"""The order of whole numbers: what puts the events of a key, a series or a pair side by side."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_BITS = 63


def stable_order(numbers: NDArray[np.intp] | NDArray[np.int64]) -> NDArray[np.intp]:
    """Rows (n,) in ascending order of whole `numbers` (n,); of equal ones the first stays first.

    What `np.argsort(numbers, kind="stable")` gives, and sooner where they come in no order: NumPy compares two at a
    time unless they have 16 bits, or need not be stable. Numbers that are far apart are made different, each by its
    row as its last digits. Where they nearly are in order NumPy's own is better.
    """
    if not len(numbers):
        return np.empty(0, np.intp)
    low = int(numbers.min())
    spread = (int(numbers.max()) - low).bit_length()
    if spread <= np.iinfo(np.uint16).bits:
        return np.argsort((numbers - low).astype(np.uint16), kind="stable")
    row = (len(numbers) - 1).bit_length()
    if spread + row > _BITS:
        return np.argsort(numbers, kind="stable")
    placed = ((numbers.astype(np.int64) - low) << row) | np.arange(len(numbers))
    placed.sort()
    return (placed & ((1 << row) - 1)).astype(np.intp)


def ranks(numbers: NDArray[np.intp]) -> NDArray[np.int64]:
    """How many of the whole `numbers` (n,) before each are equal to it (n,)."""
    order = stable_order(numbers)
    equal = numbers[order]
    starts = np.concatenate(([0], np.flatnonzero(np.diff(equal)) + 1))
    found = np.empty(len(numbers), np.int64)
    found[order] = np.arange(len(numbers)) - np.repeat(starts, np.diff(starts, append=len(numbers)))
    return found

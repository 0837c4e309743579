"""Sums of doubles that do not depend on order: exact integers, rounded once when they are shown.

A sum is kept in units of 2**-69 as three int64 words, ``(top << 85) + (hi << 45) + lo``. A double x with
2**-17 <= |x| < 2**22 splits into ``hi`` (its multiple of 2**-24) and ``lo`` (the rest, a multiple of 2**-69)
without loss, because its last bit is worth at least 2**-69. Values outside that window (and rare they are) go to
Python integers in units of 2**-1074, the smallest double. The idea is that of a superaccumulator (R. Neal,
"Fast exact summation using small and large superaccumulators", 2015) with two limbs for the common range.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping
    from fractions import Fraction

    from numpy.typing import NDArray

SAFE_ADDS = 1 << 16
"""So many values may be added between two calls of `carry` before an int64 word could overflow."""

_LEAST, _MOST = 2.0**-17, 2.0**22
_HI_SCALE, _LO_SCALE = 2.0**24, 2.0**45
_LO_BITS, _HI_BITS = 45, 40
_LO_MASK, _HI_MASK = (1 << _LO_BITS) - 1, (1 << _HI_BITS) - 1
_UNIT_BITS = 69
_RARE_BITS = 1074

Rare = dict[int, int]
"""Slot → sum in units of 2**-1074 of the values outside the window."""


def add(
    hi: NDArray[np.int64],
    lo: NDArray[np.int64],
    rare: Rare,
    slots: NDArray[np.intp],
    values: NDArray[np.float64],
) -> None:
    """Add `values` (N,), finite, to the sums of `slots` (N,). Call `carry` at least every `SAFE_ADDS` values."""
    size = np.abs(values)
    inside = (size >= _LEAST) & (size < _MOST)
    if not inside.all():
        outside = ~inside & (values != 0.0)
        for slot, value in zip(slots[outside].tolist(), values[outside].tolist(), strict=True):
            numerator, denominator = value.as_integer_ratio()
            rare[slot] = rare.get(slot, 0) + (numerator << _RARE_BITS) // denominator
        slots, values = slots[inside], values[inside]
    scaled = values * _HI_SCALE
    whole = np.trunc(scaled)
    np.add.at(hi, slots, whole.astype(np.int64))
    np.add.at(lo, slots, ((scaled - whole) * _LO_SCALE).astype(np.int64))


def carry(
    top: NDArray[np.int64], hi: NDArray[np.int64], lo: NDArray[np.int64], slots: NDArray[np.intp]
) -> None:
    """Bring the words of `slots` back into their ranges: 0 <= lo < 2**45, 0 <= hi < 2**40. Slots may repeat."""
    low = lo[slots]
    high = hi[slots] + (low >> _LO_BITS)
    lo[slots] = low & _LO_MASK
    top[slots] += high >> _HI_BITS  # not `add.at`: the same slot twice must carry once
    hi[slots] = high & _HI_MASK


def rounded(top: int, hi: int, lo: int, rare: int, factor: Fraction) -> float:
    """The sum times `factor`, correctly rounded to the nearest double (one integer division)."""
    total = (((top << _HI_BITS) + hi) << _LO_BITS) + lo
    bits = _UNIT_BITS
    if rare:
        total = (total << (_RARE_BITS - _UNIT_BITS)) + rare
        bits = _RARE_BITS
    try:
        return (total * factor.numerator) / (factor.denominator << bits)
    except OverflowError:
        return float("inf") if total > 0 else float("-inf")


def rounded_all(  # noqa: PLR0913, PLR0917 - they belong together
    top: NDArray[np.int64],
    hi: NDArray[np.int64],
    lo: NDArray[np.int64],
    rare: Mapping[int, int],
    slots: NDArray[np.intp],
    factor: Fraction,
) -> list[float]:
    """`rounded` for each of `slots`."""
    words = zip(slots.tolist(), top[slots].tolist(), hi[slots].tolist(), lo[slots].tolist(), strict=True)
    return [rounded(t, h, low, rare.get(slot, 0), factor) for slot, t, h, low in words]

"""Quantiles of values that are counted in buckets of growing width: so that their relative error is bounded.

After C. Masson, J. E. Rim, H. K. Lee, "DDSketch: A fast and fully-mergeable quantile sketch with relative-error
guarantees" (Proc. VLDB Endowment 12, 2019, 2195 to 2205). Buckets are the same for all sketches and counts are whole
numbers, so that neither the order of values nor the way in which sketches are merged changes anything. Where the paper
lets the lowest buckets collapse, here the range is fixed: a magnitude up to 1.6e-18 counts as zero, one above 6.2e17 as
beyond all bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

ALPHA = 0.01
"""The greatest relative error."""
_GAMMA = (1 + ALPHA) / (1 - ALPHA)
_STEPS = 2048
_UP = np.multiply.accumulate(np.full(_STEPS, _GAMMA))
# Made by multiplication and division alone: a power or logarithm may end in another digit on another processor.
_BOUNDS = np.concatenate((np.divide.accumulate(np.append(1.0, np.full(_STEPS, _GAMMA)))[::-1], _UP))
"""Upper bounds of the buckets of magnitudes, ascending; below the first is zero."""
_ZERO = len(_BOUNDS)
"""The bucket of zero. Those of positive values follow it, those of negative values stand before it."""
BUCKETS = 2 * _ZERO + 1
"""So many there are."""


def bucket_of(values: NDArray[np.float64]) -> NDArray[np.intp]:
    """The bucket (n,) of each value (n,), finite: from 0, ascending with the value."""
    size = np.searchsorted(_BOUNDS, np.abs(values))
    return np.where(values < 0, _ZERO - size, _ZERO + size)


def value_of(buckets: NDArray[np.intp]) -> NDArray[np.float64]:
    """A value within `ALPHA` of all values in its bucket; ±infinity where it is beyond all bounds."""
    size = np.abs(buckets - _ZERO)
    middles = np.concatenate(([0.0], 2 * _BOUNDS[1:] / (_GAMMA + 1), [np.inf]))
    return np.sign(buckets - _ZERO) * middles[size]


def quantiles(
    rows: NDArray[np.intp], buckets: NDArray[np.intp], counts: NDArray[np.int64], shares: Sequence[float]
) -> NDArray[np.float64]:
    """Shape (r, len(shares)): the value at each share of the values of each row, 0 to r - 1, within `ALPHA`.

    `counts` (n,) values lie in `buckets` (n,) of `rows` (n,), and in every row at least one. Of N values in ascending
    order, that at a share q is the ceil(N q)-th, and the first where that is none: the inverse of their distribution.
    """
    order = np.lexsort((buckets, rows))
    reached = np.cumsum(counts[order])
    totals = np.zeros(int(rows.max(initial=-1)) + 1, np.int64)
    np.add.at(totals, rows, counts)
    before = np.cumsum(totals) - totals
    ranks = [np.maximum(np.ceil(totals * share).astype(np.int64), 1) for share in shares]
    found = [buckets[order][np.searchsorted(reached, before + rank)] for rank in ranks]
    return np.stack([value_of(one) for one in found], axis=1)

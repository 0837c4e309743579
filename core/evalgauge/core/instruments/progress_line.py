"""The straight line through points of progress: how fast it goes, when it arrives, and how well it fits."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

WHOLE = 1_000_000_000
"""Progress is kept in whole parts of it: 1e-9 of a ratio."""
_MICRO = 1e6
_ROOM = 2.0**62


class Lines(NamedTuple):
    """What the lines of k keys say, each (k,); NaN where there is nothing to say."""

    rate: NDArray[np.float64]
    """Ratio a second."""
    arrival: NDArray[np.float64]
    """Unix time at which the line is complete; only where it rises."""
    fit: NDArray[np.float64]
    """R², the share of the variance that the line explains; only where progress has moved."""


def lines(times: NDArray[np.int64], progress: NDArray[np.int64], count: NDArray[np.int64]) -> Lines:
    """Fit a line through the first `count` (k,) of the points of each key: `times` (k, w), `progress` (k, w).

    Times are microseconds since 1970, distinct; progress is in parts of `WHOLE`.

    Ordinary least squares: slope Sxy / Sxx, through the means, R² = Sxy² / (Sxx Syy); see N. R. Draper and H. Smith,
    Applied Regression Analysis, third edition, Wiley 1998, chapter 1. Differences from the means are whole
    numbers (times the number of points), exact where the points lie less than a century apart, and are added one after
    the other, so that the last digit of a key does not depend on which others are computed with it.
    """
    if not times.shape[1]:
        nothing = np.full(len(count), np.nan)
        return Lines(nothing, nothing, nothing)
    there = np.arange(times.shape[1]) < count[:, np.newaxis]
    first = np.where(count > 0, times[:, 0], 0)
    x = np.where(there, times - first[:, np.newaxis], 0)
    y = np.where(there, progress, 0)
    n = np.maximum(count, 1)[:, np.newaxis]
    sum_y = y.sum(axis=1, keepdims=True)
    sum_x = _total(x.astype(np.float64))[:, np.newaxis]
    exact = n * x - x.sum(axis=1, keepdims=True)
    wide = n * x.max(axis=1, keepdims=True).astype(np.float64) >= _ROOM
    from_x = np.where(there, np.where(wide, n * x.astype(np.float64) - sum_x, exact), 0.0)
    from_y = np.where(there, n * y - sum_y, 0).astype(np.float64)
    sxx, sxy, syy = _total(from_x * from_x), _total(from_x * from_y), _total(from_y * from_y)
    with np.errstate(divide="ignore", invalid="ignore"):
        slope = np.where(count > 1, sxy / sxx, np.nan)
        fit = np.where((count > 1) & (syy > 0), sxy * sxy / (sxx * syy), np.nan)
        ahead = (sum_x[:, 0] + (WHOLE * n[:, 0] - sum_y[:, 0]) / slope) / n[:, 0]
    arrival = np.where(slope > 0, (first + ahead) / _MICRO, np.nan)
    return Lines(slope * (_MICRO / WHOLE), arrival, np.minimum(fit, 1.0))


def _total(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Row sums (k,), from left to right: zeros at the end change nothing."""
    if not values.shape[1]:
        return np.zeros(len(values))
    return np.cumsum(values, axis=1)[:, -1]

"""How consistent pairwise comparisons are: Saaty's consistency ratio of reciprocal matrices.

T. L. Saaty, The Analytic Hierarchy Process, McGraw-Hill, New York 1980; the formulas and the example of a house are in
T. L. Saaty, How to make a decision: The Analytic Hierarchy Process, European Journal of Operational Research 48 (1990)
9 to 26. With the principal eigenvalue λmax of a positive reciprocal matrix of order n, which is n where the comparisons
agree with each other and greater otherwise:

- consistency index CI = (λmax - n) / (n - 1)
- consistency ratio CR = CI / RI(n), where the random index RI is the mean CI of random reciprocal matrices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

RANDOM_INDEX = (0, 0, 0.58, 0.9, 1.12, 1.24, 1.32, 1.41, 1.45, 1.49, 1.51, 1.48, 1.56, 1.57, 1.59)
"""Saaty's random index of matrices of order 1 to 15; for greater ones he gives none."""
MOST = len(RANDOM_INDEX)
"""The greatest order that has a ratio."""
_ALWAYS_CONSISTENT = 2
"""Up to this order a reciprocal matrix cannot contradict itself."""


def principal_eigenvalues(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """λmax (k,) of positive matrices (k, n, n), by LAPACK's `geev`; NaN where it does not come to an end.

    Of a positive matrix the eigenvalue of the greatest real part is real and simple (O. Perron, Mathematische Annalen
    64, 1907, 248 to 263).
    """
    try:
        found = np.linalg.eigvals(matrices)
    except np.linalg.LinAlgError:
        if len(matrices) == 1:
            return np.full(1, np.nan)
        return np.concatenate([principal_eigenvalues(one[np.newaxis]) for one in matrices])
    greatest: NDArray[np.float64] = np.max(found.real, axis=1)
    return greatest


def consistency_indexes(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """CI (k,) of positive reciprocal matrices (k, n, n), 0 for n up to 2; never below 0, though rounding may be."""
    order = matrices.shape[1]
    if order <= _ALWAYS_CONSISTENT:
        return np.zeros(len(matrices))
    indexes: NDArray[np.float64] = (principal_eigenvalues(matrices) - order) / (order - 1)
    return indexes.clip(min=0.0)


def consistency_ratios(matrices: NDArray[np.float64]) -> NDArray[np.float64]:
    """CR (k,) of positive reciprocal matrices (k, n, n), n up to `MOST`; 0 for n up to 2.

    Raises ValueError for a greater order, of which no random index is known.
    """
    order = matrices.shape[1]
    if order > MOST:
        msg = f"there is no random index for matrices of order {order}: {MOST} is the greatest"
        raise ValueError(msg)
    if order <= _ALWAYS_CONSISTENT:
        return np.zeros(len(matrices))
    return consistency_indexes(matrices) / RANDOM_INDEX[order - 1]


def reciprocal(comparisons: dict[tuple[str, str], float]) -> NDArray[np.float64] | None:
    """The matrix (n, n) of comparisons: (left, right) → how much more left is; None where a pair is missing.

    Rows are in order of the names, so that the same comparisons give the same matrix to the last digit.
    """
    place = {
        name: number for number, name in enumerate(sorted({one for pair in comparisons for one in pair}))
    }
    matrix = np.full((len(place), len(place)), np.nan)
    np.fill_diagonal(matrix, 1.0)
    for (left, right), value in comparisons.items():
        matrix[place[left], place[right]] = value
        matrix[place[right], place[left]] = 1.0 / value
    return None if np.isnan(matrix).any() else matrix

"""Saaty's consistency ratio, against what was published, and against a power iteration of its own."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.saaty import (
    MOST,
    RANDOM_INDEX,
    consistency_indexes,
    consistency_ratios,
    principal_eigenvalues,
    reciprocal,
)


class Published(NamedTuple):
    """A matrix with what its author printed of it."""

    rows: str
    """Rows of the upper triangle and the diagonal; below are the reciprocals."""
    eigenvalue: str = ""
    ci: str = ""
    ratio: str = ""


HOW_TO = "T. L. Saaty, How to make a decision, European Journal of Operational Research 48 (1990) 9-26"
SERVICES = "T. L. Saaty, Decision making with the AHP, Int. J. Services Sciences 1 (2008) 83-98"
PUBLISHED = {
    f"{HOW_TO}, Table 2: criteria of buying a house": Published(
        "1 5 3 7 6 6 1/3 1/4; 1 1/3 5 3 3 1/5 1/7; 1 6 3 4 6 1/5; 1 1/3 1/4 1/7 1/8;"
        "1 1/2 1/5 1/6; 1 1/5 1/6; 1 1/2; 1",
        "9.669",
        "0.238",
        "0.169",
    ),
    f"{HOW_TO}, Table 3: financing": Published("1 1/7 1/5; 1 3; 1", "3.065", "0.032", "0.056"),
    f"{HOW_TO}, Table 3: general condition": Published("1 1/2 1/2; 1 1; 1", "3.000", "0.000", "0.000"),
    # The CI printed, 0.124, is that of the eigenvalue as printed: (3.247 - 3) / 2 = 0.1235.
    f"{HOW_TO}, Table 3: transportation": Published("1 7 1/5; 1 1/8; 1", "3.247", "", "0.213"),
    f"{SERVICES}: consumption of drinks": Published(
        "1 9 5 2 1 1 1/2; 1 1/3 1/9 1/9 1/9 1/9; 1 1/3 1/4 1/3 1/9; 1 1/2 1 1/3; 1 2 1/2; 1 1/3; 1",
        ratio="0.022",
    ),
}


def matrix_of(rows: str) -> dict[tuple[str, str], float]:
    """Comparisons of the upper triangle, by names whose order is that of the rows."""
    found = {}
    for left, row in enumerate(rows.split(";")):
        for right, value in enumerate(row.split()):
            if right:
                found[f"{left:02}", f"{left + right:02}"] = float(Fraction(value))
    return found


@pytest.mark.parametrize("source", PUBLISHED)
def test_what_was_published_is_computed_to_the_printed_digits(source: str) -> None:
    """λmax, CI and CR, as far as they were printed."""
    one = PUBLISHED[source]
    matrix = reciprocal(matrix_of(one.rows))
    assert matrix is not None
    assert np.allclose(matrix * matrix.T, 1)
    some = matrix[np.newaxis]
    for printed, computed in (
        (one.eigenvalue, principal_eigenvalues(some)),
        (one.ci, consistency_indexes(some)),
        (one.ratio, consistency_ratios(some)),
    ):
        if printed:
            assert f"{computed[0]:.{len(printed.partition('.')[2])}f}" == printed


def test_three_published_matrices_have_all_three_numbers() -> None:
    """So that none of the formulas goes unchecked."""
    assert sum(all((one.eigenvalue, one.ci, one.ratio)) for one in PUBLISHED.values()) >= 3


def test_the_random_index_goes_up_to_15() -> None:
    """Of greater matrices there is none, and nothing is made up."""
    assert MOST == len(RANDOM_INDEX) == 15
    assert RANDOM_INDEX[:3] == (0, 0, 0.58)
    with pytest.raises(ValueError, match="order 16"):
        consistency_ratios(np.ones((1, 16, 16)))


def power_iteration(matrix: list[list[float]]) -> float:
    """The principal eigenvalue, in plain Python, once its vector stands still: its size alone may do so by chance."""
    vector, size = [1.0 / len(matrix)] * len(matrix), 0.0
    for _ in range(100_000):
        product = [sum(a * x for a, x in zip(row, vector, strict=True)) for row in matrix]
        size = sum(product)
        before, vector = vector, [one / size for one in product]
        if max(abs(new - old) for new, old in zip(vector, before, strict=True)) <= 1e-15:
            break
    return size


SCALE = [Fraction(one) for one in range(1, 10)]
VALUES = st.sampled_from([*SCALE, *(1 / one for one in SCALE)])


def test_the_iteration_does_not_stop_where_only_its_size_stands_still() -> None:
    """Of this matrix it is the same after two steps, far from the end."""
    matrix = [[1.0, 9, 1, 9], [1 / 9, 1, 1, 1], [1, 1, 1, 1 / 9], [1 / 9, 1, 9, 1]]
    assert power_iteration(matrix) == pytest.approx(principal_eigenvalues(np.array([matrix]))[0], rel=1e-12)


@settings(max_examples=150)
@given(
    st.integers(1, 15).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(VALUES, min_size=n * n, max_size=n * n))
    )
)
def test_any_matrix_has_the_eigenvalue_that_a_power_iteration_finds(
    drawn: tuple[int, list[Fraction]],
) -> None:
    """And the ratio that follows from it."""
    n, values = drawn
    plain = [[1.0] * n for _ in range(n)]
    for i in range(n):
        for j in range(i + 1, n):
            plain[i][j], plain[j][i] = float(values[i * n + j]), float(1 / values[i * n + j])
    expected = power_iteration(plain)
    some = np.array([plain, plain])
    assert principal_eigenvalues(some) == pytest.approx([expected] * 2, rel=1e-9)
    index = 0.0 if n <= 2 else max(0.0, (expected - n) / (n - 1))
    assert consistency_indexes(some) == pytest.approx([index] * 2, abs=1e-9)
    ratio = (
        0.0
        if n <= 2
        else index / [0.58, 0.9, 1.12, 1.24, 1.32, 1.41, 1.45, 1.49, 1.51, 1.48, 1.56, 1.57, 1.59][n - 3]
    )
    assert consistency_ratios(some) == pytest.approx([ratio] * 2, abs=1e-9)


@settings(max_examples=60)
@given(st.lists(st.floats(0.01, 100), min_size=3, max_size=15))
def test_comparisons_that_agree_have_the_ratio_zero(weights: list[float]) -> None:
    """Never below it, whatever rounding does."""
    matrix = np.array([[one / other for other in weights] for one in weights])
    ratio = consistency_ratios(matrix[np.newaxis])[0]
    assert 0 <= ratio < 1e-10


def test_a_pair_that_is_missing_makes_no_matrix() -> None:
    """And the order in which comparisons come makes no other."""
    full = {("a", "b"): 2.0, ("a", "c"): 4.0, ("b", "c"): 2.0}
    assert reciprocal({pair: value for pair, value in full.items() if pair != ("b", "c")}) is None
    one, other = reciprocal(full), reciprocal(dict(reversed(full.items())))
    assert one is not None
    assert other is not None
    assert one.tobytes() == other.tobytes()
    assert one.tolist() == [[1, 2, 4], [0.5, 1, 2], [0.25, 0.5, 1]]


def test_values_too_far_apart_end_nothing() -> None:
    """What no double holds is no ratio, and an error of nobody."""
    far = reciprocal({("a", "b"): 1e300, ("b", "c"): 1e300, ("a", "c"): 1e-300})
    assert far is not None
    ratio = consistency_ratios(np.stack([far, np.ones((3, 3))]))
    assert ratio[1] == pytest.approx(0, abs=1e-12)
    assert not ratio[0] < 1

"""The order of whole numbers is that of Python's own sort, which is stable."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.ordering import ranks, stable_order

LEAST, MOST = -(2**63), 2**63 - 1
NARROW = st.integers(-3, 3)
"""Mostly equal ones."""
WIDE = st.one_of(
    NARROW, st.integers(-(2**31), 2**31), st.integers(LEAST, MOST), st.sampled_from([LEAST, 0, MOST])
)


@pytest.mark.parametrize("drawn", [NARROW, st.one_of(NARROW, st.integers(0, 1 << 20)), WIDE])
def test_equal_numbers_stay_in_their_order(drawn: st.SearchStrategy[int]) -> None:
    """Whether they fit into 16 bits, beside their rows, or not."""

    @settings(max_examples=150)
    @given(st.lists(drawn, max_size=80))
    def holds(numbers: list[int]) -> None:
        before = np.array(numbers, np.int64)
        found = stable_order(before)
        assert found.tolist() == sorted(range(len(numbers)), key=numbers.__getitem__)
        assert found.dtype == np.intp
        assert ranks(before).tolist() == [numbers[:row].count(one) for row, one in enumerate(numbers)]
        assert before.tolist() == numbers, "what is given is not written to"

    holds()

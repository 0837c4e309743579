"""Sums of doubles: exact whatever the order and the cuts, rounded once when shown."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core import exact
from evalgauge.core.instruments.histogram import in_base_unit
from evalgauge.core.units import UNITS

if TYPE_CHECKING:
    from random import Random

EDGES = (2.0**-17, 2.0**22)
NASTY = [
    *(
        sign * math.nextafter(edge, to)
        for sign in (1.0, -1.0)
        for edge in EDGES
        for to in (edge, 0, math.inf)
    ),
    *(0.0, -0.0, 5e-324, -5e-324, 2.2250738585072014e-308, 1e300, -1e300, 1.7976931348623157e308),
    *(0.1, -0.1, 1 / 3, 4194303.9999999995),
]
VALUES = st.one_of(
    st.sampled_from(NASTY), st.floats(allow_nan=False, allow_infinity=False), st.floats(-1e4, 1e4)
)


class Sums:
    """Sums of a few slots."""

    def __init__(self, slots: int = 1) -> None:
        self.top, self.hi, self.lo = (np.zeros(slots, np.int64) for _ in range(3))
        self.rare: exact.Rare = {}

    def add(self, values: list[float], slot: int = 0) -> None:
        """Add values and carry at once."""
        slots = np.full(len(values), slot, np.intp)
        exact.add(self.hi, self.lo, self.rare, slots, np.array(values, np.float64))
        exact.carry(self.top, self.hi, self.lo, np.arange(len(self.top)))

    def shown(self, slot: int = 0, factor: Fraction = Fraction(1)) -> float:
        """The rounded sum."""
        words = (int(self.top[slot]), int(self.hi[slot]), int(self.lo[slot]))
        return exact.rounded(*words, self.rare.get(slot, 0), factor)


def nearest(total: Fraction) -> float:
    """The double nearest to a fraction, infinite beyond the greatest."""
    try:
        return total.numerator / total.denominator
    except OverflowError:
        return math.inf if total > 0 else -math.inf


@settings(max_examples=150)
@given(st.lists(st.lists(VALUES, max_size=20), max_size=5), st.sampled_from(sorted(UNITS)), st.randoms())
def test_a_sum_is_the_rounded_exact_sum_in_any_order_and_cut(
    batches: list[list[float]], unit: str, random: Random
) -> None:
    """`fractions.Fraction` is the oracle; the unit is converted by one division at the end."""
    factor = UNITS[unit].factor
    total = sum((Fraction(value) for batch in batches for value in batch), Fraction(0)) * factor
    cut, whole = Sums(), Sums()
    for batch in batches:
        cut.add(batch)
    values = [value for batch in batches for value in batch]
    random.shuffle(values)
    whole.add(values)
    assert cut.shown(factor=factor) == whole.shown(factor=factor) == nearest(total)


@pytest.mark.parametrize(
    "value", [math.nextafter(2.0**22, 0), -math.nextafter(2.0**22, 0), 2.0**-17, -(2.0**-17)]
)
def test_as_many_adds_as_are_allowed_do_not_overflow_a_word(value: float) -> None:
    """`SAFE_ADDS` values at the ends of the window between two carries."""
    sums = Sums()
    for _ in range(3):
        sums.add([value] * exact.SAFE_ADDS)
    assert Fraction(sums.shown()) == Fraction(nearest(Fraction(value) * 3 * exact.SAFE_ADDS))


def test_a_negative_zero_sums_to_zero() -> None:
    """Otherwise `-0` would come and go with the order."""
    sums = Sums()
    sums.add([-0.0, -0.0])
    assert math.copysign(1, sums.shown()) == 1


def test_a_sum_beyond_the_greatest_double_is_infinite_and_comes_back() -> None:
    """The words are exact, so nothing is lost on the way through infinity."""
    sums = Sums()
    sums.add([1.7976931348623157e308] * 3)
    assert sums.shown() == math.inf
    sums.add([-1.7976931348623157e308] * 2)
    assert sums.shown() == 1.7976931348623157e308


def test_slots_do_not_touch_each_other() -> None:
    """Rare values too are kept by slot."""
    sums = Sums(3)
    sums.add([0.5, 1e300], slot=0)
    sums.add([1e-300, 2.0], slot=2)
    assert [sums.shown(slot) for slot in range(3)] == [nearest(Fraction(1e300) + Fraction(0.5)), 0.0, 2.0]
    slots = np.arange(3)
    together = exact.rounded_all(sums.top, sums.hi, sums.lo, sums.rare, slots, Fraction(1, 1000))
    assert together == [sums.shown(slot, Fraction(1, 1000)) for slot in range(3)]


@settings(max_examples=100)
@given(st.floats(0, 1e9), st.sampled_from(sorted(UNITS)))
def test_a_value_in_the_base_unit_is_rounded_once(value: float, unit: str) -> None:
    """A value on a bucket's bound must stay on it after conversion: 50 ms are 0.05 s."""
    shown = in_base_unit(np.array([value]), UNITS[unit])[0]
    assert shown == nearest(Fraction(value) * UNITS[unit].factor)

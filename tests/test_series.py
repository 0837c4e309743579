"""Label sets: local slots in order of appearance, admission in stream order and within limits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from evalgauge.core.series import OTHER, LabelRule, LocalIndex, ScalarEncoder, SeriesIndex, Touched, passing

if TYPE_CHECKING:
    from random import Random

VALUES = st.sampled_from(["a", "b", "c", "d", "", OTHER])


def index(*limits: int, limit: int = 1000, bounded: tuple[int, ...] = ()) -> SeriesIndex:
    """An index of one label for each limit; those whose number is in `bounded` come from an enum."""
    return SeriesIndex([LabelRule(f"l{n}", one, n in bounded) for n, one in enumerate(limits)], limit)


def shown(one: SeriesIndex, *values: str) -> tuple[str, ...]:
    """The label set that values come to."""
    return one.series[one.resolve(values)[0]]


def test_a_label_over_its_limit_collapses_alone() -> None:
    """So a sum over that label stays exact."""
    one = index(2, 10)
    assert [shown(one, who, "x") for who in "abca"] == [("a", "x"), ("b", "x"), (OTHER, "x"), ("a", "x")]
    assert one.resolve(("d", "x")) == (2, True)


def test_a_metric_over_its_limit_collapses_every_label_without_an_enum() -> None:
    """Enums are bounded by themselves and keep their values."""
    one = index(10, 10, limit=2, bounded=(0,))
    assert [shown(one, *row) for row in (("k", "a"), ("k", "b"), ("k", "c"), ("m", "c"), ("k", "a"))] == [
        ("k", "a"), ("k", "b"), ("k", OTHER), ("m", OTHER), ("k", "a"),
    ]  # fmt: skip


def test_a_literal_other_counts_as_overflow() -> None:
    """A sender cannot pass `_other` off as a value of its own."""
    one = index(10)
    assert one.resolve((OTHER,)) == (0, True)
    assert one.resolve((OTHER,)) == (0, True)
    assert one.resolve(("a",)) == (1, False)


def test_a_refused_value_takes_no_room() -> None:
    """Whatever is sent, the index holds the limit and the overflow."""
    one = index(3, limit=5)
    for number in range(10_000):
        one.resolve((str(number),))
    assert len(one.series) == 4
    assert one.resolve(("2",)) == (2, False)


@settings(max_examples=150)
@given(
    st.lists(st.tuples(VALUES, VALUES), max_size=40),
    st.integers(1, 3), st.integers(1, 3), st.integers(1, 6), st.integers(0, 40),
)  # fmt: skip
def test_a_restart_changes_no_admission(
    rows: list[tuple[str, str]], first: int, second: int, limit: int, at: int
) -> None:
    """Only the admitted label sets are kept, and they say all there is to know."""
    straight = index(first, second, limit=limit)
    expected = [straight.resolve(row) for row in rows]
    stopped = index(first, second, limit=limit)
    found = [stopped.resolve(row) for row in rows[:at]]
    again = index(first, second, limit=limit)
    again.restore(stopped.series)
    assert found + [again.resolve(row) for row in rows[at:]] == expected
    assert len(straight.series) <= limit + 1


@settings(max_examples=100)
@given(st.lists(st.tuples(VALUES, VALUES), max_size=60), st.integers(1, 3), st.integers(1, 4))
def test_what_a_label_set_came_to_once_it_comes_to_for_ever(
    rows: list[tuple[str, str]], one: int, limit: int
) -> None:
    """Reducers remember slots, so a later admission must never change an earlier answer."""
    series = index(one, one, limit=limit)
    remembered: dict[tuple[str, str], tuple[int, bool]] = {}
    for row in rows:
        assert remembered.setdefault(row, series.resolve(row)) == series.resolve(row)


def test_a_limit_below_the_series_in_use_keeps_them() -> None:
    """A limit may shrink without loss; only new values collapse."""
    one = index(2, limit=2)
    one.restore([("a",), ("b",), ("c",)])
    assert [shown(one, who) for who in "abcd"] == [("a",), ("b",), ("c",), (OTHER,)]


@settings(max_examples=60)
@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 300), st.integers(0, 40)), min_size=1, max_size=30), max_size=8
    )
)
def test_local_slots_are_given_in_order_of_appearance(batches: list[list[tuple[int, int]]]) -> None:
    """The same whether the dense table still holds them, was widened, or has given way to a dict."""
    # A size that no dense table can hold sends the second round to the dict; in the third one label outgrows the
    # other, and at last both do not fit into one integer.
    for first, second in ((1, 0), (1 << 20, 0), (1 << 20, 6)):
        local = LocalIndex(2)
        known: dict[tuple[int, int], int] = {}
        for number, batch in enumerate(batches):
            births = [
                row
                for row, pair in enumerate(batch)
                if pair not in known and known.setdefault(pair, len(known)) >= 0
            ]
            columns = [np.array(column, np.intp) for column in zip(*batch, strict=True)]
            slots, fresh = local.slots(
                columns, [301 * first, 41 << second * number], len(known) - len(births)
            )
            assert slots.tolist() == [known[pair] for pair in batch]
            assert fresh == births


@settings(max_examples=60)
@given(st.lists(st.lists(st.integers(0, 9), min_size=1, max_size=8), min_size=1, max_size=5), st.randoms())
def test_touched_slots_come_with_their_first_place(groups: list[list[int]], random: Random) -> None:
    """Types of one batch are reduced one after the other, though their lines are mixed."""
    touched = Touched()
    first: dict[int, int] = {}
    places = list(range(sum(map(len, groups))))
    random.shuffle(places)
    for group in groups:
        ordinals = sorted(places.pop() for _ in group)
        for slot, ordinal in zip(group, ordinals, strict=True):
            first[slot] = min(ordinal, first.get(slot, ordinal))
        touched.mark(np.array(group, np.intp), np.array(ordinals, np.int64), 10)
    slots, met = touched.take()
    assert dict(zip(slots.tolist(), met.tolist(), strict=True)) == first
    assert len(slots) == len(first)
    assert touched.take()[0].tolist() == []


def test_values_that_python_holds_equal_keep_their_own_texts() -> None:
    """`true`, `1` and `1.0` are one dict key; which came first must not decide what the others are called."""
    for order in ([True, 1, 1.0], [1, True, 1.0], [1.0, 1, True]):
        encoder = ScalarEncoder(repr)
        assert {encoder.texts[encoder[value]] for value in order} == {"True", "1", "1.0"}


def test_a_text_is_asked_about_once_and_only_if_it_occurs() -> None:
    """An encoder may have met a million texts, and a batch of two events must not pay for them."""
    texts = ["a", None, "b", *map(str, range(1000))]
    asked: list[str | None] = []

    def is_none(text: str | None) -> bool:
        asked.append(text)
        return text is None

    assert passing(np.array([2, 1, 2, 900]), texts, is_none).tolist() == [False, True, False, False]
    assert sorted(map(str, asked)) == ["897", "None", "b"]
    assert passing(np.array([1, 1, 0]), texts[:2], is_none).tolist() == [True, True, False]
    assert passing(np.array([], np.intp), texts, is_none).tolist() == []

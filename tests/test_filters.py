"""Filters: which events a metric sees, compared with a plain reading of one event at a time."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from evalgauge.core.columns import Columns
from evalgauge.core.decode import CloudEventsShape, decode
from evalgauge.core.event import Limits
from evalgauge.core.filters import mask, text_of
from evalgauge.core.pack.event_model import Filter
from tests.engine_helpers import event, lab, lines

if TYPE_CHECKING:
    from collections.abc import Callable

FILTER: TypeAdapter[Any] = TypeAdapter(Filter)
SHAPE = CloudEventsShape({"lab.run": lab().events["lab.run"]})
ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge, "eq": operator.eq,
}  # fmt: skip

EVENTS: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries(
    {
        "who": st.sampled_from([None, "ann", "", "5"]),
        "kind": st.sampled_from(["a", "b"]),
        "took_ms": st.sampled_from([None, 0, -0.0, 5, 5.0, 1e300]),
        "ok": st.sampled_from([None, True, False]),
        "blob": st.sampled_from([None, "", {}, 0]),
    }
)
CONDITIONS = st.one_of(
    st.tuples(
        st.just("took_ms"),
        st.fixed_dictionaries({}, optional=dict.fromkeys(ORDER, st.sampled_from([0.0, 5.0])))
        | st.sampled_from([5.0, [0.0, 5.0], {"present": True}, {"present": False, "ge": 0.0}]),
    ),
    st.tuples(
        st.just("who"),
        st.sampled_from(["ann", ["ann", ""], [5.0], 5.0, {"present": False}, {"present": True, "eq": ""}]),
    ),
    st.tuples(st.just("ok"), st.sampled_from([True, False, {"present": True}])),
    st.tuples(st.just("blob"), st.sampled_from([{"present": True}, {"present": False}])),
)
FILTERS = st.recursive(
    st.lists(CONDITIONS, max_size=2).map(dict),
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"all": parts}),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: {"any": parts}),
        inner.map(lambda part: {"not": part}),
    ),
    max_leaves=5,
)


def passes(where: dict[str, Any], data: dict[str, Any]) -> bool:
    """Read a filter for one event, as the design says it."""
    if "all" in where:
        return all(passes(part, data) for part in where["all"])
    if "any" in where:
        return any(passes(part, data) for part in where["any"])
    if "not" in where:
        return not passes(where["not"], data)
    return all(
        _holds(condition, data[field], number=field == "took_ms") for field, condition in where.items()
    )


def _holds(condition: Any, value: Any, *, number: bool) -> bool:
    if isinstance(condition, list):
        condition = {"in": condition}
    if not isinstance(condition, dict):
        condition = {"eq": condition}
    return all(_holds_one(word, wanted, value, number=number) for word, wanted in condition.items())


def _holds_one(word: str, wanted: Any, value: Any, *, number: bool) -> bool:
    if word == "present":
        return bool((value is not None) == wanted)
    if value is None:
        return False
    if word == "in":
        return any(_equal(value, one, number=number) for one in wanted)
    return _equal(value, wanted, number=number) if word == "eq" else ORDER[word](value, wanted)


def _equal(value: Any, wanted: Any, *, number: bool) -> bool:
    return bool(value == wanted) if number else text_of(value) == text_of(wanted)


@settings(max_examples=200)
@given(st.lists(EVENTS, min_size=1, max_size=12), FILTERS)
def test_a_filter_passes_what_it_says(batch: list[dict[str, Any]], where: dict[str, Any]) -> None:
    """A comparison with an absent field is false, `not` negates plainly."""
    body = b"\n".join(lines(*(event(n, **data) for n, data in enumerate(batch))))
    decoded = decode(SHAPE, body, Limits(), 0)
    reader, events, rows = decoded.groups[0]
    found = mask(FILTER.validate_python(where), Columns(reader, events, rows, {}, 0.0))
    assert found.dtype == np.bool_
    assert found.tolist() == [passes(where, data) for data in batch]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"), (False, "false"), (5, "5"), (5.0, "5"), (-0.0, "0"), (0.1, "0.1"), (2.5e-7, "2.5e-07"),
        (1e300, "1e+300"), (123456789.125, "123456789.125"), (2**60, str(2**60)), ("x", "x"),
    ],
)  # fmt: skip
def test_a_value_as_text(value: Any, text: str) -> None:
    """Numbers as short as they can be told apart, so that a table can name them."""
    assert text_of(value) == text
